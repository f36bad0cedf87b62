"""Stacked building blocks: tensors of M members, (M, B, D), with everything that an architecture is made of."""
