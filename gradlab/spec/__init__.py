"""What a run is: named choices, keys, frozen sections, and the digest of them that is the run's id. Torch-free.

The lowest room: it opens no file and imports nothing of gradlab.
"""
