"""Figures over one swept key: a dot a run of an outcome, and how many diverged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from gradlab.report.figures.style import (
    DIVERGED,
    OKABE_ITO,
    STRIP,
    Plot,
    fit,
    fit_plain,
    integer_ticks,
    legend_below,
    number,
    sheet,
)
from gradlab.report.groups import BINS, Levels, levels, quantile
from gradlab.report.tables import Bools, Floats, Ints, Result
from gradlab.store.settings import REPLICATES


@dataclass(frozen=True)
class Shown:
    """What a map or a row of dots shows of the ``kept`` runs (R,): ``values`` (R,), log10 unless ``plain``.

    ``name`` is of its file, ``title`` and ``label`` are for a reader. ``side``: 1 where little is good, -1 where much
    is, 0 where neither is and a cell is the median of its runs.
    """

    name: str
    title: str
    label: str
    values: Floats
    kept: Bools
    side: int = 0
    plain: bool = False

    @property
    def centred(self) -> bool:
        """Whether 1 is what it is measured by."""
        return self.side == 0

    def number(self, value: float) -> str:
        """A value as a cell has it."""
        if self.plain:
            return f"{100 * value:.1f} %"
        return "0" if np.isneginf(value) else number(float(f"{10.0**value:.2g}"))


def dots(result: Result, part: Levels, shown: Shown) -> Plot:
    """One key: a dot a run and the median of each value; diverged runs as crosses above."""
    logs, kept = shown.values, shown.kept
    bad = (result.state == "diverged") & ~kept
    scale = (fit_plain if shown.plain else fit)(logs[kept], broken=bool(bad.any()))
    figure = sheet(9, 4.2)
    axes = figure.subplots()
    jitter = (0.3 if len(part) > 1 else 0.95) * _spread(part.code)
    axes.plot(
        (part.code + jitter)[kept],
        scale.place(logs)[kept],
        "o",
        color=OKABE_ITO[0],
        alpha=0.6,
        markersize=5,
        label="one run",
    )
    groups = [logs[kept & (part.code == code)] for code in range(len(part))]
    if len(part) == 1:
        low, middle, high = (scale.place(quantile(groups[0][:, None], share))[0] for share in (0.1, 0.5, 0.9))
        axes.axhspan(low, high, color=OKABE_ITO[0], alpha=0.12, linewidth=0, label="the middle 80 %")
        axes.axhline(middle, color="black", linewidth=1.6, label="median")
    elif max(map(len, groups)) > 1:
        middle = np.array([quantile(group[:, None], 0.5)[0] if len(group) else np.nan for group in groups])
        axes.plot(range(len(part)), scale.place(middle), "_", color="black", markersize=22, mew=2, label="median")
    if bad.any():
        axes.plot(
            (part.code + jitter)[bad],
            np.full(int(bad.sum()), scale.ceiling),
            "x",
            color=DIVERGED,
            mew=1.6,
            label="diverged",
        )
    scale.dress(axes)
    if shown.centred and scale.low < 0 < scale.high:
        axes.axhline(0, color="#444444", linewidth=1, linestyle=":", label="1: neither vanishes nor explodes")
    _key_axis(axes, part)
    axes.set_ylabel(shown.label)
    legend_below(figure, *axes.get_legend_handles_labels())
    failed = int((result.state == "failed").sum())
    words = f"One dot a run, {int(kept.sum())} of {result.size}."
    words += f" {int(bad.sum())} diverged (×)." if bad.any() else ""
    words += f" {failed} failed and have none." if failed else ""
    return Plot(f"{shown.name}_by_key", f"{shown.title} by {part.key}", words, figure)


def along(result: Result, key: str) -> Levels:
    """The values of a key for an axis: bins where there are many, and of many seeds, which have no order, one."""
    part = levels(result, key)
    if key not in REPLICATES or len(part) <= BINS:
        return levels(result, key, bins=BINS)
    return Levels(key, (f"{len(part)} values, in the order of the runs",), np.zeros(result.size, dtype=int), False)


def _spread(code: Ints) -> Floats:
    """(R,) in -½..½: runs of one ``code`` (R,) evenly spread about it, in their order; 0 for a run alone."""
    order = np.argsort(code, kind="stable")
    _, first, count = np.unique(code[order], return_index=True, return_counts=True)
    rank = np.empty(len(code))
    rank[order] = np.arange(len(code)) - np.repeat(first, count)
    own = np.bincount(code)[code]
    return (rank + 0.5) / own - 0.5


def bars(result: Result, part: Levels) -> Plot:
    """One key: how many runs of each value finished, diverged and failed."""
    counts = {
        state: np.bincount(part.code[result.state == state], minlength=len(part))
        for state in ("finished", "diverged", "failed")
    }
    figure = sheet(9, 3.6)
    axes = figure.subplots()
    base = np.zeros(len(part))
    looks = {"finished": (OKABE_ITO[0], ""), "diverged": ("#ffffff", "////"), "failed": (STRIP, "....")}
    for state, (colour, hatch) in looks.items():
        if counts[state].any():
            axes.bar(
                range(len(part)),
                counts[state],
                0.7,
                bottom=base,
                color=colour,
                hatch=hatch,
                edgecolor=DIVERGED if hatch else colour,
                label=state,
            )
            base = base + counts[state]
    _key_axis(axes, part)
    integer_ticks(axes.yaxis, 6)
    axes.set_ylabel("runs")
    legend_below(figure, *axes.get_legend_handles_labels())
    bad, ran = int(counts["diverged"].sum()), int((result.state != "failed").sum())
    return Plot("diverged_by_key", f"Diverged runs by {part.key}", f"{bad} of {ran} runs diverged.", figure)


def _key_axis(axes: Axes, part: Levels) -> None:
    step = -(-len(part) // 16)
    axes.set_xticks(range(0, len(part), step), part.labels[::step])
    if max(map(len, part.labels)) * min(16, len(part)) > 80:
        axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlim(-0.6, len(part) - 0.4)
    axes.set_xlabel(part.key)
    axes.grid(False, axis="x")
