"""Data of the user's own from a function: it returns (train, heldout), each a pair of arrays or a torch Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from gradlab.data.dataset import DataError, Dataset, Inputs
from gradlab.data.file import facts_of, unknown
from gradlab.data.targets import called, source_of
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, Facts
from gradlab.spec.sections import Arguments

_ALLOWED: list[bool] = []


def allow() -> None:
    """From here on code of the user's own may run: the command line names it."""
    _ALLOWED.append(True)


def facts(data: DataSpec) -> Facts:
    """Shapes and sizes of what the function returns; of a run made before, it is called only where that is allowed."""
    assert data.target is not None
    if not _ALLOWED and data.source is not None:
        return unknown(data)
    found = _dataset(data.target, data.args, source_of(data.target))
    kind = "classes" if found.train_targets.dtype.kind == "i" else "numbers"
    told = (
        f"{data.target}: {len(found.train_targets):,} samples to train on, {len(found.heldout_targets):,} held out; "
        f"inputs of {_shapes(found.train_inputs)}; targets are {kind}"
    )
    return facts_of(found, source_of(data.target), told)


def function(data: DataSpec) -> Dataset:
    """What the function `data.target` returns, as arrays. Raises `DataError` where that is not data."""
    assert data.target is not None
    found = _dataset(data.target, data.args, source_of(data.target))
    return Dataset(
        _copied(found.train_inputs), found.train_targets, _copied(found.heldout_inputs), found.heldout_targets
    )


def plain(arguments: Arguments) -> dict[str, Any]:
    """Arguments as they are handed on: a text that is a list or a mapping in JSON is that.

    >>> plain((("depth", 4), ("sizes", "[1, 2]"), ("kind", "gru")))
    {'depth': 4, 'sizes': [1, 2], 'kind': 'gru'}
    """
    return {name: _plain(value) for name, value in arguments}


def _plain(value: Value) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


@lru_cache(maxsize=2)
def _dataset(target: str, arguments: Arguments, _source: str) -> Dataset:
    returned = called(target, plain(arguments))
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise DataError(f"data.target={target}: returned {_kind(returned)}; expected (train, heldout)")
    train, heldout = (_pair(target, part, name) for part, name in zip(returned, ("train", "heldout"), strict=True))
    if _shapes(train[0]) != _shapes(heldout[0]):
        raise DataError(
            f"data.target={target}: inputs to train on are of {_shapes(train[0])}, held out of {_shapes(heldout[0])}"
        )
    return Dataset(train[0], train[1], heldout[0], heldout[1])


def _pair(target: str, part: Any, name: str) -> tuple[Inputs, Any]:
    where = f"data.target={target}: {name}"
    if isinstance(part, tuple | list) and len(part) == 2:
        inputs, targets = part
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        items = [part[place] for place in range(len(part))]
        if not items or not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
            raise DataError(f"{where}: is a {type(part).__name__} whose items are no pairs of an input and a target")
        inputs, targets = _stacked([item[0] for item in items]), _stacked([item[1] for item in items])
    else:
        raise DataError(f"{where}: is {_kind(part)}; expected a pair of arrays, inputs and targets, or a Dataset")
    inputs = _tree(where, inputs)
    numbers = _array(where, targets)
    count = len(next(iter(_leaves(inputs))))
    if any(len(leaf) != len(numbers) for leaf in _leaves(inputs)) or not count:
        raise DataError(f"{where}: {count} inputs and {len(numbers)} targets; expected as many, and at least one")
    # Numbers in a row are one output each.
    return inputs, numbers[:, None] if numbers.dtype.kind == "f" and numbers.ndim == 1 else numbers


def _stacked(items: list[Any]) -> Any:
    if isinstance(items[0], Mapping):
        return {name: _stacked([item[name] for item in items]) for name in items[0]}
    if isinstance(items[0], tuple | list):
        return tuple(_stacked([item[place] for item in items]) for place in range(len(items[0])))
    try:
        return np.stack([np.asarray(item) for item in items])
    except ValueError as error:
        raise DataError(f"samples of different shapes cannot be stacked: {error}") from error


def _tree(where: str, given: Any) -> Inputs:
    if isinstance(given, Mapping):
        return {str(name): _array(where, part) for name, part in given.items()}
    if isinstance(given, tuple | list) and given and not np.isscalar(given[0]):
        return tuple(_array(where, part) for part in given)
    return _array(where, given)


def _array(where: str, given: Any) -> Any:
    """Float64, complex128 or int64; what is none of them is refused."""
    found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    kind = found.dtype.kind
    if found.ndim == 0 or kind not in "fiubc":
        raise DataError(f"{where}: {_kind(given)}, {found.dtype}; expected arrays of numbers, samples first")
    if kind in "fc" and not np.isfinite(found).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(found))[0]))
        raise DataError(f"{where}: sample {place[0]} holds {found[place]} at {place[1:]}; expected finite numbers")
    return found.astype({"f": np.float64, "c": np.complex128}.get(kind, np.int64))


def _leaves(inputs: Inputs) -> list[Any]:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def _copied(inputs: Inputs) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: part.copy() for name, part in inputs.items()}
    return tuple(part.copy() for part in inputs) if isinstance(inputs, tuple) else inputs.copy()


def _shapes(inputs: Inputs) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {'x'.join(map(str, part.shape[1:])) or '1'}" for name, part in inputs.items())
    return " and ".join("x".join(map(str, part.shape[1:])) or "1" for part in _leaves(inputs))


def _kind(given: Any) -> str:
    shape = getattr(given, "shape", None)
    return f"a {type(given).__name__}" + (f" of {tuple(shape)}" if shape is not None else "")
