"""From what was typed to validated runs, and from runs to cohorts and pieces. Torch-free.

The only room that knows Hydra, in `hydra` alone. May import what a run is, its data, and the form of expectations.
"""
