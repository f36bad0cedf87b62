"""Somebody else's training, measured into the same tables: any ``torch.nn.Module``, seen through hooks.

May import the store's columns; knows nothing of grids, of the engine, or of stacked networks.
"""
