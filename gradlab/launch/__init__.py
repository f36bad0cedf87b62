"""A command conducted: its manifest, rounds of pieces, and the places where pieces run: processes of this machine.

The top of the house but for the verbs: it may import every room. `worker` alone brings the engine, and torch with it.
"""
