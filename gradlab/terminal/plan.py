"""What `gradlab sweep --plan` prints: the cohorts, what each is, and what it will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from gradlab.grid.cohorts import WITHIN, Piece, Plan
from gradlab.grid.expand import Grid
from gradlab.spec.run import SILENT, RunSpec
from gradlab.spec.unused import unused
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.screen import counted, show_question

COHORTS = 20
"""Rows of the table: those of the largest pieces."""

Seconds = Callable[[Sequence[Piece]], float]
"""How long pieces take."""


def show_plan(out: Console, plan: Plan, grid: Grid, device: str, seconds: Seconds, by: str) -> None:
    """The cohorts of a plan with their predicted work, memory and ``seconds`` (``by`` what), largest pieces first."""
    show_question(out, grid.experiment, grid.about)
    twice = f" ({grid.duplicates:,} more were the same as others)" if grid.duplicates else ""
    parts = f"{counted(plan.cohorts, 'cohort')}, cut into {counted(len(plan.pieces), 'piece')}"
    out.print(f"{counted(len(grid.runs), 'run')}{twice} in {parts} of at most {size(plan.budget)}, on {device}.")
    out.print(f"Work: {operations(plan.work)} of matrix products; about {duration(seconds(plan.pieces))}, {by}.")
    if (most := max(piece.memory for piece in plan.pieces)) > plan.budget:
        out.print(
            f"Some runs need more than {size(plan.budget)} each (up to {size(most)}): "
            "each of them is a piece of its own, which exceeds launch.memory."
        )
    cohorts: dict[int, list[Piece]] = {}
    for piece in plan.pieces:
        cohorts.setdefault(piece.cohort, []).append(piece)
    words = described(grid.runs, [pieces[0].members[0] for pieces in cohorts.values()])
    heads = [Head(name, number=True) for name in ("cohort", "runs", "pieces", "work", "memory a piece")]
    rows = [
        [
            str(number + 1),
            f"{sum(len(piece.members) for piece in pieces):,}",
            f"{len(pieces):,}",
            operations(sum(piece.work for piece in pieces)),
            size(max(piece.memory for piece in pieces)),
            *([what] if any(words) else []),
        ]
        for (number, pieces), what in list(zip(cohorts.items(), words, strict=True))[:COHORTS]
    ]
    show_table(out, [*heads, *([Head("what it is", text=True)] if any(words) else [])], rows)
    if len(cohorts) > COHORTS:
        out.print(f"... and {len(cohorts) - COHORTS:,} more cohorts, of smaller pieces.")


def described(runs: Sequence[RunSpec], firsts: Sequence[int]) -> list[str]:
    """What tells cohorts apart, given the place of a run of each: ``depth 20, relu, batch``; of one alone nothing."""
    # What came later and says nothing, or does nothing in a run, is no difference to a run that lacks it.
    cohorts = [(runs[place].flat(), unused(runs[place])) for place in firsts]
    flats = [
        {key: None if value in SILENT.get(key, ()) or key in idle else value for key, value in flat.items()}
        for flat, idle in cohorts
    ]
    keys = [key for key in flats[0] if key not in WITHIN and not key.startswith("clip.")]
    telling = [key for key in keys if len({flat.get(key) for flat in flats}) > 1]
    return [", ".join(_told(key, flat[key]) for key in telling if flat.get(key) is not None) for flat in flats]


def _told(key: str, value: object) -> str:
    """A name as it is, a number with its key, and ``no norm``."""
    word = key.rpartition(".")[2]
    if isinstance(value, str):
        return value if value != "none" else f"no {word}"
    return f"{word} {value}"


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(14.2), duration(200.0), duration(9000.0), duration(2e6)
    ('14 s', '3.3 min', '2.5 h', '23 days')
    """
    for unit, length, most in (("min", 60, 120), ("h", 3600, 48)):
        if 120 <= seconds < most * length:
            count = seconds / length
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 86400:,.0f} days"


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
