"""A cohort trained: the loop, what a step needs, optimizers and clippers, probes and instruments.

The showpiece is `train`. May import all that a step is made of, and the plan; never a folder, a terminal or a launcher.
"""
