"""The figure of `number_range`: how large weights, signals and gradients are, over what number formats can hold."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradlab.report.figures.instruments import Readings, having, panels, readings
from gradlab.report.figures.style import Plot, legend_below, sheet
from gradlab.report.groups import describe, swept
from gradlab.report.tables import Result
from gradlab.spec.choices.formats import FORMATS, SHORT

NAME = "instrument_number_range"

KINDS = {
    "delta": ("∂loss/∂z", "#b2182b"),
    "gradient": ("∂loss/∂W", "#e08214"),
    "signal": ("z", "#2166ac"),
    "weight": ("W", "#5aae61"),
}
"""What is drawn, from what underflows first on."""


def number_range_plot(result: Result) -> Plot | None:
    """Shares of the entries by their exponent at the last recorded step, a panel a setting, formats as bars below."""
    result = having(result, "delta_log2")
    found = {kind: readings(result, f"{kind}_log2").at_the_end() for kind in KINDS}
    if not len(found["delta"].run):
        return None
    runs, left_out = panels(result, found["delta"])
    low, high = _ends(list(found.values()), runs)
    figure = sheet(3.4 * len(runs) + 1.4, 4.8)
    grid = figure.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1.2))
    for (top, bars), run in zip(grid.T, runs, strict=True):
        for kind, (_, colour) in KINDS.items():
            own = found[kind].where(found[kind].run == run)
            top.stairs(own.value, np.append(own.index, own.index[-1] + 1), color=colour, fill=True, alpha=0.15)
            top.stairs(own.value, np.append(own.index, own.index[-1] + 1), color=colour, linewidth=1.4)
        top.set_title(describe(result, run, swept(result)) if result.size > 1 else "", loc="left")
        _formats(bars)
        bars.set_xlim(low, high)
        bars.set_xlabel("log₂ of the size")
    grid[0, 0].set_ylabel("share of the entries")
    handles = [Line2D([], [], color=colour, linewidth=2.4) for _, colour in KINDS.values()]
    legend_below(figure, handles, [label for label, _ in KINDS.values()])
    caption = (
        "Of all entries of a kind that are not zero, how many have which size, in double precision. Dark bars are the "
        "normal numbers of a format, light ones its subnormals, which lose digits; what lies left of a bar becomes "
        f"zero, what lies right of it infinite. A loss scale of 2ᵏ moves both gradients by k to the right.{left_out}"
    )
    return Plot(NAME, "Sizes of numbers beside what formats hold", caption, figure)


def _ends(found: list[Readings], runs: list[int]) -> tuple[int, int]:
    """Where the axis begins and ends: what is there, and float16's range."""
    here = np.concatenate([one.index[(one.value > 0) & np.isin(one.run, runs)] for one in found])
    return min(int(here.min(initial=-26)), -26) - 1, max(int(here.max(initial=16)), 16) + 2


def _formats(axes: Axes) -> None:
    for row, name in enumerate(SHORT):
        form = FORMATS[name]
        least, normal, most = (math.log2(bound) for bound in (form.smallest, form.smallest_normal, form.largest))
        axes.barh(row, most - normal, left=normal, height=0.6, color="#4d4d4d")
        axes.barh(row, normal - least, left=least, height=0.6, color="#bababa")
    axes.set_yticks(range(len(SHORT)), SHORT)
    axes.invert_yaxis()
    axes.grid(visible=False)
