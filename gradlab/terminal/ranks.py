"""The best and the worst settings of a sweep in the terminal: one row a setting, over its seeds, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from gradlab.diagnose.numbers import number
from gradlab.store.settings import REPLICATES, Setting, ranking

BEST_AND_WORST = 3
"""Settings of a sweep shown at either end."""

LOOKED_AT = 5000
"""Settings at either end that are looked at for ties."""

TIE_WIDTH = 12
"""Most characters for the several values of a key among settings of the same figures."""

Run = dict[str, Any]
"""A row of the `runs` table."""

Tie = list[Setting]
"""Settings whose figures are all the same: a clip that never acted leaves no trace."""

_FIGURES = ("loss_first", "loss_final", "loss_heldout", "accuracy", "rate", "vanishing_ratio")


def show_ranks(out: Console, runs: pa.Table, swept: Sequence[str]) -> None:
    """The best and the worst settings by their final loss, or by the gradient at step 0 where nothing was trained."""
    every = ranking(runs)
    if not (trained := len(every.ranked) > 0):
        every = ranking(runs, level=True)
    count = len(every.ranked)
    many = count > 2 * LOOKED_AT
    ranked = every.some([*every.ranked[:LOOKED_AT], *every.ranked[-LOOKED_AT:]] if many else every.ranked)
    ranks = _ties(ranked)
    if not ranks:
        return
    best = ranks[:BEST_AND_WORST]
    worst = ranks[max(len(best), len(ranks) - BEST_AND_WORST) :]
    # Of so many the ties between are not looked for.
    between = 0 if many else len(ranks) - len(best) - len(worst)
    out.print(_heading(count, trained, between))
    figures = _trained if trained else _untrained
    cells = [figures(tie[0]) for tie in (*best, *worst)]
    # The key of a seed is not of the setting.
    keys = [key for key in swept if key in runs.column_names and key not in REPLICATES]
    values = [[spread([{key: setting.first(key)} for setting in tie], key) for key in keys] for tie in (*best, *worst)]
    for line in _lines(out.width, cells, [short(key) for key in keys], values, len(best) if worst else None):
        out.print(escape(line), soft_wrap=True)
    out.print(f"[dim]{_reading(ranked, trained)}[/dim]")
    if left := len(every.behind):
        words = "setting has" if left == 1 else "settings have"
        out.print(f"{left} more {words} no {'final loss' if trained else 'δ₁/δ'}.")


def _heading(count: int, trained: bool, between: int) -> str:
    what = "the final loss" if trained else "δ at step 0, level first"
    more = f" ({between} between):" if between else ":"
    return f"Best and worst of {count} settings by {what}{more}" if count > 1 else f"One setting, by {what}:"


def _reading(ranked: Sequence[Setting], trained: bool) -> str:
    seeds = max(len(one) for one in ranked)
    over = " ±: between seeds." if seeds > 1 else ""
    if not trained:
        return f"δ₁/δ: ‖δ‖ of layer 1 over that of layer L-1 (time step 1 over T), nearest to 1 first.{over}"
    run = "; run: the seed in the middle" if seeds > 1 else ""
    return f"loss: mean over the last tenth of the steps{run}.{over}"


def _trained(one: Setting) -> dict[str, str]:
    right, apart = one.mean("accuracy"), one.deviation("accuracy")
    accuracy = "-" if right is None else f"{100 * right:.1f}%" + ("" if apart is None else f" ±{100 * apart:.1f}")
    return {"loss": _with_spread(one, "loss_final"), "accuracy": accuracy, **_whose(one)}


def _untrained(one: Setting) -> dict[str, str]:
    return {"δ₁/δ": _with_spread(one, "vanishing_ratio"), "δ rate": number(one.mean("rate")), **_whose(one)}


def _whose(one: Setting) -> dict[str, str]:
    return {"verdict": one.verdict or "-", "run": one.middle}


def _with_spread(one: Setting, column: str) -> str:
    apart = one.deviation(column)
    return number(one.mean(column)) + ("" if apart is None else f" ±{number(apart, 2)}")


def _lines(
    width: int,
    cells: Sequence[dict[str, str]],
    keys: Sequence[str],
    values: Sequence[Sequence[str]],
    cut: int | None,
) -> list[str]:
    """A column a swept key where that fits the ``width``, else the setting on a line of its own below its figures.

    On it, too, stand the last of the figures where even they do not fit. Before row ``cut`` those between are left out.
    """
    names = list(cells[0])
    whole = [[*names, *keys], *([*some.values(), *setting] for some, setting in zip(cells, values, strict=True))]
    widths = [max(map(cell_len, column)) for column in zip(*whole, strict=True)]
    # Two spaces between columns where the terminal has them, one where it has not.
    shown, gap = next(
        (
            (count, gap)
            for count in (len(widths), *range(len(names), 0, -1))
            for gap in (2, 1)
            if sum(widths[:count]) + gap * (count - 1) <= width
        ),
        (1, 1),
    )
    lines, below, inset = [], [*(f"{name} " for name in names), *(f"{key}=" for key in keys)][shown:], "    "
    for place, row in enumerate(whole):
        if cut is not None and place == cut + 1:
            lines.append("...")
        lines.append((" " * gap).join(_padded(row[:shown], widths)).rstrip())
        if below and place > 0:
            told = " ".join(f"{word}{cell}" for word, cell in zip(below, row[shown:], strict=True))
            lines += textwrap.wrap(told, width, initial_indent=inset, subsequent_indent=inset, break_on_hyphens=False)
    return lines


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The two figures to the right of their columns, all else to the left."""
    gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
    return [gap + cell if place < 2 else cell + gap for place, (cell, gap) in enumerate(zip(row, gaps, strict=True))]


def _ties(ranked: Sequence[Setting]) -> list[Tie]:
    """Settings in their order, those of the same figures together."""
    ties: dict[str, Tie] = {}
    for one in ranked:
        ties.setdefault(" ".join(str(one.values(name)) for name in _FIGURES), []).append(one)
    return list(ties.values())


def spread(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """The values of a key among runs of the same figures.

    >>> spread([{"clip.mode": "none"}, {"clip.mode": "norm"}, {"clip.mode": "none"}], "clip.mode")
    'none|norm'
    """
    values = list(dict.fromkeys(f"{row[key]:g}" if isinstance(row[key], float) else str(row[key]) for row in rows))
    joined = "|".join(values)
    return joined if len(values) == 1 or len(joined) <= TIE_WIDTH else f"{len(values)} values"


def short(key: str) -> str:
    """A key without its section; that of a named choice without its name.

    >>> short("model.depth"), short("clip.mode"), short("data.seed")
    ('depth', 'clip', 'data.seed')
    """
    section, _, name = key.partition(".")
    return section if name in ("name", "mode") else key if name == "seed" else name or section
