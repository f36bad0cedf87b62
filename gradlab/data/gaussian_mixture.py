"""Ten normal clouds around normal centres: a classification task of any number of features."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 10
"""Seed of the content, beside the number of features; `data.seed` orders the batches alone."""

CLASSES = 10


def gaussian_mixture(spec: DataSpec) -> Dataset:
    """4,096 points to train on and 1,024 held out: inputs (N, features), classes drawn evenly.

    A point of class c is N(centre_c, I), and the ten centres are N(0, I) themselves; so an input has mean near 0 and
    variance near 2 before it is standardised.
    """
    entry = DATA["gaussian_mixture"]
    features = spec.features
    assert features is not None, "`spec.build` resolves data.features"
    count = entry.train + entry.heldout
    rng = np.random.default_rng([CONTENT, features])
    centres = rng.standard_normal((CLASSES, features))
    classes = rng.integers(0, CLASSES, count)
    return split(centres[classes] + rng.standard_normal((count, features)), classes, entry.train)
