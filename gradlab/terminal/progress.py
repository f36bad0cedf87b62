"""How far a grid is: bars on a terminal, a plain line now and then elsewhere, and a tally of what has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from gradlab.grid.cohorts import Piece
from gradlab.terminal.screen import counted

PIECE_BARS = 4
"""The most pieces in progress that have a bar of their own."""


PLAIN_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


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
        """A piece begins, or begins again; a single run is its own grid, and needs no second bar."""
        if self.tally.total > 1 and piece not in self.bars and len(self.bars) < PIECE_BARS:
            members = len(self.pieces[piece].members)
            label = f"cohort {self.pieces[piece].cohort + 1}, {counted(members, 'run')}"
            self.bars[piece] = self.progress.add_task(label, total=1.0)

    def moved(self, piece: int, share: float) -> None:
        """A piece is at ``share`` of its work."""
        self.shares[piece] = share
        if piece in self.bars:
            self.progress.update(self.bars[piece], completed=share)
        done = sum(self.pieces[index].effort * part for index, part in self.shares.items())
        self.progress.update(self.whole, completed=done)
        if share < 1 and not self.console.is_terminal and time.monotonic() - self.spoke > PLAIN_SECONDS:
            self.spoke = time.monotonic()
            total = sum(piece.effort for piece in self.pieces.values())
            self.console.print(f"{done / total:4.0%}" + (f"  {self.tally}" if self.tally.total > 1 else ""))

    def ended(self, piece: int) -> None:
        """A piece is done."""
        self.moved(piece, 1.0)
        if piece in self.bars:
            self.progress.remove_task(self.bars.pop(piece))

    def __rich__(self) -> RenderableType:
        return Group(self.progress, Text(str(self.tally))) if self.tally.total > 1 else self.progress


@contextmanager
def gauge(out: Console, pieces: Sequence[Piece], tally: Tally) -> Iterator[Gauge]:
    """Bars on a terminal, a line now and then elsewhere."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=out,
    )
    work = sum(piece.effort for piece in pieces)
    whole = progress.add_task("grid" if tally.total > 1 else "run", total=work)
    bars = Gauge(out, progress, {piece.index: piece for piece in pieces}, tally, whole)
    if out.is_terminal and not out.quiet:
        with Live(bars, console=out, transient=True, refresh_per_second=8):
            yield bars
    else:
        yield bars
