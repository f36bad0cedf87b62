"""The tasks, one a file, files of the user's own, and the order in which a run meets their samples. Torch-free.

Arrays are numpy's. May import what a run is, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gradlab.data.adding import adding
from gradlab.data.dataset import DataError, Dataset, standardised
from gradlab.data.digits import digits
from gradlab.data.download import Source, fetch
from gradlab.data.fashion_mnist import SOURCE as FASHION_MNIST
from gradlab.data.fashion_mnist import fashion_mnist
from gradlab.data.gaussian_mixture import gaussian_mixture
from gradlab.data.interval import interval
from gradlab.data.linear_teacher import linear_teacher
from gradlab.data.mnist import SOURCE as MNIST
from gradlab.data.mnist import mnist
from gradlab.data.point import point
from gradlab.data.silence import silence
from gradlab.data.spectral_teacher import spectral_teacher
from gradlab.spec.run import DataSpec

__all__ = ["LOADERS", "DataError", "Dataset", "batches", "load", "prefetch"]

LOADERS: dict[str, Callable[[DataSpec], Dataset]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "gaussian_mixture": gaussian_mixture,
    "linear_teacher": linear_teacher,
    "adding": adding,
    "interval": interval,
    "spectral_teacher": spectral_teacher,
    "silence": silence,
    "point": point,
}
"""The function of every name of `choices.DATA`; each returns its inputs as they are stored or drawn."""

DOWNLOADS: dict[str, Source] = {"fashion_mnist": FASHION_MNIST, "mnist": MNIST}
"""The data that are downloaded once, and from where."""


def prefetch(spec: DataSpec) -> None:
    """Downloads what ``spec`` needs and the cache lacks. Raises `DataError` where that fails."""
    if spec.name in DOWNLOADS and spec.root is None:
        fetch(DOWNLOADS[spec.name], spec.mirror)


def load(spec: DataSpec) -> Dataset:
    """The data of ``spec``, standardised where it says so; `input_scale` and `target_scale` are left to the engine.

    Shapes are those of the run's `Facts`. The content depends on the name, the sizes and the files alone, never on
    `data.seed`. Raises `DataError` where files cannot be downloaded or read.
    """
    data = LOADERS[spec.name](spec)
    return standardised(data) if spec.standardise else data


def batches(spec: DataSpec, train: int, count: int) -> NDArray[np.int64]:
    """Which of the ``train`` samples the first ``count`` batches hold: (count, batch_size) indices.

    Each epoch is a fresh permutation drawn from `data.seed`, cut into batches; what remains of it is dropped. Row t is
    the batch of step t, whatever ``count`` is.

    >>> from gradlab.spec.run import build
    >>> spec = build({"data.batch_size": 2}).data
    >>> rows = batches(spec, train=5, count=4)
    >>> [len(set(epoch.tolist())) for epoch in (rows[:2].ravel(), rows[2:].ravel())]
    [4, 4]
    """
    size = spec.batch_size
    per_epoch = train // size
    rng = np.random.default_rng(spec.seed)
    rows = np.empty((count, size), dtype=np.int64)
    for start in range(0, count, per_epoch):
        stop = min(start + per_epoch, count)
        rows[start:stop] = rng.permutation(train)[: (stop - start) * size].reshape(-1, size)
    return rows
