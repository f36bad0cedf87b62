"""The looks of every figure: colours, the logarithmic scale with its strips for 0 and not-finite, saving.

No pyplot and no global state: figures are made with `matplotlib.figure.Figure` under `styled`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from gradlab.report.groups import Levels
from gradlab.report.tables import Floats

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Okabe & Ito's colours for the colour-blind; its yellow, too pale for lines on white, is an ochre here."""

DIVERGED = "#b2182b"
STRIP = "#e8e8e8"
THEORY = "#222222"
DPI = 150

_STYLE: dict[Any, object] = {
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.7,
    "hatch.color": DIVERGED,
    "svg.hashsalt": "gradlab",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Plot:
    """One figure, with the file name it gets, its heading and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn and saved inside has the report's looks; the caller's settings come back afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def save(plot: Plot, out: Path) -> tuple[Path, Path]:
    """Writes the PNG and the SVG; the same data give the same bytes."""
    png, svg, figure = out / f"{plot.name}.png", out / f"{plot.name}.svg", plot.figure
    # `Figure.savefig` draws a figure once more, unseen, before each file. One layout is enough, and serves both.
    picture, usual = FigureCanvasAgg(figure), figure.dpi
    figure.dpi = DPI
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    picture.print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    figure.dpi = usual
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return png, svg


def sheet(width: float, height: float) -> Figure:
    """An empty figure, inches, that makes room for its labels and its legends."""
    return Figure(figsize=(width, height), layout="constrained")


def colours(part: Levels | None, places: Sequence[int]) -> dict[int, str]:
    """A colour for each of ``places``: viridis for numbers, Okabe & Ito's for names."""
    if part is None:
        return dict.fromkeys(places, OKABE_ITO[0])
    if part.ordered and len(places) > 1:
        ramp = mpl.colormaps["viridis"](np.linspace(0, 0.8, len(places)))
        return {place: to_hex(colour) for place, colour in zip(places, ramp, strict=True)}
    return {place: OKABE_ITO[number % len(OKABE_ITO)] for number, place in enumerate(places)}


def named_map(name: str) -> Colormap:
    """One of matplotlib's maps, with grey for what was not measured."""
    return mpl.colormaps[name].with_extremes(bad="#f2f2f2")


def delta_map() -> Colormap:
    """Viridis, its first colour for exact zeros (white) and its last for what is not finite (red)."""
    ramp = mpl.colormaps["viridis"](np.linspace(0, 1, 256))
    return ListedColormap(ramp).with_extremes(bad="#f2f2f2", under="#ffffff", over=DIVERGED)


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale over ``low``..``high`` (decades) with a strip below for 0 and one above for inf and nan."""

    low: float
    high: float
    zero: bool
    broken: bool
    beyond: bool = False

    @property
    def floor(self) -> float:
        """Where exact zeros are drawn."""
        return self.low - 0.1 * (self.high - self.low)

    @property
    def ceiling(self) -> float:
        """Where inf and nan are drawn."""
        return self.high + 0.1 * (self.high - self.low)

    def place(self, logs: Floats) -> Floats:
        """Positions of log10 values; NaN (nothing there) stays NaN."""
        above = logs > self.high + 0.05 * (self.high - self.low)
        return np.where(np.isneginf(logs), self.floor, np.where(above, self.ceiling, logs))

    def dress(self, axes: Axes, which: str = "y", *, ticks: int = 7) -> None:
        """Limits, ticks and strips of one axis, in the units of `place`."""
        span = self.high - self.low
        bottom = self.low - span * (0.15 if self.zero else 0.05)
        top = self.high + span * (0.15 if self.broken else 0.05)
        places, labels = log_ticks(self.low, self.high, ticks)
        if self.zero:
            strip = axes.axhspan if which == "y" else axes.axvspan
            strip(bottom, self.low - 0.05 * span, color=STRIP, linewidth=0, zorder=0)
            places, labels = [self.floor, *places], ["0", *labels]
        self._finish(axes, which, places, labels, (bottom, top))

    def _finish(
        self, axes: Axes, which: str, places: list[float], labels: list[str], limits: tuple[float, float]
    ) -> None:
        """The strip above, the ticks at ``places``, and the limits of one axis."""
        if self.broken:
            strip = axes.axhspan if which == "y" else axes.axvspan
            strip(self.high + 0.05 * (self.high - self.low), limits[1], color="#f7e1e3", linewidth=0, zorder=0)
            places, labels = [*places, self.ceiling], [*labels, "beyond" if self.beyond else "inf, nan"]
        axis: Axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(FixedLocator(places))
        axis.set_minor_locator(NullLocator())
        axis.set_ticklabels(labels)
        (axes.set_ylim if which == "y" else axes.set_xlim)(*limits)


def fit(*logs: Floats, broken: bool = False, cap: float = math.inf) -> Scale:
    """The scale that holds the log10 values up to ``cap``; ``broken`` keeps the upper strip whatever they are.

    Finite values above ``cap`` go to the upper strip, which is then marked "beyond".
    """
    values = np.concatenate([np.empty(0), *(part.ravel() for part in logs)])
    finite = values[np.isfinite(values)]
    beyond = bool((finite > cap).any())
    finite = finite[finite <= cap]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    if high - low < 0.05:
        low, high = low - 0.05, high + 0.05
    return Scale(
        low, high, bool(np.isneginf(values).any()), broken or beyond or bool(np.isposinf(values).any()), beyond
    )


@dataclass(frozen=True)
class Plain(Scale):
    """A linear scale over ``low``..``high``, with a strip above for inf and nan; nothing is drawn below it."""

    def dress(self, axes: Axes, which: str = "y", *, ticks: int = 7) -> None:
        """Limits, ticks and the strip of one axis."""
        span = self.high - self.low
        bottom, top = self.low - 0.05 * span, self.high + span * (0.15 if self.broken else 0.05)
        places = [
            value
            for value in MaxNLocator(nbins=ticks, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
            if bottom <= value <= top
        ]
        labels = [f"{value:.6g}".replace("-", "−") for value in places]
        self._finish(axes, which, places, labels, (bottom, top))


def fit_plain(*parts: Floats, broken: bool = False, cap: float = math.inf) -> Plain:
    """As `fit`, of the values themselves."""
    found = fit(*parts, broken=broken, cap=cap)
    return Plain(found.low, found.high, False, found.broken, found.beyond)


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(decade: int) -> str:
    """10 to the ``decade`` as text."""
    return "1" if decade == 0 else f"10{str(decade).translate(_SUPERSCRIPT)}"


def number(value: float) -> str:
    """A positive number as a tick label: 0.02, 300, 2·10⁻⁸."""
    if value == 0 or 1e-4 < abs(value) < 1e5:
        return f"{value:.6g}"
    decade = math.floor(math.log10(abs(value)) + 1e-9)
    lead = f"{value / 10.0**decade:.3g}"
    return power(decade) if lead == "1" else f"{lead}·{power(decade)}"


def log_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """At most about ``most`` ticks from 10^low to 10^high, and their labels: decades, round numbers, even steps."""
    if high - low > 2.5:
        first, last = math.ceil(low), math.floor(high)
        steps = (200, 100, 50, 20, 10, 5, 3, 2, 1)
        sparse = next((at for at, nice in enumerate(steps) if nice * most <= last - first), len(steps)) - 1
        for step in steps[sparse:]:
            decades = [decade for decade in range(first, last + 1) if decade % step == 0]
            # Two decades alone hardly make a scale: then those between are named too, or else the numbers there.
            if len(decades) > 2:
                return [float(decade) for decade in decades], [power(decade) for decade in decades]
    candidates = [
        [lead * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for lead in leads]
        for leads in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
    ]
    even = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(10.0**low, 10.0**high)
    candidates.append([float(value) for value in even if value > 0])
    inside = [[value for value in some if low - 1e-9 <= math.log10(value) <= high + 1e-9] for some in candidates]
    values = next((some for some in inside if len(some) >= 4), inside[-1])
    return [math.log10(value) for value in values], [number(value) for value in values]


def integer_ticks(axis: Axis, most: int = 9) -> None:
    """Whole numbers only: layers and steps."""
    axis.set_major_locator(MaxNLocator(nbins=most, integer=True, steps=[1, 2, 5, 10]))


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend under the axes, in as many columns as fit its width."""
    if not labels:
        return
    width, needed = figure.get_size_inches()[0] * 72, [5.4 * len(label) + 42 for label in labels]
    columns = len(labels) if sum(needed) <= width else max(1, int(width // max(needed)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
