"""Figures of what an instrument gave: curves over layers, lags or time, courses over the steps, a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from gradlab.report.figures.panels import Fitted, Series, draw
from gradlab.report.figures.style import Plot, fit, fit_plain, integer_ticks, legend_below, named_map, sheet
from gradlab.report.groups import describe, log10, settings, swept
from gradlab.report.layout import Layout, arrange
from gradlab.report.tables import Bools, Floats, Ints, Result

MOST_PANELS = 4
"""Settings that a figure with a panel for each shows."""

MOST_DECADES = 8
"""Of the colours of a plane."""

BESIDE = "#222222"
"""The ink of a bound or a prediction."""


def _logs_of_logs(values: Floats) -> Floats:
    """The decimal logarithm of what is kept as a natural one."""
    return values / math.log(10)


def _as_it_is(values: Floats) -> Floats:
    return values


@dataclass(frozen=True)
class Drawing:
    """How a quantity is drawn: ``axes`` are the labels of x and y, ``read`` says how to read it.

    ``shown`` turns its values into those of the scale that ``fitted`` makes; ``beside`` is a quantity drawn thin over
    it, and its word in the legend. ``alone``: of each setting one run is drawn, for medians of such curves mean
    nothing.
    """

    title: str
    axes: tuple[str, str]
    read: str
    shown: Callable[[Floats], Floats] = log10
    fitted: Fitted = fit
    beside: tuple[str, str] | None = None
    alone: bool = False


OVER_INDEX: dict[str, Drawing] = {
    "singular_value": Drawing(
        "Singular values of the input-output Jacobian",
        ("k, from the largest to the smallest", "singular value"),
        "Where the line is flat, all directions keep their length alike; where it falls, a few carry all of it. "
        "Below 10⁻¹⁶ of the largest there is only rounding. ",
    ),
    "hidden_singular_value": Drawing(
        "Singular values of the way from the first hidden signal to the last",
        ("k, from the largest to the smallest", "singular value"),
        "Where the line is flat, all directions of a signal pass the layers alike. "
        "Below 10⁻¹⁶ of the largest there is only rounding. ",
    ),
    "log_square": Drawing(
        "Squared gradient of one output by layer",
        ("layer (input → output)", "‖∂y/∂zₗ‖²"),
        "The band is what finite width does: equally initialized networks differ, more with every layer. ",
        shown=_logs_of_logs,
    ),
    "autocorrelation": Drawing(
        "Autocorrelation of the input gradient",
        ("lag, in points of the grid", "autocorrelation"),
        "Near 1 at small lags: neighbouring inputs have nearly the same gradient. Near 0: it is white noise. ",
        shown=_as_it_is,
        fitted=fit_plain,
    ),
    "input_gradient": Drawing(
        "Input gradient along the grid",
        ("point of the grid (-2 → 2)", "∂y/∂x over its spread"),
        "The gradient less its mean, over its standard deviation. A smooth curve, a random walk or shattered. ",
        shown=lambda values: (values - np.nanmean(values, 1, keepdims=True)) / np.nanstd(values, 1, keepdims=True),
        fitted=fit_plain,
        alone=True,
    ),
    "jacobian_norm": Drawing(
        "Reach of a recurrent state",
        ("time steps between, k", "‖∂h(T)/∂h(T-k)‖"),
        "How much of the state k steps ago is left in the last one; thin lines are the bound (γρ)ᵏ. ",
        beside=("bound", "bound (γρ)ᵏ"),
    ),
    "correlation": Drawing(
        "Correlation of two inputs by layer",
        ("layer (input → output)", "correlation of zₗ"),
        "Towards 1: what was different becomes the same (order). Towards less: what was alike parts (chaos). ",
        shown=_as_it_is,
        fitted=fit_plain,
    ),
    "token_distance": Drawing(
        "Distance of the places of a sequence to their mean, by layer",
        ("layer (input → output)", "‖X - mean‖/‖X‖"),
        "Near 1 the places are as different as random vectors; towards 0 they become one, and what was said at each is "
        "lost. Attention alone does that doubly exponentially in depth; skips prevent it. ",
    ),
    "token_cosine": Drawing(
        "Cosine of two places of a sequence by layer",
        ("layer (input → output)", "mean cosine"),
        "Towards 1 all places of a sequence have become one direction. ",
        shown=_as_it_is,
        fitted=fit_plain,
    ),
    "signal_change": Drawing(
        "How far training has moved the signals",
        ("layer (input → output)", "rms of zₗ(t) - zₗ(0)"),
        "Where lines of different widths lie on each other, networks of all widths train alike, and one learning rate "
        "serves them. ",
    ),
    "pretrain_loss": Drawing(
        "Loss of the pre-training",
        ("step of the pre-training, layer after layer", "loss"),
        "What the hidden layers learned of the inputs alone, before step 0. Where they are pre-trained one after the "
        "other, each begins anew. ",
    ),
    "layer_ratio": Drawing(
        "Tangent kernel of two samples by layer",
        ("layer (input → output)", "kernel of two over that of one"),
        "What a step on one sample does to another, over what it does to itself, through each layer's parameters. Near "
        "1 they cannot be told apart, near 0 nothing is carried over; thin lines are those of wide layers. ",
        shown=_as_it_is,
        fitted=fit_plain,
        beside=("layer_predicted", "theory"),
    ),
    "unmoved": Drawing(
        "Weights that training has not moved, by layer",
        ("layer (input → output)", "share with its first value"),
        "Near 0 where every weight has moved. Where it stays near 1, updates are smaller than half a step of the "
        "number format, and lost. ",
        shown=_as_it_is,
        fitted=fit_plain,
    ),
    "delta_below_float16": Drawing(
        "Derivatives by the signals that half precision cannot hold, by layer",
        ("layer (input → output)", "share below 6.1·10⁻⁵"),
        "Of ∂loss/∂zₗ the share that lies below the smallest normal number of float16, with no loss scale: from there "
        "on digits are lost, and a thousand times below all. ",
        shown=_as_it_is,
        fitted=fit_plain,
    ),
}
"""The quantities that are drawn over their index, at the last recorded step."""

OVER_STEPS: dict[str, Drawing] = {
    "log_distance": Drawing(
        "Distance of two trainings from nearly equal weights",
        ("step", "distance over that at step 0"),
        "A straight rise is a positive Lyapunov exponent: training is chaotic. A flat line: the twins stay together. ",
        shown=_logs_of_logs,
    ),
    "noise_scale": Drawing(
        "Gradient noise scale",
        ("step", "tr Σ/|G|²"),
        "The batch size at which half of a batch's gradient is noise: larger batches hardly save steps, smaller ones "
        "hardly save samples. It grows as the loss falls; where it is not finite, the gradient drowns in its noise. ",
    ),
    "sharpness": Drawing(
        "Sharpness: the largest curvature of the loss",
        ("step", "largest eigenvalue of the Hessian"),
        "Thin lines are the curvature above which descent is unstable on a quadratic, 2/lr. A sharpness that rises to "
        "its line and stays there is at the edge of stability; far above it the loss climbs. ",
        beside=("stable", "2/lr"),
    ),
}
"""The quantities that are drawn over the steps."""

PLANES, MODES = "plane_gradient", "strength"

NAMES = tuple(f"instrument_{quantity}" for quantity in (*OVER_INDEX, *OVER_STEPS, PLANES, MODES))
"""The figures of this file."""


@dataclass(frozen=True)
class Readings:
    """Rows of one quantity as flat arrays (N,); ``run`` is the place of the run, ``index`` -1 where there is none."""

    run: Ints
    step: Ints
    index: Ints
    value: Floats

    def over(self, x: Ints, runs: int) -> tuple[Ints, Floats]:
        """The distinct numbers of ``x`` (N,), and the values (R, X) over them, NaN where a run has none."""
        places, column = np.unique(x, return_inverse=True)
        out = np.full((runs, len(places)), np.nan)
        out[self.run, column] = self.value
        return places, out

    def at_the_end(self) -> Readings:
        """The rows of each run's last recorded step."""
        last = np.full(int(self.run.max(initial=-1)) + 1, -1)
        np.maximum.at(last, self.run, self.step)
        return self.where(self.step == last[self.run])

    def where(self, kept: Bools) -> Readings:
        """The ``kept`` rows (N,)."""
        return Readings(self.run[kept], self.step[kept], self.index[kept], self.value[kept])


def readings(result: Result, quantity: str) -> Readings:
    """The rows of ``quantity``."""
    table = result.tables["instruments"].filter(pc.field("quantity") == quantity)
    run = pc.index_in(table["run_id"], value_set=result.runs["run_id"].combine_chunks()).to_numpy().astype(np.int64)
    index = pc.fill_null(table["index"], -1).to_numpy()
    return Readings(run, table["step"].to_numpy(), index, table["value"].to_numpy())


def having(result: Result, quantity: str) -> Result:
    """The runs that have ``quantity``: those of other instruments would fill its legend and its keys."""
    own = np.isin(np.arange(result.size), readings(result, quantity).run)
    return result if own.all() or not own.any() else result.only(own)


def instrument_plots(result: Result) -> Iterator[Plot]:
    """A figure of each quantity that the runs have."""
    for quantity, drawing in OVER_INDEX.items():
        own = having(result, quantity)
        found = readings(own, quantity).at_the_end()
        if len(found.run):
            x, values = found.over(found.index, own.size)
            beside = None
            if drawing.beside is not None:
                others = readings(own, drawing.beside[0]).at_the_end()
                beside = others.over(others.index, own.size)[1]
            yield _lines(own, quantity, drawing, x, values, beside)
    for quantity, drawing in OVER_STEPS.items():
        own = having(result, quantity)
        found = readings(own, quantity)
        if len(np.unique(found.step)) > 1:
            x, values = found.over(found.step, own.size)
            beside = None
            if drawing.beside is not None and len((others := readings(own, drawing.beside[0])).run):
                beside = others.over(others.step, own.size)[1]
            yield _lines(own, quantity, drawing, x, values, beside)
    yield from (plot for plot in (_planes(result), _modes(result)) if plot is not None)


def _lines(result: Result, quantity: str, drawing: Drawing, x: Ints, values: Floats, beside: Floats | None) -> Plot:
    known = ~np.isnan(values).all(axis=1)
    shown = np.full(values.shape, np.nan)
    shown[known] = drawing.shown(values[known])
    series = [Series(shown)]
    if beside is not None and drawing.beside is not None:
        series.append(Series(drawing.shown(beside), drawing.beside[1], BESIDE))
    drawn = draw(
        result,
        _a_panel_each(result) if drawing.alone else arrange(result, _middle(shown), dashes=beside is None),
        x,
        series,
        labels=drawing.axes,
        dress_x=_whole_numbers,
        dots=not drawing.alone,
        spare=_repeated(result) if drawing.alone else None,
        fitted=drawing.fitted,
    )
    return Plot(f"instrument_{quantity}", drawing.title, drawing.read + drawn.grouping, drawn.figure)


def _a_panel_each(result: Result) -> Layout:
    """A panel for each setting: curves that cross everywhere cannot be told apart in one."""
    keys = swept(result)
    return Layout(None, None, settings(result, keys) if keys else None, None, ())


def _middle(values: Floats) -> Floats:
    """The mean of the finite values of each run (R,), NaN where it has none: what keys are ranked by."""
    finite = np.where(np.isfinite(values), values, 0.0)
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, finite.sum(axis=1) / np.maximum(count, 1), np.nan)


def _repeated(result: Result) -> Bools:
    """Which runs (R,) have the setting of an earlier one."""
    keys = swept(result)
    code = settings(result, keys).code if keys else np.zeros(result.size, dtype=int)
    spare = np.ones(result.size, dtype=bool)
    spare[np.unique(code, return_index=True)[1]] = False
    return spare


def _whole_numbers(axes: Axes) -> None:
    axes.margins(x=0.02)
    integer_ticks(axes.xaxis)


def panels(result: Result, found: Readings) -> tuple[list[int], str]:
    """The runs that get a panel: the first of each setting, as many as there is room for; and what is left out."""
    able = [run for run in np.unique(found.run).tolist() if not _repeated(result)[run]]
    left = len(able) - MOST_PANELS
    return able[:MOST_PANELS], f" Of {len(able)} settings the first {MOST_PANELS} are shown." if left > 0 else ""


def _planes(result: Result) -> Plot | None:
    """The gradient of a recurrent unit's loss over its two weights, a panel a setting."""
    result = having(result, PLANES)
    found = readings(result, PLANES).at_the_end()
    if not len(found.run):
        return None
    sides = [readings(result, side).at_the_end() for side in ("plane_weight", "plane_bias")]
    runs, left_out = panels(result, found)
    logs = [log10(found.where(found.run == run).value) for run in runs]
    finite = np.concatenate([values[np.isfinite(values)] for values in logs])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    # Far below lies a flat plain: the colours are for the rest.
    low = max(low, high - MOST_DECADES)
    figure = sheet(3.4 * len(runs) + 1.4, 4.2)
    grid = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, run, values in zip(grid.flat, runs, logs, strict=True):
        weight, bias = (side.where(side.run == run).value for side in sides)
        picture = axes.pcolormesh(
            weight,
            bias,
            values.reshape(len(bias), len(weight)),
            cmap=named_map("viridis"),
            vmin=low,
            vmax=high,
            shading="nearest",
            rasterized=True,
        )
        axes.set_xlabel("recurrent weight w")
        axes.set_title(describe(result, run, swept(result)) if result.size > 1 else "", loc="left")
        axes.grid(visible=False)
    grid.flat[0].set_ylabel("bias b")
    bar = figure.colorbar(picture, ax=grid.ravel().tolist(), shrink=0.9)
    bar.set_label("log₁₀ ‖∂loss/∂(w, b)‖")
    caption = (
        "Each point is a network of one unit with these two weights. A bright line through a dark plain is a cliff: "
        f"there one step goes astray unless it is clipped.{left_out}"
    )
    return Plot(f"instrument_{PLANES}", "The loss cliff of a recurrent unit", caption, figure)


def _modes(result: Result) -> Plot | None:
    """The strengths of a linear network's modes over the steps, a panel a setting, the prediction thin over them."""
    result = having(result, MODES)
    found, told = readings(result, MODES), readings(result, "predicted")
    if len(np.unique(found.step)) < 2:
        return None
    runs, left_out = panels(result, found)
    modes = np.unique(found.index).tolist()
    ramp = mpl.colormaps["viridis"](np.linspace(0, 0.8, len(modes)))
    palette = {mode: to_hex(colour) for mode, colour in zip(modes, ramp, strict=True)}
    figure = sheet(9.0 if len(runs) == 1 else 11.0, 4.2)
    grid = figure.subplots(1, len(runs), sharey=True, squeeze=False)
    for axes, run in zip(grid.flat, runs, strict=True):
        for mode, colour in palette.items():
            for one, ink, width, style in ((found, colour, 2.4, "-"), (told, "#ffffff", 1.0, (0, (2, 2)))):
                own = one.where((one.run == run) & (one.index == mode))
                axes.plot(own.step, own.value, color=ink, linewidth=width, linestyle=style)
        axes.set_xlabel("step")
        axes.set_title(describe(result, run, swept(result)) if result.size > 1 else "", loc="left")
        integer_ticks(axes.xaxis, 4)
    grid.flat[0].set_ylabel("strength uₖ′W₂W₁vₖ")
    handles = [Line2D([], [], color=colour, linewidth=2.4) for colour in palette.values()]
    legend_below(figure, handles, [f"mode {mode}" for mode in modes])
    caption = (
        "Each mode of the map is learned by itself, the strongest first, after a plateau. White dashes in the lines "
        f"are Saxe's exact solution.{left_out}"
    )
    return Plot(f"instrument_{MODES}", "Modes as they are learned", caption, figure)
