"""What each remedy sets: functions of the spec, since the right value may depend on the rest of it.

None where a remedy does not apply to a run. Nothing here trains or imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from gradlab.cure.changes import Change, changed
from gradlab.data.loaders import load
from gradlab.spec.choices import ACTIVATIONS, CLIPS, INITS, MODELS, OPTIMIZERS
from gradlab.spec.keys import DEFAULTS
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, RunSpec
from gradlab.spec.unused import unused
from gradlab.theory.predict import predict, profile

LEARNING_RATE_OF_ADAM = 1e-3
"""Kingma & Ba 2014, algorithm 1: the good default."""

LEARNING_RATE_OF_SGD = 1e-2
"""Bengio 2012, arXiv:1206.5533, section 3.1.1: what typically works for standard networks of several layers."""

WARMUP_SHARE = 10
"""One step in so many is warmup."""

FEW_SAMPLES, GROUP = 16, 16
"""Wu & He 2018, arXiv:1803.08494: batches that batch norm suffers from (figure 1), and units of a group (table 3)."""

FORGET_BIAS = 1.0
"""Gers et al. 2000 and Jozefowicz et al. 2015, section 4.4."""

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


def always(change: Change) -> Callable[[RunSpec], Change | None]:
    """The same values whatever the run."""
    return lambda _: change


def learning_rate(factor: float) -> Callable[[RunSpec], Change | None]:
    """That of the run, times a factor."""
    return lambda spec: {"optim.lr": _rounded(spec.optim.lr * factor)}


def usual_learning_rate(spec: RunSpec) -> Change:
    """That of the optimizer's kind, whatever the run has."""
    adaptive = "beta2" in OPTIMIZERS[spec.optim.name].uses
    return {"optim.lr": LEARNING_RATE_OF_ADAM if adaptive else LEARNING_RATE_OF_SGD}


def warmup(spec: RunSpec) -> Change | None:
    """A tenth of the steps; a cycle has a warmup of its own."""
    steps = spec.train.steps // WARMUP_SHARE
    return (
        {"optim.warmup": steps} if steps > 1 and not spec.optim.warmup and spec.optim.schedule != "one_cycle" else None
    )


def clip(mode: str, threshold: float) -> Callable[[RunSpec], Change | None]:
    """A mode with a threshold that the literature gives."""
    return always({"clip.mode": mode, "clip.threshold": threshold})


def clip_wider(spec: RunSpec) -> Change | None:
    """Ten times the thresholds that there are."""
    if not CLIPS[spec.clip.mode].uses or spec.clip.mode in ("autoclip", "zclip"):
        return None
    output = spec.clip.output_threshold
    wider: dict[str, Value] = {"clip.threshold": _rounded(spec.clip.threshold * 10)}
    return wider if output is None else {**wider, "clip.output_threshold": _rounded(output * 10)}


def init(name: str) -> Callable[[RunSpec], Change | None]:
    """The weights of an init as it is published: no gain, no variance of their own."""
    return always({"model.init": name, "model.gain": 1.0, "model.weight_var": None})


def without_biases(name: str) -> Callable[[RunSpec], Change | None]:
    """An init whose paper has no biases, for the architectures that it is for."""

    def change(spec: RunSpec) -> Change | None:
        if spec.model.name not in (INITS[name].models or MODELS):
            return None
        return {"model.init": name, "model.gain": 1.0, "model.weight_var": None, "model.bias_var": 0.0}

    return change


def fixup(spec: RunSpec) -> Change | None:
    """Of convolutions with the blocks of its paper, which have no norm and one number for all biases of a layer."""
    if spec.model.name != "resnet":
        return without_biases("fixup")(spec)
    plain: dict[str, Value] = {"model.init": "he_normal", "model.gain": 1.0, "model.weight_var": None}
    return {"model.block": "fixup", "model.norm": "none", "model.branch_scale": 1.0, "model.bias_var": 0.0, **plain}


def rezero(spec: RunSpec) -> Change | None:
    """Of residual convolutions alone."""
    return None if spec.model.block is None else {"model.block": "rezero", "model.branch_scale": 1.0}


def delta_orthogonal(spec: RunSpec) -> Change | None:
    """Of convolutions alone, with the gain that `orthogonal` has for dense layers: no border takes anything away."""
    if spec.model.name not in INITS["delta_orthogonal"].models:
        return None
    gain = {"relu": math.sqrt(2), "tanh": BEYOND}.get(str(spec.model.activation), 1.0)
    plain: dict[str, Value] = {"model.init": "delta_orthogonal", "model.weight_var": None, "model.bias_var": 0.0}
    return {**plain, "model.gain": _rounded(gain)}


def identity(spec: RunSpec) -> Change | None:
    """Of Elman networks alone: gates have other ways to keep a state."""
    return without_biases("identity")(spec) if spec.model.name == "rnn" else None


def forget_bias(spec: RunSpec) -> Change | None:
    """Where a cell forgets faster than at 1."""
    before = spec.model.forget_bias
    return {"model.forget_bias": FORGET_BIAS} if before is not None and before < FORGET_BIAS else None


def squash_eps(spec: RunSpec) -> Change | None:
    """Of capsules that have none."""
    return {"model.squash_eps": MODELS["capsule"].keys["squash_eps"]} if spec.model.squash_eps == 0 else None


def chrono(spec: RunSpec) -> Change | None:
    """Where there are gates that begin otherwise."""
    return {"model.chrono": True} if spec.model.chrono is False and spec.model.attention is None else None


def gates(name: str) -> Callable[[RunSpec], Change | None]:
    """A gated network of the same size in place of Elman's, its weights as torch's; of an LSTM, forget bias 1."""

    def change(spec: RunSpec) -> Change | None:
        if spec.model.name != "rnn":
            return None
        keys = MODELS[name].keys
        own = {f"model.{key}": value for key, value in keys.items() if key not in ("depth", "width", "output")}
        if "forget_bias" in keys:
            own["model.forget_bias"] = FORGET_BIAS
        lacking = {f"model.{key}": None for key in MODELS["rnn"].keys if key not in keys}
        return {"model.name": name, **own, **lacking}

    return change


def attention(spec: RunSpec) -> Change | None:
    """Where a decoder has nothing of its encoder but the last state."""
    return {"model.attention": "additive"} if spec.model.attention == "none" else None


PRETRAINABLE, MOST_PRETRAINED = ("sigmoid", "tanh"), 10
"""What layer-wise pre-training was made for: saturating units, and so many layers that each can wait for its turn."""


def pretrained(spec: RunSpec) -> Change | None:
    """Hidden layers as autoencoders, one after the other."""
    model = spec.model
    able = model.name == "mlp" and model.activation in PRETRAINABLE and 2 < model.depth <= MOST_PRETRAINED
    return {"pretrain.mode": "layerwise"} if able and spec.pretrain.mode == "none" else None


def orthogonal(spec: RunSpec) -> Change:
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


def no_biases(spec: RunSpec) -> Change | None:
    """Where there are some."""
    return {"model.bias_var": 0.0} if spec.model.bias_var else None


def critical(spec: RunSpec) -> Change | None:
    """The nearest weight variance at which theory has gradients keep their size beside the run's own biases."""
    said = predict(spec)
    if said.critical_weight_var is None or (said.chi1 is not None and abs(said.chi1 - 1) < ALIKE):
        return None
    return {"model.weight_var": _rounded(said.critical_weight_var), "model.gain": 1.0}


def _has_hidden(spec: RunSpec) -> bool:
    """Whether there is a layer before the output, and so one with an activation and a norm."""
    choice = MODELS[spec.model.name]
    return choice.needs_time or choice.free or spec.model.depth > 1


def activation(name: str) -> Callable[[RunSpec], Change | None]:
    """One with its own slope, where there is another."""

    def change(spec: RunSpec) -> Change | None:
        if spec.model.activation in (None, name) or not _has_hidden(spec):
            return None
        # A network of one's own has activations with slopes of their own.
        slope = {} if spec.model.free else {"model.slope": ACTIVATIONS[name].slope}
        return {"model.activation": name, **slope}

    return change


def bare_output(spec: RunSpec) -> Change | None:
    """Where something stands behind the last layer."""
    return {"model.output": "none"} if spec.model.output not in (None, "none") else None


def norm(name: str) -> Callable[[RunSpec], Change | None]:
    """One before every activation, where there is one."""
    return lambda spec: {"model.norm": name} if _has_hidden(spec) else None


def batch_norm(spec: RunSpec) -> Change | None:
    """Where the samples differ."""
    # Over equal inputs every unit's variance is zero.
    return None if spec.data.name == ONE_INPUT else norm("batch")(spec)


def group_norm(spec: RunSpec) -> Change | None:
    """In place of a batch norm over few samples: sixteen units a group, or all in one."""
    if spec.model.norm != "batch" or spec.data.batch_size > FEW_SAMPLES:
        return None
    width = spec.model.width
    return {"model.norm": "group", "model.groups": width // GROUP if width and width % GROUP == 0 else 1}


def mup(spec: RunSpec) -> Change | None:
    """Of networks wider than their architecture is by default: the learning rate is then one of that width."""
    base = MODELS[spec.model.name].keys.get("width")
    if spec.model.parametrization != "standard" or not isinstance(base, int) or spec.model.width <= base:
        return None
    return {"model.parametrization": "mup", "model.base_width": base}


def standardise(spec: RunSpec) -> Change | None:
    """Where the inputs differ."""
    if spec.data.name == ONE_INPUT:
        return None
    return {"data.standardise": True, "data.input_scale": 1.0}


@lru_cache(maxsize=16)
def variance_of_targets(data: DataSpec) -> float:
    """Of the training part before `data.target_scale`, the mean over the outputs."""
    return float(load(data).train_targets.var(axis=0).mean())


def has_squared_errors(spec: RunSpec) -> bool:
    """Whether real targets are learned by their squared errors: a scale of theirs is then one of the loss, squared."""
    return spec.facts.loss == spec.loss == "mean_squared_error"


def unit_targets(spec: RunSpec) -> Change | None:
    """Targets of unit variance, where there are real ones that vary."""
    if not has_squared_errors(spec) or not spec.data.target_scale:
        return None
    deviation = math.sqrt(variance_of_targets(spec.data))
    if deviation == 0 or abs(deviation * abs(spec.data.target_scale) - 1) < ALIKE:
        return None
    return {"data.target_scale": _rounded(1 / deviation)}


def calmer_momentum(spec: RunSpec) -> Change | None:
    """Momentum m makes steps 1/(1-m) times as long in the end: from above 0.9 to 0.9, from there to none."""
    if "optim.momentum" in unused(spec) or spec.optim.momentum == 0:
        return None
    return {"optim.momentum": 0.9 if spec.optim.momentum > 0.9 else 0.0}


def no_decay(spec: RunSpec) -> Change | None:
    """Where there is some."""
    return {"optim.weight_decay": 0.0} if spec.optim.weight_decay else None


def momentum(spec: RunSpec) -> Change | None:
    """Where plain gradient descent has none."""
    return {"optim.momentum": 0.9} if spec.optim.name == "sgd" and spec.optim.momentum == 0 else None


def adam(spec: RunSpec) -> Change | None:
    """With its usual numbers, where the optimizer is of another kind."""
    if "beta1" in OPTIMIZERS[spec.optim.name].uses:
        return None
    betas: dict[str, Value] = {f"optim.{key}": DEFAULTS[f"optim.{key}"] for key in ("beta1", "beta2", "eps")}
    return {"optim.name": "adam", "optim.lr": LEARNING_RATE_OF_ADAM, **betas}


def residual(spec: RunSpec) -> Change | None:
    """Branches around the layers of a plain network, of which each adds 1/sqrt(L); of convolutions blocks of two."""
    if spec.model.name == "cnn" and spec.model.pool == "none":
        depth = max(4, (spec.layers + 1) // 2 * 2)
        scale = _rounded((depth // 2 - 1) ** -0.5)
        return {"model.name": "resnet", "model.depth": depth, "model.branch_scale": scale}
    if spec.model.name != "mlp":
        return None
    return {"model.name": "residual_mlp", "model.branch_scale": _rounded(1 / math.sqrt(spec.model.depth))}


def branch_scale(spec: RunSpec) -> Change | None:
    """Of branches that there are."""
    if spec.model.branch_scale is None or spec.model.base_depth is not None:
        return None
    if spec.model.block is not None:
        return {"model.branch_scale": _rounded(max(1, spec.model.depth // 2 - 1) ** -0.5)}
    return {"model.branch_scale": _rounded(1 / math.sqrt(spec.model.depth))}


def half_depth(spec: RunSpec) -> Change | None:
    """Where a network can have so few layers."""
    if spec.model.free:
        return None
    half = spec.model.depth // 2
    # Blocks of two layers, a read-in and a read-out.
    half += half % 2 if spec.model.block is not None else 0
    return {"model.depth": half} if half >= MODELS[spec.model.name].least_depth else None


def reach(spec: RunSpec) -> Change | None:
    """The most layers, of less than half, over which expected gradients change no more than `END_TO_END`-fold."""
    rate = predict(spec).rate
    if MODELS[spec.model.name].needs_time or spec.model.block is not None or not rate or abs(math.log(rate)) < 1e-3:
        return None
    about = 3 + math.ceil(math.log(END_TO_END) / abs(math.log(rate)))
    for depth in range(min(about, (spec.model.depth - 1) // 2), 1, -1):
        shallow = changed(spec, {"model.depth": depth})
        course = None if shallow is None else profile(shallow)
        if course is not None and abs(course.log10_ratio(1)) <= math.log10(END_TO_END):
            return {"model.depth": depth}
    return None


def twice_as_wide(spec: RunSpec) -> Change | None:
    """Every hidden layer."""
    if spec.model.free:
        return None
    return {"model.width": 2 * spec.model.width}


def norms_first(spec: RunSpec) -> Change | None:
    """Of a transformer whose norms stand elsewhere, or nowhere."""
    if spec.model.norm_place in (None, "pre"):
        return None
    return {"model.norm_place": "pre", "model.norm": "layer" if spec.model.norm == "none" else spec.model.norm}


def deepnorm(spec: RunSpec) -> Change | None:
    """Of a transformer whose norms follow its sums."""
    return {"model.norm_place": "deepnorm"} if spec.model.norm_place == "post" and spec.model.skip else None


def qk_norm(spec: RunSpec) -> Change | None:
    """Where there is attention without it."""
    return {"model.qk_norm": True} if spec.model.qk_norm is False else None


def attention_scale(spec: RunSpec) -> Change | None:
    """The usual one, where another is given."""
    return None if spec.model.attention_scale is None else {"model.attention_scale": None}
