"""The keys of a run: what their values may be, their defaults, and the errors of keys that are none. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from gradlab.spec import elsewhere
from gradlab.spec.choices import CLIPS, DATA, MODELS, OPTIMIZERS, Clip, Optimizer
from gradlab.spec.named import SpecError, Value, closest, nearest, short

GROUPS = {
    "model": "model.name",
    "data": "data.name",
    "optim": "optim.name",
    "clip": "clip.mode",
    "launch": "launch.name",
}
"""The config groups, each with the key that names its choice: `model=rnn` and `model.name=rnn` are the same."""

APART = ("name", "store.weights")
"""Keys that are no part of a run: a label, and what is stored; those of `launch` stand in `grid/launching.py`."""


@dataclass(frozen=True)
class Key:
    """What a key's value may be; ``low`` is the least value, excluded where ``above`` is set, ``most`` the largest."""

    kind: type
    summary: str
    low: float | None = None
    above: bool = False
    below: float | None = None
    most: int | None = None
    nullable: bool = False
    words: tuple[str, ...] = ()

    def expected(self) -> str:
        """The values that the key takes, in words, for a message."""
        if self.kind is str and self.words:
            return " or ".join(repr(word) for word in self.words)
        noun = {int: "an integer", float: "a finite number", bool: "true or false", str: "a text"}[self.kind]
        if self.low is not None:
            noun += f" {'above' if self.above else 'of at least'} {self.low:g}"
        if self.below is not None:
            noun += f" and below {self.below:g}"
        if self.most is not None:
            noun += f" and at most {self.most:,}"
        return " or ".join([noun, *(repr(word) for word in self.words), *(["null"] if self.nullable else [])])


MOST_PLACES = 100_000
"""Layers, or time steps: each has rows of its own in the tables, at every recorded step."""

KEYS: dict[str, Key] = {
    "seed": Key(int, "the initial weights: standard normals drawn in layer order, then scaled", low=0),
    "model.name": Key(str, "the architecture"),
    "model.depth": Key(
        int,
        "L, weight layers from input to output; of an RNN its recurrent layers, of a transformer its blocks",
        low=1,
        most=MOST_PLACES,
    ),
    "model.width": Key(int, "units in each hidden layer", low=1),
    "model.activation": Key(
        str, "the nonlinearity of the hidden layers; own: those that your module has", words=("own",)
    ),
    "model.slope": Key(float, "leaky_relu's slope below zero (0.01); PReLU's start (0.25)", nullable=True),
    "model.init": Key(str, "how the initial weights are scaled; own: as your module draws them", words=("own",)),
    "model.gain": Key(float, "multiplies the initial weights"),
    "model.weight_var": Key(float, "sw2: overrides init with N(0, sw2/fan_in)", low=0, nullable=True),
    "model.bias_var": Key(float, "sb2: the variance of the initial biases", low=0),
    "model.norm": Key(str, "normalization of signals, or of weights"),
    "model.pool": Key(str, "the layers before which an image is halved, as in 3+5; or none", nullable=True),
    "model.block": Key(
        str, "how a residual block is built", words=("preact", "postact", "rezero", "fixup"), nullable=True
    ),
    "model.branch_scale": Key(float, "beta of a residual branch"),
    "model.capsule_width": Key(int, "entries of a primary capsule; a digit capsule has twice as many", low=1),
    "model.routing": Key(int, "how often the votes of capsules are shared out by how well they agree", low=1, most=100),
    "model.squash_eps": Key(float, "added under the roots by which capsules are squashed and measured", low=0),
    "model.forget_bias": Key(
        float, "added to the initial bias of an LSTM's forget gate; null under model.chrono", nullable=True
    ),
    "model.chrono": Key(bool, "the gates' initial biases by the length T: ln U(1, T-1) to keep, its negative to admit"),
    "model.attention": Key(str, "what a decoder reads from its encoder's states", words=("none", "additive", "dot")),
    "model.heads": Key(int, "heads of an attention, each of width/heads units", low=1),
    "model.norm_place": Key(
        str,
        "where a transformer has its norms: before each branch, behind each sum, both around the branch, behind sums "
        "of weighted skips, nowhere",
        words=("pre", "post", "sandwich", "deepnorm", "none"),
    ),
    "model.skip": Key(bool, "residual connections around attention and feed-forward"),
    "model.feed_forward": Key(int, "hidden units of a feed-forward sub-layer over the width; 0: there is none", low=0),
    "model.causal": Key(
        bool, "each place attends to none behind it; null: where each place has its own answer", nullable=True
    ),
    "model.qk_norm": Key(bool, "rms norm of each head's queries and keys, with a learned gain"),
    "model.attention_scale": Key(
        float,
        "multiplies q.k; null: one over the root of a head's units, 1/d: one over them",
        nullable=True,
        words=("1/d",),
    ),
    "model.output": Key(
        str, "activation of the output layer", words=("none", "sigmoid", "softmax", "log_softmax", "tanh", "relu")
    ),
    "model.parametrization": Key(
        str,
        "how initial weights and learning rates go with the width: standard, mup (from the base width on) or ntk",
        words=("standard", "mup", "ntk"),
    ),
    "model.base_width": Key(
        int, "mup: the width at which it is the standard parametrization; null: the default width", low=1, nullable=True
    ),
    "model.base_depth": Key(
        int,
        "mup: the depth from which on branches, and Adam's rates in them, go as one over its root; null: at none",
        low=1,
        nullable=True,
    ),
    "model.dropout": Key(
        float,
        "share of a signal's entries that training sets to zero behind the activation; of recurrences between layers",
        low=0,
        below=1,
    ),
    "model.groups": Key(int, "groups of units that a group norm is over", low=1),
    "model.norm_order": Key(
        str, "whether a norm stands before the activation or behind it", words=("before", "behind")
    ),
    "model.target": Key(str, "a network of your own: path/to/file.py:Name or package.module.Name", nullable=True),
    "model.source": Key(str, "the SHA-256 of the file that defines it; filled in", nullable=True),
    "data.name": Key(str, "the data set"),
    "data.root": Key(
        str, "a folder of the data's files (IDX; of cifar10 .bin) to read instead of downloading", nullable=True
    ),
    "data.mirror": Key(str, "another address to download from", nullable=True),
    "data.batch_size": Key(int, "samples a step; full is batch gradient descent, 1 stochastic", low=1, words=("full",)),
    "data.seed": Key(int, "the order of the batches", low=0),
    "data.standardise": Key(bool, "inputs minus their mean over their standard deviation, one scalar each"),
    "data.input_scale": Key(float, "multiplies the (standardised) inputs"),
    "data.target_scale": Key(float, "multiplies regression targets"),
    "data.bad_every": Key(int, "every so many-th batch is a bad one: all its answers are the largest; 0: none", low=0),
    "data.length": Key(int, "sequence length", low=2, most=MOST_PLACES),
    "data.features": Key(int, "input features of synthetic data", low=1, nullable=True),
    "data.ask": Key(str, "of the films: which way the digit moves, or which digit it is", words=("way", "digit")),
    "data.permuted": Key(bool, "the pixels in one random order instead of row after row"),
    "data.path": Key(
        str,
        "your data: a .csv, .parquet, .npz or .safetensors file, or a folder of images by class",
        nullable=True,
    ),
    "data.label": Key(str, "the column, or array, to be learned; by default the last, or y", nullable=True),
    "data.heldout": Key(float, "the share of the samples that is held out", low=0, below=1),
    "data.task": Key(
        str, "classification or regression; auto: as the label looks", words=("auto", "classification", "regression")
    ),
    "data.target": Key(
        str, "a function that returns your data: path/to/file.py:name or package.module.name", nullable=True
    ),
    "data.source": Key(str, "the SHA-256 of what the data come from; filled in", nullable=True),
    "optim.name": Key(str, "the optimizer"),
    "optim.lr": Key(float, "learning rate", low=0),
    "optim.momentum": Key(float, "momentum", low=0),
    "optim.nesterov": Key(bool, "Nesterov's momentum"),
    "optim.weight_decay": Key(float, "L2 weight decay, as torch's", low=0),
    "optim.l1": Key(float, "adds l1*sign(w) to the gradient after clipping", low=0),
    "optim.beta1": Key(float, "decay of the running mean", low=0, below=1),
    "optim.beta2": Key(float, "decay of the running square (RMSprop's alpha)", low=0, below=1),
    "optim.eps": Key(float, "added to the denominator", low=0),
    "optim.dampening": Key(float, "what momentum takes off each gradient but the first", low=0, most=1),
    "optim.amsgrad": Key(bool, "adam and adamw: by the largest running square so far"),
    "optim.maximize": Key(bool, "climbs the loss instead"),
    "optim.schedule": Key(str, "how the learning rate changes in the course of training"),
    "optim.warmup": Key(int, "steps in which the learning rate rises to its value, before the schedule", low=0),
    "optim.end_factor": Key(float, "what is left of the learning rate at the last step", low=0, most=1),
    "optim.decay": Key(float, "what the learning rate is multiplied by", low=0, above=True, below=1),
    "optim.decay_every": Key(int, "steps from one decay to the next; of a plateau, its patience", low=1),
    "clip.mode": Key(str, "how gradients are clipped"),
    "clip.threshold": Key(float, "c", low=0, above=True),
    "clip.output_threshold": Key(float, "layerwise: c of the output layer", low=0, above=True, nullable=True),
    "train.steps": Key(int, "updates; 0 measures the network at its initial weights alone", low=0),
    "train.precision": Key(
        str,
        "of weights, signals and gradients; mixed: of signals and gradients, beside single weights; tf32: single, with "
        "operands of products rounded to 11 bits",
        words=("float32", "float64", "tf32", "float16", "bfloat16", "mixed_float16", "mixed_bfloat16"),
    ),
    "train.loss_scale": Key(str, "multiplies the loss on its way back, as half precision needs; or dynamic"),
    "train.rounding": Key(
        str,
        "of updated weights in half precision: to the nearest, or up or down by chance",
        words=("nearest", "stochastic"),
    ),
    "train.loss": Key(
        str,
        "the loss; auto: what the data ask for; or a function of your own, path/to/file.py:name or package.module.name",
        words=("auto",),
    ),
    "train.source": Key(str, "the SHA-256 of the file that defines a loss of your own; filled in", nullable=True),
    "pretrain.mode": Key(str, "what the hidden layers learn from inputs alone, before training"),
    "pretrain.steps": Key(int, "updates of it; layerwise: of each layer", low=1),
    "pretrain.lr": Key(float, "its learning rate, of Adam", low=0),
    "pretrain.corruption": Key(
        float, "denoising: the deviation of the noise; masked: the share of inputs hidden", low=0, above=True, below=1
    ),
    "probe.every": Key(int, "steps between two records of the per-layer table", low=1),
    "probe.instrument": Key(str, "what else is measured at the recorded steps"),
}

DEFAULTS: dict[str, Value] = {
    "seed": 0,
    "model.name": "mlp",
    "data.name": "digits",
    "data.batch_size": 64,
    "data.seed": 0,
    "data.standardise": True,
    "data.input_scale": 1.0,
    "data.target_scale": 1.0,
    "data.bad_every": 0,
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.momentum": 0.0,
    "optim.nesterov": False,
    "optim.weight_decay": 0.0,
    "optim.l1": 0.0,
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.eps": 1e-8,
    "optim.dampening": 0.0,
    "optim.amsgrad": False,
    "optim.maximize": False,
    "optim.schedule": "constant",
    "optim.warmup": 0,
    "optim.end_factor": 0.0,
    "optim.decay": 0.1,
    "optim.decay_every": 100,
    "clip.mode": "none",
    "clip.threshold": 1.0,
    "clip.output_threshold": None,
    "train.steps": 200,
    "train.precision": "float32",
    "train.loss_scale": "1",
    "train.rounding": "nearest",
    "train.loss": "auto",
    "pretrain.mode": "none",
    "pretrain.steps": 500,
    "pretrain.lr": 0.01,
    "pretrain.corruption": 0.3,
    "probe.every": 10,
    "probe.instrument": "none",
}
"""Defaults of the keys that every run has; those of a model, a data set or an optimizer stand in `choices`."""


FREE = {"model": "model.args.", "data": "data.args."}
"""What the keys begin with that a function of the user's own names: its arguments."""


def is_free(key: str) -> bool:
    """Whether a key is an argument of a network, or of data, of the user's own."""
    return key.startswith(tuple(FREE.values())) and not key.endswith(".")


def is_key(key: str) -> bool:
    """Whether a run may have this key."""
    return key in KEYS or is_free(key)


def in_order(columns: Iterable[str]) -> list[str]:
    """Those of ``columns`` that are keys, in the order of `KEYS`; arguments of the user's own follow."""
    names = list(columns)
    return [*(key for key in KEYS if key in names), *(name for name in names if is_free(name))]


@cache
def allowed_keys(model: str, data: str) -> Mapping[str, Value]:
    """Every key that a run of these choices has, with its default (null where it is resolved later)."""
    return MappingProxyType(
        {
            **DEFAULTS,
            **{f"model.{key}": value for key, value in MODELS[model].keys.items()},
            **{f"data.{key}": value for key, value in DATA[data].keys.items()},
            # A loss of the user's own goes with a network of the user's own alone.
            **({"train.source": None} if MODELS[model].free else {}),
        }
    )


def defaults_of(key: str, name: str) -> dict[str, Value]:
    """What a file of the config group of ``key`` (`model.name`) holds for the choice ``name``: its keys, undotted."""
    section = key.partition(".")[0]
    model, data = (str(DEFAULTS[other]) if other != key else name for other in ("model.name", "data.name"))
    keys = {**allowed_keys(model, data), **own_defaults(key, name), key: name}
    return {dotted.partition(".")[2]: value for dotted, value in keys.items() if dotted.startswith(f"{section}.")}


HAVE_DEFAULTS: dict[str, Mapping[str, Optimizer | Clip]] = {"optim.name": OPTIMIZERS, "clip.mode": CLIPS}
"""Keys whose choices have values of their own of other keys of the section."""


def own_defaults(key: str, name: str) -> dict[str, Value]:
    """The dotted keys of its section that the choice ``name`` of ``key`` has its own values of."""
    section, entries = key.partition(".")[0], HAVE_DEFAULTS.get(key)
    return {} if entries is None else {f"{section}.{own}": value for own, value in entries[name].defaults.items()}


def check_key(key: str, model: str, data: str) -> None:
    """Raises `SpecError` unless a run of this model on these data has ``key``."""
    if key in DEFAULTS or key in (allowed := allowed_keys(model, data)):
        return
    section = key.partition(".")[0]
    if is_free(key):
        if (section == "model" and MODELS[model].free) or (section == "data" and DATA[data].free):
            return
        owner, own = (model, "model=module") if section == "model" else (data, "data=function")
        raise SpecError(f"{key}: {section} {owner!r} takes no arguments of its own names; those are for {own}")
    if key in KEYS:
        owner = f"model {model!r}" if section == "model" else f"data {data!r}"
        names = [name for name in allowed if name.startswith(f"{section}.") and not name.endswith(".source")]
        free = (section == "model" and MODELS[model].free) or (section == "data" and DATA[data].free)
        names += [f"{section}.args.NAME"] if free else []
        raise SpecError(f"{owner} has no key {key!r}; it has: {', '.join(names)}")
    raise unknown_key(key, KEYS)


def unknown_key(given: str, keys: Iterable[str]) -> SpecError:
    """The error of a key that is none of ``keys``: the nearest of them; where none is near, those of its section."""
    names = list(keys)
    section, _, last = given.rpartition(".")
    inside = {name.rpartition(".")[2]: name for name in names if name.startswith(f"{section}.")}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(names)}
    # A section in common must not make two keys near: model.zzz is not model.norm.
    meant = elsewhere.KEYS.get(last.lower().replace("-", "_"), "")
    near = meant if meant in names else inside.get(closest(last, inside) or "") or anywhere.get(last)
    if near is None and not inside:
        near = closest(given, names)
    if near:
        return SpecError(f"unknown key {short(given)!r}; did you mean {near!r}?")
    heads = dict.fromkeys(name if "." not in name else f"{name.partition('.')[0]}.*" for name in names)
    return SpecError(f"unknown key {short(given)!r}; keys: {', '.join(inside.values() or heads)}")


def refuse_options(texts: Sequence[str], options: Sequence[str], told_by: str) -> None:
    """Raises `SpecError` for an override that looks like an option, with the key or the option that it may mean."""
    for place, text in enumerate(texts):
        if not text.startswith("-"):
            continue
        name, _, value = text.partition("=")
        word = name.lstrip("-").replace("-", "_")
        key = next((key for key in KEYS if key.rpartition(".")[2] == word), elsewhere.KEYS.get(word))
        if key is not None:
            value = value or next((word for word in texts[place + 1 : place + 2] if "=" not in word), "VALUE")
            raise SpecError(f"{name}: no such option; did you mean {key}={value}?")
        raise SpecError(f"{name}: no such option{nearest(name, options) or f'; see {told_by}'}")
