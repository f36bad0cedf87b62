"""Figures along the steps: the loss, and the gradient norm before and after clipping."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes

from gradlab.report.figures.panels import Series, draw
from gradlab.report.figures.style import Plot, integer_ticks
from gradlab.report.groups import calm_cap, log10, log_outcomes, varying
from gradlab.report.layout import Facets, arrange
from gradlab.report.tables import Floats, Result

CALM_MARGIN, CALM_SHARE = 0.3, 0.99
"""The scale of the curves ends at twice what 99 % of the losses of finished runs, and all first ones, stay below."""


def step_plots(result: Result, chosen: Facets | None = None) -> Iterator[Plot]:
    """Loss, and gradient norm before and after clipping, by step; none where no run made an update."""
    curves = result.curves
    if len(curves.step) < 2:
        return
    marks = result.number("diverged_at")
    thinned = f" Of the steps {len(curves.step)} evenly spread ones are drawn." if curves.thinned else ""
    loss = _diverging(result, curves.loss)
    drawn = draw(
        result,
        arrange(result, log_outcomes(result)["loss_final"], chosen=chosen),
        curves.step,
        [Series(loss)],
        labels=("step", "loss (mean over the batch)"),
        dress_x=_dress_steps,
        marks=marks,
        cap=calm_cap(result, loss, loss[:, :1], margin=CALM_MARGIN, share=CALM_SHARE),
    )
    read = "The mean over each step's batch, before its update. "
    yield Plot("loss_by_step", "Loss by step", read + drawn.grouping + _diverged_words(result) + thinned, drawn.figure)

    before, after = _diverging(result, curves.grad_norm), _diverging(result, curves.grad_norm_clipped)
    clipped = bool((curves.grad_norm_clipped < curves.grad_norm * (1 - 1e-9)).any())
    changed = clipped or bool((curves.grad_norm_clipped > curves.grad_norm * (1 + 1e-9)).any())
    clipping = "clip.mode" if chosen is None and "clip.mode" in varying(result) else None
    middle = np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in before])
    series = [Series(before, "before clipping"), Series(after, "after clipping")] if changed else [Series(before)]
    drawn = draw(
        result,
        arrange(result, middle, columns=clipping, dashes=not changed, chosen=chosen),
        curves.step,
        series,
        labels=("step", "gradient norm, all parameters"),
        dress_x=_dress_steps,
        marks=marks,
        cap=calm_cap(result, before, before[:, :1], margin=CALM_MARGIN, share=CALM_SHARE),
    )
    read = (
        "‖∂loss/∂θ‖ over all parameters: solid before clipping, dashed after. Where the lines part, clipping acts. "
        if changed
        else "‖∂loss/∂θ‖ over all parameters. No step was clipped: before and after are the same line. "
    )
    caption = read + drawn.grouping + _diverged_words(result) + thinned
    yield Plot("gradient_norm_by_step", "Gradient norm before and after clipping", caption, drawn.figure)


def _diverging(result: Result, values: Floats) -> Floats:
    """log10 of a curve, infinite from the step on at which its run diverged, so that medians stay honest."""
    logs = log10(values)
    stop = result.number("diverged_at")
    logs[result.curves.step[None, :] >= np.where(np.isnan(stop), np.inf, stop)[:, None]] = np.inf
    return logs


def _diverged_words(result: Result) -> str:
    bad = int((result.state == "diverged").sum())
    if not bad:
        return ""
    if result.size == 1:
        return f"The run diverged at step {int(result.number('diverged_at')[0])} (×)."
    return f" {bad} of {result.size} runs diverged, at the steps marked ×, and count as infinite from there on."


def _dress_steps(axes: Axes) -> None:
    axes.margins(x=0.02)
    integer_ticks(axes.xaxis, 6)
