"""The order in which a run meets the samples of its data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.spec.run import DataSpec


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
