"""Figures along the layers: delta at the start and at the end, delta over training, the update ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gradlab.report import foretold
from gradlab.report.figures.layer_names import HIGH, WIDE, layer_ticks, names_of
from gradlab.report.figures.panels import Series, draw
from gradlab.report.figures.style import (
    DIVERGED,
    OKABE_ITO,
    THEORY,
    Plot,
    Scale,
    delta_map,
    fit,
    legend_below,
    sheet,
)
from gradlab.report.groups import LATER, calm_cap, in_words, log10, once, swept, varying
from gradlab.report.layout import Facets, arrange
from gradlab.report.tables import Floats, Ints, Result, Rows
from gradlab.report.verdicts import given

HEALTHY = (-3.0, "10⁻³: the usual healthy ratio")
AXES = {"depth": ("layer (input → output)", "zₗ"), "time": ("time step (first → last)", "zₜ")}
_READ = {
    "depth": "δₗ = ∂loss/∂zₗ over the whole batch. A line that falls towards the left vanishes on its way back to the "
    "input, one that rises to the left explodes. ",
    "time": "δₜ = ∂loss/∂zₜ of the top recurrent layer. A line that falls towards the left forgets early time steps. ",
}


_END_WORDS = (
    " The {} diverged runs ended early, with norms that are not finite: they are left out of medians and bands, except "
    "where a whole line diverged, which is then in the upper strip."
)


def _along(result: Result, axis: str) -> tuple[Result, Rows, str]:
    """The runs that can have rows along ``axis``, those rows, and a sentence about the runs left out."""
    if axis == "depth":
        return result, result.depth, ""
    timed = result.recurrent | np.isin(np.arange(result.size), result.time.run)
    if timed.all() or not timed.any():
        return result, result.time, ""
    left_out = int((~timed).sum())
    words = f" {left_out} of {result.size} runs have no time steps and are left out."
    return (some := result.only(timed)), some.time, words


def signal_plots(result: Result, axis: str, chosen: Facets | None = None) -> Iterator[Plot]:
    """Delta by layer (``axis`` depth) or by time step (time), at step 0 and at the end."""
    result, rows, left_out = _along(result, axis)
    if not len(rows.run):
        return
    start = log10(rows.profile(result.size, np.zeros(result.size, dtype=int)))
    last = _last_steps(rows, result.size)
    end = log10(rows.profile(result.size, last))
    end[np.isnan(end) & _broken(result, rows, last)] = np.inf
    place = "layer" if axis == "depth" else "time"
    names = names_of(result) if axis == "depth" else {}
    if result.size == 1:
        yield _one_signal(result, axis, place, start, end, int(last[0]), left_out)
        return
    first, columns = layer_keys(result, rows)
    cap = calm_cap(result, np.concatenate([start, end], axis=1), start)
    theory = foretold.foretold(result, start, axis)
    early = once(result)
    for name, when, some, logs in (
        ("start", "step 0", result.only(early), start[early]),
        ("end", "the end", result, end),
    ):
        if name == "end" and not (last > 0).any():
            continue
        keys = [key for key in swept(some) if name == "end" or not key.startswith(LATER)]
        layout = arrange(some, _slope(logs), keys=keys, first=first, columns=columns, chosen=chosen)
        series = [Series(logs)]
        if name == "start" and not np.isnan(theory).all():
            theories = Series(theory[early], "theory", THEORY)
            series = [Series(logs, "measured" if layout.colour is None else ""), theories]
        drawn = draw(
            some,
            layout,
            np.arange(logs.shape[1]),
            series,
            labels=(AXES[axis][0], f"‖∂loss/∂{AXES[axis][1]}‖, {when}"),
            dress_x=_dress_layers(logs, names),
            cap=cap,
            dots=True,
            spare=result.state == "diverged" if name == "end" else None,
        )
        bad = int((result.state == "diverged").sum())
        words = _END_WORDS.format(bad) if bad and name == "end" else ""
        foretells = foretold.words(result, axis) if len(series) > 1 else ""
        same = len(logs) < result.size
        alike = f" {len(logs)} of {result.size} runs differ before their first update." if same else ""
        caption = _READ[axis] + foretells + drawn.grouping + words + alike + _zero_words(logs) + left_out
        yield Plot(f"signal_by_{place}_{name}", f"δ by {AXES[axis][0].split(' (')[0]}, {when}", caption, drawn.figure)


def _zero_words(logs: Floats) -> str:
    return " A norm of exactly zero stands in the grey strip marked 0." if np.isneginf(logs).any() else ""


def _one_signal(result: Result, axis: str, place: str, start: Floats, end: Floats, last: int, left_out: str) -> Plot:
    x = np.arange(start.shape[1])
    lines = [("step 0", start[0], OKABE_ITO[0], "o", "-")]
    if last > 0:
        word = f"step {last}{', diverged' if result.state[0] == 'diverged' else ''}"
        lines.append((word, end[0], OKABE_ITO[1], "s", "--"))
    theory = foretold.foretold(result, start, axis)[0]
    edges = foretold.band(result, theory, axis)
    scale = fit(*(logs for _, logs, *_ in lines), theory, *edges)
    figure = sheet(9, 4.6)
    axes = figure.subplots()
    for word, logs, colour, marker, style in lines:
        finite = np.where(np.isposinf(logs), np.nan, logs)
        size = 4 if len(x) <= 60 else 0
        axes.plot(x, scale.place(finite), color=colour, marker=marker, markersize=size, linestyle=style, label=word)
        broken = x[np.isposinf(logs)]
        axes.plot(broken, np.full(len(broken), scale.ceiling), "x", color=colour, mew=1.6)
    if not np.isnan(theory).all():
        # Along the stream of residual blocks there is theory at every second layer.
        known = ~np.isnan(theory)
        axes.plot(
            x[known],
            scale.place(theory[known]),
            color=THEORY,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
            label="theory",
            zorder=3.5,
        )
    if edges:
        low, high = map(scale.place, edges)
        axes.fill_between(x, low, high, color=THEORY, alpha=0.08, linewidth=0, zorder=1)
    scale.dress(axes)
    _dress_layers(start, names_of(result) if axis == "depth" else {})(axes)
    axes.set_xlabel(AXES[axis][0])
    axes.set_ylabel(f"‖∂loss/∂{AXES[axis][1]}‖")
    legend_below(figure, *axes.get_legend_handles_labels())
    words = _zero_words(np.stack([logs for _, logs, *_ in lines]))
    if result.state[0] == "diverged" and np.isposinf(end).any():
        words += f" The run diverged at step {last}: norms that are inf or nan there are crosses in the upper strip."
    words += (
        (foretold.words(result, axis) + (foretold.BAND_WORDS if edges else "")) if not np.isnan(theory).all() else ""
    )
    return Plot(f"signal_by_{place}", f"δ by {AXES[axis][0].split(' (')[0]}", _READ[axis] + words + left_out, figure)


def _last_steps(rows: Rows, runs: int) -> Ints:
    """The last recorded step of each run, 0 where there is none."""
    out = np.zeros(runs, dtype=int)
    np.maximum.at(out, rows.run, rows.step)
    return out


def _broken(result: Result, rows: Rows, last: Ints) -> np.ndarray:
    """(R, L + 1): rows of a diverged run's last step, where NaN means not finite rather than not measured."""
    here = (rows.step == last[rows.run]) & (result.state == "diverged")[rows.run]
    out = np.zeros((result.size, int(rows.layer.max(initial=0)) + 1), dtype=bool)
    out[rows.run[here], rows.layer[here]] = True
    return out


def _slope(logs: Floats) -> Floats:
    """(R,): log ratio of the first layer (1, not the input) to the last that has a finite delta."""
    inner = logs[:, 1:]
    known = np.isfinite(inner)
    some = known.any(axis=1)
    runs = np.arange(len(inner))
    first, last = known.argmax(axis=1), known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    return np.where(some, np.where(known, inner, 0.0)[runs, first] - np.where(known, inner, 0.0)[runs, last], np.nan)


def layer_keys(result: Result, rows: Rows) -> tuple[str | None, str | None]:
    """The keys that decide how many layers a run has, for `arrange`: runs of different lengths are not to be pooled.

    One key in the colour where it is enough, else two, in colour and columns; none where all are of one length.
    """
    longest = np.zeros(result.size, dtype=int)
    np.maximum.at(longest, rows.run, rows.layer)
    present = np.unique(rows.run)
    lengths = longest[present].tolist()
    if len(set(lengths)) < 2:
        return None, None
    able = [key for key in ("model.depth", "model.name", "data.length", "data.name") if key in swept(result)]
    for chosen in [*combinations(able, 1), *combinations(able, 2)]:
        groups = list(zip(*([result.columns[key][run] for run in present] for key in chosen), strict=True))
        if len(set(zip(groups, lengths, strict=True))) == len(set(groups)):
            return chosen[0], chosen[1] if len(chosen) > 1 else None
    return able[0] if able else None, None


def _dress_layers(logs: Floats, names: dict[int, str]) -> Callable[[Axes], None]:
    """A function that dresses the x axis of layer figures: names, or whole numbers, from the first layer present."""
    present = np.flatnonzero(~np.isnan(logs).all(axis=0))
    low, high = (int(present[0]), int(present[-1])) if present.size else (0, 1)

    def dress(axes: Axes) -> None:
        pad = max(0.3, 0.02 * (high - low))
        axes.set_xlim(low - pad, high + pad)
        place = axes.get_subplotspec()
        columns = 1 if place is None else place.get_gridspec().ncols
        shown = {layer: name for layer, name in names.items() if low <= layer <= high}
        layer_ticks(axes.xaxis, shown, max(3, WIDE // columns))

    return dress


def update_plot(result: Result, chosen: Facets | None = None) -> Plot | None:
    """The update ratio by layer: of one run at several steps, of a sweep its median over the recorded steps."""
    rows = result.depth
    if not (~np.isnan(rows.update_ratio)).any():
        return None
    read = "‖Wₜ₊₁ - Wₜ‖/‖Wₜ‖ of each layer's weight matrix. Far below 10⁻³ a layer stands still; far above, it jumps. "
    label = "update ratio ‖ΔW‖/‖W‖"
    if result.size == 1:
        return _one_update(rows, read, label, names_of(result))
    logs = log10(rows.median_update(result.size))
    logs[:, 0] = np.nan
    outcome = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in logs])
    first, columns = layer_keys(result, rows)
    layout = arrange(result, outcome, first=first, columns=columns, chosen=chosen)
    drawn = draw(
        result,
        layout,
        np.arange(logs.shape[1]),
        [Series(logs)],
        labels=(AXES["depth"][0], label),
        dress_x=_dress_layers(logs, names_of(result)),
        line=HEALTHY,
        dots=True,
    )
    words = " A ratio of exactly zero (nothing moved) stands in the grey strip." if np.isneginf(logs).any() else ""
    caption = f"{read}The median over a run's recorded steps. {drawn.grouping}{words}"
    return Plot("update_ratio_by_layer", "Update ratio by layer", caption, drawn.figure)


def _one_update(rows: Rows, read: str, label: str, names: dict[int, str]) -> Plot:
    known = ~np.isnan(rows.update_ratio)
    steps = np.unique(rows.step[known])
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(4, len(steps))).round().astype(int))]
    figure = sheet(9, 4.6)
    axes = figure.subplots()
    parts = []
    for step in chosen:
        here = known & (rows.step == step)
        order = np.argsort(rows.layer[here])
        parts.append((int(step), rows.layer[here][order], log10(rows.update_ratio[here][order])))
    scale = fit(*(logs for _, _, logs in parts), np.array([HEALTHY[0]]))
    for number, (step, layer, logs) in enumerate(parts):
        colour = delta_map()(0.86 * number / max(1, len(parts) - 1))
        axes.plot(layer, scale.place(logs), color=colour, marker="o", markersize=3.5, label=f"step {step}")
    axes.axhline(HEALTHY[0], color="#444444", linewidth=1, linestyle=":", label=HEALTHY[1], zorder=1)
    scale.dress(axes)
    layer_ticks(axes.xaxis, {layer: name for layer, name in names.items() if layer > 0}, WIDE)
    axes.set_xlabel(AXES["depth"][0])
    axes.set_ylabel(label)
    legend_below(figure, *axes.get_legend_handles_labels())
    words = "A ratio of exactly zero (nothing moved) stands in the grey strip. " if scale.zero else ""
    caption = f"{read}{words}Shown are {len(chosen)} of {len(steps)} steps that were recorded and made an update."
    return Plot("update_ratio_by_layer", "Update ratio by layer", caption, figure)


def history_plot(result: Result, axis: str, ids: Sequence[str] | None = None) -> Plot | None:
    """Delta over layer (or time step) and step: of the one run, or of several side by side.

    ``ids``: of the runs that are shown, by default the `examples` of a sweep.
    """
    result, rows, left_out = _along(result, axis)
    place, low_end = ("layer", "input") if axis == "depth" else ("time", "first")
    keys = swept(result) or varying(result)
    panels = []
    for why, run in examples(result, ids):
        steps, layers_, delta = rows.history(run)
        if len(steps) >= 2:
            panels.append((why, run, steps, layers_, log10(delta)))
    if not panels:
        return None
    broken = [np.isnan(logs) & (result.state[run] == "diverged") for _, run, _, _, logs in panels]
    flat = [logs.reshape(1, -1) for *_, logs in panels]
    starts = np.concatenate([logs[:, 0] for *_, logs in panels])
    scale = fit(*flat, cap=float(starts[np.isfinite(starts)].max(initial=-np.inf)) + 2)
    names = names_of(result) if axis == "depth" else {}
    figure = sheet(9 if len(panels) == 1 else 11, 4.6 if len(panels) == 1 else 4.2)
    grid = figure.subplots(1, len(panels), squeeze=False)
    image = None
    for number, (why, run, steps, layers_, logs) in enumerate(panels):
        axes: Axes = grid.flat[number]
        drawn = np.where(
            np.isneginf(logs), scale.low - 1, np.where((logs > scale.high) | broken[number], scale.high + 1, logs)
        )
        # A column a recorded step, however far apart: the step at which a run diverged must stay visible.
        image = axes.pcolormesh(
            np.arange(len(steps) + 1) - 0.5,
            np.arange(len(layers_) + 1) - 0.5 + layers_[0],
            np.ma.masked_invalid(drawn),
            cmap=delta_map(),
            vmin=scale.low,
            vmax=scale.high,
            rasterized=True,
        )
        axes.grid(False)
        layer_ticks(axes.yaxis, names, HIGH)
        axes.tick_params(labelleft=number == 0 or not names)
        places = even_places(len(steps), 6)
        axes.set_xticks(places, [str(steps[place]) for place in places])
        axes.set_xlabel("recorded step")
        if number == 0:
            axes.set_ylabel(f"{AXES[axis][0].split(' (')[0]} ({low_end} at the bottom)")
        if result.size > 1:
            axes.set_title(panel_title(result, why, run, keys), loc="left", fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=list(grid.flat), pad=0.01, shrink=0.95)
        bar.set_label(f"‖∂loss/∂{AXES[axis][1]}‖")
        Scale(scale.low, scale.high, False, False).dress(bar.ax)
        bar.ax.set_ylim(scale.low, scale.high)
    special = [
        (scale.zero, "#ffffff", "exactly 0"),
        (
            any(map(np.any, broken)) or scale.broken,
            DIVERGED,
            "beyond the scale, inf or nan" if scale.beyond else "inf or nan",
        ),
    ]
    patches = [Patch(facecolor=colour, edgecolor="#888888", label=word) for there, colour, word in special if there]
    legend_below(figure, patches, [str(patch.get_label()) for patch in patches])
    what = AXES[axis][0].split(" (")[0]
    read = f"One column a recorded step, one row a {what}. "
    if result.size == 1:
        read += "Change of colour from top to bottom is vanishing or exploding, from left to right it is training."
    else:
        read += f"{'Examples, ' if ids is None else ''}{len(panels)} of {result.size} runs, on one colour scale."
    return Plot(f"signal_by_{place}_and_step", f"δ by {what} and step", read + left_out, figure)


def panel_title(result: Result, why: str, run: int, keys: Sequence[str]) -> str:
    """Why a run is shown, its id, and its values of ``keys``."""
    named = f"{why + ': ' if why else ''}{result.ids[run][:8]}"
    return f"{named}\n{wrapped(in_words(result, run, keys), 36)}"


def even_places(count: int, most: int) -> list[int]:
    """About ``most`` of the places 0..count-1 at even distances, and the last: the step at which a run diverged, say.

    >>> even_places(7, 6), even_places(8, 6), even_places(21, 6)
    ([0, 2, 4, 6], [0, 2, 4, 7], [0, 4, 8, 12, 16, 20])
    """
    stride = -(-(count - 1) // (most - 1)) or 1
    places = list(range(0, count, stride))
    return places if places[-1] == count - 1 else [*places[:-1], count - 1]


def examples(result: Result, ids: Sequence[str] | None = None) -> list[tuple[str, int]]:
    """Runs that stand for a sweep, with the reason: the best, the one that vanishes most, the last to diverge.

    Of ``ids`` those that are there, without a reason.
    """
    if result.size == 1:
        return [("", 0)]
    if ids is not None:
        return [("", place) for place, run_id in enumerate(result.ids) if run_id in ids]
    loss = np.where(result.state == "finished", result.number("loss_final"), np.nan)
    ratio, stop = log10(result.number("vanishing_ratio")), result.number("diverged_at")
    found: dict[int, str] = {}
    vanishing, exploding = (np.array([name in names for names in given(result)]) for name in ("vanishing", "exploding"))
    first = ("lowest final loss", loss) if np.isfinite(loss).any() else ("most level δ at step 0", np.abs(ratio))
    # What no verdict calls vanishing is not called so over a picture either.
    least = "strongest vanishing" if vanishing.any() else "least δ₁/δ"
    for why, values in (
        first,
        (f"{least} at step 0", np.where(vanishing, ratio, np.nan) if vanishing.any() else ratio),
        ("strongest explosion at step 0", np.where(exploding, -ratio, np.nan)),
        ("last to diverge", -stop),
    ):
        if not np.isnan(values).all():
            found.setdefault(int(np.nanargmin(values)), why)
    chosen = [(why, run) for run, why in found.items()]
    return chosen if len(chosen) <= 3 else [*chosen[:2], chosen[-1]]


def wrapped(text: str, width: int) -> str:
    """A list with commas on lines of at most ``width`` characters, where its parts are not longer themselves."""
    lines = [""]
    for word in text.split(", "):
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += (", " if lines[-1] else "") + word
    return "\n".join(lines)
