"""Data of the user's own in a file: a table, arrays, or a folder of images by class.

Of a table every column but the label is an input, and must hold numbers. Arrays are called ``x`` and ``y`` (and, where
they are there, ``x_heldout`` and ``y_heldout``). A folder has one folder of images a class, or such a pair of folders
``train`` and ``heldout`` (``val``, ``test``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import DataError, Dataset
from gradlab.spec.named import nearest
from gradlab.spec.run import DataSpec, Facts

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CLASSES = 100
"""Whole numbers of more kinds than that are quantities, unless `data.task` says otherwise."""

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
TRAIN, HELDOUT = ("train", "training"), ("heldout", "val", "valid", "validation", "test")

UNKNOWN = 2**62
"""Samples of data that nobody has looked at."""

SAFE = dict(
    zip(
        ("BOOL", "U8", "U16", "U32", "U64", "I8", "I16", "I32", "I64", "F16", "F32", "F64", "C64"),
        ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8", "<c8"),
        strict=True,
    )
)
"""Types of safetensors, as numpy calls them."""

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
    shape = _by(inputs.shape[1:])
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
        read = _folder(place)
    else:
        readers = {".csv": _csv, ".parquet": _parquet, ".npz": _npz, ".safetensors": _safetensors}
        reader = readers.get(place.suffix.lower())
        if reader is None:
            raise DataError(f"data.path={path}: expected {', '.join(readers)}, or a folder of images by class")
        read = reader(place, label)
    return _split(path, read, heldout, task), read


def _split(path: str, read: Read, heldout: float, task: str) -> Dataset:
    """Targets as the task has them, and which samples are held out: a rule, not a draw of the run's."""
    apart = read.heldout
    labels = read.labels if apart is None else np.concatenate([read.labels, apart[1]])
    targets = _targets(path, read, labels, task)
    inputs = _numbers(path, "x", read.inputs)
    if apart is not None:
        more = _numbers(path, "x_heldout", apart[0])
        if more.shape[1:] != inputs.shape[1:]:
            shapes = f"inputs to train on are of {_by(inputs.shape[1:])}, held out of {_by(more.shape[1:])}"
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


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _one(value: Any) -> str:
    return str(value.item() if isinstance(value, np.generic) else value)


def _wrong(path: str, line: Callable[[int], str], sample: int, found: str, expected: str) -> NoReturn:
    raise DataError(f"{path}: {line(sample)}, {found}; expected {expected}")


def _csv(path: Path, label: str | None) -> Read:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    try:
        # Only what is empty is nothing: a word such as n/a is told as it stands.
        nothing = pa_csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        table = pa_csv.read_csv(path, pa_csv.ReadOptions(use_threads=False), convert_options=nothing)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table: {str(error).partition(chr(10))[0]}") from error
    names = table.column_names
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise DataError(f"{path}: its columns stand apart by {other!r}; expected commas")
    if all(map(_is_number, names)) and names not in ([*map(str, range(n, n + len(names)))] for n in (0, 1)):
        raise DataError(f"{path}: line 1 holds numbers ({', '.join(names)[:40]}); expected the names of the columns")
    return _table(path, table, label, lambda sample: f"line {_lines(path)[sample + 1]}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> list[int]:
    """The numbers of the lines that are not empty; the header's comes first."""
    with path.open(encoding="utf-8-sig") as lines:
        return [place for place, line in enumerate(lines, start=1) if line.strip("\r\n")]


def _parquet(path: Path, label: str | None) -> Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as source:
            table = source.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as a table: {str(error).partition(chr(10))[0]}") from error
    return _table(path, table, label, lambda sample: f"row {sample + 1}")


def _table(path: Path, table: pa.Table, label: str | None, line: Callable[[int], str]) -> Read:
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice!r}")
    if len(names) < 2 or table.num_rows < 2:
        raise DataError(f"{path}: {table.num_rows} rows of {len(names)} columns; expected 2 of each at least")
    chosen = names[-1] if label is None else label
    if chosen not in names:
        raise DataError(
            f"data.label={chosen}: no such column in {path}{nearest(chosen, names)}; it has: {', '.join(names)}"
        )
    columns = [_column(path, table, name, line) for name in names if name != chosen]
    labels, kind = table[chosen], str(table[chosen].type)
    if labels.null_count:
        place = labels.to_pylist().index(None)
        raise DataError(f"{path}: {line(place)}, column {chosen!r}: empty; expected a label")
    numeric = kind.startswith(("int", "uint", "float", "double", "bool", "half"))
    values = np.asarray(labels.to_pylist()) if numeric else np.asarray([str(one) for one in labels.to_pylist()])
    classes = None if kind.startswith(("float", "double", "half")) else [str(one) for one in np.unique(values)]
    return Read(np.stack(columns, axis=1), values, line, classes=classes, label=repr(chosen))


def _column(path: Path, table: pa.Table, name: str, line: Callable[[int], str]) -> NDArray[np.float64]:
    """A column of inputs; of one that is no number the first place where it is none is told."""
    column = table[name]
    values = column.to_pylist()
    kind = str(column.type)
    for place, value in (
        enumerate(values)
        if column.null_count or not kind.startswith(("int", "uint", "float", "double", "bool", "half"))
        else ()
    ):
        if value is None:
            raise DataError(f"{path}: {line(place)}, column {name!r}: empty; expected a number")
        if not isinstance(value, (int, float)):
            try:
                float(value)
            except (TypeError, ValueError):
                raise DataError(
                    f"{path}: {line(place)}, column {name!r}: {str(value)[:40]!r}; expected a number"
                ) from None
    found = np.array(values, dtype=np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(found))):
        place = int(bad[0])
        raise DataError(f"{path}: {line(place)}, column {name!r}: {found[place]:g}; expected a finite number")
    return found


def _npz(path: Path, label: str | None) -> Read:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _arrays(path, {name: arrays[name] for name in arrays.files}, label)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as arrays: {error}") from error


def _safetensors(path: Path, label: str | None) -> Read:
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


def _folder(path: Path) -> Read:
    inside = {one.name.lower(): one for one in sorted(path.iterdir()) if one.is_dir()}
    train = next((inside[name] for name in TRAIN if name in inside), None)
    aside = next((inside[name] for name in HELDOUT if name in inside), None)
    if train is not None and aside is not None:
        images, labels, files = _by_class(train)
        more, others, _ = _by_class(aside, like=images[0])
        return _of_folder(path, images, labels, files, (np.stack(more), np.array(others)))
    images, labels, files = _by_class(path)
    return _of_folder(path, images, labels, files, None)


def _of_folder(
    path: Path, images: list[Array], labels: list[str], files: list[Path], apart: tuple[Array, Array] | None
) -> Read:
    return Read(
        np.stack(images),
        np.array(labels),
        lambda sample: str(files[sample].relative_to(path)),
        apart,
        sorted(set(labels)),
        "the folder's name",
    )


def _by_class(path: Path, like: Array | None = None) -> tuple[list[Array], list[str], list[Path]]:
    """Images (C, H, W) of 0 to 1, their classes and files; all of one size."""
    from PIL import Image, UnidentifiedImageError

    files = sorted(one for one in path.glob("*/*") if one.suffix.lower() in IMAGES)
    if not files:
        raise DataError(
            f"data.path={path}: no images in it; expected a folder for each class, with {', '.join(IMAGES[:4])}, ..."
        )
    found: list[Array] = []
    for one in files:
        try:
            with Image.open(one) as image:
                grey = image.mode in ("1", "L", "I", "I;16", "F")
                pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float64) / 255
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{one}: cannot be read as an image: {str(error)[:100]}") from error
        pixels = pixels[None] if grey else pixels.transpose(2, 0, 1)
        first = like if like is not None else (found[0] if found else pixels)
        if pixels.shape != first.shape:
            raise DataError(f"{one}: {_size(pixels)}; expected {_size(first)}, as the first image has")
        found.append(pixels)
    return found, [one.parent.name for one in files], files


def _size(pixels: Array) -> str:
    channels, rows, columns = pixels.shape
    return f"{rows}x{columns} pixels of {channels} channel{'s' if channels > 1 else ''}"
