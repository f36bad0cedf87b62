"""The order in which a run meets the samples of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import Dataset, Inputs
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


def with_bad_batches(spec: DataSpec, data: Dataset, order: NDArray[np.int64]) -> tuple[Dataset, NDArray[np.int64]]:
    """The data with what `data.bad_every` spoils behind them, and the batches (S, B) that hold it, in ``order``.

    Every so many-th batch has the same inputs, and the largest target that occurs for each of them: a last class that
    they are not of, a number that they are far from. The training part itself stays as it is.
    """
    every = spec.bad_every
    if not every or len(order) < every:
        return data, order
    spoiled = order[every - 1 :: every]
    numbers = np.arange(spoiled.size).reshape(spoiled.shape)
    places = order.copy()
    places[every - 1 :: every] = len(data.train_targets) + numbers
    targets = data.train_targets
    wrong = np.full_like(targets[spoiled.ravel()], targets.max())
    inputs = _behind(data.train_inputs, spoiled.ravel())
    return replace(data, train_inputs=inputs, train_targets=np.concatenate([targets, wrong])), places


def _behind(inputs: Inputs, chosen: NDArray[np.int64]) -> Inputs:
    """The ``chosen`` inputs once more behind all; of several each."""
    if isinstance(inputs, Mapping):
        return {name: _behind(part, chosen) for name, part in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_behind(part, chosen) for part in inputs)
    return np.concatenate([inputs, inputs[chosen]])
