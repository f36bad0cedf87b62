"""The figures of a report, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlab.report.cure import cure
from gradlab.report.effects import analyses
from gradlab.report.figures.cure import cure_plots
from gradlab.report.figures.effects import effects_plot
from gradlab.report.figures.evidence import evidence_plot
from gradlab.report.figures.heat_maps import map_plots
from gradlab.report.figures.instruments import NAMES as OF_INSTRUMENTS
from gradlab.report.figures.instruments import instrument_plots
from gradlab.report.figures.layer_profiles import history_plot, signal_plots, update_plot
from gradlab.report.figures.loss_curves import step_plots
from gradlab.report.figures.style import Plot
from gradlab.report.tables import Result

NAMES = (
    *("cure_gains", "cure_profiles", "verdict_evidence", "effects"),
    *(f"signal_by_{place}{which}" for place in ("layer", "time") for which in ("", "_start", "_end", "_and_step")),
    *(f"{what}_{shape}" for what in ("final_loss", "vanishing_ratio", "diverged") for shape in ("map", "by_key")),
    *("loss_by_step", "gradient_norm_by_step", "update_ratio_by_layer"),
    *OF_INSTRUMENTS,
)
"""Every figure that a report can have, by the name of its files: what is removed before a report is made again."""


def plots(result: Result, keys: Sequence[str], early: Sequence[str]) -> Iterator[Plot]:
    """Every figure that the runs have data for; none where every run failed.

    ``keys`` are those of the maps of what training led to, ``early`` of what was there at step 0.
    """
    if (result.state == "failed").all():
        return
    yield from cure_plots(cure(result))
    yield from (plot for plot in (evidence_plot(result),) if plot is not None)
    yield from instrument_plots(result)
    yield from signal_plots(result, "depth")
    yield from signal_plots(result, "time")
    yield from (plot for plot in (history_plot(result, "depth"), history_plot(result, "time")) if plot is not None)
    yield from (plot for plot in (effects_plot(analyses(result)),) if plot is not None)
    yield from map_plots(result, keys, early)
    yield from step_plots(result)
    yield from (plot for plot in (update_plot(result),) if plot is not None)
