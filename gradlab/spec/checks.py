"""What no run can have although each of its values is right: raised as `SpecError`, a line that says why."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gradlab.spec.choices import DATA, INITS, INSTRUMENTS, LOSSES, MODELS, NORMS, OPTIMIZERS, PRETRAINING
from gradlab.spec.choices.models import halved_before
from gradlab.spec.named import SpecError

if TYPE_CHECKING:
    from gradlab.spec.run import ClipSpec, DataSpec, Facts, ModelSpec, OptimSpec, RunSpec, TrainSpec

MOST_BYTES = 2**42
"""Of one run; a larger one is taken for a slip of the keyboard."""


BEGIN_AT_ZERO = ("zeros", "fixup", "zero_branches")
"""Inits of matrices that have no direction."""


def _check_norm(model: ModelSpec, data: DataSpec) -> None:
    """Raises `SpecError` for a norm that the network cannot have."""
    choice = MODELS[model.name]
    if model.norm is None:
        return
    if model.norm not in choice.norms:
        why = " shares its weights over time, so running statistics have no meaning; it" if choice.needs_time else ""
        raise SpecError(f"model.norm={model.norm}: {model.name!r}{why} takes: {', '.join(choice.norms)}")
    if NORMS[model.norm].over_batch and data.batch_size == 1:
        raise SpecError(f"model.norm={model.norm} with data.batch_size=1: a batch norm needs at least 2 samples")
    if model.norm == "group" and model.width % (model.groups or 1):
        raise SpecError(
            f"model.groups={model.groups}: groups share the units evenly, and {model.groups} does not divide "
            f"model.width={model.width}"
        )
    if model.norm == "group" and model.groups == model.width and choice.takes != ("image",):
        raise SpecError(f"model.groups={model.groups}: a group of a single unit has no spread; expected fewer")
    if model.norm == "weight":
        if model.weight_var is None and model.init in (*BEGIN_AT_ZERO, "lsuv"):
            raise SpecError(f"model.init={model.init} with model.norm=weight: needs matrices that begin with a length")
        if 0 in (model.gain, model.weight_var):
            raise SpecError("model.norm=weight: weights that begin at 0 have no direction")
        if model.parametrization in ("mup", "ntk"):
            raise SpecError(
                f"model.parametrization={model.parametrization} with model.norm=weight: no rule is known for lengths"
            )


def check_fit(model: ModelSpec, data: DataSpec, facts: Facts) -> None:
    """Raises `SpecError` where a network of gradlab's own cannot have these values, or these data."""
    choice = MODELS[model.name]
    if model.depth < choice.least_depth:
        raise SpecError(f"model.depth={model.depth}: {model.name!r} needs at least {choice.least_depth} layers")
    _check_norm(model, data)
    if model.dropout and choice.needs_time and model.depth == 1:
        raise SpecError(f"model.dropout={model.dropout:g} with model.depth=1: acts between recurrent layers")
    _check_forms(model, data, facts)
    if model.name == "linear_chain" and not model.width == facts.inputs == facts.outputs:
        raise SpecError(
            f"model.name=linear_chain: its matrices are square, so width = inputs = outputs; given model.width="
            f"{model.width} on {data.name!r} with {facts.inputs} inputs and {facts.outputs} outputs (its data is "
            "'linear_teacher')"
        )
    if "image" in choice.takes and len(choice.takes) == 1:
        _check_image(model, data, facts)
    if model.heads is not None:
        _check_attention(model, facts)
    if model.base_depth is not None:
        _check_base_depth(model)
    _check_size(model, data, facts)
    _check_init(model)


BY_FANS = tuple(name for name in INITS if INITS[name].by_fans)
"""Inits that a parametrization can scale."""


def _check_init(model: ModelSpec) -> None:
    """Raises `SpecError` for weights that the network cannot begin with."""
    for key, value in (("model.activation", model.activation), ("model.init", model.init)):
        if value == "own":
            raise SpecError(f"{key}=own: only model=module has something of its own; {model.name!r} takes a name")
    if model.parametrization == "mup" and model.weight_var is None and model.init not in BY_FANS:
        raise SpecError(
            f"model.init={model.init} with model.parametrization=mup: needs variances that go by the fans; it takes: "
            f"{', '.join(BY_FANS)}"
        )
    able = INITS[model.init].models if model.init is not None else ()
    if able and model.name not in able and model.weight_var is None:
        raise SpecError(f"model.init={model.init}: is for {' and '.join(able)}; given model.name={model.name}")
    if model.init == "torch_default" and model.weight_var is None and model.bias_var:
        raise SpecError(f"model.bias_var={model.bias_var:g}: init 'torch_default' draws its own biases; leave it at 0")


def _check_forms(model: ModelSpec, data: DataSpec, facts: Facts) -> None:
    """Raises `SpecError` for inputs that the network does not take, or answers that it does not give."""
    choice, longest = MODELS[model.name], DATA[data.name].longest
    if not facts.shape and "vector" not in choice.takes:
        raise SpecError(f"{data.path or data.target}: cannot be looked at here, and {model.name!r} needs its shape")
    if facts.kind is not None:
        raise SpecError(
            f"data.name={data.name}: it holds {facts.kind}; {model.name!r} takes floats, or pixels of uint8"
        )
    if choice.takes == ("image",) and len(facts.shape) == 3 and not facts.image:
        samples = "x".join(map(str, facts.shape))
        raise SpecError(
            f"data.name={data.name}: samples of {samples}; {model.name!r} takes (rows, columns), "
            "or such an image with 1, 3 or 4 channels in its first or its last axis, not in both"
        )
    if longest is not None and data.length is not None and data.length > longest:
        raise SpecError(f"data.length={data.length}: what {data.name!r} is cut from gives {longest:,} at most")
    if not set(choice.takes) & set(facts.forms):
        raise SpecError(f"data.name={data.name}: is {FORMS[facts.forms[0]]}; {_wanted(model.name)}")
    if facts.positions and not choice.by_position:
        raise SpecError(f"data.name={data.name}: asks for {facts.positions} answers a sample; {_wanted(model.name)}")
    if model.attention is not None and not 0 < facts.positions < facts.steps:
        written = [name for name, entry in DATA.items() if entry.positions and entry.vocabulary]
        raise SpecError(
            f"data.name={data.name}: {model.name!r} reads a source and writes an answer, which the last places of a "
            f"sequence are for: {', '.join(written)}"
        )


def _check_image(model: ModelSpec, data: DataSpec, facts: Facts) -> None:
    """Raises `SpecError` for what no network of images can have."""
    if model.block is not None and model.depth % 2:
        shape = "a read-in, blocks of two layers and a read-out"
        raise SpecError(f"model.depth={model.depth}: {model.name!r} has {shape}; expected an even number")
    if model.block == "fixup" and model.norm != "none":
        raise SpecError(f"model.norm={model.norm}: model.block=fixup does without; expected none, or another block")
    halved = sorted(halved_before(model.pool))
    if halved and halved[-1] > model.depth:
        raise SpecError(f"model.pool={model.pool}: {model.name!r} has convolutions 1 to {model.depth}")
    if model.capsule_width is not None and model.width % model.capsule_width:
        raise SpecError(
            f"model.capsule_width={model.capsule_width}: capsules share the channels evenly, and "
            f"{model.capsule_width} does not divide model.width={model.width}"
        )
    if model.norm == "instance" and max(facts.pixels) >> len(halved) == 1:
        raise SpecError("model.norm=instance: a single pixel has no spread; expected larger images, or less model.pool")
    if min(facts.pixels) >> len(halved) == 0:
        raise SpecError(
            f"model.pool={model.pool}: images of {facts.pixels[0]}x{facts.pixels[1]} on {data.name!r} can be halved "
            f"{min(facts.pixels).bit_length() - 1} times"
        )


def _check_attention(model: ModelSpec, facts: Facts) -> None:
    """Raises `SpecError` for what no transformer can have."""
    if model.heads is not None and model.width % model.heads:
        raise SpecError(
            f"model.heads={model.heads}: heads share the width evenly, and {model.heads} does not divide "
            f"model.width={model.width}"
        )
    if model.norm == "none" and model.norm_place != "none":
        raise SpecError(
            f"model.norm=none with model.norm_place={model.norm_place}: a transformer without norms is "
            "model.norm_place=none"
        )
    if not model.skip and model.norm_place == "deepnorm":
        raise SpecError("model.skip=false with model.norm_place=deepnorm: it weighs the skips, and there are none")
    if not model.skip and model.branch_scale != 1:
        raise SpecError(
            f"model.branch_scale={model.branch_scale:g} with model.skip=false: it scales what is added to a skip, and "
            "there is none"
        )
    if facts.positions and not model.causal:
        raise SpecError("model.causal=false: each place has its own answer here, and would see those behind it")


def _check_base_depth(model: ModelSpec) -> None:
    """Raises `SpecError` where no branches are there to be counted, or a stream is more than what they add to it."""
    for key, depth in (("base_depth", model.base_depth or 0), ("depth", model.depth)):
        if MODELS[model.name].branches(depth) < 1:
            raise SpecError(
                f"model.{key}={depth} with model.parametrization=mup and a model.base_depth: a {model.name!r} of that "
                "depth has no branches; expected a larger number"
            )
    for key, value, able in (
        ("block", model.block, ("preact",)),
        ("norm_place", model.norm_place, ("pre", "sandwich", "none")),
        ("skip", model.skip, (True,)),
    ):
        if value is not None and value not in able:
            raise SpecError(
                f"model.base_depth={model.base_depth} with model.{key}={str(value).lower()}: it is for streams that "
                f"branches of one scale are added to; expected model.{key}={' or '.join(map(str, able)).lower()}"
            )


@lru_cache(maxsize=1024)
def check_loss(train: TrainSpec, model: ModelSpec, facts: Facts) -> None:
    """Raises `SpecError` for a loss of classes where the targets are numbers, and one of the user's own elsewhere."""
    loss = (MODELS[model.name].loss or "auto") if train.loss == "auto" else train.loss
    if loss == "auto":
        return
    if loss not in LOSSES:
        if not model.free:
            raise SpecError(f"train.loss={train.loss}: a function of your own goes with model=module alone")
        return
    if LOSSES[loss].classes and facts.loss == "mean_squared_error":
        raise SpecError(f"train.loss={loss}: is of classes, and the targets of these data are numbers")


FORMS = {"vector": "a vector", "sequence": "a sequence", "image": "an image", "tokens": "a sequence of tokens"}


def _wanted(model: str) -> str:
    """What an architecture takes, and which data are that."""
    choice = MODELS[model]
    able = [
        name
        for name, entry in DATA.items()
        if set(choice.takes) & set(entry.forms) and (choice.by_position or entry.positions == 0)
    ]
    forms = " or ".join(FORMS[form] for form in choice.takes)
    return f"{model!r} takes {forms}{'' if choice.by_position else ', and gives one answer'}: {', '.join(able)}"


def _check_size(model: ModelSpec, data: DataSpec, facts: Facts) -> None:
    """Raises `SpecError` for a network that no machine holds: weights, gradients, and the signals of one batch."""
    matrices = MODELS[model.name].matrices(model, facts)
    weights = sum(fan_in * fan_out for fan_in, fan_out, _ in matrices)
    signals = facts.inputs + sum(fan_out * uses for _, fan_out, uses in matrices)
    signals = data.batch_size * (signals + MODELS[model.name].beside(model, facts))
    size = 4 * (2 * weights + signals)
    if size > MOST_BYTES:
        raise SpecError(
            f"model.depth={model.depth}, model.width={model.width}, data.batch_size={data.batch_size}: one run takes "
            f"some {size / 1e12:,.1f} TB; no machine holds more than {MOST_BYTES / 1e12:.1f} TB"
        )


@lru_cache(maxsize=1024)
def check_together(optim: OptimSpec, clip: ClipSpec, model: ModelSpec) -> None:
    """Raises `SpecError` for values of the optimizer, or of clipping, that contradict each other, or the network."""
    if model.parametrization in ("mup", "ntk") and OPTIMIZERS[optim.name].as_long_as == "weights":
        able = ", ".join(name for name, one in OPTIMIZERS.items() if one.as_long_as != "weights")
        raise SpecError(
            f"model.parametrization={model.parametrization} with optim.name={optim.name}: its steps are as long as "
            f"the weights are, or a matrix's sides, for which it has no rule; it takes: {able}"
        )
    if clip.mode == "autoclip" and clip.threshold > 100:
        raise SpecError(f"clip.threshold={clip.threshold:g}: of clip.mode=autoclip it is a percentile, at most 100")
    if optim.name == "sgd" and optim.nesterov and optim.momentum == 0:
        raise SpecError("optim.nesterov=true needs optim.momentum above 0 (as torch.optim.SGD does)")
    if optim.name == "sgd" and optim.nesterov and optim.dampening:
        raise SpecError("optim.nesterov=true needs optim.dampening=0 (as torch.optim.SGD does)")


MOST_HIDDEN = 4096
"""Entries of a signal whose square Jacobian is decomposed: seconds, and 134 MB in double precision."""


def _check_hidden(spec: RunSpec) -> None:
    """Raises `SpecError` where there are no two hidden signals, or they are too large."""
    if spec.layers < 3:
        raise SpecError(
            f"probe.instrument=hidden_jacobian: needs 2 hidden layers; given model.depth={spec.model.depth}"
        )
    *hidden, _ = MODELS[spec.model.name].matrices(spec.model, spec.facts)
    largest = max(fan_out * uses for _, fan_out, uses in hidden)
    if largest > MOST_HIDDEN:
        raise SpecError(
            f"probe.instrument=hidden_jacobian: a signal has {largest:,} entries; expected at most {MOST_HIDDEN:,}"
        )


def check_pretraining(spec: RunSpec) -> None:
    """Raises `SpecError` where a pre-training makes no sense for the run's network."""
    mode, model = PRETRAINING[spec.pretrain.mode], spec.model
    given = f"pretrain.mode={mode.name}"
    if model.name not in mode.models:
        able = [name for name, other in PRETRAINING.items() if model.name in other.models]
        has = f"{model.name!r} has {' or '.join(able)}" if able else f"{model.name!r} has none"
        raise SpecError(f"{given}: is for {' or '.join(mode.models)}; {has}")
    if model.name in ("mlp", "residual_mlp") and model.depth < 2:
        raise SpecError(f"{given}: pre-trains hidden layers; model.depth=1 has none")
    if model.causal is False:
        raise SpecError(
            f"{given}: predicts each place from those before it; with model.causal=false it would see it: expected "
            "model.causal=true"
        )


def check_instrument(spec: RunSpec) -> None:
    """Raises `SpecError` where the run's instrument has nothing to measure in it."""
    instrument, flat = INSTRUMENTS[spec.probe.instrument], spec.flat()
    if spec.model.free and not instrument.of_any:
        able = " or ".join(name for name, one in INSTRUMENTS.items() if one.of_any)
        raise SpecError(
            f"probe.instrument={instrument.name}: looks inside a network of gradlab's own, and {spec.model.name!r} is "
            f"yours; of any network: {able}"
        )
    for key, values in instrument.needs.items():
        if flat[key] not in values:
            able = " or ".join(str(value) for value in values if value is not None)
            raise SpecError(f"probe.instrument={instrument.name}: needs {key}={able}; given {flat[key]}")
    if instrument.by_input and spec.facts.vocabulary:
        raise SpecError(
            f"probe.instrument={instrument.name}: takes derivatives by the input, and {spec.data.name!r} has tokens, "
            "which have none"
        )
    if instrument.name == "hidden_jacobian":
        _check_hidden(spec)
    if spec.facts.train < instrument.samples:
        raise SpecError(
            f"probe.instrument={instrument.name}: needs {instrument.samples} samples; the training part of "
            f"{spec.data.name!r} has {spec.facts.train}"
        )
    if spec.data.batch_size < instrument.batch:
        raise SpecError(
            f"probe.instrument={instrument.name}: needs data.batch_size of at least {instrument.batch}; given "
            f"{spec.data.batch_size}"
        )
