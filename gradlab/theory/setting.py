"""What theory sees of a run: a few plain numbers, the same for all runs that it cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gradlab.spec.choices import MODELS, NORMS
from gradlab.spec.run import ModelSpec, RunSpec
from gradlab.theory.activations import Phi
from gradlab.theory.gates import Gate, gate
from gradlab.theory.norms import EPS, RMS_EPS
from gradlab.theory.quadrature import moments

TANGIBLE = ("leaky_relu", "prelu")
"""Activations in which model.slope acts."""


@dataclass(frozen=True)
class Setting:
    """Variances and sizes. All weights are read as N(0, sw2/fan_in), whatever the init is called.

    ``sw2``, ``sb2``: of the square matrices between hidden layers (of an RNN from time step to time step);
    ``sw2_first`` that of the matrix that reads the ``inputs`` (of an RNN, the features of a step), whose mean square is
    ``q0``. ``depth`` is L, of an RNN K; ``steps`` T, 0 without time. ``batch``: samples that batch norm shares, None
    elsewhere. ``branch``: beta of a residual branch. ``pixels``: height and width of an image that is convolved, whose
    filters are ``centre``d in their middle tap or not; ``inputs`` is then a filter's first fan-in. ``gate``: what keeps
    a gated state. ``keep``: the share of activations that dropout leaves; ``sw2`` is then over it, for what is kept is
    as much larger. ``behind``: the norm stands behind phi. ``why_not``: why no theory holds for such weights, None
    where one does.
    """

    architecture: str
    phi: Phi
    norm: str
    depth: int
    steps: int
    width: int
    inputs: int
    sw2: float
    sb2: float
    sw2_first: float
    q0: float
    batch: int | None
    eps: float
    branch: float
    orthogonal: bool
    why_not: str | None = None
    pixels: tuple[int, int] = (1, 1)
    centre: bool = False
    gate: Gate | None = None
    keep: float = 1.0
    behind: bool = False


WEIGHT_VARIANCES: dict[str, Callable[[int, int], float]] = {
    "xavier_normal": lambda fan_in, fan_out: 2 * fan_in / (fan_in + fan_out),
    "xavier_uniform": lambda fan_in, fan_out: 2 * fan_in / (fan_in + fan_out),
    "he_normal": lambda _, __: 2.0,
    "he_uniform": lambda _, __: 2.0,
    "lecun_normal": lambda _, __: 1.0,
    "lecun_uniform": lambda _, __: 1.0,
    # The shorter side's vectors are orthonormal: entries have the variance 1/max(fan_in, fan_out).
    "orthogonal": lambda fan_in, fan_out: fan_in / max(fan_in, fan_out),
    "torch_default": lambda _, __: 1 / 3,
    "identity": lambda _, __: 1.0,
    "delta_orthogonal": lambda fan_in, fan_out: fan_in / max(fan_in, fan_out),
    # Of its branches; the read-in is he_normal's.
    "fixup": lambda _, __: 0.0,
    # Of all that does not end a branch.
    "zero_branches": lambda fan_in, fan_out: 2 * fan_in / (fan_in + fan_out),
    "zeros": lambda _, __: 0.0,
}
"""sw2 = fan_in Var W of every init, by the fan-in and fan-out of a matrix; that of `lsuv` depends on the signals."""

BEYOND = 1e12
"""Signals of such a variance are refused: an activation has nothing left of its course there."""

NO_THEORY: dict[tuple[str, str], str] = {
    **{(name, "identity"): "the identity is no random matrix, of which theory speaks" for name in MODELS},
    ("residual_mlp", "lsuv"): "lsuv scales each branch by the stream that it meets, which theory here does not follow",
    (
        "residual_mlp",
        "fixup",
    ): "fixup's read-out begins at 0, and until it moves no gradient comes to the branches",
    ("resnet", "lsuv"): "lsuv scales each branch by the stream that it meets, which theory here does not follow",
    ("resnet", "fixup"): "fixup's read-out begins at 0, and until it moves no gradient comes to the blocks",
}
"""Why theory says nothing of an architecture with an init."""

_LAST = "the gradient of its last feed-forward layer"

TRANSFORMERS: dict[str, str] = {
    "pre": f"no rate of a transformer is known; {_LAST}, norms first, falls as 1/√N of N blocks (Xiong et al. 2020)",
    "post": f"no rate of a transformer is known; {_LAST}, norms last, is as large at any depth, so that Adam wants a "
    "warmup (Xiong et al. 2020)",
    "deepnorm": "no rate of a transformer is known: with weighted skips what an update does is bounded at any depth "
    "(Wang et al. 2022)",
    "sandwich": "no rate of a transformer with norms on both sides of its branches is known",
    "none": "no rate of a transformer without norms is known",
}
"""What is known of one by `model.norm_place`; no mean field goes through its attention."""

NO_SKIPS = (
    "no rate of a transformer is known: without skips its attention makes all places of a sequence one, doubly "
    "exponentially in depth (Dong et al. 2021)"
)


ROUTED = "no rate of capsules is known: routing makes one signal weigh another, which mean field does not allow for"

PRETRAINED = "its weights are pre-trained: theory knows those that are drawn"

LINEAR = Phi("linear", 0.0)


def setting(spec: RunSpec) -> Setting:
    """What theory sees of ``spec``.

    Inputs are taken to have mean square 1 before `data.input_scale`, as standardised ones have; raw ones may differ,
    which matters in the first layers alone.
    """
    model, facts = spec.model, spec.facts
    if spec.pretrain.mode == "none" and (kept := gate(model)) is not None:
        steps = facts.steps
        return Setting(model.name, LINEAR, "none", 0, steps, 0, 0, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, False, gate=kept)
    if model.free:
        # Nothing is known of the inside of a network of the user's own.
        return Setting(model.name, LINEAR, "none", 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, False)
    if (why := PRETRAINED if spec.pretrain.mode != "none" else _unknown(model)) is not None:
        return Setting(model.name, LINEAR, "none", 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, None, 0.0, 0.0, False, why_not=why)
    if MODELS[model.name].takes == ("image",):
        return _of_images(spec)
    recurrent, keep = MODELS[model.name].needs_time, 1 - (model.dropout or 0.0)
    inputs = facts.features if recurrent else facts.inputs
    # torch.nn.RNN bounds the default draw of every matrix by its hidden width.
    first_fan = (
        model.drawn_width if recurrent and model.init == "torch_default" and model.weight_var is None else inputs
    )
    norm = _of_signals(model)
    phi = Phi(model.activation or "linear", (model.slope or 0.0) if model.activation in TANGIBLE else 0.0)
    init = None if model.weight_var is not None else model.init
    q0 = spec.data.input_scale * spec.data.input_scale
    if init == "lsuv":
        sw2, sw2_first = _unit_variance(model, phi, q0)
    else:
        sw2 = weight_variance(model, model.width, model.width)
        sw2_first = weight_variance(model, inputs, model.drawn_width) * inputs / first_fan
    return Setting(
        architecture=model.name,
        phi=phi,
        norm=norm,
        depth=model.depth,
        steps=facts.steps if recurrent else 0,
        width=model.width,
        inputs=inputs,
        sw2=sw2 / keep,
        sb2=_bias_variance(model),
        sw2_first=sw2_first,
        q0=q0,
        batch=spec.data.batch_size if norm == "batch" else None,
        eps={"none": 0.0, "rms": RMS_EPS[spec.train.precision]}.get(norm, EPS),
        branch=model.branch,
        orthogonal=init == "orthogonal",
        why_not=_why_not(model.name, init) or _not_with_dropout(model) or _not_behind(model),
        keep=keep,
        behind=norm != "none" and model.norm_order == "behind",
    )


def _unknown(model: ModelSpec) -> str | None:
    """Why no rate is known of an architecture whatever its weights."""
    if model.norm_place is not None:
        return TRANSFORMERS[model.norm_place] if model.skip else NO_SKIPS
    return None if model.routing is None else ROUTED


def _of_images(spec: RunSpec) -> Setting:
    """What theory sees of convolutions: of a `resnet` its stream alone, a place a block."""
    model, facts, keep = spec.model, spec.facts, 1 - (spec.model.dropout or 0.0)
    norm, init = _of_signals(model), None if model.weight_var is not None else model.init
    phi = Phi(model.activation or "linear", (model.slope or 0.0) if model.activation in TANGIBLE else 0.0)
    q0 = spec.data.input_scale * spec.data.input_scale
    # Rows of an orthogonal matrix are a filter each; what other inits call fan-out counts its taps too.
    orthogonal = init in ("orthogonal", "delta_orthogonal")
    taps = 1 if init == "delta_orthogonal" else 9
    fan_out = model.width if orthogonal else 9 * model.drawn_width
    if init == "lsuv":
        sw2, sw2_first = _unit_variance(model, phi, q0)
    else:
        sw2 = weight_variance(model, taps * model.drawn_width, fan_out)
        sw2_first = weight_variance(model, taps * facts.channels, fan_out)
    return Setting(
        architecture=model.name,
        phi=phi,
        norm=norm,
        depth=spec.layers if model.block is None else model.depth // 2 + 1,
        steps=0,
        width=model.width,
        inputs=taps * facts.channels,
        sw2=sw2 / keep,
        sb2=1 / (27 * model.drawn_width) if init == "torch_default" else model.bias_var or 0.0,
        sw2_first=sw2_first,
        q0=q0,
        batch=spec.data.batch_size * facts.pixels[0] * facts.pixels[1] if norm == "batch" else None,
        eps={"none": 0.0, "rms": RMS_EPS[spec.train.precision]}.get(norm, EPS),
        branch=0.0 if model.block in ("rezero", "fixup") else model.branch,
        orthogonal=orthogonal,
        why_not=_why_not(model.name, init)
        or _no_theory_of_images(model)
        or _not_with_dropout(model)
        or _not_behind(model),
        keep=keep,
        pixels=facts.pixels,
        centre=init == "delta_orthogonal",
    )


def _of_signals(model: ModelSpec) -> str:
    """The norm that theory sees: a weight norm begins as the matrix that it stands for."""
    return model.norm if model.norm is not None and NORMS[model.norm].of_signals else "none"


def _not_behind(model: ModelSpec) -> str | None:
    """Of norms behind the activation those over single samples are followed, where no stream goes past them."""
    if model.norm_order != "behind" or not NORMS[model.norm or "none"].of_signals:
        return None
    if model.name == "mlp" and model.norm != "batch":
        return None
    return f"a {model.norm} norm behind the activation of {model.name!r} is not followed by theory here"


def _not_with_dropout(model: ModelSpec) -> str | None:
    if not model.dropout:
        return None
    if model.norm == "batch":
        return "a batch norm sees what dropout adds to a variance, which theory here does not follow"
    if MODELS[model.name].needs_time or model.block is not None:
        return f"dropout in {model.name!r} is in some of its layers alone, which theory here does not follow"
    return None


def _no_theory_of_images(model: ModelSpec) -> str | None:
    if model.pool not in (None, "none"):
        return "the mean of four pixels depends on how alike they are, which theory here does not follow"
    if model.norm in ("group", "instance"):
        return "a norm over pixels depends on how alike they are, which theory here does not follow"
    if model.block == "postact":
        return "a stream that is activated at every block is not normal, and theory here does not follow it"
    if model.block == "fixup":
        return NO_THEORY["resnet", "fixup"]
    if model.block is not None and model.norm == "batch":
        return "batch norm in residual convolutions mixes pixels that are alike, which theory here does not follow"
    return None


def _why_not(model: str, init: str | None) -> str | None:
    if init in (None, "lsuv") or init in WEIGHT_VARIANCES:
        return NO_THEORY.get((model, init or ""))
    return "theory does not know this init: it has no entry in gradlab/theory/setting.py"


def weight_variance(model: ModelSpec, fan_in: int, fan_out: int) -> float:
    """sw2 = fan_in Var W of a matrix of ``model``, its gain included."""
    # A product, since the square of a huge number raises where a product is infinite.
    gain = model.gain * model.gain
    if model.weight_var is not None:
        return model.weight_var * gain
    # A linear chain has no init: gain * I, whose square maps a vector as variance gain^2 would.
    if model.init is None:
        return gain
    if model.init not in WEIGHT_VARIANCES:
        return math.nan
    variance = WEIGHT_VARIANCES[model.init](fan_in, fan_out) * gain
    # Zeros times a gain beyond all numbers: theory ends there, too.
    return math.inf if math.isnan(variance) else variance


def _unit_variance(model: ModelSpec, phi: Phi, q0: float) -> tuple[float, float]:
    """The sw2 of hidden matrices and of the first at which W h has the variance gain^2 (Mishkin & Matas 2015).

    What enters phi then has it too, or that of a norm.
    """
    q = model.gain * model.gain
    enters = 1.0 if model.norm not in (None, "none") else q + (model.bias_var or 0.0)
    if enters > BEYOND:
        return math.inf, math.inf
    square = moments(phi, enters).square
    return tuple(q / one if one > 0 else 0.0 for one in (square, q0))  # type: ignore[return-value]


def _bias_variance(model: ModelSpec) -> float:
    if model.init == "torch_default" and model.weight_var is None:
        return 1 / (3 * model.drawn_width)
    return model.bias_var or 0.0
