"""The figures of a cure: δ before and after the best changes, and what each change gains against its cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlab.cure.ranking import Outcome
from gradlab.report.cure import Cure
from gradlab.report.figures.layer_profiles import AXES
from gradlab.report.figures.style import DIVERGED, OKABE_ITO, Plot, fit, integer_ticks, legend_below, log_ticks, sheet
from gradlab.report.tables import Floats

MOST_PROFILES = 5
"""Changes whose profiles are drawn."""

LOOKS = {
    "heals": (OKABE_ITO[2], "o"),
    "helps": (OKABE_ITO[0], "s"),
    "unclear": (OKABE_ITO[4], "D"),
    "steadies": (OKABE_ITO[1], "v"),
    "no help": ("#9a9a9a", "x"),
    "harms": (DIVERGED, "v"),
}
"""Colour and marker of what a change came to."""

CLEAR = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
"""Behind a name, so that the intervals of neighbours do not strike it out."""

LEAST_DRAWN = -3.0
"""Of ln gains: a change that multiplies the loss by more than 20 is drawn at the edge."""


def cure_plots(found: Cure | None) -> Iterator[Plot]:
    """Both figures; none where nothing was tried."""
    if found is None or not found.tried:
        return
    if len(found.before.profile) > 1:
        yield _profiles(found.before, shown(found))
    if any(math.isfinite(one.gain) for one in found.tried):
        yield _gains(found)


def shown(found: Cure) -> list[Outcome]:
    """The smallest changes that heal, and where they are few the best others."""
    others = [one for one in found.tried if one not in found.best and len(one.profile) > 1]
    return [*found.best, *others][:MOST_PROFILES]


def _profiles(before: Outcome, shown: Sequence[Outcome]) -> Plot:
    figure = sheet(9, 4.8)
    axes = figure.subplots()
    (first, *others) = _alike([before, *shown])
    lines = [(_names(first), before, "#222222", "o", "--")]
    lines += [
        (_names(some), some[0], OKABE_ITO[place], marker, "-")
        for place, (some, marker) in enumerate(zip(others, "s^Dvp", strict=False))
    ]
    scale = fit(*(np.concatenate([one.low, one.high]) / math.log(10) for _, one, *_ in lines))
    for word, one, colour, marker, style in lines:
        x = np.arange(1, len(one.profile) + 1)
        low, middle, high = (scale.place(_decades(logs)) for logs in (one.low, one.profile, one.high))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, middle, color=colour, marker=marker, markersize=4, linestyle=style, label=word)
    scale.dress(axes)
    integer_ticks(axes.xaxis)
    axes.set_xlabel(AXES[before.axis][0])
    last = "last hidden layer" if before.axis == "depth" else "last time step"
    axes.set_ylabel(f"‖∂loss/∂{AXES[before.axis][1]}‖ over that of the {last}, step 0")
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, handles, labels)
    caption = (
        "δ at the initial weights, as a share of that of the last hidden layer (time step): median over seeds, and "
        "the band from the least to the largest. A level line passes gradients on as they are."
    )
    return Plot("cure_profiles", "δ before and after the smallest changes that help", caption, figure)


def _alike(some: Sequence[Outcome]) -> list[list[Outcome]]:
    """Changes of equal profiles together: a learning rate leaves δ at step 0 as it was, and lines would hide lines."""
    groups: dict[bytes, list[Outcome]] = {}
    for one in some:
        groups.setdefault(one.profile.tobytes(), []).append(one)
    return list(groups.values())


def _names(alike: Sequence[Outcome]) -> str:
    return " = ".join(one.name for one in alike)


def _decades(logs: Floats) -> Floats:
    return np.asarray(logs / math.log(10), dtype=float)


def _gains(found: Cure) -> Plot:
    figure = sheet(9, 5.0)
    axes = figure.subplots()
    known = [one for one in found.tried if math.isfinite(one.gain)]
    costs = sorted({one.cost for one in known})
    for place, cost in enumerate(costs):
        some = [one for one in known if one.cost == cost]
        # Side by side within their cost, so that intervals do not cover one another.
        for one, x in zip(some, place + _spread(len(some)), strict=True):
            _point(axes, one, float(x), bold=one in found.best)
    axes.axhline(0.0, color="#222222", linewidth=0.9)
    _dress(axes, known)
    axes.set_xticks(range(len(costs)), [str(cost) for cost in costs])
    axes.set_xlim(-0.6, len(costs) - 0.4)
    axes.grid(False, axis="x")
    axes.set_xlabel("cost of the change")
    axes.set_ylabel("final loss before / after")
    _legend(figure, known)
    caption = (
        "Each point is one change: by which factor it lowers the final loss, mean over seeds of its logarithm, with "
        "the 95 % interval of the paired differences. Above the line the loss is lower than that of the run as it was. "
        "Changes of one cost stand side by side. Named: the smallest changes that heal."
    )
    return Plot("cure_gains", "What each change gains, against what it costs", caption, figure)


def _spread(count: int) -> Floats:
    """Offsets (count,) about 0, at most 0.36 to either side."""
    reach = min(0.36, 0.12 * (count - 1))
    return np.linspace(-reach, reach, count)


def _point(axes: Axes, one: Outcome, x: float, *, bold: bool) -> None:
    colour, marker = LOOKS[one.state]
    y = max(one.gain, LEAST_DRAWN) / math.log(10)
    margin = one.margin / math.log(10) if math.isfinite(one.margin) and one.gain > LEAST_DRAWN else 0.0
    axes.errorbar(
        x, y, yerr=margin, color=colour, elinewidth=1.0, capsize=0, marker=marker, markersize=8 if bold else 5
    )
    if bold:
        axes.annotate(
            one.name, (x, y + margin), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9, bbox=CLEAR
        )


def _dress(axes: Axes, known: Sequence[Outcome]) -> None:
    """The vertical axis: factors on a logarithmic scale, as far as points go, and intervals half as far again."""
    gains = np.array([max(one.gain, LEAST_DRAWN) for one in known])
    margins = np.array([one.margin if math.isfinite(one.margin) and one.gain > LEAST_DRAWN else 0.0 for one in known])
    low, high = min(-0.2, gains.min()), max(0.7, gains.max())
    room = (high - low) / 2
    low = max(min(low, (gains - margins).min()), low - room) / math.log(10)
    high = min(max(high, (gains + margins).max()), high + room) / math.log(10)
    places, labels = log_ticks(low, high, 7)
    axes.set_yticks(places, labels)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.14 * (high - low))


def _legend(figure: Figure, known: Sequence[Outcome]) -> None:
    states = [state for state in LOOKS if any(one.state == state for one in known)]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=LOOKS[state][0], marker=LOOKS[state][1], linestyle="") for state in states
    ]
    legend_below(figure, handles, states)
