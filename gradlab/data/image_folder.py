"""A folder that has one folder of images a class, or such a pair of folders: ``train`` and ``heldout`` or its kin."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradlab.data.dataset import DataError
from gradlab.data.samples import Array, Read

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
TRAIN, HELDOUT = ("train", "training"), ("heldout", "val", "valid", "validation", "test")


def image_folder(path: Path) -> Read:
    """Its images (N, C, H, W) of 0 to 1. Raises `DataError` where there are none, or not all are of one size."""
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
