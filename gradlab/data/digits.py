"""The embedded hand-written digits: 8x8 grey pixels, ten classes. Source and licence: digits.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradlab.data.dataset import Dataset
from gradlab.spec.run import DataSpec

FILE = Path(__file__).with_name("digits.npz")


def digits(_spec: DataSpec) -> Dataset:
    """1,437 images to train on and 360 held out; grey levels 0..16, rows are time steps.

    The split is a rule, not a draw, so it is the same for ever: the samples are sorted by class (in file order within
    a class), and every fifth of them, from the first, is held out. So each class has a fifth of its samples there, to
    within one. Both parts keep the file's order.
    """
    with np.load(FILE) as arrays:
        images, labels = arrays["images"].astype(np.float64), arrays["labels"].astype(np.int64)
    heldout = np.zeros(len(labels), dtype=bool)
    heldout[np.argsort(labels, kind="stable")[::5]] = True
    return Dataset(images[~heldout], labels[~heldout], images[heldout], labels[heldout])
