"""Figures by layer and step: of the activations, and of the gradients and updates of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gradlab.report.figures.layer_names import layer_ticks, of_several_kinds
from gradlab.report.figures.layer_profiles import even_places, examples, panel_title
from gradlab.report.figures.style import DIVERGED, Plot, Scale, delta_map, fit, legend_below, named_map, sheet
from gradlab.report.groups import log10, swept, varying
from gradlab.report.tables import Floats, Ints, Result


@dataclass(frozen=True)
class Quantity:
    """A column of `layers`, and what stands beside its colours; a share lies in 0..1, the rest is drawn as log10."""

    column: str
    label: str
    share: bool
    ramp: str = "viridis"


ACTIVATIONS = (
    Quantity("act_std", "standard deviation of h", False),
    Quantity("act_correlation", "mean cosine of two samples", True, "magma_r"),
    Quantity("saturated", "share of saturated entries", True, "magma_r"),
    Quantity("dead", "share of dead units", True, "magma_r"),
    Quantity("attention_entropy", "entropy of attention", True, "magma"),
)

MOST_NAMES = 14
"""Names above each other beside one panel of several."""


UPDATES = (
    Quantity("weight_grad_norm", "‖∂loss/∂W‖", False),
    Quantity("update_ratio", "‖ΔW‖/‖W‖", False),
)


@dataclass(frozen=True)
class Panel:
    """One run: why it is shown, its place, the recorded steps (K,), the layers (N,) and each quantity (N, K).

    ``names`` (N,) are those of the layers.
    """

    why: str
    run: int
    steps: Ints
    layers: Ints
    values: dict[str, Floats]
    names: list[str]


def activations_plot(result: Result, ids: Sequence[str] | None = None) -> Plot | None:
    """A row a quantity that was measured, a column a run; None where no layer has any of them.

    ``ids``: of the runs that are shown, by default the `examples` of a sweep.
    """
    caption = (
        "h is what a layer passes on. Where its spread changes from layer to layer the signal grows or fades on its "
        "way to the output; where the cosine nears 1 the layers above cannot tell samples apart; a saturated entry has "
        "a slope below 5 % of the largest, a dead unit none on the whole batch. Attention whose entropy nears 0 looks "
        "at one place. Grey: not measured, or no number."
    )
    words = ("activations_by_layer_and_step", "Activations by layer and step", caption)
    return _plot(result, ids, ACTIVATIONS, words)


def updates_plot(result: Result, ids: Sequence[str] | None = None) -> Plot | None:
    """The gradient of each weight matrix before clipping, and its relative update, as `activations_plot`."""
    caption = (
        "Each layer's weight matrix: the norm of its gradient before clipping, and by how much a step changes it. Rows "
        "of one colour learn alike; a layer that stays dark hardly learns (10⁻³ is usual of the update), a white one "
        "did not move at all. Grey: not measured, or no number; after the last step no update follows."
    )
    words = ("updates_by_layer_and_step", "Gradients and updates of the weights by layer and step", caption)
    return _plot(result, ids, UPDATES, words)


def _plot(
    result: Result, ids: Sequence[str] | None, quantities: Sequence[Quantity], words: tuple[str, str, str]
) -> Plot | None:
    """Colours over layer and step; ``words`` are name, title and caption."""
    panels = [_panel(result, why, run, quantities) for why, run in examples(result, ids)]
    shown = [one for one in quantities if any(np.isfinite(panel.values[one.column]).any() for panel in panels)]
    if not shown:
        return None
    figure = sheet(9.0 if len(panels) == 1 else 11.0, 0.8 + 2.5 * len(shown))
    grid = figure.subplots(len(shown), len(panels), squeeze=False)
    special = [patch for row, one in zip(grid, shown, strict=True) for patch in _row(figure, list(row), panels, one)]
    patches = {str(patch.get_label()): patch for patch in special}
    legend_below(figure, list(patches.values()), list(patches))
    if result.size > 1:
        keys = swept(result) or varying(result)
        for axes, panel in zip(grid[0], panels, strict=True):
            axes.set_title(panel_title(result, panel.why, panel.run, keys), loc="left", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("recorded step")
    name, title, caption = words
    if result.size > 1:
        caption += f" {'Examples, ' if ids is None else ''}{len(panels)} of {result.size} runs."
    return Plot(name, title, caption, figure)


def _panel(result: Result, why: str, run: int, quantities: Sequence[Quantity]) -> Panel:
    table = result.tables["layers"]
    own = pc.and_(pc.equal(table["run_id"], result.columns["run_id"][run]), pc.equal(table["axis"], "depth"))
    table = table.filter(pc.and_(own, pc.greater(table["layer"], 0)))
    steps, column = np.unique(table["step"].to_numpy(), return_inverse=True)
    layers, row = np.unique(table["layer"].to_numpy(), return_inverse=True)
    values = {}
    for one in quantities:
        values[one.column] = np.full((len(layers), len(steps)), np.nan)
        if one.column in table.column_names:
            values[one.column][row, column] = table[one.column].to_numpy()
    names = dict(zip(row.tolist(), table["name"].to_pylist(), strict=True))
    return Panel(why, run, steps, layers, values, [str(names[place]) for place in range(len(layers))])


def _row(figure: Figure, row: list[Axes], panels: list[Panel], one: Quantity) -> list[Patch]:
    """One quantity of all runs on one scale of colours; what a legend says of those beyond its ends."""
    drawn = [panel.values[one.column] if one.share else log10(panel.values[one.column]) for panel in panels]
    scale = fit(*drawn)
    low, high = (0.0, 1.0) if one.share else (scale.low, scale.high)
    for axes, panel, values in zip(row, panels, drawn, strict=True):
        axes.pcolormesh(
            np.arange(len(panel.steps) + 1) - 0.5,
            np.append(panel.layers, panel.layers[-1] + 1) - 0.5 if len(panel.layers) else [0, 1],
            np.ma.masked_invalid(np.where(np.isinf(values), np.where(values < 0, low - 1, high + 1), values)),
            cmap=named_map(one.ramp) if one.share else delta_map(),
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        axes.set_facecolor("#f2f2f2")
        axes.grid(False)
        by_name = dict(zip(panel.layers.tolist(), panel.names, strict=True)) if of_several_kinds(panel.names) else {}
        layer_ticks(axes.yaxis, by_name, MOST_NAMES, numbers=5)
        axes.tick_params(labelleft=not by_name or axes is row[0] or panel.names != panels[0].names)
        places = even_places(len(panel.steps), 6)
        axes.set_xticks(places, [str(panel.steps[place]) for place in places])
    if not of_several_kinds(panels[0].names):
        row[0].set_ylabel("layer (input at the bottom)")
    bar = figure.colorbar(row[0].collections[0], ax=row, pad=0.01)
    bar.set_label(one.label)
    if one.share:
        return []
    Scale(low, high, False, False).dress(bar.ax, ticks=5)
    bar.ax.set_ylim(low, high)
    special = [(scale.zero, "#ffffff", "exactly 0"), (scale.broken, DIVERGED, "inf")]
    return [Patch(facecolor=colour, edgecolor="#888888", label=word) for there, colour, word in special if there]
