"""Arrays in files: ``x`` and ``y``, and, where they are there, ``x_heldout`` and ``y_heldout``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.data.dataset import DataError
from gradlab.data.samples import Array, Read

SAFE = dict(
    zip(
        ("BOOL", "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F16", "F32", "F64", "C64"),
        ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8", "<c8"),
        strict=True,
    )
)
"""Types of safetensors, as numpy calls them."""


def npz(path: Path, label: str | None) -> Read:
    """The arrays that numpy saved. Raises `DataError` for what they cannot be."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _arrays(path, {name: arrays[name] for name in arrays.files}, label)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as arrays: {error}") from error


def safetensors(path: Path, label: str | None) -> Read:
    """The tensors of a file of safetensors. Raises `DataError` for what they cannot be."""
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be read as tensors: {error}") from error
    return _arrays(path, {name: _unpacked(path, name, tensor) for name, tensor in tensors.items()}, label)


def _unpacked(path: Path, name: str, tensor: Mapping[str, Any]) -> Array:
    """A tensor of a file of safetensors; numpy has no bfloat16, which is the upper half of a float32."""
    kind = tensor["dtype"]
    if kind == "BF16":
        flat = (np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16).view("<f4")
    elif kind in SAFE:
        flat = np.frombuffer(tensor["data"], SAFE[kind])
    else:
        raise DataError(f"{path}: {name} is of the type {kind}; expected {', '.join(SAFE)} or BF16")
    return flat.reshape(tensor["shape"])


def _arrays(path: Path, arrays: Mapping[str, Array], label: str | None) -> Read:
    named = label or "y"
    missing = [name for name in ("x", named) if name not in arrays]
    if missing:
        raise DataError(
            f"{path}: no array {missing[0]!r}; expected x and {named}; it has: {', '.join(arrays) or 'none'}"
        )
    inputs, labels = arrays["x"], arrays[named]
    _check_length(path, "x", inputs, named, labels)
    apart = None
    if "x_heldout" in arrays and f"{named}_heldout" in arrays:
        apart = arrays["x_heldout"], arrays[f"{named}_heldout"]
        _check_length(path, "x_heldout", apart[0], f"{named}_heldout", apart[1])
    # Classes as a column are classes.
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "iubUO":
        labels = labels[:, 0]
        apart = None if apart is None else (apart[0], apart[1][:, 0])

    def line(sample: int) -> str:
        return f"sample {sample}" if sample < len(inputs) else f"held-out sample {sample - len(inputs)}"

    return Read(inputs, labels, line, apart, None, named)


def _check_length(path: Path, x: str, inputs: Array, y: str, labels: Array) -> None:
    if inputs.ndim < 2 or labels.ndim < 1 or len(inputs) != len(labels):
        shapes = f"{x} {tuple(inputs.shape)}, {y} {tuple(labels.shape)}"
        raise DataError(f"{path}: {shapes}; expected (samples, ...) of both, the same number of samples")
