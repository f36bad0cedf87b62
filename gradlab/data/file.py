"""Data of the user's own in a file: a table, arrays, or a folder of images by class."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from gradlab.data import arrays, tables
from gradlab.data.dataset import DataError, Dataset
from gradlab.data.image_folder import image_folder
from gradlab.data.samples import Read, by, split
from gradlab.spec.named import nearest
from gradlab.spec.run import DataSpec, Facts

UNKNOWN = 2**62
"""Samples of data that nobody has looked at."""


def facts(data: DataSpec) -> Facts:
    """Shape and sizes of the data at `data.path`, and how they were understood.

    Of a run that was made before (`data.source` is known) the file may be gone; then nothing is known.
    """
    assert data.path is not None
    if data.source is not None and not Path(data.path).exists():
        return unknown(data)
    found = file(data)
    known = facts_of(found, digest(data.path), _told(data, found))
    return replace(known, image=True) if Path(data.path).expanduser().is_dir() else known


def unknown(data: DataSpec) -> Facts:
    """Of data that cannot be looked at here, but were when the run was made."""
    return Facts((), 0, "cross_entropy", UNKNOWN, 0, data.source)


def facts_of(found: Dataset, source: str, said: str) -> Facts:
    """What a network must know of a data set."""
    inputs, targets = found.train_inputs, found.train_targets
    shape = tuple(inputs.shape[1:]) if isinstance(inputs, np.ndarray) else ()
    classes = targets.dtype.kind == "i"
    parts = [targets, found.heldout_targets]
    outputs = int(max(part.max() for part in parts if part.size)) + 1 if classes else int(np.prod(targets.shape[1:]))
    loss = "cross_entropy" if classes else "mean_squared_error"
    kinds = {"i": "whole numbers, which may be words", "c": "complex numbers"}
    kind = kinds.get(inputs.dtype.kind) if isinstance(inputs, np.ndarray) else "several inputs"
    kind = "complex numbers" if targets.dtype.kind == "c" else kind
    return Facts(shape, outputs, loss, len(targets), len(found.heldout_targets), source, said, kind=kind)


def _told(data: DataSpec, found: Dataset) -> str:
    known = _dataset(*_key(data))[1]
    inputs, classes = found.train_inputs, found.train_targets.dtype.kind == "i"
    shape = by(inputs.shape[1:])
    names = known.classes or [str(one) for one in np.unique(known.labels)] if classes else []
    kinds = f"{len(names)} classes ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    what = f"classification, {kinds}" if classes else "regression"
    return (
        f"{data.path}: {len(inputs):,} samples to train on, {len(found.heldout_inputs):,} held out; inputs of {shape}; "
        f"label {known.label}: {what}"
    )


def file(data: DataSpec) -> Dataset:
    """The data at `data.path`; classes are numbered in the order of their names, targets of a regression (N, K).

    Raises `DataError` that says where the first fault is, and what was expected there.
    """
    found = _dataset(*_key(data))[0]
    # Who standardises overwrites; float64 inputs alone are standardised.
    return Dataset(found.train_inputs.copy(), found.train_targets, found.heldout_inputs.copy(), found.heldout_targets)


def _key(data: DataSpec) -> tuple[str, str | None, float, str, float]:
    path = Path(str(data.path)).expanduser()
    if not path.exists():
        raise DataError(f"data.path={data.path}: no such file or folder{nearest(path.name, _beside(path))}")
    return str(path), data.label, float(data.heldout or 0.0), data.task or "auto", _changed(path)


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, was changed last."""
    return max(float(one.stat().st_mtime) for one in (path, *(path.rglob("*") if path.is_dir() else ())))


def _beside(path: Path) -> list[str]:
    return [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []


def digest(given: str) -> str:
    """The SHA-256 of a file, or of the names and contents of a folder's files."""
    path = Path(given).expanduser()
    return _digest(path, _changed(path))


@lru_cache(maxsize=16)
def _digest(path: Path, _changed_at: float) -> str:
    found = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            found.update(f"{one.relative_to(path) if path.is_dir() else ''}\0{one.stat().st_size}\0".encode())
            with one.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    found.update(piece)
    return found.hexdigest()


@lru_cache(maxsize=4)
def _dataset(path: str, label: str | None, heldout: float, task: str, _newest: float) -> tuple[Dataset, Read]:
    place = Path(path)
    if place.is_dir():
        read = image_folder(place)
    else:
        readers = {
            ".csv": tables.csv,
            ".parquet": tables.parquet,
            ".npz": arrays.npz,
            ".safetensors": arrays.safetensors,
        }
        reader = readers.get(place.suffix.lower())
        if reader is None:
            raise DataError(f"data.path={path}: expected {', '.join(readers)}, or a folder of images by class")
        read = reader(place, label)
    return split(path, read, heldout, task), read
