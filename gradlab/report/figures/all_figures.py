"""The figures of a report, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from gradlab.report.beforehand import beforehand
from gradlab.report.cure import Cure, cure
from gradlab.report.effects import analyses
from gradlab.report.figures.activations import activations_plot, updates_plot
from gradlab.report.figures.beforehand import beforehand_plot
from gradlab.report.figures.cure import cure_plots, shown
from gradlab.report.figures.effects import effects_plot
from gradlab.report.figures.evidence import evidence_plot
from gradlab.report.figures.heat_maps import map_plots
from gradlab.report.figures.instruments import NAMES as OF_INSTRUMENTS
from gradlab.report.figures.instruments import instrument_plots
from gradlab.report.figures.layer_profiles import history_plot, layer_keys, signal_plots, update_plot
from gradlab.report.figures.loss_curves import step_plots
from gradlab.report.figures.number_range import NAME as RANGE
from gradlab.report.figures.number_range import number_range_plot
from gradlab.report.figures.style import Plot
from gradlab.report.layout import Facets, by_id, facets
from gradlab.report.tables import Result
from gradlab.store.settings import REPLICATES

OUTCOMES = ("final_loss", "heldout_loss", "accuracy", "vanishing_ratio", "diverged")
"""What has a map over two keys, or dots over one."""

MOST_PANELS = 4
"""Runs that have a panel each beside one another."""

NAMES = (
    *("cure_gains", "cure_profiles", "verdict_evidence", "effects", "beforehand"),
    *(f"signal_by_{place}{which}" for place in ("layer", "time") for which in ("", "_start", "_end", "_and_step")),
    *(f"{what}_{shape}" for what in OUTCOMES for shape in ("map", "by_key")),
    *("loss_by_step", "gradient_norm_by_step", "update_ratio_by_layer"),
    *("updates_by_layer_and_step", "activations_by_layer_and_step"),
    *(*OF_INSTRUMENTS, RANGE),
)
"""Every figure that a report can have, by the name of its files: what is removed before a report is made again."""


def plots(
    result: Result, keys: Sequence[str], early: Sequence[str], colour: str | None = None, facet: str | None = None
) -> Iterator[Plot]:
    """Every figure that the runs have data for; none where every run failed.

    ``keys`` are those of the maps of what training led to, ``early`` of what was there at step 0. ``colour`` and
    ``facet``: the keys that have the colours and the panels of all figures, where somebody asked for them.
    """
    if (result.state == "failed").all():
        return
    if (found := cure(result)) is not None and found.tried:
        yield from _of_a_cure(result, found)
        return
    chosen = facets(result, colour, facet, layer_keys(result, result.depth))
    yield from _there(evidence_plot(result))
    yield from (*instrument_plots(result), *_there(number_range_plot(result)))
    yield from signal_plots(result, "depth", chosen)
    yield from signal_plots(result, "time", chosen)
    yield from _there(history_plot(result, "depth"), history_plot(result, "time"))
    if result.size == 1:
        yield from _there(updates_plot(result))
    yield from _there(activations_plot(result))
    yield from _there(effects_plot(analyses(result.every)), beforehand_plot(beforehand(result)))
    yield from map_plots(result, keys, early)
    yield from step_plots(result, chosen)
    yield from _there(update_plot(result, chosen))


def plots_of_runs(result: Result, chosen: Facets) -> Iterator[Plot]:
    """The figures of a few runs that were asked for, side by side: no map over keys, and no example stands for others.

    ``chosen``: the colour of each run.
    """
    if (result.state == "failed").all():
        return
    panels = [run_id for run_id, state in zip(result.ids, result.state, strict=True) if state != "failed"][:MOST_PANELS]
    yield from step_plots(result, chosen)
    yield from signal_plots(result, "depth", chosen)
    yield from signal_plots(result, "time", chosen)
    yield from _there(update_plot(result, chosen), evidence_plot(result))
    yield from _there(history_plot(result, "depth", panels), history_plot(result, "time", panels))
    yield from _there(updates_plot(result, panels), activations_plot(result, panels))
    yield from (*instrument_plots(result), *_there(number_range_plot(result)))


def _there(*plots: Plot | None) -> Iterator[Plot]:
    return (plot for plot in plots if plot is not None)


def _of_a_cure(result: Result, found: Cure) -> Iterator[Plot]:
    """The figures of a cure: its changes are no grid, so no map is drawn, and a few changes stand side by side."""
    yield from cure_plots(found)
    yield from _there(evidence_plot(result))
    told = [found.before, *shown(found)]
    place = {run_id: number for number, one in enumerate(told) for run_id in one.change["members"]}
    some = result.only(np.array([run_id in place for run_id in result.ids]))
    chosen = Facets({}, fixed=by_id("setting", tuple(one.name for one in told), place, REPLICATES))
    words = f"Of {len(found.tried)} changes {len(told) - 1} are drawn, beside the run as it was. "
    for plot in (
        # δ at step 0 is drawn by the figure of the cure itself.
        *(plot for axis in ("depth", "time") for plot in signal_plots(some, axis, chosen) if "_start" not in plot.name),
        *step_plots(some, chosen),
        *_there(update_plot(some, chosen), activations_plot(some)),
    ):
        yield replace(plot, caption=words + plot.caption)
