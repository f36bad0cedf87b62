"""The figure of what matters: main effects and interactions on each outcome as ranked bars."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from gradlab.report.effect_words import name
from gradlab.report.effects import Analysis, Effect
from gradlab.report.figures.style import OKABE_ITO, Plot, legend_below, sheet
from gradlab.report.groups import short

MOST_BARS = 10
"""Of each outcome; the others are named together."""

LEAST_SHARE = 0.0005
"""A smaller one would be a bar of no length beside a zero."""

LOOKS: dict[str, tuple[str, str]] = {
    "main": (OKABE_ITO[0], "one key by itself"),
    "interaction": (OKABE_ITO[4], "two keys together, beyond what each does"),
    "higher": ("#777777", "three keys or more"),
    "seeds": ("#cccccc", "between seeds"),
    "residual": ("#e4e4e4", "seeds by settings"),
}
"""Colour and word of each kind of effect; the names beside the bars tell them apart as well."""


def effects_plot(found: Sequence[Analysis]) -> Plot | None:
    """Bars of the share of variance, the largest effect on top; None where nothing could be taken apart."""
    shown = [one for one in found if one.effects]
    if not shown:
        return None
    bars = [[effect for effect in one.effects[:MOST_BARS] if effect.share >= LEAST_SHARE] for one in shown]
    figure = sheet(11.0 if len(shown) > 1 else 7.0, 1.6 + 0.27 * max(map(len, bars)))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    widest = max(effect.share for one in bars for effect in one)
    for axes, one, effects in zip(panels, shown, bars, strict=True):
        _bars(axes, effects, 100 * widest)
        axes.set_ylim(max(map(len, bars)) - 0.5, -0.5)
        rest = one.effects[len(effects) :]
        axes.set_title(one.title)
        left = sum(effect.share for effect in rest)
        more = f"\n{len(rest)} smaller: {100 * left:.1f} %" if left >= LEAST_SHARE else ""
        axes.set_xlabel(f"share of its variance, %{more}")
    kinds = [kind for kind in LOOKS if any(effect.kind == kind for one in bars for effect in one)]
    legend_below(figure, [Patch(color=LOOKS[kind][0]) for kind in kinds], [LOOKS[kind][1] for kind in kinds])
    caption = (
        "The share of an outcome's variance over the grid that each key explains by itself, and each pair beyond that "
        "(functional analysis of variance; Sobol's indices)."
    )
    return Plot("effects", "What matters: main effects and interactions", caption, figure)


def _bars(axes: Axes, effects: Sequence[Effect], widest: float) -> None:
    """Horizontal bars, each with its share at its end."""
    for place, effect in enumerate(effects):
        share = 100 * effect.share
        axes.barh(place, share, 0.7, color=LOOKS[effect.kind][0])
        axes.text(share + 0.015 * widest, place, f"{share:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(effects)), [name(effect, words=short) for effect in effects])
    axes.set_xlim(0, 1.15 * widest)
    axes.grid(False, axis="y")
