"""What `gradlab cure` prints: the smallest changes that heal, what else helps, and what does not. In 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradlab.cure.command import folded
from gradlab.cure.ranking import Floats, Outcome, front, is_healthy, outcomes, ranked
from gradlab.cure.words import factor, headline, loss, nearest, patient, summed_up, theory, what_it_is
from gradlab.diagnose.numbers import number
from gradlab.terminal.grids import Head, show_table

BARS = "▁▂▃▄▅▆▇█"

PLACES = 16
"""Characters of a profile."""

LEAST_RANGE = math.log(100)
"""Of the scale of the bars: what changes little must not look like a mountain."""

MOST_OTHERS = 12
"""Rows of the table of what else heals or helps."""

LEAST_HELPS = 4
"""Of them for what helps, where so many do."""


BEHIND = "   "
"""What stands before each line under a change."""


def show(out: Console, facts: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
    """The outcome of a cure, from its facts and the tables of its runs."""
    found = outcomes(facts, tables)
    if not found or found[0].state == "crashed":
        out.print("Every seed of the run crashed: there is nothing to compare with.")
        return
    before, *tried = found
    out.print(escape(patient(before)))
    if is_healthy(before):
        return
    best = front(tried)
    out.print(escape(summed_up(tried, before.seeds)))
    if best:
        out.print(f"\n{headline(best)}:")
    else:
        out.print("\nNothing that was tried heals it, and nothing helps beyond doubt.")
        for line in nearest(tried):
            out.print(escape(line))
    for place, one in enumerate(best, 1):
        _show_best(out, place, one, before)
    _show_others(out, [one for one in ranked(tried) if one.state in ("heals", "helps") and one not in best])
    for state, words in (
        ("unclear", "May help (their seeds disagree)"),
        ("steadies", "End the divergence, and do not learn"),
        ("no help", "Do not help"),
        ("harms", "Do harm"),
        ("crashed", "Crashed"),
    ):
        if some := [one.name for one in ranked(tried) if one.state == state]:
            out.print(escape(f"{words}: {', '.join(some)}."))
    out.print(
        "[dim]Loss: of the last tenth of the steps, geometric mean over seeds; times lower: before over after, 95 % "
        "interval of the paired seeds. δ = ‖∂loss/∂z‖ from the input to the output, at step 0, and the ratio of its "
        "ends. Names: gradlab list remedies.[/dim]"
    )


def _show_best(out: Console, place: int, one: Outcome, before: Outcome) -> None:
    out.print(f"\n[bold]{place}. {escape(one.change['override'])}[/bold]  (cost {one.cost})")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for what, words in (
        ("   change", what_it_is(one)),
        ("   mends", ", ".join(one.answers)),
        ("   loss", loss(one, before)),
        ("   δ", profiles(one, before)),
        ("   theory", theory(one, before)),
        ("   source", "; ".join(one.change["sources"])),
        ("   run", one.run_id),
    ):
        if words:
            grid.add_row(what, escape(words))
    out.print(grid)
    # Line by line, as it is pasted: a blank behind a backslash would break it.
    for line in folded(one.change["command"], out.width - len(BEHIND)):
        out.print(f"{BEHIND}[bold]{escape(line)}[/bold]", soft_wrap=True)
    if script := one.change.get("script"):
        out.print(f"{BEHIND}in your script:")
        for line in script:
            out.print(f"{BEHIND}  [bold]{escape(line)}[/bold]", soft_wrap=True)


def profiles(one: Outcome, before: Outcome) -> str:
    """Both profiles on one logarithmic scale, with the ratio of their ends; nothing of a network of one layer."""
    finite = [value for one in (before.profile, one.profile) for value in one.tolist() if math.isfinite(value)]
    if not finite:
        return ""
    high = max(finite, default=0.0)
    low = min(min(finite, default=0.0), high - LEAST_RANGE)
    told = [f"{bars(some.profile, low, high)} {number(some.ends)}" for some in (before, one)]
    return " -> ".join(told)


def bars(profile: Floats, low: float, high: float) -> str:
    """A profile (P,) of logarithms as at most `PLACES` bars from ``low`` to ``high``; 0 for an exact zero.

    >>> import numpy as np
    >>> bars(np.array([-4.0, -2.0, 0.0, -np.inf]), -4.0, 0.0)
    '▁▅█0'
    """
    count = min(PLACES, len(profile))
    chosen = [profile[round(place * (len(profile) - 1) / max(1, count - 1))] for place in range(count)]
    return "".join(_bar(float(value), low, high) for value in chosen)


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "0" if value < 0 else "?"
    share = 1.0 if high - low < 1e-9 else (value - low) / (high - low)
    return BARS[round(share * (len(BARS) - 1))]


def _show_others(out: Console, others: Sequence[Outcome]) -> None:
    if not others:
        out.print()
        return
    out.print("\nAlso:")
    heads = [Head(""), *(Head(name, number=True) for name in ("cost", "times lower", "accuracy")), Head("run")]
    shown, rows = _some(others), []
    for one in shown:
        right = "-" if one.accuracy is None else f"{one.accuracy:.1%}"
        stays = "" if one.state == "heals" else f" ({one.verdict})"
        rows.append([one.state, str(one.cost), factor(one), right, one.run_id[:8], f"{one.change['override']}{stays}"])
    show_table(out, [*heads, Head("change", text=True)], rows)
    if len(others) > len(shown):
        out.print(f"... and {len(others) - len(shown)} more.")


def _some(others: Sequence[Outcome]) -> list[Outcome]:
    """The first of those that heal, and of those that help: a cheap help must not hide behind dear cures."""
    heal, help_ = ([one for one in others if one.state == state] for state in ("heals", "helps"))
    places = max(LEAST_HELPS, MOST_OTHERS - len(heal))
    return [*heal[: MOST_OTHERS - min(places, len(help_))], *help_[:places]]
