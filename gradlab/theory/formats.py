"""At which depth a number format ends: where a gradient that vanishes has become too small for it, or too large.

The mean field says how δ changes from layer to layer; where it begins is known of a softmax over K classes that are
still alike. There p - y has the mean square (K-1)/K², and the loss is a mean over B samples:

    rms δ_L = √(K-1)/(K B),    rms δ_(L-1) = rms δ_L √(K Var W_L E φ'²),    rms δ_(l) = rms δ_(l+1) √χ

A number is rounded to zero below half of the smallest one, and so are all B n entries of a layer where the largest of
them, √(2 ln B n) typical ones, is (of normal numbers; Micikevicius et al. 2018, arXiv:1710.03740, section 3.2). That
entries are rounded on the way, some of them up, brings it about a layer later than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradlab.spec.choices.formats import FORMATS, Format
from gradlab.spec.run import RunSpec
from gradlab.theory.mean_field import settled
from gradlab.theory.predict import predict, profile
from gradlab.theory.quadrature import moments
from gradlab.theory.setting import setting, weight_variance

TOLD = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2", "float32")
"""In the order in which they are told; double is never left before theory is."""

KNOWN = ("mlp", "rnn")
"""Architectures whose last layer reads single units of the last hidden one."""

FIRST_DYNAMIC = 16.0
"""Log2 of the loss scale that a dynamic one begins with (torch.amp.GradScaler)."""

FARTHEST = 10_000
"""Layers beyond which nothing is said."""


@dataclass(frozen=True)
class End:
    """Where the ``form`` ends: ``place`` layers (time steps) before the output, L-1 (T) being one; None: nowhere.

    ``above``: because δ outgrows its largest number.
    """

    form: Format
    place: int | None
    above: bool = False


def first_size(spec: RunSpec) -> float | None:
    """Ln of the typical entry of δ in the last hidden layer, times the loss scale; None where it is not known."""
    seen, said, facts = setting(spec), predict(spec), spec.facts
    if seen.architecture not in KNOWN or said.rate is None or spec.loss != "cross_entropy" or facts.outputs < 2:
        return None
    q = 1.0 if seen.norm != "none" else settled(said.q_star if said.q_star is not None else 1.0)
    classes, samples = facts.outputs, spec.data.batch_size * max(1, facts.positions)
    last = math.sqrt(classes - 1) / (classes * samples)
    passed = weight_variance(spec.model, seen.width, classes) * classes / seen.width * moments(seen.phi, q).slope_square
    scale = 2.0**FIRST_DYNAMIC if spec.train.loss_scale == "dynamic" else float(spec.train.loss_scale)
    return math.log(last * scale) + 0.5 * math.log(passed) if passed > 0 else None


def ends(spec: RunSpec) -> tuple[End, ...]:
    """Where each of `TOLD` ends on the way back through ``spec`` as deep as one likes; empty where it is not known.

    The layers that the run has are followed one by one, those beyond them by the single rate, where there is one.
    """
    begin, said, course = first_size(spec), predict(spec), profile(spec)
    if begin is None or course is None:
        return ()
    # From the last hidden place to the first one; the input is none.
    logs = begin + course.log[course.anchor :: -1]
    logs = logs[: len(logs) - (course.place[0] == 0)]
    beyond = None if said.rate is None or not said.single_rate else math.log(said.rate)
    samples = spec.data.batch_size * max(1, spec.facts.positions)
    logs = logs + 0.5 * math.log(2 * math.log(samples * spec.model.width + 1))
    found = []
    for name in TOLD:
        form = FORMATS[name]
        low, high = math.log(form.smallest / 2), math.log(form.largest)
        out = np.flatnonzero((logs < low) | (logs > high))
        if out.size:
            found.append(End(form, int(out[0]) + 1, above=bool(logs[out[0]] > high)))
            continue
        more = None
        if beyond:
            more = len(logs) + math.ceil(((high if beyond > 0 else low) - float(logs[-1])) / beyond)
        found.append(End(form, more if more and more <= FARTHEST else None, above=bool(beyond and beyond > 0)))
    return tuple(found)


def told(spec: RunSpec) -> str:
    """`ends` in one sentence; empty where nothing is known, or no format ends, or overflows in so many layers."""
    seen = setting(spec)
    noun, has = ("time step", seen.steps) if seen.steps else ("layer", seen.depth)
    found = [one for one in ends(spec) if one.place is not None and (not one.above or one.place <= has)]
    if not found:
        return ""
    how = "overflows" if found[0].above else "ends"
    parts = ", ".join(f"{one.form.name} {how} at {noun} ~{one.place}" for one in found[:1])
    parts += "".join(f", {one.form.name} at ~{one.place}" for one in found[1:])
    scale = {"1": "", "dynamic": ", with a loss scale of 2^16"}.get(
        spec.train.loss_scale, f", with a loss scale of {spec.train.loss_scale}"
    )
    return f"{parts}, from the output{scale}; here {has}"
