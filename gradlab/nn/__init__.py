"""Stacked building blocks: tensors of M members, (M, B, D), with everything that an architecture is made of.

May import what a run is; knows no architecture, no data set and no optimizer.
"""
