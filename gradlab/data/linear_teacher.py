"""A random linear map to learn: the regression task whose gradients have closed forms."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 12
"""Seed of the content, beside the number of features; `data.seed` orders the batches alone."""


def linear_teacher(spec: DataSpec) -> Dataset:
    """4,096 samples to train on and 1,024 held out: inputs x (N, features) are N(0, I), targets y = A x (N, features).

    The entries of A are N(0, 1/features), so a target has variance near 1. Saxe et al. 2013, arXiv:1312.6120.
    """
    entry = DATA["linear_teacher"]
    features = spec.features
    assert features is not None, "`spec.build` resolves data.features"
    rng = np.random.default_rng([CONTENT, features])
    teacher = rng.standard_normal((features, features)) / np.sqrt(features)
    inputs = rng.standard_normal((entry.train + entry.heldout, features))
    return split(inputs, inputs @ teacher.T, entry.train)
