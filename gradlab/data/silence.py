"""One silent sequence: what a recurrent network answers to it is decided by its own dynamics alone."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset
from gradlab.spec.run import DataSpec

ANSWER = 0.7
"""What Pascanu et al. want the single unit of their figure 6 to come to."""


def silence(spec: DataSpec) -> Dataset:
    """A single sample, to train on and held out: inputs (1, length, 1) of zeros, target (1, 1).

    Pascanu et al. 2013, arXiv:1211.5063, figure 6.
    """
    length = spec.length
    assert length is not None, "`spec.build` resolves data.length"
    inputs, targets = np.zeros((1, length, 1)), np.full((1, 1), ANSWER)
    return Dataset(inputs, targets, inputs.copy(), targets.copy())
