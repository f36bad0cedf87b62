"""The remedies of the literature: what each changes in a run, what kind of change it is, and what that costs.

A remedy is a function of the spec, since the right value may depend on the rest of it (a critical variance on the
activation). Nothing here trains or imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gradlab.cure.changes import Change, Remedy, changed
from gradlab.spec.choices import ACTIVATIONS, MODELS, OPTIMIZERS
from gradlab.spec.keys import DEFAULTS
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, unused
from gradlab.theory.predict import predict, profile

LEARNING_RATE_OF_ADAM = 1e-3
"""Kingma & Ba 2014, algorithm 1: the good default."""

LEARNING_RATE_OF_SGD = 1e-2
"""Bengio 2012, arXiv:1206.5533, section 3.1.1: what typically works for standard networks of several layers."""

ONE_INPUT = "point"
"""Data whose inputs are all equal: no statistic over samples can be divided by."""

END_TO_END = 20.0
"""How far gradients may change over all layers: `diagnose.vanishing_ratio` and `exploding_ratio` by default."""

ALIKE = 0.02
"""A variance this close to the critical one is critical."""


BEYOND = 1.05
"""Orthogonal matrices of deep tanh networks train with a gain a little above the critical 1 (Pennington et al. 2017,
arXiv:1711.04735, figure 4: at gains of 1.05, and biases of next to nothing)."""


def _rounded(value: float) -> float:
    """Four digits: what is typed again must be the same run."""
    return float(f"{value:.4g}")


def _always(change: Change) -> Callable[[RunSpec], Change | None]:
    """The same values whatever the run."""
    return lambda _: change


def _learning_rate(factor: float) -> Callable[[RunSpec], Change | None]:
    return lambda spec: {"optim.lr": _rounded(spec.optim.lr * factor)}


def _usual_learning_rate(spec: RunSpec) -> Change:
    adaptive = "beta2" in OPTIMIZERS[spec.optim.name].uses
    return {"optim.lr": LEARNING_RATE_OF_ADAM if adaptive else LEARNING_RATE_OF_SGD}


def _clip(mode: str, threshold: float) -> Callable[[RunSpec], Change | None]:
    return _always({"clip.mode": mode, "clip.threshold": threshold})


def _clip_wider(spec: RunSpec) -> Change | None:
    if spec.clip.mode == "none":
        return None
    output = spec.clip.output_threshold
    wider: dict[str, Value] = {"clip.threshold": _rounded(spec.clip.threshold * 10)}
    return wider if output is None else {**wider, "clip.output_threshold": _rounded(output * 10)}


def _init(name: str) -> Callable[[RunSpec], Change | None]:
    return _always({"model.init": name, "model.gain": 1.0, "model.weight_var": None})


def _orthogonal(spec: RunSpec) -> Change:
    """Orthogonal matrices with the activation's gain, and no biases: sqrt(2) of ReLU, 1.05 of tanh.

    The gain is the root of the critical weight variance without biases, 1 where there is none (behind a norm, in
    residual and recurrent networks). Where gradients decay algebraically there, as of tanh, it is `BEYOND`
    times that.
    """
    plain: dict[str, Value] = {"model.init": "orthogonal", "model.gain": 1.0, "model.weight_var": None}
    if spec.model.bias_var is not None:
        plain["model.bias_var"] = 0.0
    after = changed(spec, plain)
    said = None if after is None else predict(after)
    if said is None or said.critical_weight_var is None:
        return plain
    gain = math.sqrt(said.critical_weight_var)
    there = changed(spec, {**plain, "model.gain": gain})
    fades = there is not None and predict(there).q_star == 0
    return {**plain, "model.gain": _rounded(gain * (BEYOND if fades else 1.0))}


def _no_biases(spec: RunSpec) -> Change | None:
    return {"model.bias_var": 0.0} if spec.model.bias_var else None


def _critical(spec: RunSpec) -> Change | None:
    """The nearest weight variance at which theory has gradients keep their size beside the run's own biases."""
    said = predict(spec)
    if said.critical_weight_var is None or (said.chi1 is not None and abs(said.chi1 - 1) < ALIKE):
        return None
    return {"model.weight_var": _rounded(said.critical_weight_var), "model.gain": 1.0}


def _has_hidden(spec: RunSpec) -> bool:
    """Whether there is a layer before the output, and so one with an activation and a norm."""
    return MODELS[spec.model.name].needs_time or spec.model.depth > 1


def _activation(name: str) -> Callable[[RunSpec], Change | None]:
    def change(spec: RunSpec) -> Change | None:
        if spec.model.activation in (None, name) or not _has_hidden(spec):
            return None
        return {"model.activation": name, "model.slope": ACTIVATIONS[name].slope}

    return change


def _norm(name: str) -> Callable[[RunSpec], Change | None]:
    return lambda spec: {"model.norm": name} if _has_hidden(spec) else None


def _batch_norm(spec: RunSpec) -> Change | None:
    # Over equal inputs every unit's variance is zero.
    return None if spec.data.name == ONE_INPUT else _norm("batch")(spec)


def _standardise(spec: RunSpec) -> Change | None:
    if spec.data.name == ONE_INPUT:
        return None
    return {"data.standardise": True, "data.input_scale": 1.0}


def _calmer_momentum(spec: RunSpec) -> Change | None:
    """Momentum m makes steps 1/(1-m) times as long in the end: from above 0.9 to 0.9, from there to none."""
    if "optim.momentum" in unused(spec) or spec.optim.momentum == 0:
        return None
    return {"optim.momentum": 0.9 if spec.optim.momentum > 0.9 else 0.0}


def _no_decay(spec: RunSpec) -> Change | None:
    return {"optim.weight_decay": 0.0} if spec.optim.weight_decay else None


def _momentum(spec: RunSpec) -> Change | None:
    return {"optim.momentum": 0.9} if spec.optim.name == "sgd" and spec.optim.momentum == 0 else None


def _adam(spec: RunSpec) -> Change | None:
    if "beta1" in OPTIMIZERS[spec.optim.name].uses:
        return None
    betas: dict[str, Value] = {f"optim.{key}": DEFAULTS[f"optim.{key}"] for key in ("beta1", "beta2", "eps")}
    return {"optim.name": "adam", "optim.lr": LEARNING_RATE_OF_ADAM, **betas}


def _residual(spec: RunSpec) -> Change | None:
    if spec.model.name != "mlp":
        return None
    return {"model.name": "residual_mlp", "model.branch_scale": _rounded(1 / math.sqrt(spec.model.depth))}


def _branch_scale(spec: RunSpec) -> Change | None:
    if spec.model.branch_scale is None:
        return None
    return {"model.branch_scale": _rounded(1 / math.sqrt(spec.model.depth))}


def _half_depth(spec: RunSpec) -> Change | None:
    half = spec.model.depth // 2
    return {"model.depth": half} if half >= MODELS[spec.model.name].least_depth else None


def _reach(spec: RunSpec) -> Change | None:
    """The most layers, of less than half, over which expected gradients change no more than `END_TO_END`-fold."""
    rate = predict(spec).rate
    if MODELS[spec.model.name].needs_time or rate is None or rate <= 0 or abs(math.log(rate)) < 1e-3:
        return None
    about = 3 + math.ceil(math.log(END_TO_END) / abs(math.log(rate)))
    for depth in range(min(about, (spec.model.depth - 1) // 2), 1, -1):
        shallow = changed(spec, {"model.depth": depth})
        course = None if shallow is None else profile(shallow)
        if course is not None and abs(course.log10_ratio(1)) <= math.log10(END_TO_END):
            return {"model.depth": depth}
    return None


def _twice_as_wide(spec: RunSpec) -> Change | None:
    return {"model.width": 2 * spec.model.width}


_COHEN = "Cohen et al. 2021, arXiv:2103.00065"
_SMITH = "Smith 2015, arXiv:1506.01186"
_PASCANU = "Pascanu et al. 2013, arXiv:1211.5063"

REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy
    for remedy in (
        Remedy(
            "lr/10",
            "a tenth of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            _learning_rate(1 / 10),
        ),
        Remedy(
            "lr/3",
            "a third of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            _learning_rate(1 / 3),
        ),
        Remedy("lr*3", "three times the learning rate", _SMITH, "learning rate", _learning_rate(3.0)),
        Remedy("lr*10", "ten times the learning rate", _SMITH, "learning rate", _learning_rate(10.0)),
        Remedy(
            "lr/100",
            "a hundredth of the learning rate: stable below 2/sharpness",
            _COHEN,
            "learning rate",
            _learning_rate(1 / 100),
        ),
        Remedy("lr*100", "a hundred times the learning rate", _SMITH, "learning rate", _learning_rate(100.0)),
        Remedy(
            "lr-usual",
            "the usual learning rate: 0.01, and 0.001 of adam and its like",
            "Bengio 2012, arXiv:1206.5533, section 3.1.1; Kingma & Ba 2014, arXiv:1412.6980",
            "learning rate",
            _usual_learning_rate,
        ),
        Remedy(
            "calmer-momentum",
            "momentum 0.9, or none where it is no more: steps are 1/(1-momentum) times as long",
            "Sutskever et al. 2013",
            "learning rate",
            _calmer_momentum,
        ),
        Remedy(
            "no-decay",
            "no weight decay, which pulls all weights to 0",
            "Krogh & Hertz 1991",
            "learning rate",
            _no_decay,
        ),
        Remedy("clip-norm", "clip the whole gradient to norm 1", _PASCANU, "clipping", _clip("norm", 1.0)),
        Remedy("clip-tight", "clip the whole gradient to norm 0.1", _PASCANU, "clipping", _clip("norm", 0.1)),
        Remedy("clip-value", "clip each entry to 0.1", "Mikolov 2012", "clipping", _clip("value", 0.1)),
        Remedy(
            "clip-layers",
            "clip each layer's gradient to norm 0.1",
            "Keras clipnorm",
            "clipping",
            _clip("layerwise", 0.1),
        ),
        Remedy(
            "normalize",
            "steps of one length: the whole gradient to norm 1",
            "Hazan et al. 2015, arXiv:1507.02030",
            "clipping",
            _clip("normalize", 1.0),
        ),
        Remedy("clip-wider", "ten times the threshold of clipping", _PASCANU, "clipping", _clip_wider),
        Remedy("clip-off", "no clipping", _PASCANU, "clipping", _always({"clip.mode": "none"})),
        Remedy(
            "standardise",
            "inputs of mean 0 and variance 1",
            "LeCun et al. 1998, Efficient BackProp, section 4.3",
            "input",
            _standardise,
        ),
        Remedy(
            "gain",
            "initial weights without a further gain",
            "Saxe et al. 2013, arXiv:1312.6120",
            "init",
            _always({"model.gain": 1.0}),
        ),
        Remedy("he", "weights of variance 2/fan_in", "He et al. 2015, arXiv:1502.01852", "init", _init("he_normal")),
        Remedy(
            "xavier", "weights of variance 2/(fan_in+fan_out)", "Glorot & Bengio 2010", "init", _init("xavier_normal")
        ),
        Remedy(
            "orthogonal",
            "orthogonal weights with the gain of the activation, no biases",
            "Saxe et al. 2013, arXiv:1312.6120; Pennington et al. 2017, arXiv:1711.04735",
            "init",
            _orthogonal,
        ),
        Remedy(
            "no-biases",
            "biases that begin at 0",
            "Schoenholz et al. 2016, arXiv:1611.01232",
            "init",
            _no_biases,
        ),
        Remedy(
            "critical",
            "the weight variance at which theory has gradients keep their size",
            "Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2016, arXiv:1611.01232",
            "init",
            _critical,
        ),
        Remedy(
            "branch-scale",
            "residual branches scaled by 1/sqrt(L)",
            "Zhang et al. 2019, arXiv:1901.09321; Hanin & Rolnick 2018, arXiv:1803.01719",
            "init",
            _branch_scale,
        ),
        Remedy("tanh", "tanh, of slope 1 at the origin", "Glorot & Bengio 2010", "activation", _activation("tanh")),
        Remedy("relu", "relu, which does not saturate", "Nair & Hinton 2010", "activation", _activation("relu")),
        Remedy(
            "leaky_relu",
            "leaky_relu, whose units cannot die",
            "Maas et al. 2013",
            "activation",
            _activation("leaky_relu"),
        ),
        Remedy(
            "elu",
            "elu, whose mean is near 0",
            "Clevert et al. 2015, arXiv:1511.07289",
            "activation",
            _activation("elu"),
        ),
        Remedy(
            "gelu",
            "gelu, a smooth relu",
            "Hendrycks & Gimpel 2016, arXiv:1606.08415",
            "activation",
            _activation("gelu"),
        ),
        Remedy("batch", "batch norm", "Ioffe & Szegedy 2015, arXiv:1502.03167", "norm", _batch_norm),
        Remedy("layer", "layer norm", "Ba et al. 2016, arXiv:1607.06450", "norm", _norm("layer")),
        Remedy("rms", "rms norm", "Zhang & Sennrich 2019, arXiv:1910.07467", "norm", _norm("rms")),
        Remedy(
            "norm-off",
            "no norm: a deep batch norm explodes by itself",
            "Yang et al. 2019, arXiv:1902.08129",
            "norm",
            _norm("none"),
        ),
        Remedy("momentum", "momentum 0.9", "Sutskever et al. 2013", "optimizer", _momentum),
        Remedy(
            "adam",
            "adam at its default learning rate, 0.001",
            "Kingma & Ba 2014, arXiv:1412.6980",
            "optimizer",
            _adam,
        ),
        Remedy(
            "residual",
            "residual branches, scaled by 1/sqrt(L)",
            "He et al. 2016, arXiv:1603.05027; the scale: Hanin & Rolnick 2018, arXiv:1803.01719",
            "architecture",
            _residual,
        ),
        Remedy("half-depth", "half as many layers", "Schoenholz et al. 2016, arXiv:1611.01232", "depth", _half_depth),
        Remedy(
            "reach",
            "as many layers as gradients pass at the expected rate",
            "Schoenholz et al. 2016, arXiv:1611.01232, section 5",
            "depth",
            _reach,
        ),
        Remedy(
            "twice-as-wide",
            "layers twice as wide: draws differ less",
            "Hanin & Rolnick 2018, arXiv:1803.01719",
            "width",
            _twice_as_wide,
        ),
    )
}
"""Every remedy by its name."""
