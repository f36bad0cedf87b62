"""The evidence of the verdicts: a small figure each that shows the numbers that crossed a threshold."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from gradlab.diagnose import History, Profile, Verdict, fit
from gradlab.report.groups import log10
from gradlab.report.style import DIVERGED, OKABE_ITO, Plot, integer_ticks, sheet
from gradlab.report.style import fit as fitted_scale
from gradlab.report.tables import Floats, Ints, Result
from gradlab.report.verdicts import Example, examples

ACROSS = 3
"""Panels beside each other."""

MEASURED, FITTED, LIMIT = OKABE_ITO[0], OKABE_ITO[1], "#444444"

CAPTION = (
    "What each verdict rests on: δ by layer with its fitted rate (dashed), the share of dead or saturated units by "
    "layer, or the course of the loss or the gradient norm; dotted lines are thresholds. "
)


def evidence_plot(result: Result) -> Plot | None:
    """A panel for each verdict of a single run, of a sweep for one example of each; None where there is nothing."""
    shown = examples(result)
    if not shown:
        return None
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    figure = sheet(9.0 if across < ACROSS else 11.0, (3.6 if len(shown) > 1 else 4.2) * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes, example in zip(grid.flat, shown, strict=False):
        DRAWN[example.verdict.name](axes, example.history, example.verdict)
        axes.set_title(_title(example, 100 // across), loc="left", fontsize=9)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    which = "" if result.size == 1 else f"One example of each verdict, of {result.size} runs."
    return Plot("verdict_evidence", "Evidence of the verdicts", CAPTION + which, figure)


def _title(example: Example, width: int) -> str:
    words = f"{example.verdict.name}" + (f": {example.setting}" if example.setting else "")
    return "\n".join(textwrap.wrap(words, width))


def _profile(axes: Axes, history: History, verdict: Verdict) -> None:
    """δ at step 0 with the fitted line, along the axis that the verdict names."""
    axis = verdict.evidence.get("axis", "depth")
    profile = next((one for one in history.along if one.axis == axis), history.along[0])
    logs, found = log10(profile.deltas), fit(profile.deltas, profile.axis)
    line = np.full(len(logs), np.nan)
    if found is not None:
        line[found.first - 1 : found.last] = log10(found.line(np.arange(found.first, found.last + 1)))
    _logarithmic(
        axes,
        profile.layer,
        [
            ("‖δ‖, step 0", logs, MEASURED, "o"),
            ("_" if found is None else f"rate {found.rate:.3g} ± {found.error:.1g}", line, FITTED, "--"),
        ],
    )
    axes.set_xlabel(profile.noun)


def _underflow(axes: Axes, history: History, verdict: Verdict) -> None:
    """The norm of the weight gradient, and the smallest normal number."""
    profile = history.along[0]
    row = _row(profile, verdict)
    smallest = np.full(len(profile.layer), log10(np.array(float(verdict.evidence["smallest_normal"] or 0))))
    _logarithmic(
        axes,
        profile.layer,
        [
            ("‖∂loss/∂W‖", log10(profile.columns["weight_grad_norm"][row]), MEASURED, "o"),
            ("smallest normal number", smallest, LIMIT, ":"),
        ],
    )
    axes.set_xlabel("layer")


def _share(axes: Axes, history: History, verdict: Verdict) -> None:
    """The share of dead or saturated units by layer, at the step of the verdict."""
    profile = history.along[0]
    row = _row(profile, verdict)
    axes.bar(profile.layer, profile.columns[verdict.name][row], color=MEASURED, width=0.8)
    axes.axhline(verdict.threshold[f"diagnose.{verdict.name}"], color=LIMIT, linestyle=":", linewidth=1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("layer")
    axes.set_ylabel(f"share {verdict.name}, step {verdict.evidence['step']}")
    integer_ticks(axes.xaxis, 6)


def _row(profile: Profile, verdict: Verdict) -> int:
    return int(np.flatnonzero(profile.step == verdict.evidence["step"])[0])


def _loss(axes: Axes, history: History, verdict: Verdict) -> None:
    """The loss by step, with what must be crossed to have learned, and a cross where the run diverged."""
    loss = history.loss
    lines = [("loss", log10(loss), MEASURED, "-")]
    shares = [verdict.threshold[key] for key in ("diagnose.climb", "diagnose.unlearned") if key in verdict.threshold]
    lines += [(f"{share:g} × step 0", log10(np.full(len(loss), share * loss[0])), LIMIT, ":") for share in shares]
    _logarithmic(axes, np.arange(len(loss)), lines)
    if verdict.name == "diverged":
        axes.plot([len(loss) - 1], [0.97], "x", color=DIVERGED, mew=1.6, transform=axes.get_xaxis_transform())
    axes.set_xlabel("step")


def _clipping(axes: Axes, history: History, verdict: Verdict) -> None:
    """The gradient norm before and after clipping."""
    lines = [
        ("before clipping", log10(history.grad_norm), MEASURED, "-"),
        (f"after, ×{verdict.evidence['scale']:.2g} in the median", log10(history.grad_norm_clipped), FITTED, "--"),
    ]
    _logarithmic(axes, np.arange(len(history.grad_norm)), lines)
    axes.set_xlabel("step")


def _logarithmic(axes: Axes, x: Ints, lines: Sequence[tuple[str, Floats, str, str]]) -> None:
    """Lines of log10 values on the report's scale; a marker instead of a dash gives both."""
    scale = fitted_scale(*(logs for _, logs, _, _ in lines))
    for label, logs, colour, style in lines:
        dash, marker = ("-", "o") if style == "o" else (style, "")
        axes.plot(
            x, scale.place(logs), color=colour, linestyle=dash, marker=marker, markersize=3, label=label, linewidth=1.4
        )
    scale.dress(axes, ticks=5)
    integer_ticks(axes.xaxis, 6)
    axes.legend()


Draw = Callable[[Axes, History, Verdict], None]

DRAWN: dict[str, Draw] = {
    "diverged": _loss,
    "dead": _share,
    "saturated": _share,
    "exploding": _profile,
    "vanishing": _profile,
    "underflow": _underflow,
    "overclipped": _clipping,
    "oscillating": _loss,
    "stalled": _loss,
    "healthy": _profile,
}
"""What shows the evidence of each verdict."""
