"""The figure of the activations: their spread, and the shares of saturated and of dead units, by layer and step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.report.figures.layer_profiles import even_places, examples, wrapped
from gradlab.report.figures.style import Plot, fit, integer_ticks, named_map, sheet
from gradlab.report.groups import describe, log10, swept, varying
from gradlab.report.tables import Floats, Ints, Result


@dataclass(frozen=True)
class Quantity:
    """A column of `layers`, and what stands beside its colours; a share lies in 0..1, the rest is drawn as log10."""

    column: str
    label: str
    share: bool
    ramp: str


QUANTITIES = (
    Quantity("act_std", "standard deviation of h", False, "viridis"),
    Quantity("saturated", "share of saturated entries", True, "magma_r"),
    Quantity("dead", "share of dead units", True, "magma_r"),
)


@dataclass(frozen=True)
class Panel:
    """One run: why it is shown, its place, the recorded steps (K,), the layers (N,) and each quantity (N, K)."""

    why: str
    run: int
    steps: Ints
    layers: Ints
    values: dict[str, Floats]


def activations_plot(result: Result) -> Plot | None:
    """A row a quantity that was measured, a column a run; None where no layer has any of them."""
    panels = [_panel(result, why, run) for why, run in examples(result)]
    shown = [one for one in QUANTITIES if any(np.isfinite(panel.values[one.column]).any() for panel in panels)]
    if not shown:
        return None
    figure = sheet(9.0 if len(panels) == 1 else 11.0, 0.8 + 2.5 * len(shown))
    grid = figure.subplots(len(shown), len(panels), squeeze=False)
    for row, one in zip(grid, shown, strict=True):
        _row(figure, list(row), panels, one)
    if result.size > 1:
        keys = swept(result) or varying(result)
        for axes, panel in zip(grid[0], panels, strict=True):
            told = wrapped(describe(result, panel.run, keys), 36)
            axes.set_title(f"{panel.why}\n{told}", loc="left", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("recorded step")
    caption = (
        "h is what a layer passes on. Where its spread changes from layer to layer the signal grows or fades on its "
        "way to the output; a saturated entry has a slope below 5 % of the largest, a dead unit none on the whole "
        "batch. Grey: not measured, or no number."
    )
    if result.size > 1:
        caption += f" Examples, {len(panels)} of {result.size} runs."
    return Plot("activations_by_layer_and_step", "Activations by layer and step", caption, figure)


def _panel(result: Result, why: str, run: int) -> Panel:
    table = result.tables["layers"]
    own = pc.and_(pc.equal(table["run_id"], result.columns["run_id"][run]), pc.equal(table["axis"], "depth"))
    table = table.filter(pc.and_(own, pc.greater(table["layer"], 0)))
    steps, column = np.unique(table["step"].to_numpy(), return_inverse=True)
    layers, row = np.unique(table["layer"].to_numpy(), return_inverse=True)
    values = {}
    for one in QUANTITIES:
        values[one.column] = np.full((len(layers), len(steps)), np.nan)
        values[one.column][row, column] = table[one.column].to_numpy()
    return Panel(why, run, steps, layers, values)


def _row(figure: Figure, row: list[Axes], panels: list[Panel], one: Quantity) -> None:
    """One quantity of all runs on one scale of colours."""
    drawn = [panel.values[one.column] if one.share else log10(panel.values[one.column]) for panel in panels]
    # A spread of exactly zero, or of no number, has no colour of its own.
    scale = fit(*(np.where(np.isfinite(values), values, np.nan) for values in drawn))
    low, high = (0.0, 1.0) if one.share else (scale.low, scale.high)
    for axes, panel, values in zip(row, panels, drawn, strict=True):
        axes.pcolormesh(
            np.arange(len(panel.steps) + 1) - 0.5,
            np.append(panel.layers, panel.layers[-1] + 1) - 0.5 if len(panel.layers) else [0, 1],
            np.ma.masked_invalid(values),
            cmap=named_map(one.ramp),
            vmin=low,
            vmax=high,
            rasterized=True,
        )
        axes.set_facecolor("#f2f2f2")
        axes.grid(False)
        integer_ticks(axes.yaxis, 5)
        places = even_places(len(panel.steps), 6)
        axes.set_xticks(places, [str(panel.steps[place]) for place in places])
    row[0].set_ylabel("layer (input at the bottom)")
    bar = figure.colorbar(row[0].collections[0], ax=row, pad=0.01)
    bar.set_label(one.label)
    if not one.share:
        scale.dress(bar.ax, ticks=5)
        bar.ax.set_ylim(low, high)
