"""The evidence of the verdicts: a small figure each that shows the numbers that crossed a threshold."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from gradlab.diagnose import Fit, History, Limits, Profile, Verdict
from gradlab.diagnose.passage import passage, rate_figure
from gradlab.report.figures.style import DIVERGED, OKABE_ITO, Plot, integer_ticks, sheet
from gradlab.report.figures.style import fit as fitted_scale
from gradlab.report.groups import log10
from gradlab.report.tables import Floats, Ints, Result
from gradlab.report.verdicts import Example, examples

ACROSS = 3
"""Panels beside each other."""

Style = str | tuple[float, tuple[float, float]]
"""How a line is dashed; a marker instead of a dash gives both."""

Drawn = tuple[str, Floats, str, Style]
"""A line: its label, its log10 values, its colour and its dash."""

MEASURED, FITTED, LIMIT = OKABE_ITO[0], OKABE_ITO[1], "#444444"

ENDS: dict[str, Style] = {"exploding": ":", "vanishing": (0, (1, 3))}
"""The verdicts on the ratio of δ's ends, and how their thresholds are dotted."""

ALONG = {"depth": "layer (input → output)", "time": "time step (first → last)"}

CAPTION = (
    "What each verdict rests on: δ by layer with its fitted rate (dashed), the share of dead or saturated units by "
    "layer, or the course of the loss or the gradient norm; dotted lines are thresholds (of δ, for layer 1). "
)


def evidence_plot(result: Result) -> Plot | None:
    """A panel for each verdict of a single run, of a sweep for one example of each; None where there is nothing."""
    shown = examples(result)
    if not shown:
        return None
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    figure = sheet(9.0 if across < ACROSS else 11.0, (4.2 if len(shown) > 1 else 4.6) * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes, example in zip(grid.flat, shown, strict=False):
        DRAWN[example.verdict.name](axes, example.history, example.verdict, result.limits)
        axes.set_title(_title(example, 100 // across), loc="left", fontsize=9)
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    which = "" if result.size == 1 else f"One example of each verdict, of {result.every.size} runs."
    return Plot("verdict_evidence", "Evidence of the verdicts", CAPTION + which, figure)


def _title(example: Example, width: int) -> str:
    words = example.verdict.name + (f": {example.run_id[:8]}, {example.setting}" if example.setting else "")
    return "\n".join(textwrap.wrap(words, width))


def _profile(axes: Axes, history: History, verdict: Verdict, limits: Limits) -> None:
    """δ with the fitted line and the thresholds of its ends, at the step and along the axis that the verdict names."""
    axis, step = verdict.evidence.get("axis", "depth"), verdict.evidence.get("step", 0)
    profile = next((one for one in history.along if one.axis == axis), history.along[0])
    row = int(np.flatnonzero(profile.step == step)[0]) if step in profile.step else 0
    # What is judged in a network that is not gradlab's own: δ per entry, where all paths pass.
    what = "‖δ‖" if profile.trunk is None else "rms of δ"
    profile = profile.trunk or profile
    deltas = profile.column("signal_grad_norm", row)
    lines: list[Drawn] = [(f"{what}, step {profile.step[row]}", log10(deltas), MEASURED, "o")]
    found = passage(profile, row=row)
    if found is not None and found.fit is not None:
        fitted, line = found.fit, np.full(len(profile.layer), np.nan)
        places = np.arange(fitted.first, fitted.last + 1)
        line[np.isin(profile.layer, found.layers[places - 1])] = log10(fitted.line(places))
        lines.append((_rate(fitted, limits), line, FITTED, "--"))
    if found is not None and (level := float(deltas[profile.layer == found.far][0])) > 0:
        for name in (verdict.name,) if verdict.name in ENDS else ENDS:
            limit = limits[f"{name}_ratio"]
            flat = np.full(len(profile.layer), log10(np.array(limit * level)))
            lines.append((f"{limit:g} × {profile.noun} {found.far}: {name}", flat, LIMIT, ENDS[name]))
    _logarithmic(axes, profile.layer, lines)
    axes.set_xlabel(ALONG[profile.axis])


def _rate(fitted: Fit, limits: Limits) -> str:
    """The fitted rate for a legend, and whether it says enough."""
    if fitted.bends(limits["curvature"]):
        return f"no single rate: {fitted.near:.3g} to {fitted.far:.3g},\nin the mean {rate_figure(fitted)}"
    return f"rate {rate_figure(fitted)}"


def _underflow(axes: Axes, history: History, verdict: Verdict, limits: Limits) -> None:
    """The norm of the weight gradient, and the smallest normal number."""
    profile = history.along[0]
    row, share = _row(profile, verdict), f"{float(verdict.evidence['share'] or 0):.0%}"
    smallest = np.full(len(profile.layer), log10(np.array(float(verdict.evidence["smallest_normal"] or 0))))
    _logarithmic(
        axes,
        profile.layer,
        [
            (
                f"‖∂loss/∂W‖, zeros up to {share} (threshold {limits['grad_zero']:.0%})",
                log10(profile.columns["weight_grad_norm"][row]),
                MEASURED,
                "o",
            ),
            (f"smallest normal number of {history.precision}", smallest, LIMIT, ":"),
        ],
    )
    axes.set_xlabel(ALONG[profile.axis])


def _share(axes: Axes, history: History, verdict: Verdict, limits: Limits) -> None:
    """The share of dead or saturated units by layer, at the step of the verdict."""
    profile = history.along[0]
    row = _row(profile, verdict)
    axes.bar(profile.layer, profile.columns[verdict.name][row], color=MEASURED, width=0.8)
    axes.axhline(limits[verdict.name], color=LIMIT, linestyle=":", label=f"threshold {limits[verdict.name]:.0%}")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(ALONG[profile.axis])
    axes.set_ylabel(f"share {verdict.name}, step {verdict.evidence['step']}")
    integer_ticks(axes.xaxis, 6)
    _legend(axes)


def _row(profile: Profile, verdict: Verdict) -> int:
    return int(np.flatnonzero(profile.step == verdict.evidence["step"])[0])


def _loss(axes: Axes, history: History, verdict: Verdict, limits: Limits) -> None:
    """The loss by step, with what must be crossed to have learned, and a cross where the run diverged."""
    loss = history.loss
    lines = [("loss", log10(loss), MEASURED, "-")]
    shares = [limits[name] for name in ("climb", "unlearned") if f"diagnose.{name}" in verdict.threshold]
    lines += [(f"{share:g} × step 0", log10(np.full(len(loss), share * loss[0])), LIMIT, ":") for share in shares]
    if "diagnose.stalled" in verdict.threshold:
        # The least that the second half must fall to be no stall, through its median.
        half, fall = len(loss) // 2, limits["stalled"]
        late = np.median(loss[half:]) * (1 + fall * np.linspace(0.5, -0.5, len(loss) - half))
        lines.append((f"a fall of {fall:.0%}", log10(np.append(np.full(half, np.nan), late)), FITTED, ":"))
    _logarithmic(axes, np.arange(len(loss)), lines, stop=history.diverged_at)
    axes.set_xlabel("step")


def _clipping(axes: Axes, history: History, verdict: Verdict, limits: Limits) -> None:
    """The gradient norm before and after clipping."""
    lines = [
        ("before clipping", log10(history.grad_norm), MEASURED, "-"),
        (
            f"after, ×{verdict.evidence['scale']:.2g} (threshold {limits['clip_scale']:g})",
            log10(history.grad_norm_clipped),
            FITTED,
            "--",
        ),
    ]
    _logarithmic(axes, np.arange(len(history.grad_norm)), lines)
    axes.set_xlabel("step")


def _logarithmic(axes: Axes, x: Ints, lines: Sequence[Drawn], *, stop: int | None = None) -> None:
    """Lines of log10 values on the report's scale, and a cross above all at ``stop``, where the run diverged."""
    scale = fitted_scale(
        *(np.where(np.isposinf(logs), np.nan, logs) for _, logs, _, _ in lines), broken=stop is not None
    )
    for label, logs, colour, style in lines:
        alone = np.isfinite(logs).sum() == 1
        dash, marker = ("-", "o") if style == "o" else (style, "o" if alone else "")
        shown = np.where(np.isposinf(logs), np.nan, logs)
        axes.plot(
            x, scale.place(shown), color=colour, linestyle=dash, marker=marker, markersize=3, label=label, linewidth=1.4
        )
    if stop is not None:
        axes.plot([stop], [scale.ceiling], "x", color=DIVERGED, mew=1.6, label="diverged")
    scale.dress(axes, ticks=5)
    integer_ticks(axes.xaxis, 6)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the panel: beside a line and its thresholds no corner is free for certain."""
    spec, (_, words) = axes.get_subplotspec(), axes.get_legend_handles_labels()
    alone = spec is not None and spec.get_geometry()[1] == 1
    across = len(words) if alone else 1
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), borderaxespad=0, borderpad=0, ncols=across)


Draw = Callable[[Axes, History, Verdict, Limits], None]

DRAWN: dict[str, Draw] = {
    "diverged": _loss,
    **dict.fromkeys(("no_gradient", "misspecified", "ill_scaled", "collapsed"), _profile),
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
