"""What theory says of a run before it is trained: mean field, norms, products of matrices, Saxe's dynamics.

Numpy alone. May import what a run is.
"""
