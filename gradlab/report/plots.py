"""The figures of a report, in the order in which a reader wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlab.report.plots_layers import history_plot, signal_plots, update_plot
from gradlab.report.plots_maps import map_plots
from gradlab.report.plots_steps import step_plots
from gradlab.report.style import Plot
from gradlab.report.tables import Result


def plots(result: Result, keys: Sequence[str]) -> Iterator[Plot]:
    """Every figure that the runs have data for; ``keys`` are those of the maps. None where every run failed."""
    if (result.state == "failed").all():
        return
    yield from signal_plots(result, "depth")
    yield from signal_plots(result, "time")
    yield from (plot for plot in (history_plot(result, "depth"), history_plot(result, "time")) if plot is not None)
    yield from map_plots(result, keys)
    yield from step_plots(result)
    yield from (plot for plot in (update_plot(result),) if plot is not None)
