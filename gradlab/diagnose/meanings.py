"""What each verdict judges, by which thresholds, and after whom: `gradlab list verdicts` and `thresholds`."""

from __future__ import annotations

from gradlab.diagnose.causes import CAUSES
from gradlab.diagnose.thresholds import THRESHOLDS
from gradlab.spec.named import Choice, table

_SCHOENHOLZ = "Schoenholz et al. 2017, arXiv:1611.01232"


def _judged(name: str, what: str, source: str, *crossed: str) -> Choice:
    """A verdict, with the thresholds that decide it by the names of `THRESHOLDS`."""
    keys = ", ".join(THRESHOLDS[key].key for key in crossed)
    return Choice(name, what + (f"; by {keys}" if keys else ""), source)


VERDICTS = table(
    _judged("diverged", "the run's state: a loss, gradient or weight is not finite", "IEEE 754-2019"),
    _judged("no_gradient", "every gradient is exactly zero", "no descent leaves a point of zero gradient"),
    _judged(
        "misspecified",
        "output, loss and targets contradict each other",
        "Goodfellow, Bengio & Courville 2016, section 6.2.2",
    ),
    _judged(
        "ill_scaled",
        "inputs, targets or the first loss are far from unit scale",
        "LeCun et al. 1998, Efficient BackProp, section 4.3",
        *("outlier", "scale", "penalty", "first_loss"),
    ),
    _judged(
        "collapsed",
        "all samples, all units of a layer, or all answers are the same",
        "Dong et al. 2021, arXiv:2103.03404",
        *("collapsed", "learning", "errors"),
    ),
    _judged(
        "dead",
        "units of the ReLU family at zero slope on the whole batch",
        "Lu et al. 2019, arXiv:1903.06733",
        "dead",
    ),
    _judged(
        "saturated",
        "entries where a smooth activation's slope is below 5 % of its largest; attention, or a choice between layers, "
        "that looks at one place",
        "Glorot & Bengio 2010, section 3",
        *("saturated", "attention"),
    ),
    _judged(
        "exploding",
        "δ grows on its way to the input",
        _SCHOENHOLZ,
        *(
            "exploding_ratio",
            "normalised",
            "adaptive",
            "learning",
            "errors",
            "curvature",
            "break_factor",
            "break_errors",
        ),
    ),
    _judged(
        "vanishing",
        "δ is lost on its way to the input, or never comes to a part of the network",
        _SCHOENHOLZ,
        *("vanishing_ratio", "adaptive", "adaptive_layers", "learning", "time_rate"),
        *("errors", "curvature", "break_factor", "break_errors"),
    ),
    _judged(
        "underflow",
        "entries of a gradient are exactly zero because the precision ends",
        "IEEE 754-2019",
        "grad_zero",
    ),
    _judged(
        "overclipped",
        "clipping decides the length of almost every step",
        "Pascanu et al. 2013, arXiv:1211.5063",
        *("clipped", "clip_scale", "least_steps"),
    ),
    _judged(
        "oscillating",
        "the learning rate is too high: the loss climbs and stays up, or alternates",
        "Cohen et al. 2021, arXiv:2103.00065",
        *("climb", "swing", "turns", "unlearned", "errors", "least_steps"),
    ),
    _judged(
        "stalled",
        "none of the above, and the loss does not move",
        "ours",
        *("stalled", "unlearned", "errors", "least_steps"),
    ),
    _judged("healthy", "no threshold is crossed", "ours"),
)
"""Every verdict in the order of `ORDER`."""

KEYS = table(*(Choice(entry.key, f"{entry.default:g}; {entry.meaning}", entry.source) for entry in THRESHOLDS.values()))
"""Every threshold by the key that sets it."""

__all__ = ["CAUSES", "KEYS", "VERDICTS"]
