"""Figures over two swept keys: final and held-out loss, accuracy, vanishing ratio, and the share that diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator

from gradlab.report.figures.by_key import Shown, along, bars, dots
from gradlab.report.figures.style import (
    DIVERGED,
    THEORY,
    Plot,
    Scale,
    fit,
    fit_plain,
    legend_below,
    named_map,
    sheet,
)
from gradlab.report.groups import BINS, Levels, levels, log10, once, quantile, remaining
from gradlab.report.tables import Bools, Floats, Ints, Result
from gradlab.store.settings import REPLICATES

ANNOTATED = 64
"""Maps of at most so many cells carry their numbers."""

EMPTY = {
    (False, False): "",
    (True, False): "no run",
    (False, True): "no run that has one",
    (True, True): "no run, or none that has one",
}
"""What a grey cell is, by whether some have no run, and whether some have runs without this outcome."""

MOST_ALONG = 128
"""A numeric key of more values than this is cut into bins, even where the grid is full."""


@dataclass(frozen=True)
class Cells:
    """The runs of a map by cell: ``place`` (R,) is row * columns + column; the counts are (rows, columns)."""

    x: Levels
    y: Levels
    place: Ints
    ran: Ints
    diverged: Ints
    failed: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (y), columns (x)."""
        return len(self.y), len(self.x)

    def median(self, logs: Floats, kept: Bools) -> Floats:
        """Median over the ``kept`` runs (R,) of each cell, NaN where it has none; shape as the cells."""
        out = np.full(self.shape[0] * self.shape[1], np.nan)
        known = np.flatnonzero(kept & ~np.isnan(logs))
        order = known[np.argsort(self.place[known], kind="stable")]
        cells, first = np.unique(self.place[order], return_index=True)
        for cell, some in zip(cells, np.split(logs[order], first[1:]), strict=True):
            out[cell] = quantile(some[:, None], 0.5)[0]
        return out.reshape(self.shape)

    def best(self, values: Floats, kept: Bools, setting: Ints, side: int) -> Floats:
        """The best of the settings of each cell, least where ``side`` is 1 and largest where it is -1.

        ``setting`` (R,) numbers the settings, each of which counts with the median over its ``kept`` seeds (R,); one
        of which a seed is left out counts only where the cell has no other.
        """
        out = np.full(self.shape[0] * self.shape[1], np.nan)
        known, whole = kept & ~np.isnan(values), np.zeros(len(out), dtype=bool)
        order = np.argsort(setting, kind="stable")
        for own in np.split(order, np.flatnonzero(np.diff(setting[order])) + 1):
            some = own[known[own]]
            if not len(some):
                continue
            cell, all_kept = int(self.place[own[0]]), len(some) == len(own)
            value = float(quantile(values[some][:, None], 0.5)[0])
            behind = whole[cell] and not all_kept
            better = np.isnan(out[cell]) or side * value < side * out[cell] or (all_kept and not whole[cell])
            if better and not behind:
                out[cell] = value
            whole[cell] |= all_kept
        return out.reshape(self.shape)


def map_plots(result: Result, keys: Sequence[str], early: Sequence[str]) -> Iterator[Plot]:
    """Maps over two keys, or dots over one: what training led to over ``keys``, the vanishing ratio over ``early``.

    None where nothing varies, or nothing that matters at step 0.
    """
    if result.size < 2:
        return
    # A map counts all runs; a dot is drawn for each, so of too many runs only for some.
    told = result.every if len(keys) > 1 else result
    loss, heldout = log10(told.number("loss_final")), log10(told.number("loss_heldout"))
    finished = told.state == "finished"
    for shown in (
        Shown("final_loss", "Final loss", "final loss", loss, finished, 1),
        Shown("heldout_loss", "Held-out loss", "loss on held-out data", heldout, finished, 1),
        Shown("accuracy", "Accuracy", "accuracy on held-out data", told.number("accuracy"), finished, -1, True),
    ):
        yield from _outcome(told, keys, shown)
    # Runs that differ in nothing before their first update are one run here.
    told = result.every if len(early) > 1 else result
    first = once(told)
    some, ratio, ran = told.only(first), log10(told.number("vanishing_ratio")), told.state != "failed"
    shown = Shown("vanishing_ratio", "Vanishing ratio at step 0", "vanishing ratio, step 0", ratio[first], ran[first])
    yield from _outcome(some, early, shown)
    # Where nothing diverged and nothing failed, a picture of it would be empty.
    told = result.every
    if (told.state == "finished").all():
        return
    if len(keys) == 1:
        yield bars(told, along(told, keys[0]))
    elif keys:
        yield _share(_cells(told, keys[0], keys[1]), remaining(told, keys))


def _outcome(result: Result, keys: Sequence[str], shown: Shown) -> Iterator[Plot]:
    """The figure of one outcome; none where no run has it, or where no key can matter to it."""
    if not keys or np.isnan(shown.values[shown.kept]).all():
        return
    if len(keys) == 1:
        yield dots(result, along(result, keys[0]), shown)
        return
    cells, setting, ranked = _cells(result, keys[0], keys[1]), np.empty(result.size, np.int64), result.settings
    setting[ranked.places] = np.repeat(np.arange(len(ranked)), np.diff(ranked.edges))
    critical = _critical(result, cells, shown.kept) if shown.centred else None
    values = (
        cells.median(shown.values, shown.kept)
        if shown.centred
        else cells.best(shown.values, shown.kept, setting, shown.side)
    )
    yield _map(cells, shown, values, remaining(result, keys), critical)


def _critical(result: Result, cells: Cells, kept: Bools) -> Floats | None:
    """log10 χ₁ by theory of each cell; None where it does not cross 0, or is not of the two keys of the map alone."""
    if not (cells.x.ordered and cells.y.ordered) or min(cells.shape) < 2:
        return None
    logs = log10(result.theory("chi1"))
    known = kept & np.isfinite(logs)
    if not known.any():
        return None
    middle = cells.median(logs, known)
    own = np.allclose(logs[known], middle.ravel()[cells.place[known]], rtol=0, atol=1e-9)
    crosses = np.nanmin(middle) < 0 < np.nanmax(middle)
    return middle if crosses and (own or _binned(cells)) else None


def _cells(result: Result, x: str, y: str) -> Cells:
    across, along = levels(result, x), levels(result, y)
    sparse = len(across) * len(along) > 4 * result.size
    across, along = (
        levels(result, part.key, bins=BINS) if sparse or len(part) > MOST_ALONG else part for part in (across, along)
    )
    place = along.code * len(across) + across.code

    def count(kept: Bools) -> Ints:
        return np.bincount(place[kept], minlength=len(across) * len(along)).reshape(len(along), len(across))

    state = result.state
    return Cells(across, along, place, count(state != "failed"), count(state == "diverged"), count(state == "failed"))


def _map(cells: Cells, shown: Shown, logs: Floats, others: Sequence[str], critical: Floats | None) -> Plot:
    """The map of values (rows, columns), log10 unless they are plain."""
    finite, centred = logs[np.isfinite(logs)], shown.centred
    if centred:
        reach = max(0.3, float(np.quantile(np.abs(finite), 0.95)) if finite.size else 1.0)
        scale, ramp = Scale(-reach, reach, False, False), "RdBu_r"
    else:
        scale, ramp = (fit_plain if shown.plain else fit)(finite), "cividis_r" if shown.side > 0 else "cividis"
    cmap = named_map(ramp)
    clipped = np.where(np.isneginf(logs), -1e9, np.where(np.isposinf(logs), 1e9, logs))

    def text(row: int, column: int) -> str:
        value = logs[row, column]
        words = "" if np.isnan(value) else shown.number(float(value))
        bad = int(cells.diverged[row, column])
        return words + (f"\n× {bad}/{cells.ran[row, column]}" if bad and not centred else "")

    figure, axes = _grid(cells, clipped, cmap, Normalize(scale.low, scale.high), text)
    beyond = finite.size and (finite.min() < scale.low - 1e-9 or finite.max() > scale.high + 1e-9)
    extend = "neither" if not (beyond or np.isinf(logs).any()) else "both"
    bar = figure.colorbar(axes.collections[0], ax=axes, extend=extend, pad=0.02)
    bar.set_label(shown.label)
    scale.dress(bar.ax)
    bar.ax.set_ylim(scale.low, scale.high)
    patches: list[Artist] = [*_hatch(axes, cells, np.isnan(logs))]
    if critical is not None:
        axes.contour(np.ma.masked_invalid(critical), [0.0], colors=THEORY, linewidths=1.4, linestyles="--", zorder=2)
        line = Line2D([], [], color=THEORY, linewidth=1.4, linestyle="--", label="χ₁ = 1, critical by theory")
        patches.append(line)
    if not centred and cells.shape[0] * cells.shape[1] > ANNOTATED:
        rows, columns = np.nonzero((cells.diverged > 0) & ~np.isnan(logs))
        if len(rows):
            axes.plot(columns, rows, "x", color=DIVERGED, markersize=4)
            patches.append(Patch(facecolor="none", edgecolor="none", label="× some runs diverged"))
    legend_below(figure, patches, [str(patch.get_label()) for patch in patches])
    if centred:
        words = f"Each cell is the median of its runs{_pool(cells, others)}."
        words += (
            " ‖δ‖ of layer 1 over that of layer L-1 at step 0 (of an RNN, of time step 1 over T): blue, below 1, "
            "vanishes towards the input; red, above 1, explodes."
        )
    else:
        words = _best_words(cells, others)
    if not centred and cells.diverged.any():
        words += f" × counts the diverged runs of a cell, {int(cells.diverged.sum())} in all; hatched: all of them."
    title = f"{shown.title} by {cells.x.key} and {cells.y.key}"
    return Plot(f"{shown.name}_map", title, words + _bin_words(cells), figure)


def _best_words(cells: Cells, others: Sequence[str]) -> str:
    """What a cell of the best settings is: a median over all other keys would hide that one of them works."""
    inside, total = [key for key in others if key not in REPLICATES], cells.ran + cells.failed
    if total.max() == 1:
        return "Each cell is one run."
    seeds = ", each with the median over its seeds" if len(inside) < len(others) else ""
    if inside:
        pool = _pool(cells, inside).replace("pooled over", "best over")
        return f"Each cell is the best of its settings{pool}{seeds}."
    return f"Each cell is the median over its seeds{_pool(cells, others)}."


def _share(cells: Cells, others: Sequence[str]) -> Plot:
    share = np.where(cells.ran > 0, cells.diverged / np.maximum(cells.ran, 1), np.nan)

    def text(row: int, column: int) -> str:
        failed = int(cells.failed[row, column])
        words = f"{cells.diverged[row, column]}/{cells.ran[row, column]}" if cells.ran[row, column] else ""
        return words + (f"\n{failed} failed" if failed else "")

    cmap = named_map("Reds")
    figure, axes = _grid(cells, share, cmap, Normalize(0, 1), text)
    bar = figure.colorbar(axes.collections[0], ax=axes, pad=0.02)
    bar.set_label("share of runs that diverged")
    bar.ax.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    patches = _hatch(axes, cells, np.zeros(cells.shape, dtype=bool) | (cells.ran == 0), only_failed=True)
    legend_below(figure, patches, [str(patch.get_label()) for patch in patches])
    total = f"{int(cells.diverged.sum())} of {int(cells.ran.sum())} runs diverged"
    failed = f"; {int(cells.failed.sum())} failed, in no share" if cells.failed.any() else ""
    words = f"{total}{failed}." + (
        f" Diverged / all runs of a cell{_pool(cells, others)}." if cells.diverged.any() else ""
    )
    return Plot(
        "diverged_map", f"Share of diverged runs by {cells.x.key} and {cells.y.key}", words + _bin_words(cells), figure
    )


def _pool(cells: Cells, others: Sequence[str]) -> str:
    total = cells.ran + cells.failed
    some = total[total > 0]
    if some.max() == 1:
        return ", one run each"
    count = f"{some.max()}" if some.min() == some.max() else f"{some.min()} to {some.max()}"
    return f" ({count} runs, pooled over {', '.join(others)})" if others else f" ({count} runs)"


def _binned(cells: Cells) -> list[str]:
    return [part.key for part in (cells.x, cells.y) if any("…" in word for word in part.labels)]


def _bin_words(cells: Cells) -> str:
    binned = _binned(cells)
    return f" {' and '.join(binned)} cut into bins of about equal count." if binned else ""


def _grid(
    cells: Cells, values: Floats, cmap: Colormap, norm: Normalize, text: Callable[[int, int], str]
) -> tuple[Figure, Axes]:
    """A map with its tick labels; small maps carry the text of each cell."""
    rows, columns = cells.shape
    width, height = min(9.0, max(5.2, 2.4 + 0.9 * columns)), min(7.0, max(3.2, 1.6 + 0.55 * rows))
    figure = sheet(width, height)
    axes = figure.subplots()
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=cmap,
        norm=norm,
        rasterized=True,
    )
    axes.grid(False)
    for axis, part in ((axes.xaxis, cells.x), (axes.yaxis, cells.y)):
        step = -(-len(part) // 16)
        axis.set_major_locator(FixedLocator(list(range(0, len(part), step))))
        axis.set_ticklabels(part.labels[::step])
    if max(map(len, cells.x.labels)) * columns > 9 * width:
        axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel(cells.x.key)
    axes.set_ylabel(cells.y.key)
    if not cells.y.ordered:
        axes.invert_yaxis()
    if rows * columns <= ANNOTATED and columns <= 12:
        for row in range(rows):
            for column in range(columns):
                words = text(row, column)
                red, green, blue, _ = cmap(norm(values[row, column]))
                dark = not np.isnan(values[row, column]) and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                axes.text(
                    *(column, row, words),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if dark else "black",
                    # A critical line runs behind the numbers, not through them.
                    path_effects=[withStroke(linewidth=3, foreground=(red, green, blue))],
                )
    return figure, axes


def _hatch(axes: Axes, cells: Cells, empty: Bools, *, only_failed: bool = False) -> list[Patch]:
    """Hatches the ``empty`` cells by their reason; returns what the legend needs."""
    patches = []
    reasons = [
        (empty & (cells.diverged > 0) & (not only_failed), "////", DIVERGED, "all runs diverged"),
        (empty & (cells.ran == 0) & (cells.failed > 0), "....", "#555555", "all runs failed"),
    ]
    for where, hatch, colour, word in reasons:
        rows, columns = np.nonzero(where)
        if len(rows):
            boxes = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in zip(rows, columns, strict=True)]
            axes.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=colour, hatch=hatch, linewidth=0.3))
            patches.append(Patch(facecolor="none", edgecolor=colour, hatch=hatch, label=word))
    here = cells.ran + cells.failed > 0
    # Such as a final loss of runs that were measured at their initial weights alone.
    without = empty & (cells.ran > 0) & (cells.diverged == 0)
    words = EMPTY[bool((empty & ~here).any()), bool(without.any())]
    if words:
        patches.append(Patch(facecolor="#f2f2f2", edgecolor="#bbbbbb", label=words))
    return patches
