"""One way of drawing many runs: panels of lines, each the median of a group of runs with a band."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.report.figures.style import DIVERGED, Scale, colours, fit, legend_below, sheet
from gradlab.report.groups import Levels, members, quantile, short
from gradlab.report.layout import MOST, Layout, thin
from gradlab.report.tables import Bools, Floats, Ints, Result

Dash = Literal["-"] | tuple[float, tuple[float, float]]
SERIES_DASH: tuple[Dash, ...] = ("-", (0, (4, 2)))
BAND = (0.1, 0.9)
WRAP = 4
MOST_PANELS = 12


Fitted = Callable[..., Scale]
"""`fit`, or another of its form: the scale that holds some values."""


@dataclass(frozen=True)
class Series:
    """What one line style stands for: log10 values (R, X), and its word in the legend where there are two.

    ``ink``: the colour of lines that are thin and without dots, over those of the measured values; a group that has no
    such values for one of its runs has no such line.
    """

    logs: Floats
    word: str = ""
    ink: str | None = None


@dataclass(frozen=True)
class Drawn:
    """A finished figure and what its caption must say about grouping."""

    figure: Figure
    grouping: str


@dataclass(frozen=True)
class Line:
    """One line of one panel: log10 values (X,), those of its band, and how many runs it stands for.

    ``over``: a thin line without dots, over the others.
    """

    panel: int
    colour: str
    style: Dash
    middle: Floats
    band: tuple[Floats, Floats] | None
    runs: int
    over: bool


def draw(
    result: Result,
    layout: Layout,
    x: Ints,
    series: Sequence[Series],
    *,
    labels: tuple[str, str],
    dress_x: Callable[[Axes], None],
    marks: Floats | None = None,
    line: tuple[float, str] | None = None,
    cap: float = np.inf,
    dots: bool = False,
    spare: Bools | None = None,
    fitted: Fitted = fit,
) -> Drawn:
    """Lines of log10 values over ``x`` (X,), grouped as ``layout`` says.

    ``labels``: of the x and y axis. ``marks`` (R,): where on x a run diverged, NaN where not; drawn as crosses in the
    upper strip. ``line``: a level to mark and its word. ``cap``: values above it are drawn in the upper strip, so that
    one explosion does not flatten all else. ``dots``: a dot at each x (where x are layers).
    ``spare`` (R,): runs left out of a group that has others. ``fitted``: with `fit_plain`, values instead of log10.
    """
    known = (result.state != "finished") | np.any([~np.isnan(one.logs).all(axis=1) for one in series], axis=0)
    cells, across = _cells(layout, known)
    hues = thin(layout.colour, 8 if layout.colour is not None and not layout.colour.ordered else MOST["colour"])
    palette = colours(layout.colour, hues)
    dashes = thin(layout.dash, MOST["dash"])
    groups = [
        (panel, hue, dash, _group(result, layout, row, column, hues[hue], dashes[dash]))
        for panel, (row, column) in enumerate(cells)
        for hue in range(len(hues))
        for dash in range(len(dashes))
    ]
    lines = [
        drawn
        for panel, hue, dash, group in groups
        for number, one in enumerate(series)
        for drawn in _lines(
            one, _without(group, spare), panel, palette[hues[hue]], SERIES_DASH[max(dash, number)], number == 0
        )
    ]
    broken = marks is not None and any((~np.isnan(marks[group])).any() for *_, group in groups)
    scale = fitted(*_values(lines, line), broken=broken, cap=cap)
    down = -(-len(cells) // across)
    figure = sheet(9.0 if across * down == 1 else 11.0, 4.6 if down == 1 else 1.1 + 2.15 * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for number, (row, column) in enumerate(cells):
        axes: Axes = grid.flat[number]
        here = np.any([group for panel, *_, group in groups if panel == number], axis=0)
        _headings(axes, result, layout, here, row, column, number, across)
        if not here.any():
            axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", va="center", color="#777777")
        scale.dress(axes, ticks=7 if down == 1 else 5)
        dress_x(axes)
        if line is not None:
            axes.axhline(line[0], color="#444444", linewidth=1, linestyle=":", zorder=1)
        if number + across >= len(cells):
            axes.set_xlabel(labels[0])
            axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    for one in lines:
        _draw_line(
            grid.flat[one.panel], scale, x, one, dots, marks is not None, min(0.16, 0.4 * len(cells) / len(lines))
        )
    stops = np.full(result.size, np.nan) if marks is None else marks
    for panel, hue, _, group in groups:
        places = np.unique(stops[group & ~np.isnan(stops)])
        height = np.full(len(places), scale.ceiling)
        grid.flat[panel].plot(places, height, "x", color=palette[hues[hue]], markersize=6, zorder=4, mew=1.6)
    figure.supylabel(labels[1], fontsize=10)
    legend_below(figure, *_legend(layout, hues, palette, dashes, series, line, marks))
    words = [_grouping(layout, hues, dashes, cells, [one.runs for one in lines])] if result.size > 1 else []
    if scale.beyond:
        words.append('The strip "beyond" holds what is above the scale, inf and nan.')
    if result.size > 1 and (result.state == "diverged").any():
        words.append(f"× k/n: k of the n runs{' of a panel' if len(cells) > 1 else ''} diverged.")
    return Drawn(figure, " ".join(words))


def _cells(layout: Layout, known: Bools) -> tuple[list[tuple[int | None, int]], int]:
    """The panels as places of the row key (None without) and of the column key, and how many stand side by side.

    Values none of whose runs is ``known`` (R,) to have anything to draw get no panel.
    """
    if layout.rows is None:
        columns = _with_runs(layout.columns, thin(layout.columns, MOST_PANELS), known)
        across = 3 if len(columns) in (5, 6) else min(len(columns), WRAP)
        return [(None, place) for place in columns], across
    columns = _with_runs(layout.columns, thin(layout.columns, MOST["panel"]), known)
    rows = _with_runs(layout.rows, thin(layout.rows, MOST_PANELS // len(columns)), known)
    return [(row, column) for row in rows for column in columns], len(columns)


def _with_runs(part: Levels | None, places: tuple[int, ...], known: Bools) -> tuple[int, ...]:
    """Those of ``places`` that have a known run; all where none has."""
    return tuple(place for place in places if known[members(part, place, len(known))].any()) or places


def _group(result: Result, layout: Layout, row: int | None, column: int, hue: int, dash: int) -> Bools:
    group = members(layout.rows, row or 0, result.size) & members(layout.columns, column, result.size)
    return group & members(layout.colour, hue, result.size) & members(layout.dash, dash, result.size)


def _without(group: Bools, spare: Bools | None) -> Bools:
    """The group without its spare runs, unless it has no others."""
    return group if spare is None or not (group & ~spare).any() else group & ~spare


def _lines(one: Series, group: Bools, panel: int, colour: str, style: Dash, banded: bool) -> list[Line]:
    """The line of one group of runs (R,), or none where no run of it has a value."""
    logs = one.logs[group]
    there = ~np.isnan(logs).all(axis=1)
    if not there.any() or (one.ink is not None and not there.all()):
        return []
    logs, over = logs[there], one.ink is not None
    if len(logs) == 1:
        return [Line(panel, one.ink or colour, style, logs[0], None, 1, over)]
    band = (quantile(logs, BAND[0]), quantile(logs, BAND[1])) if banded else None
    return [Line(panel, one.ink or colour, style, quantile(logs, 0.5), band, len(logs), over)]


def _ended(logs: Floats) -> Floats:
    """One run's values (X,): where they stay infinite to the end, only the first of those."""
    finite = np.flatnonzero(~np.isposinf(logs))
    last = finite[-1] if len(finite) else -1
    return np.where(np.arange(len(logs)) > last + 1, np.nan, logs)


def _values(lines: Sequence[Line], line: tuple[float, str] | None) -> list[Floats]:
    parts = [part for one in lines for part in (one.middle, *(one.band or ()))]
    return parts + ([np.array([line[0]])] if line is not None else [])


def _draw_line(axes: Axes, scale: Scale, x: Ints, one: Line, dots: bool, ends: bool, shade: float) -> None:
    known = ~np.isnan(one.middle)
    marker = "o" if (dots and len(x) <= 60 and not one.over) or known.sum() == 1 else ""
    # What is foretold along the stream of residual blocks is there at every second layer.
    shown = known if one.over else np.ones_like(known)
    axes.plot(
        x[shown],
        scale.place((_ended(one.middle) if ends and one.runs == 1 else one.middle)[shown]),
        color=one.colour,
        linestyle=one.style,
        marker=marker,
        markersize=3,
        linewidth=0.9 if one.over else None,
        zorder=3.5 if one.over else 3,
    )
    if one.band is not None:
        low, high = (scale.place(edge) for edge in one.band)
        axes.fill_between(x, low, high, color=one.colour, alpha=shade, linewidth=0, zorder=2)


def _headings(
    axes: Axes, result: Result, layout: Layout, here: Bools, row: int | None, column: int, number: int, across: int
) -> None:
    if layout.columns is not None and (number < across or row is None):
        axes.set_title(_named(layout.columns, column), loc="left")
    if layout.rows is not None and row is not None and number % across == across - 1:
        text = f"{short(layout.rows.key)} = {layout.rows.labels[row]}"
        axes.annotate(text, (1.03, 0.5), xycoords="axes fraction", rotation=270, va="center", ha="left")
    bad, failed = int((here & (result.state == "diverged")).sum()), int((here & (result.state == "failed")).sum())
    words = ([f"× {bad}/{int(here.sum())}"] if bad else []) + ([f"{failed} failed"] if failed else [])
    if words and result.size > 1:
        axes.set_title(", ".join(words), loc="right", color=DIVERGED, fontsize=9)


def _legend(
    layout: Layout,
    hues: Sequence[int],
    palette: dict[int, str],
    dashes: Sequence[int],
    series: Sequence[Series],
    line: tuple[float, str] | None,
    marks: Floats | None,
) -> tuple[list[Line2D], list[str]]:
    handles, words = [], []
    if layout.colour is not None:
        for hue in hues:
            handles.append(Line2D([], [], color=palette[hue]))
            words.append(_named(layout.colour, hue))
    if layout.dash is not None:
        for number, dash in enumerate(dashes):
            handles.append(Line2D([], [], color="#555555", linestyle=SERIES_DASH[number]))
            words.append(_named(layout.dash, dash))
    for number, one in enumerate(series):
        if one.word:
            width = None if one.ink is None else 0.9
            handles.append(Line2D([], [], color=one.ink or "#555555", linestyle=SERIES_DASH[number], linewidth=width))
            words.append(one.word)
    if line is not None:
        handles.append(Line2D([], [], color="#444444", linestyle=":", linewidth=1))
        words.append(line[1])
    if marks is not None and (~np.isnan(marks)).any():
        handles.append(Line2D([], [], color="#555555", marker="x", linestyle="", mew=1.6))
        words.append("diverged at this step")
    return handles, words


def _named(part: Levels, place: int) -> str:
    return part.labels[place] if part.key == "setting" else f"{short(part.key)} = {part.labels[place]}"


def _grouping(
    layout: Layout,
    hues: Sequence[int],
    dashes: Sequence[int],
    cells: Sequence[tuple[int | None, int]],
    counts: Sequence[int],
) -> str:
    """Sentences for the caption: how many runs a line stands for, over which keys, and what is not shown."""
    if not counts:
        return "No run has anything to draw here."
    low, high = min(counts), max(counts)
    if high == 1:
        words = ["Each line is one run."]
    else:
        runs = f"{high}" if low == high else f"{low} to {high}"
        over = f" (pooled over {', '.join(layout.pooled)})" if layout.pooled else ""
        words = [f"Each line is the median of {runs} runs{over}; the band holds the middle 80 %."]
    places = {
        id(layout.colour): hues,
        id(layout.dash): dashes,
        id(layout.rows): sorted({row for row, _ in cells if row is not None}),
        id(layout.columns): sorted({column for _, column in cells}),
    }
    for part in layout.shown():
        if len(places[id(part)]) < len(part):
            words.append(f"Shown are {len(places[id(part)])} of {len(part)} values of {part.key}.")
    return " ".join(words)
