"""Every threshold of diagnosis: its key `diagnose.<name>`, its default, what it means and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """One number that a verdict compares with, at least 0; ``most`` is the largest that makes sense."""

    name: str
    default: float
    meaning: str
    source: str
    most: float = math.inf

    @property
    def key(self) -> str:
        """How a command line names it."""
        return f"diagnose.{self.name}"


Limits = Mapping[str, float]
"""A value for every name of `THRESHOLDS`."""

_SIX_XI = (
    "Schoenholz et al. 2017, arXiv:1611.01232, section 5: networks train up to 6 depth scales ξ; ‖δ‖² changes by "
    "e^(L/ξ), so ‖δ‖ by e³ = 20"
)

THRESHOLDS: dict[str, Threshold] = {
    entry.name: entry
    for entry in (
        Threshold(
            "vanishing_ratio",
            0.05,
            "vanishing: δ of layer 1 over that of layer L-1 (time step 1 over T), at step 0, is below it",
            _SIX_XI,
            1.0,
        ),
        Threshold(
            "exploding_ratio",
            20.0,
            "exploding: the same ratio is above it",
            _SIX_XI,
        ),
        Threshold(
            "adaptive",
            0.02,
            "vanishing: before any training, with an optimizer that divides by the gradient's size (or that "
            "is not known), the ratio must be below its threshold by this factor more; vanishing, exploding: so far "
            "beyond must be what training has made of a run that is learning",
            "Kingma & Ba 2015, arXiv:1412.6980: the steps of Adam do not depend on the gradient's scale; the number "
            "is ours",
            1.0,
        ),
        Threshold(
            "adaptive_layers",
            50.0,
            "vanishing: and only through so many layers",
            "the number is ours: of tanh and ReLU networks that keep 0.02, those of 5, 20 and 50 layers learn with "
            "Adam in 200 steps, those of 100 and 200 do not",
        ),
        Threshold(
            "normalised",
            0.002,
            "exploding: before any training, where a norm follows most layers, the ratio must be above its threshold "
            "by one over this",
            "Arora, Li & Lyu 2018, arXiv:1812.03981: the relative gradient of a normalized weight tunes itself; the "
            "number is ours: ResNets whose ratio is 2,700 train",
            1.0,
        ),
        Threshold(
            "break_factor",
            1e4,
            "vanishing, exploding: a change of δ at one layer by more than this factor, beyond the others', is a break",
            "the number is ours: heads are drawn down to 1/1000 of the usual on purpose (Touvron et al. 2021)",
        ),
        Threshold(
            "break_errors",
            6.0,
            "vanishing, exploding: and by more than so many standard deviations of the others, known by their medians",
            "Hampel 1974: the median absolute deviation is not moved by one outlier; six is ours",
        ),
        Threshold(
            "time_rate",
            0.45,
            "vanishing: of a network that is not gradlab's, along time, the rate must be below it beyond its errors",
            "below what torch draws itself: its RNN keeps 0.58 (uniform in ±1/√width) times the slope of tanh, 0.49; "
            "LSTM 0.63",
            1.0,
        ),
        Threshold(
            "errors",
            2.0,
            "vanishing, exploding: the fitted rate differs from 1 by more than so many standard errors of a slope "
            "whose increments scatter as they do; "
            "stalled: the fall is below its threshold by as many of its own; oscillating: the climb is above its by as "
            "many standard deviations of ln loss between batches",
            "two-sided 5 % of a normal distribution",
        ),
        Threshold(
            "curvature",
            4.0,
            "vanishing, exploding: beyond this Student's t of a trend in the local rates, or one as improbable at "
            "other than 18 degrees of freedom, one rate does not describe the profile, and both ends are told",
            "two-sided 0.1 % at 18 degrees of freedom; a tanh network at its critical point decays algebraically "
            "(Schoenholz et al. 2017, section 3)",
        ),
        Threshold(
            "outlier",
            1e4,
            "ill_scaled: the relative gradient ‖∇W‖/‖W‖ of one layer, or of two, is so many times that of the layers "
            "around it, or so many times less",
            "You, Gitman & Ginsburg 2017, arXiv:1708.03888 (LARS): the ratio by which a layer's step is right; the "
            "number is ours",
        ),
        Threshold(
            "scale",
            30.0,
            "ill_scaled: inputs whose mean is so many of their standard deviations, or whose scale is so far from 1 "
            "either way; or targets of a regression, or shares of classes, that are so large",
            "LeCun et al. 1998, Efficient BackProp, section 4.3: inputs of mean 0 and variance 1; the number is ours",
        ),
        Threshold(
            "first_loss",
            5.0,
            "ill_scaled: the cross-entropy at step 0 (of a binary one too) is above so many times 1 + ln C",
            "Karpathy 2019, A Recipe for Training Neural Networks: verify the loss at init, ln C; the number is ours",
        ),
        Threshold(
            "penalty",
            100.0,
            "ill_scaled: what else is in the loss is so many times the one that is known, or that loss of a guess",
            "Goodfellow, Bengio & Courville 2016, section 7.1: a penalty of too large a weight underfits; the "
            "number is ours",
        ),
        Threshold(
            "collapsed",
            1e-4,
            "collapsed: the standard deviation of the output between samples is below this share of its size",
            "Dong et al. 2021, arXiv:2103.03404: where outputs are alike, nothing of the input is left; the number "
            "is ours",
        ),
        Threshold(
            "dead",
            0.75,
            "dead: the share of a layer's units that are at rest on the whole batch is above it",
            "half-way between a half, which symmetry gives a zero-bias ReLU layer whose samples have become alike "
            "(Poole et al. 2016, arXiv:1606.05340), and all (Lu et al. 2019, arXiv:1903.06733)",
            1.0,
        ),
        Threshold(
            "saturated",
            0.5,
            "saturated: the share of a layer's entries whose slope is below 5 % of the largest is above it",
            "most of a layer, after Glorot & Bengio 2010, section 3; the number is ours",
            1.0,
        ),
        Threshold(
            "attention",
            0.5,
            "saturated: the median over layers of the entropy of attention, over that of an even spread, is below it",
            "half-way between 0.89 and 0.14: logits of unit variance and of variance 64, 64 keys (Vaswani et al. 2017, "
            "section 3.2.1)",
            1.0,
        ),
        Threshold(
            "grad_zero",
            0.01,
            "underflow: the share of exact zeros in a layer's gradient whose norm is below the smallest normal number "
            "of the precision is above it",
            "IEEE 754-2019: below the smallest normal number digits are lost, below the smallest subnormal all; the "
            "share is ours",
            1.0,
        ),
        Threshold(
            "clipped",
            0.9,
            "overclipped: the share of updates that were clipped is above it",
            "the number is ours",
            1.0,
        ),
        Threshold(
            "clip_scale",
            0.5,
            "overclipped: and the median of the gradient norm after clipping over that before is below it",
            "Pascanu et al. 2013, arXiv:1211.5063, section 3.2: thresholds from half to ten times the average norm",
            1.0,
        ),
        Threshold(
            "climb",
            2.0,
            "oscillating: the running median of the loss over 5 steps climbs above so many times the loss at step 0",
            "the descent lemma forbids any climb below the step size 2/λ (Cohen et al. 2021, arXiv:2103.00065); twice "
            "is ours, beyond the noise of a batch",
        ),
        Threshold(
            "swing",
            0.1,
            "oscillating: or, in the second half, the median change from step to step is above this share of the loss",
            "Cohen et al. 2021, figure 1: beyond the step size 2/λ the loss alternates; the number is ours",
        ),
        Threshold(
            "turns",
            0.9,
            "oscillating: and more than this share of the steps of the second half are turning points",
            "independent noise turns at 2/3 of its points (Bienaymé 1874; Kendall & Stuart, section 45.18), an "
            "alternating loss at all",
            1.0,
        ),
        Threshold(
            "stalled",
            0.05,
            "stalled: over the second half of the run a line through the loss falls by less than this share of its "
            "median",
            "the number is ours, above the noise of batches of 64",
            1.0,
        ),
        Threshold(
            "unlearned",
            0.5,
            "oscillating, stalled: and the median loss of the second half is above this share of the loss at step 0",
            "the number is ours: a loss that has converged does not move either",
        ),
        Threshold(
            "learning",
            0.9,
            "exploding, vanishing: below this share of the loss of a guess a run is learning, and what its optimizer "
            "or a norm makes good is no fact; a text is learned there, whose loss comes near no zero",
            "half-way from single letters to pairs of them, 4.03 and 3.32 bits (Shannon 1951, Prediction and Entropy "
            "of Printed English)",
            1.0,
        ),
        Threshold(
            "least_steps",
            40.0,
            "oscillating, stalled, overclipped: with fewer updates nothing is said",
            "the number is ours: medians of 20 steps",
        ),
    )
}

DEFAULTS: dict[str, float] = {name: entry.default for name, entry in THRESHOLDS.items()}


def limits(given: Mapping[str, float] | None = None) -> Limits:
    """The defaults with what is ``given`` by name; a name that is no threshold is left out."""
    return {**DEFAULTS, **{name: value for name, value in (given or {}).items() if name in THRESHOLDS}}
