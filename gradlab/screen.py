"""What a person sees in the terminal: progress, tables, one sentence about what happened, and where the files are.

Plain lines where the output is not a terminal; no colour codes in a file. Everything fits in 80 columns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from gradlab.plan import Piece, Plan

PIECE_BARS = 4
"""The most pieces in progress that have a bar of their own."""

PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


def console(*, quiet: bool = False) -> Console:
    """The terminal, or a file of plain lines; silent where ``quiet``."""
    return Console(quiet=quiet, highlight=False, soft_wrap=not sys.stdout.isatty())


def say_error(message: str) -> None:
    """One line on standard error."""
    print(f"gradlab: error: {message}", file=sys.stderr)


@dataclass
class Tally:
    """Runs that have ended so far, and how many there are."""

    total: int
    finished: int = 0
    diverged: int = 0
    failed: int = 0

    def add(self, states: Sequence[str]) -> None:
        """Counts runs by their state."""
        self.finished += states.count("finished")
        self.diverged += states.count("diverged")
        self.failed += states.count("failed")

    def __str__(self) -> str:
        return f"{self.finished} finished, {self.diverged} diverged, {self.failed} failed of {self.total}"


@dataclass
class Gauge:
    """How far a grid is: one bar over all of its work, one for each piece in progress, and the tally."""

    console: Console
    progress: Progress
    pieces: dict[int, Piece]
    tally: Tally
    whole: TaskID
    bars: dict[int, TaskID] = field(default_factory=dict)
    shares: dict[int, float] = field(default_factory=dict)
    spoke: float = field(default_factory=time.monotonic)

    def started(self, piece: int) -> None:
        """A piece begins."""
        if len(self.bars) < PIECE_BARS:
            members = len(self.pieces[piece].members)
            label = f"cohort {self.pieces[piece].cohort + 1}, {members} run{'s' if members > 1 else ''}"
            self.bars[piece] = self.progress.add_task(label, total=1.0, note="")

    def moved(self, piece: int, share: float) -> None:
        """A piece is at ``share`` of its work."""
        self.shares[piece] = share
        if piece in self.bars:
            self.progress.update(self.bars[piece], completed=share)
        done = sum(self.pieces[index].work * part for index, part in self.shares.items())
        self.progress.update(self.whole, completed=done, note=str(self.tally))
        if not self.console.is_terminal and time.monotonic() - self.spoke > PLAIN_SECONDS:
            self.spoke = time.monotonic()
            total = sum(piece.work for piece in self.pieces.values())
            self.console.print(f"{done / total:4.0%}  {self.tally}")

    def ended(self, piece: int) -> None:
        """A piece is done."""
        self.moved(piece, 1.0)
        if piece in self.bars:
            self.progress.remove_task(self.bars.pop(piece))


@contextmanager
def gauge(out: Console, pieces: Sequence[Piece], tally: Tally) -> Iterator[Gauge]:
    """Bars on a terminal, a line now and then elsewhere."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=out,
        transient=True,
        disable=out.quiet or not out.is_terminal,
    )
    with progress:
        work = sum(piece.work for piece in pieces)
        whole = progress.add_task("grid" if tally.total > 1 else "run", total=work, note=str(tally))
        yield Gauge(out, progress, {piece.index: piece for piece in pieces}, tally, whole)


@contextmanager
def waiting(out: Console, what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if out.is_terminal and not out.quiet:
        with out.status(what):
            yield
    else:
        yield


def show_plan(out: Console, plan: Plan, runs: int, duplicates: int, device: str, shown: int = 20) -> None:
    """The pieces of a plan with their predicted work and memory."""
    twice = f" ({duplicates} more were the same as others)" if duplicates else ""
    out.print(
        f"{runs:,} runs{twice} in {plan.cohorts:,} cohorts, {len(plan.pieces):,} pieces, on {device}; "
        f"{plan.work / 1e12:.3g} TFLOP of matrix products; at most {size(plan.budget)} a piece."
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("piece", "cohort", "runs", "GFLOP", "memory"):
        table.add_column(heading, justify="right")
    for piece in plan.pieces[:shown]:
        table.add_row(
            str(piece.index),
            str(piece.cohort + 1),
            str(len(piece.members)),
            f"{piece.work / 1e9:.3g}",
            size(piece.memory),
        )
    out.print(table)
    if len(plan.pieces) > shown:
        out.print(f"... and {len(plan.pieces) - shown:,} smaller pieces.")


def size(count: float) -> str:
    """Bytes in words: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


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
