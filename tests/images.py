"""A hundred images in the format of CIFAR-10's binary files, made here: stripes of a class's own width and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def cifar_images(folder: Path) -> Path:
    """Two files of 40 images to train on and one of 20 held out, the classes in turn; gives ``folder``."""
    folder.mkdir(exist_ok=True)
    for name, count in (("data_batch_1.bin", 40), ("data_batch_2.bin", 40), ("test_batch.bin", 20)):
        (folder / name).write_bytes(cifar_records(np.arange(count) % 10))
    return folder


def cifar_records(classes: NDArray[np.int64]) -> bytes:
    """A record each: the class, then 32x32 red, green and blue bytes."""
    rng, records = np.random.default_rng(len(classes)), []
    for one in classes.tolist():
        wave = np.sin(np.arange(32) * (0.2 + 0.1 * (one % 5)) + rng.uniform(0, 6))
        stripes = np.tile(wave, (32, 1)) if one < 5 else np.tile(wave[:, None], (1, 32))
        colours = [0.3 + 0.7 * ((one + shift) % 3 == 0) for shift in range(3)]
        image = np.stack([128 + 100 * colour * stripes for colour in colours]) + rng.normal(0, 10, (3, 32, 32))
        records.append(bytes([one]) + image.clip(0, 255).astype(np.uint8).tobytes())
    return b"".join(records)
