"""What files hold, whatever their form, and how it becomes inputs and targets, some of them held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import DataError, Dataset

MOST_CLASSES = 100
"""Whole numbers of more kinds than that are quantities, unless `data.task` says otherwise."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Read:
    """What a file holds: inputs (N, ...) and labels (N, ...), and apart from them those that are held out, if it says.

    ``line`` names a sample, for a message; ``classes`` are the names behind whole-number labels, where they have any.
    """

    inputs: Array
    labels: Array
    line: Callable[[int], str]
    heldout: tuple[Array, Array] | None = None
    classes: Sequence[str] | None = None
    label: str = "y"


def split(path: str, read: Read, heldout: float, task: str) -> Dataset:
    """Targets as the task has them, and which samples are held out: a rule, not a draw of the run's."""
    apart = read.heldout
    labels = read.labels if apart is None else np.concatenate([read.labels, apart[1]])
    targets = _targets(path, read, labels, task)
    inputs = _numbers(path, "x", read.inputs)
    if apart is not None:
        more = _numbers(path, "x_heldout", apart[0])
        if more.shape[1:] != inputs.shape[1:]:
            shapes = f"inputs to train on are of {by(inputs.shape[1:])}, held out of {by(more.shape[1:])}"
            raise DataError(f"{path}: {shapes}; expected alike")
        return Dataset(inputs, targets[: len(inputs)], more, targets[len(inputs) :])
    if not 0 < heldout < 1 or len(inputs) * min(heldout, 1 - heldout) < 1:
        raise DataError(
            f"data.heldout={heldout:g}: of {len(inputs)} samples, at least one must be held out and one not"
        )
    # Class by class evenly spread, in an order that is drawn once and for all.
    order = np.random.default_rng(0).permutation(len(inputs))
    if targets.dtype.kind == "i" and targets.ndim == 1:
        order = order[np.argsort(targets[order], kind="stable")]
    turns = np.floor(np.arange(1, len(order) + 1) * heldout) > np.floor(np.arange(len(order)) * heldout)
    aside = np.zeros(len(inputs), dtype=bool)
    aside[order[turns]] = True
    return Dataset(inputs[~aside], targets[~aside], inputs[aside], targets[aside])


def _targets(path: str, read: Read, labels: Array, task: str) -> Array:
    """Classes 0..K-1 as int64, or numbers (N, K) as float64 or complex128."""
    kind = labels.dtype.kind
    where = f"{path}: label {read.label}"
    if kind not in "fciubUSO":
        raise DataError(f"{where}: of the type {labels.dtype}; expected numbers, or names of classes")
    if kind in "fc":
        bad = np.flatnonzero(~np.isfinite(labels.reshape(len(labels), -1)).all(1))
        if len(bad):
            _wrong(path, read.line, int(bad[0]), f"label {read.label}: {_one(labels[bad[0]])}", "a finite number")
    whole = kind in "iu" or (kind == "f" and task == "classification" and (labels == np.round(labels)).all())
    if task == "auto":
        few = kind in "iu" and len(np.unique(labels)) <= min(MOST_CLASSES, max(2, len(labels) // 2))
        task = "classification" if kind in "UOSb" or few else "regression"
    if task == "regression":
        if kind in "UOS":
            _wrong(path, read.line, 0, f"label {read.label}: {_one(labels[0])!r}", "a number, for data.task=regression")
        numbers = labels.astype(np.complex128 if kind == "c" else np.float64)
        if (numbers == numbers.flat[0]).all():
            raise DataError(f"{where}: is {_one(numbers.flat[0])} in every sample; expected numbers that differ")
        return numbers.reshape(len(numbers), -1)
    if not whole and kind not in "UOSb":
        raise DataError(f"{where}: holds fractions; expected whole numbers or names, for data.task=classification")
    kinds, numbered = np.unique(labels, return_inverse=True)
    if len(kinds) < 2:
        raise DataError(f"{where}: one class only ({_one(kinds[0])}); expected at least 2")
    if kind == "i" and kinds[0] < 0:
        place = int(np.flatnonzero(labels.reshape(-1) == kinds[0])[0])
        _wrong(path, read.line, place, f"label {read.label}: class {kinds[0]}", "0 or more")
    return numbered.reshape(labels.shape).astype(np.int64)


def _numbers(path: str, name: str, inputs: Array) -> Array:
    """Inputs as float64 or complex128; whole numbers of an array stay whole, for they may be words."""
    kind = inputs.dtype.kind
    if kind not in "fciub":
        raise DataError(f"{path}: {name} is of the type {inputs.dtype}; expected numbers")
    if kind in "iu" and inputs.dtype != np.uint8:
        return inputs.astype(np.int64)
    found = inputs.astype(np.complex128 if kind == "c" else np.float64)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise DataError(f"{path}: {name}{list(place)}: {found[place]:g}; expected a finite number")
    return found


def by(shape: Sequence[int]) -> str:
    """Sizes in words.

    >>> by((3, 8, 8))
    '3x8x8'
    """
    return "x".join(map(str, shape))


def _one(value: Any) -> str:
    return str(value.item() if isinstance(value, np.generic) else value)


def _wrong(path: str, line: Callable[[int], str], sample: int, found: str, expected: str) -> NoReturn:
    raise DataError(f"{path}: {line(sample)}, {found}; expected {expected}")
