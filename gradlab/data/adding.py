"""The adding problem: remember two marked numbers of a long sequence, and give their sum."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 4
"""Seed of the content, beside the length; `data.seed` orders the batches alone."""


def adding(spec: DataSpec) -> Dataset:
    """20,000 sequences to train on and 2,000 held out: inputs (N, length, 2), targets (N, 1).

    At each time step the first input is uniform in 0..1. The second is 0, but 1 at two steps: one in the first half of
    the sequence (the shorter half, where the length is odd) and one in the second. The target is the sum of the two
    numbers marked so: its mean is 1 and its variance 1/6. Le et al. 2015, arXiv:1504.00941, section 4.1.
    """
    entry = DATA["adding"]
    length = spec.length
    assert length is not None, "`spec.build` resolves data.length"
    count = entry.train + entry.heldout
    rng = np.random.default_rng([CONTENT, length])
    inputs = np.zeros((count, length, 2))
    inputs[:, :, 0] = rng.random((count, length))
    sample = np.arange(count)
    first, second = rng.integers(0, length // 2, count), rng.integers(length // 2, length, count)
    inputs[sample, first, 1] = inputs[sample, second, 1] = 1.0
    targets = inputs[sample, first, 0] + inputs[sample, second, 0]
    return split(inputs, targets[:, None], entry.train)
