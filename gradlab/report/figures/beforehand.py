"""The figure of what could have been known before training: rank correlations, and the strongest score itself."""

from __future__ import annotations

import numpy as np

from gradlab.report.beforehand import Beforehand
from gradlab.report.figures.style import DIVERGED, OKABE_ITO, Plot, fit, sheet
from gradlab.report.groups import log10


def beforehand_plot(found: Beforehand | None) -> Plot | None:
    """A line a score, its interval around its dot; beside them final losses over the ranks of the strongest."""
    if found is None or not found.scores:
        return None
    figure = sheet(11.0, max(3.2, 1.3 + 0.32 * len(found.scores)))
    left, right = figure.subplots(1, 2)
    for place, one in enumerate(found.scores):
        clear = one.low > 0 or one.high < 0
        left.plot([one.low, one.high], [place, place], color=OKABE_ITO[0] if clear else "#999999", linewidth=2.2)
        left.plot([one.rho], [place], "o", color=OKABE_ITO[0] if clear else "#999999")
    left.axvline(0, color="#222222", linewidth=0.8)
    left.set_yticks(range(len(found.scores)), [one.name for one in found.scores])
    left.set_ylim(len(found.scores) - 0.5, -0.5)
    left.set_xlim(-1.05, 1.05)
    left.set_xlabel("rank correlation with the final loss")
    best = found.scores[0]
    there = ~np.isnan(best.values) & ~np.isnan(found.loss)
    order = np.argsort(best.values[there], kind="stable")
    loss = log10(found.loss[there][order])
    scale = fit(loss)
    across, lost = np.arange(1, len(loss) + 1), np.isposinf(loss)
    right.plot(across[~lost], scale.place(loss)[~lost], ".", color=OKABE_ITO[0], markersize=4)
    right.plot(across[lost], scale.place(loss)[lost], "x", color=DIVERGED, markersize=4)
    scale.dress(right)
    right.set_xlabel(f"runs in the order of: {best.name}")
    right.set_ylabel("final loss")
    caption = (
        "How well a number of step 0 ranks the runs by their final loss (Spearman), with 95 % intervals over networks. "
        "Left of 0: more of it goes with a lower loss. Grey: the interval holds 0. At the right the strongest itself; "
        "a diverged run is worse than all others."
    )
    return Plot("beforehand", "What could have been known before training", caption, figure)
