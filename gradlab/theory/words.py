"""A prediction in one sentence, and whose theory it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlab.spec.choices import MODELS
from gradlab.theory.activations import ACTIVATIONS
from gradlab.theory.images import border
from gradlab.theory.norms import STEADY_BATCH
from gradlab.theory.setting import Setting

TOO_SHALLOW = "too few layers for a rate: a gradient passes from one hidden layer to another in none of them"

OWN = "theory knows nothing of the inside of a network of your own: train it, and gradlab measures it"

LARGEST = 1e12
"""Beyond such weights, biases or inputs nothing is said: an activation of one variance is all that is left."""

BEYOND_FLOATS = "theory ends here: a factor of this network is too large or too small for a number of 64 bits"

EVEN = 5e-4
"""A rate this close to 1 is said to keep gradients as they are."""

_MEAN_FIELD = "Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232"


@dataclass(frozen=True)
class Findings:
    """What the sentence is about; ``extremes`` are the rates of the first and last layers that count."""

    rate: float
    single: bool
    asymptotic: bool
    critical: float | None
    q_star: float | None
    extremes: tuple[float, float] | None


def out_of_reach(seen: Setting, *, known: bool, least_batch: int) -> str | None:
    """Why theory says nothing of this run, or None where it does."""
    if MODELS[seen.architecture].free:
        return OWN
    if not known:
        return seen.why_not or f"no theory of {seen.architecture!r} is known here"
    if seen.why_not is not None:
        return seen.why_not
    if seen.phi.name not in ACTIVATIONS:
        return f"theory does not know {seen.phi.name!r}: it has no entry in gradlab/theory/activations.py"
    if seen.batch is not None and seen.batch < least_batch:
        return (
            f"batch norm over {seen.batch} samples: gradients have no finite mean below batches of {least_batch}, so "
            "theory gives no rate"
        )
    # Written so that a product of 0 and infinity, which is no number, counts as too large.
    if not all(one <= LARGEST for one in (seen.sw2, seen.sw2_first, seen.sb2, seen.q0, abs(seen.branch))):
        return f"theory ends at variances of {LARGEST:g}"
    if seen.sw2 == 0 and seen.architecture != "residual_mlp":
        return "every weight is 0, so no gradient passes a layer at all"
    if seen.sw2_first == 0:
        return "every weight is 0: the inputs reach no layer, and there is nothing to predict"
    return None


def note(seen: Setting, said: Findings) -> str:
    """The prediction in one sentence."""
    return f"{_subject(seen)}: {_claim(seen, said)}"


def lost(seen: Setting, critical: float | None, why: str) -> str:
    """The sentence where the mean field does not describe the draws of a plain or a recurrent network."""
    if seen.steps:
        return f"{_subject(seen)}: {why}"
    known = "no critical σw²" if critical is None else f"critical at σw²={figure(critical)}"
    return f"{_subject(seen)}: {known}; yours is {figure(seen.keep * seen.sw2)}: {why}"


def _subject(seen: Setting) -> str:
    name = seen.phi.name + (f"({seen.phi.slope:g})" if seen.phi.slope else "")
    if seen.architecture == "linear_chain":
        return f"chain of {math.sqrt(seen.sw2):.4g}·I"
    behind = "" if seen.norm == "none" else f"{', then' if seen.behind else ' behind'} {seen.norm} norm"
    what = {
        "residual_mlp": f"residual {name}, β={seen.branch:.3g}",
        "rnn": f"recurrent {name}",
        "cnn": f"convolutions of {name}",
        "resnet": f"residual convolutions of {name}, β={seen.branch:.3g}",
    }.get(seen.architecture, name)
    biases = "" if seen.norm == "batch" else f", σb²={seen.sb2:.3g}"
    dropped = f", dropout {1 - seen.keep:.3g}" if seen.keep < 1 else ""
    return f"{what}{behind}{biases}{dropped}"


def _claim(seen: Setting, said: Findings) -> str:
    if seen.architecture == "mlp" and seen.norm == "none":
        return f"{_critical(seen, said)}; yours is {figure(seen.keep * seen.sw2)}, {_course(seen, said)}"
    course = _course(seen, said)
    if seen.norm == "batch" and seen.architecture == "mlp":
        what = "only depth, φ and the batch size matter"
        if seen.batch is not None and seen.batch < STEADY_BATCH:
            what = f"of a typical draw of width {seen.width}: over so few samples the mean has no finite variance"
        return f"{course} at batches of {seen.batch}, whatever σw²: {what}"
    if seen.norm != "none" and seen.architecture == "mlp" and seen.sb2 == 0 and not seen.behind:
        return f"{course}, whatever σw²"
    if seen.architecture == "cnn" and seen.norm == "none" and not seen.centre:
        (height, width), kept = seen.pixels, math.sqrt(border(seen.pixels))
        return f"{course}; the border of zeros around {height}x{width} pixels is a factor of {kept:.3f} of that"
    return course


def _critical(seen: Setting, said: Findings) -> str:
    if seen.keep < 1:
        return "no critical σw²: dropout parts any two inputs (Schoenholz et al. 2016)"
    return "no critical σw²" if said.critical is None else f"critical at σw²={figure(said.critical)}"


def _course(seen: Setting, said: Findings) -> str:
    place, start = ("time step", "first step") if seen.steps else ("layer", "input")
    place = "block" if seen.architecture == "resnet" else place
    if not said.single:
        if said.extremes is None:
            return f"no single rate describes so few {place}s"
        low, high = said.extremes
        if said.q_star == 0 and abs(said.rate - 1) < EVEN:
            return (
                f"gradients shrink algebraically, which no single rate describes: by {low:.3f} a {place} near the "
                f"{start}, by {high:.3f} {'at the end' if seen.steps else 'near the output'}"
            )
        limit = f" ({said.rate:.3g} in the limit of many {place}s)" if said.asymptotic else ""
        return f"no single rate: the factor a {place} goes from {low:.3f} near the {start} to {high:.3f}{limit}"
    if abs(said.rate - 1) < EVEN:
        return "gradients keep their size"
    verb = "grow" if said.rate > 1 else "shrink to"
    return f"gradients {verb} {said.rate:.4g} a {place} toward the {start}"


def figure(value: float) -> str:
    """A variance in words.

    >>> figure(2.0), figure(1.7609546), figure(103.00755)
    ('2', '1.761', '103')
    """
    return f"{value:.4g}"


def source(seen: Setting) -> str:
    """The paper behind the prediction."""
    if seen.architecture == "linear_chain":
        return "Saxe et al. 2013, arXiv:1312.6120"
    if seen.architecture == "rnn":
        return "Pascanu et al. 2013, arXiv:1211.5063; Chen et al. 2018, arXiv:1806.05394"
    if seen.architecture == "cnn":
        return f"Xiao et al. 2018, arXiv:1806.05393{'; Yang et al. 2019, arXiv:1902.08129' * (seen.norm == 'batch')}"
    if seen.architecture == "resnet":
        return "Zhang et al. 2019, arXiv:1901.09321; Xiao et al. 2018, arXiv:1806.05393"
    if seen.norm == "batch":
        residual = "; Balduzzi et al. 2017, arXiv:1702.08591" if seen.architecture == "residual_mlp" else ""
        return f"Yang et al. 2019, arXiv:1902.08129{residual}"
    if seen.architecture == "residual_mlp":
        return "Zhang et al. 2019, arXiv:1901.09321; Hanin & Rolnick 2018, arXiv:1803.01719"
    return _MEAN_FIELD
