"""The folder of a result: its columns, its pieces, how they are merged, and how nothing finished is lost. Torch-free.

May import what a run is, its verdicts and its theory, which are columns too. Alone knows the paths of a result.
"""
