"""Told or spoken: whether a passage of the novel of `characters` is its narrator's or stands in quotation marks."""

from __future__ import annotations

import lzma

import numpy as np

from gradlab.data.characters import FILE, HELD_OUT_FROM
from gradlab.data.dataset import Array, Dataset
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

OVERLAP = 8
"""Windows are drawn from those that begin an eighth of their length apart."""


def quotations(spec: DataSpec) -> Dataset:
    """2,000 windows of either class to train on and 250 held out: inputs (N, length), classes (N,), 0 told, 1 spoken.

    Windows are whole numbers, numbered as those of `characters`, and hold no quotation mark: what is said must be seen
    by how it is said. Held out are the chapters that `characters` holds out. A quotation ends with its paragraph.
    """
    entry, length = DATA["quotations"], spec.length
    assert length is not None, "`spec.build` resolves data.length"
    text = lzma.decompress(FILE.read_bytes()).decode("ascii")
    letters, split = sorted(set(text)), text.index(HELD_OUT_FROM)
    parts = [
        _classes(part, count // 2, length, letters)
        for part, count in ((text[:split], entry.train), (text[split:], entry.heldout))
    ]
    return Dataset(*parts[0], *parts[1])


def _classes(text: str, count: int, length: int, letters: list[str]) -> tuple[Array, Array]:
    """So many windows of either class, told and spoken by turns, at even distances in the text."""
    told_spoken: tuple[list[str], list[str]] = ([], [])
    for paragraph in text.split("\n\n"):
        for place, piece in enumerate(paragraph.split('"')):
            starts = range(0, len(piece) - length + 1, max(1, length // OVERLAP))
            told_spoken[place % 2].extend(piece[start : start + length] for start in starts)
    number = {letter: code for code, letter in enumerate(letters)}
    rows = []
    for windows in told_spoken:
        chosen = np.linspace(0, len(windows) - 1, count).astype(np.int64)
        rows.append(np.array([[number[letter] for letter in windows[one]] for one in chosen], dtype=np.int64))
    return np.stack(rows, axis=1).reshape(2 * count, length), np.tile(np.array([0, 1]), count)
