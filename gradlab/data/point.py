"""A single number: with it a chain of one matrix is one weight on its way down a loss."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset
from gradlab.spec.run import DataSpec


def point(_spec: DataSpec) -> Dataset:
    """A single sample, to train on and held out: input (1, 1), the number 1, and target (1, 1), the least loss's 0."""
    one, least = np.ones((1, 1)), np.zeros((1, 1))
    return Dataset(one, least, one.copy(), least.copy())
