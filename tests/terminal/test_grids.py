"""Tables in narrow terminals: no cell is cut, what does not fit is left out whole or stands in lines of its own."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len

from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.screen import Screen

NUMBERS = [Head("layer", number=True), Head("name"), *(Head(f"δ\n@{step}", number=True) for step in range(6))]
ROWS = [[str(row), f"hidden_{row}", *(f"{0.1234 + row + step:.4g}" for step in range(6))] for row in range(12)]
TEXTS = [Head("folder"), Head("runs", number=True), Head("swept", text=True), Head("verdicts", text=True)]
LINES = [
    ["2026-11-25/10-00-00-sweep", "432", "depth, activation, init, norm", "265 healthy, 72 vanishing, 67 overclipped"],
    ["a[b]", "1", "", "-0.00012345678 of 1.2345678e-17"],
]


def printed(width: int, heads: list[Head], rows: list[list[str]]) -> list[str]:
    out = Screen(file=io.StringIO(), width=width, highlight=False, emoji=False)
    show_table(out, heads, rows)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", range(16, 90))
def test_numbers_and_names_are_whole_or_left_out_and_named(width: int) -> None:
    lines = printed(width, NUMBERS, ROWS)
    assert max(map(cell_len, lines)) <= width
    above = 2 if "@0" in lines[1] else 1
    body = [line.split() for line in lines[above : above + 12]]
    kept = len(body[0])
    assert body == [row[:kept] for row in ROWS]
    left = " ".join(" ".join(lines[above + 12 :]).split())
    words = ", ".join(head.words.replace("\n", " ") for head in NUMBERS[kept:])
    assert left == (f"Left out at this width: {words}." if kept < len(NUMBERS) else "")


@pytest.mark.parametrize("width", range(26, 140))
def test_of_texts_every_word_is_there_whole(width: int) -> None:
    lines = printed(width, TEXTS, LINES)
    assert max(map(cell_len, lines)) <= width
    said = re.split(r"[\s,]+", " ".join(lines))
    for word in re.split(r"[\s,]+", " ".join(cell for row in LINES for cell in row if cell)):
        assert word in said


def test_where_there_is_room_a_row_is_a_line() -> None:
    assert len(printed(120, TEXTS, LINES)) == 1 + len(LINES)
