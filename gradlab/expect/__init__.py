"""What an experiment must show: `form` reads it from the experiment's file, `evaluate` holds it against the tables.

May import what a run is and, when asked, the columns of the store. Torch-free.
"""
