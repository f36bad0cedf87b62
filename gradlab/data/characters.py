"""Language modelling by character: the first volume of Pride and Prejudice. Source and licence: characters.md."""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path

import numpy as np

from gradlab.data.dataset import Array, Dataset
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

FILE = Path(__file__).with_name("characters.txt.xz")

HELD_OUT_FROM = "Chapter 21\n"
"""Where the part begins that is held out."""


def characters(spec: DataSpec) -> Dataset:
    """4,000 windows of the text to train on and 500 held out: inputs (N, length), targets (N, length), whole numbers.

    The target of each place is the character that follows it. Characters are numbered in ASCII's order. Windows begin
    at even distances: they overlap where they are longer than these, but none reaches from one part into the other.
    """
    entry, length = DATA["characters"], spec.length
    assert length is not None, "`spec.build` resolves data.length"
    text, split = _numbered()
    train, heldout = _windows(text[:split], entry.train, length), _windows(text[split:], entry.heldout, length)
    return Dataset(train[:, :-1], train[:, 1:], heldout[:, :-1], heldout[:, 1:])


@cache
def _numbered() -> tuple[Array, int]:
    """The whole text, each character as its number among those that occur, and where the held-out part begins."""
    text = lzma.decompress(FILE.read_bytes())
    _, numbers = np.unique(np.frombuffer(text, dtype=np.uint8), return_inverse=True)
    return numbers.astype(np.int64), text.index(HELD_OUT_FROM.encode())


def _windows(text: Array, count: int, length: int) -> Array:
    """(count, length + 1): pieces of ``text``, the first from its beginning, the last to its end."""
    starts = np.linspace(0, len(text) - length - 1, count).astype(np.int64)
    return np.stack([text[start : start + length + 1] for start in starts])
