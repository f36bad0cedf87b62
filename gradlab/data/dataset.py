"""What every task hands to the engine: inputs and targets, for training and held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.spec.named import SpecError

Array = NDArray[Any]
Inputs = Any
"""One array; of a user's own data also several: a tuple of them, or a mapping by the names of the network's inputs."""
Targets = NDArray[np.int64] | NDArray[np.float64]


class DataError(SpecError):
    """Data that cannot be had or read; the message is meant for the user, one line."""


@dataclass(frozen=True)
class Dataset:
    """The two parts of one task.

    Inputs are (N, features) or (N, time, features) float64; a user's own of any shape, whole numbers, or several.
    Targets are the classes, (N,) int64, or, where the loss is the mean squared error, (N, outputs) float64.
    """

    train_inputs: Inputs
    train_targets: Targets
    heldout_inputs: Inputs
    heldout_targets: Targets


def split(inputs: Inputs, targets: Targets, train: int) -> Dataset:
    """The first ``train`` samples to train on, the others held out."""
    return Dataset(inputs[:train], targets[:train], inputs[train:], targets[train:])


def channels_last(data: Dataset) -> Dataset:
    """Images (N, C, H, W) as (N, H, W, C)."""
    train, heldout = (np.moveaxis(part, 1, -1) for part in (data.train_inputs, data.heldout_inputs))
    return Dataset(train, data.train_targets, heldout, data.heldout_targets)


def standardised(data: Dataset) -> Dataset:
    """Inputs minus the training part's mean over its standard deviation: one scalar each, for both parts.

    The arrays of ``data`` are overwritten, since a full set of images is large. Raises `DataError` where every training
    input is the same number. Whole numbers (words), complex ones and several inputs are left as they are.

    >>> data = Dataset(np.array([[0.0], [4.0]]), np.array([0, 1]), np.array([[8.0]]), np.array([1]))
    >>> standardised(data).heldout_inputs.tolist()
    [[3.0]]
    """
    train, heldout = data.train_inputs, data.heldout_inputs
    if not isinstance(train, np.ndarray) or train.dtype != np.float64:
        return data
    mean = train.mean()
    train -= mean
    heldout -= mean
    # The squares are summed sample by sample: no second array of this size, and no BLAS, whose last bit may depend on
    # the number of threads.
    samples = train.reshape(len(train), -1)
    deviation = np.sqrt(np.einsum("nd,nd->n", samples, samples).sum() / train.size)
    if deviation == 0:
        raise DataError("data.standardise=true: all training inputs are equal, so their standard deviation is 0")
    train /= deviation
    heldout /= deviation
    return data
