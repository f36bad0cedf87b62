"""The embedded digits pixel by pixel: 64 time steps of one grey level."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset
from gradlab.data.digits import digits
from gradlab.spec.run import DataSpec

CONTENT = 8
"""Seed of the permutation."""


def sequential_digits(spec: DataSpec) -> Dataset:
    """The digits of `digits`: inputs (N, 64, 1), row after row; with ``permuted`` in one random order for all.

    Le et al. 2015, arXiv:1504.00941, section 4.2, there with the 784 pixels of MNIST.
    """
    data = digits(spec)
    pixels = data.train_inputs[0].size
    order = np.random.default_rng(CONTENT).permutation(pixels) if spec.permuted else np.arange(pixels)
    train, heldout = (part.reshape(len(part), pixels, 1)[:, order] for part in (data.train_inputs, data.heldout_inputs))
    return Dataset(train, data.train_targets, heldout, data.heldout_targets)
