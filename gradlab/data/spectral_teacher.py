"""A linear map of known singular values to learn from whitened inputs: the task whose dynamics Saxe et al. solved."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import DataError, Dataset
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 28
"""Seed of the content, beside the number of features; `data.seed` orders the batches alone."""


def spectral_teacher(spec: DataSpec) -> Dataset:
    """256 samples to train on and 64 held out: inputs x (N, K), targets y = A x (N, K), A = Q diag(K, ..., 2, 1) Q'.

    Q is a random orthogonal matrix. Over the training part the inputs have mean 0 and covariance I, to rounding.
    Saxe et al. 2013, arXiv:1312.6120, section 1.1. Raises `DataError` where K is so large that no such inputs exist.
    """
    entry = DATA["spectral_teacher"]
    features = spec.features
    assert features is not None, "`spec.build` resolves data.features"
    if features >= entry.train:
        raise DataError(f"data.features={features}: {entry.train} inputs are whitened over fewer features than that")
    rng = np.random.default_rng([CONTENT, features])
    basis = np.linalg.qr(rng.standard_normal((features, features)))[0]
    teacher = basis * np.arange(features, 0, -1) @ basis.T
    drawn = rng.standard_normal((entry.train, features))
    train = np.linalg.qr(drawn - drawn.mean(0))[0] * np.sqrt(entry.train)
    heldout = rng.standard_normal((entry.heldout, features))
    return Dataset(train, train @ teacher, heldout, heldout @ teacher)
