"""The terminal itself: what a line is there, errors, a plan, lists, and where the files are.

Plain lines where the output is not a terminal; no colour codes in a file. Everything fits in 80 columns.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradlab.grid.cohorts import Piece, Plan

PLAIN_COLUMNS = 80
"""The width of a line where there is no terminal."""


def console(*, quiet: bool = False) -> Console:
    """The terminal, or a file of plain lines, of 80 columns unless COLUMNS says otherwise; silent where ``quiet``."""
    # Of a pipe rich would take the width of the terminal that stands at another end of the process.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else PLAIN_COLUMNS
    return Console(quiet=quiet, highlight=False, emoji=False, width=width)


def say_error(message: str) -> None:
    """One line on standard error."""
    _stderr(f"gradlab: error: {message}", soft_wrap=not sys.stderr.isatty())


def point(what: str, verb: str, root: Path) -> None:
    """Says, on standard error, why a command ended early, and in a line to be copied how to go on."""
    _stderr(f"{what} Go on with", soft_wrap=not sys.stderr.isatty())
    _stderr(f"  gradlab {verb} {shlex.quote(str(root))}", soft_wrap=True)


def _stderr(text: str, *, soft_wrap: bool) -> None:
    Console(stderr=True, highlight=False, emoji=False).print(text, markup=False, soft_wrap=soft_wrap)


@contextmanager
def waiting(out: Console, what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if out.is_terminal and not out.quiet:
        with out.status(what):
            yield
    else:
        yield


def show_plan(out: Console, plan: Plan, runs: int, duplicates: int, device: str, shown: int = 20) -> None:
    """The cohorts of a plan with their predicted work and memory, those of the largest pieces first."""
    twice = f" ({duplicates:,} more were the same as others)" if duplicates else ""
    parts = f"{counted(plan.cohorts, 'cohort')}, cut into {counted(len(plan.pieces), 'piece')}"
    out.print(f"{counted(runs, 'run')}{twice} in {parts} of at most {size(plan.budget)}, on {device}.")
    out.print(f"Work: {operations(plan.work)} of matrix products.")
    if (most := max(piece.memory for piece in plan.pieces)) > plan.budget:
        out.print(
            f"Some runs need more than {size(plan.budget)} each (up to {size(most)}): "
            "each of them is a piece of its own, which exceeds launch.memory."
        )
    cohorts: dict[int, list[Piece]] = {}
    for piece in plan.pieces:
        cohorts.setdefault(piece.cohort, []).append(piece)
    table = Table(box=None, pad_edge=False)
    for heading in ("cohort", "runs", "pieces", "work", "memory a piece"):
        table.add_column(heading, justify="right")
    for number, pieces in list(cohorts.items())[:shown]:
        table.add_row(
            str(number + 1),
            f"{sum(len(piece.members) for piece in pieces):,}",
            f"{len(pieces):,}",
            operations(sum(piece.work for piece in pieces)),
            size(max(piece.memory for piece in pieces)),
        )
    out.print(table)
    if len(cohorts) > shown:
        out.print(f"... and {len(cohorts) - shown:,} more cohorts, of smaller pieces.")


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(1234, "cohort")
    ('1 run', '1,234 cohorts')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes in words.

    >>> size(1.5 * 2**30)
    '1.5 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"


def operations(count: float) -> str:
    """Floating-point operations in words.

    >>> operations(5.2631e9), operations(0.0)
    ('5.26 GFLOP', '0 FLOP')
    """
    for unit in ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"):
        if count < 1000 or unit == "TFLOP":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"


def show_files(out: Console, places: Sequence[tuple[str, str]]) -> None:
    """What lies where, a line each."""
    widest = max(len(what) for what, _ in places)
    for what, where in places:
        out.print(f"[bold]{what:{widest}}[/bold]  {escape(where)}", soft_wrap=True)


def show_choices(out: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Named choices: name, one line, source."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what it is", overflow="fold")
    table.add_column("source", overflow="fold", style="dim")
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)
    out.print()
