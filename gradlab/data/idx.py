"""Folders of IDX files, the format of the MNIST family: four files, gzipped or plain.

An IDX file is two zero bytes, a type byte (8: unsigned bytes), the number of dimensions, each dimension as a big-endian
32-bit integer, then the entries, the last dimension fastest (LeCun et al. 1998, the MNIST page).
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import DataError, Dataset

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
HELDOUT_IMAGES = "t10k-images-idx3-ubyte"
HELDOUT_LABELS = "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, HELDOUT_IMAGES, HELDOUT_LABELS)

CLASSES = 10
UNSIGNED_BYTES = 8

LARGEST = 2**30
"""Bytes that a file may say it holds; the largest of the family, EMNIST's, holds 0.6 of it."""

CHUNK = 2**20
"""Bytes that are unpacked at once."""


def header_sizes(root: str) -> tuple[int, int, int, int]:
    """Training images, held-out images, rows and columns of the files in folder ``root``, from their headers alone.

    Raises `DataError` (a `SpecError`) that names `data.root` where a file is missing or broken, or where the four do
    not fit.
    """
    train, *image = _sizes(root, TRAIN_IMAGES, 3)
    heldout, *heldout_image = _sizes(root, HELDOUT_IMAGES, 3)
    if image != heldout_image:
        raise DataError(f"data.root={root}: training images are {_by(image)}, held-out images {_by(heldout_image)}")
    for images, name in ((train, TRAIN_LABELS), (heldout, HELDOUT_LABELS)):
        (labels,) = _sizes(root, name, 1)
        if labels != images:
            raise DataError(f"data.root={root}: {name} has {labels} labels for {images} images")
    return train, heldout, image[0], image[1]


def read_folder(root: str) -> Dataset:
    """The four files of folder ``root``: images (N, rows, columns) with grey levels 0..255, classes 0..9.

    Raises `DataError` where a file is missing, broken or torn, or where they do not fit.
    """
    header_sizes(root)
    arrays = [read_idx(_find(root, name)) for name in NAMES]
    train_images, train_labels, heldout_images, heldout_labels = arrays
    highest = max(int(train_labels.max()), int(heldout_labels.max()))
    if highest >= CLASSES:
        raise DataError(f"data.root={root}: a label is {highest}; expected classes 0..{CLASSES - 1}")
    return Dataset(
        train_images.astype(np.float64),
        train_labels.astype(np.int64),
        heldout_images.astype(np.float64),
        heldout_labels.astype(np.int64),
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of unsigned bytes in the IDX file ``path`` (gzipped where its name ends in .gz), read-only.

    Raises `DataError` for a wrong magic number, dimensions that cannot be, and a file that is torn or too long.
    """
    try:
        with _open(path) as file:
            sizes = _header(file, path)
            expected = math.prod(sizes)
            body = _at_most(file, expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error
    if len(body) != expected:
        found = len(body) if len(body) < expected else "more"
        raise DataError(f"{path} is torn: its header says {_by(sizes)} = {expected} bytes, and {found} follow")
    return np.frombuffer(body, dtype=np.uint8).reshape(sizes)


def _sizes(root: str, name: str, dimensions: int) -> tuple[int, ...]:
    """The dimensions in the header of file ``name``, none of which is 0."""
    path = _find(root, name)
    try:
        with _open(path) as file:
            sizes = _header(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data.root={root}: cannot read {path.name}: {_reason(error)}") from error
    except DataError as error:
        raise DataError(f"data.root={root}: {error}") from error
    if len(sizes) != dimensions or 0 in sizes:
        raise DataError(
            f"data.root={root}: {path.name} is {_by(sizes)}; expected {dimensions} dimensions, none of them 0"
        )
    if math.prod(sizes) > LARGEST:
        raise DataError(
            f"data.root={root}: {path.name} says that it holds {_by(sizes)} bytes; expected at most {LARGEST}"
        )
    return sizes


def _find(root: str, name: str) -> Path:
    try:
        folder = Path(root).expanduser()
    except RuntimeError as error:
        raise DataError(f"data.root={root}: no such folder: {error}") from error
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    if not folder.is_dir():
        raise DataError(f"data.root={root}: no such folder")
    raise DataError(f"data.root={root}: no file {name} or {name}.gz there; it needs the four files of the MNIST family")


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _at_most(file: io.BufferedIOBase, size: int) -> bytes:
    """What follows in ``file``, up to ``size`` bytes: a file may unpack to far more than its header says."""
    body = bytearray()
    while piece := file.read(min(CHUNK, size - len(body))):
        body += piece
    return bytes(body)


def _header(file: io.BufferedIOBase, path: Path) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTES:
        raise DataError(f"{path.name} is no IDX file of unsigned bytes: it starts with {magic.hex() or 'nothing'}")
    dimensions = magic[3]
    sizes = file.read(4 * dimensions)
    if dimensions == 0 or len(sizes) < 4 * dimensions:
        raise DataError(f"{path.name} is torn: its header ends after {4 + len(sizes)} bytes")
    return struct.unpack(f">{dimensions}I", sizes)


def _by(sizes: tuple[int, ...] | list[int]) -> str:
    return "x".join(map(str, sizes))


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
