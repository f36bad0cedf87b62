"""The tasks, one a file, files of the user's own, and the order in which a run meets their samples. Torch-free.

Arrays are numpy's. May import what a run is, and nothing else.
"""
