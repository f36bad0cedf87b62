"""CIFAR-10: 32x32 colour pixels of ten kinds of things (Krizhevsky 2009), in its binary version.

A file is a row of records: a byte of the class, then the red, the green and the blue bytes of the pixels, row by row.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import DataError, Dataset
from gradlab.data.download import Source, fetch
from gradlab.spec.run import DataSpec

SOURCE = Source(
    name="cifar10",
    address="https://www.cs.toronto.edu/~kriz/",
    # The sum that is published beside it.
    md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
)

SIDE, CHANNELS, CLASSES = 32, 3, 10
RECORD = 1 + CHANNELS * SIDE * SIDE

TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
HELDOUT = "test_batch.bin"

LARGEST = 2**30
"""Bytes of a file; a published one has 31 million."""


def cifar10(spec: DataSpec) -> Dataset:
    """50,000 images (32, 32, 3) to train on and 10,000 held out, or what `data.root` holds; levels 0..255.

    A folder needs test_batch.bin and one or more of data_batch_1.bin to data_batch_5.bin. Raises `DataError` where a
    file is missing or torn, and for a class above 9.
    """
    if spec.root is not None:
        train_files, heldout_file = _files(spec.root)
        train, heldout = [path.read_bytes() for path in train_files], heldout_file.read_bytes()
    else:
        train, heldout = _unpacked(fetch(SOURCE, spec.mirror) / next(iter(SOURCE.md5)))
    images, classes = _read(train)
    return Dataset(images, classes, *_read([heldout]))


def sizes(root: str) -> tuple[int, int]:
    """How many images a folder has to train on and held out, from the sizes of its files.

    Raises `DataError` where one is missing or is no whole number of records.
    """
    train, heldout = _files(root)
    return sum(_records(root, path) for path in train), _records(root, heldout)


def _records(root: str, path: Path) -> int:
    size = path.stat().st_size
    if size == 0 or size % RECORD or size > LARGEST:
        raise DataError(
            f"data.root={root}: {path.name} has {size:,} bytes; expected one or more records of {RECORD:,} bytes"
        )
    return size // RECORD


def _files(root: str) -> tuple[list[Path], Path]:
    try:
        folder = Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"data.root={root}: no such folder: {error}") from error
    if not folder.is_dir():
        raise DataError(f"data.root={root}: no such folder")
    train = [folder / name for name in TRAIN if (folder / name).is_file()]
    if not train or not (folder / HELDOUT).is_file():
        missing = HELDOUT if train else TRAIN[0]
        raise DataError(f"data.root={root}: no file {missing} there; it needs those of CIFAR-10's binary version")
    return train, folder / HELDOUT


def _unpacked(archive: Path) -> tuple[list[bytes], bytes]:
    """The files in the archive: those to train on, and that which is held out."""
    try:
        with tarfile.open(archive) as tar:
            parts = {Path(member.name).name: member for member in tar if member.isfile()}
            found = {name: tar.extractfile(parts[name]) for name in (*TRAIN, HELDOUT)}
            read = {name: file.read() for name, file in found.items() if file is not None}
    except (OSError, tarfile.TarError, EOFError, KeyError, zlib.error) as error:
        raise DataError(f"cannot read {archive}: {error}") from error
    return [read[name] for name in TRAIN], read[HELDOUT]


def _read(files: list[bytes]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and classes (N,)."""
    records = np.concatenate([np.frombuffer(file, dtype=np.uint8).reshape(-1, RECORD) for file in files])
    classes = records[:, 0].astype(np.int64)
    if classes.max() >= CLASSES:
        raise DataError(f"data.name=cifar10: a class is {classes.max()}; expected 0..{CLASSES - 1}")
    images = np.empty((len(records), SIDE, SIDE, CHANNELS))
    images[:] = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    return images, classes
