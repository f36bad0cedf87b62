"""A table in the terminal, as wide as it: no cell of it is ever cut, however narrow that is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from gradlab.terminal.streams import visible

INSET = 4
"""Blanks before what is told of a row in lines of its own."""

BAD = "bold red"

LEAST_TEXT = 12
"""Columns that a text must have to be read beside others."""


@dataclass(frozen=True)
class Head:
    """The head of a column, and what it holds: texts, which may go on in the next line, numbers, or else names."""

    words: str
    text: bool = False
    number: bool = False
    style: str = ""


def show_table(
    out: Console, heads: Sequence[Head], rows: Sequence[Sequence[str]], *, gap: int = 2, bad: Collection[int] = ()
) -> None:
    """Prints ``rows`` under their ``heads``, in columns that are ``gap`` apart, or one where it must be.

    Where the terminal is too narrow for that, a table of names and numbers is printed without its last columns, which
    are named below it, and each row of a table that has texts too in lines of its own. ``bad`` are the places of rows
    that must not be overlooked.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    natural = [max(map(_width, column)) for column in zip([head.words for head in heads], *rows, strict=True)]
    least = [
        min(width, max(LEAST_TEXT, *(_longest(row[place]) for row in rows))) if heads[place].text else width
        for place, width in enumerate(natural)
    ]
    kept = len(heads)
    if sum(least) + gap * (kept - 1) > out.width:
        gap = 1
    if any(head.text for head in heads) and sum(least) + gap * (kept - 1) > out.width:
        _show_lines(out, heads, rows, bad)
        return
    while kept > 1 and sum(least[:kept]) + gap * (kept - 1) > out.width:
        kept -= 1
    widths = _widened(least[:kept], natural[:kept], out.width - gap * (kept - 1))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for head, width in zip(heads, widths, strict=False):
        table.add_column(
            head.words, justify="right" if head.number else "left", width=width, overflow="fold", style=head.style
        )
    for place, row in enumerate(rows):
        table.add_row(*map(escape, row[:kept]), style=BAD if place in bad else None)
    out.print(table)
    if kept < len(heads):
        left = ", ".join(head.words.replace("\n", " ") for head in heads[kept:])
        out.print(f"[dim]Left out at this width: {escape(left)}.[/dim]")


def _width(cell: str) -> int:
    return max(map(cell_len, cell.split("\n")))


def _longest(cell: str) -> int:
    """The longest word of a cell: it is not cut."""
    return max(map(cell_len, cell.split()), default=0)


def _widened(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """The widths ``least``, those of texts towards their ``natural`` ones as far as there is ``room``."""
    widths = list(least)
    for left, place in enumerate(sorted(range(len(widths)), key=lambda place: natural[place] - least[place])):
        share = max(0, room - sum(widths)) // (len(widths) - left)
        widths[place] += min(share, natural[place] - least[place])
    return widths


def _show_lines(out: Console, heads: Sequence[Head], rows: Sequence[Sequence[str]], bad: Collection[int]) -> None:
    """The first cell of each row, and below it the others that say something: names and numbers, then each text."""
    for place, (first, *others) in enumerate(rows):
        out.print(escape(first), style=BAD if place in bad else "bold", soft_wrap=True)
        told = list(zip(heads[1:], others, strict=True))
        plain = [f"{head.words} {cell}".replace("\n", " ").strip() for head, cell in told if cell and not head.text]
        for line in (", ".join(plain), *(f"{head.words} {cell}" for head, cell in told if cell and head.text)):
            if line:
                out.print(Padding(escape(line), (0, 0, 0, INSET)))
