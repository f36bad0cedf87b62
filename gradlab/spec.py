"""What a run is: frozen sections of validated values, and the digest of them that is the run's id.

`build` is the one gate: whatever passes it can be trained, and whatever cannot is refused there with one line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from gradlab.choices import (
    ACTIVATIONS,
    ALIASES,
    CLIPS,
    DATA,
    MODELS,
    NAMED,
    NORMS,
    NOUNS,
    OPTIMIZERS,
    SpecError,
    closest,
    lookup,
    nearest,
)
from gradlab.choices import Value as Value

SCHEMA = 1
"""Version of the spec's schema and of the tables; part of every run's id."""


@dataclass(frozen=True)
class Key:
    """What a key's value may be; ``low`` is the least value, excluded where ``above`` is set."""

    kind: type
    summary: str
    low: float | None = None
    above: bool = False
    below: float | None = None
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
        return " or ".join([noun, *(repr(word) for word in self.words), *(["null"] if self.nullable else [])])


KEYS: dict[str, Key] = {
    "seed": Key(int, "the initial weights: standard normals drawn in layer order, then scaled", low=0),
    "model.name": Key(str, "the architecture"),
    "model.depth": Key(
        int, "L, the number of weight layers from input to output; of an RNN, its recurrent layers", low=1
    ),
    "model.width": Key(int, "units in each hidden layer", low=1),
    "model.activation": Key(str, "the nonlinearity of the hidden layers"),
    "model.slope": Key(float, "leaky_relu's slope below zero (0.01); PReLU's start (0.25)", nullable=True),
    "model.init": Key(str, "how the initial weights are scaled"),
    "model.gain": Key(float, "multiplies the initial weights"),
    "model.weight_var": Key(float, "sw2: overrides init with N(0, sw2/fan_in)", low=0, nullable=True),
    "model.bias_var": Key(float, "sb2: the variance of the initial biases", low=0),
    "model.norm": Key(str, "normalization before the activation"),
    "model.branch_scale": Key(float, "beta of a residual branch"),
    "data.name": Key(str, "the data set"),
    "data.root": Key(str, "a folder of IDX files to read instead of downloading", nullable=True),
    "data.mirror": Key(str, "another address to download from", nullable=True),
    "data.batch_size": Key(int, "samples a step; full is batch gradient descent, 1 stochastic", low=1, words=("full",)),
    "data.seed": Key(int, "the order of the batches", low=0),
    "data.standardise": Key(bool, "inputs minus their mean over their standard deviation, one scalar each"),
    "data.input_scale": Key(float, "multiplies the (standardised) inputs"),
    "data.target_scale": Key(float, "multiplies regression targets"),
    "data.length": Key(int, "sequence length", low=2),
    "data.features": Key(int, "input features of synthetic data", low=1, nullable=True),
    "optim.name": Key(str, "the optimizer"),
    "optim.lr": Key(float, "learning rate", low=0),
    "optim.momentum": Key(float, "momentum", low=0),
    "optim.nesterov": Key(bool, "Nesterov's momentum"),
    "optim.weight_decay": Key(float, "L2 weight decay, as torch's", low=0),
    "optim.l1": Key(float, "adds l1*sign(w) to the gradient after clipping", low=0),
    "optim.beta1": Key(float, "decay of the running mean", low=0, below=1),
    "optim.beta2": Key(float, "decay of the running square (RMSprop's alpha)", low=0, below=1),
    "optim.eps": Key(float, "added to the denominator", low=0),
    "clip.mode": Key(str, "how gradients are clipped"),
    "clip.threshold": Key(float, "c", low=0, above=True),
    "clip.output_threshold": Key(float, "layerwise: c of the output layer", low=0, above=True, nullable=True),
    "train.steps": Key(int, "updates; 0 measures the network at its initial weights alone", low=0),
    "train.precision": Key(str, "float32 or float64", words=("float32", "float64")),
    "probe.every": Key(int, "steps between two records of the per-layer table", low=1),
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
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.momentum": 0.0,
    "optim.nesterov": False,
    "optim.weight_decay": 0.0,
    "optim.l1": 0.0,
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.eps": 1e-8,
    "clip.mode": "none",
    "clip.threshold": 1.0,
    "clip.output_threshold": None,
    "train.steps": 200,
    "train.precision": "float32",
    "probe.every": 10,
}
"""Defaults of the keys that every run has; those of a model, a data set or an optimizer stand in `choices`."""

OUTSIDE_DIGEST = ("data.root", "data.mirror")
"""Keys that say where the same data are found."""


@dataclass(frozen=True)
class ModelSpec:
    """The `model` section; a key that the architecture lacks is None."""

    name: str
    depth: int
    width: int
    activation: str | None
    slope: float | None
    init: str | None
    gain: float
    weight_var: float | None
    bias_var: float | None
    norm: str | None
    branch_scale: float | None


@dataclass(frozen=True)
class DataSpec:
    """The `data` section, `batch_size` resolved to an integer; a key that the data lack is None."""

    name: str
    root: str | None
    mirror: str | None
    batch_size: int
    seed: int
    standardise: bool
    input_scale: float
    target_scale: float
    length: int | None
    features: int | None


@dataclass(frozen=True)
class OptimSpec:
    """The `optim` section; which keys act is in `choices.OPTIMIZERS`."""

    name: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    l1: float
    beta1: float
    beta2: float
    eps: float


@dataclass(frozen=True)
class ClipSpec:
    """The `clip` section."""

    mode: str
    threshold: float
    output_threshold: float | None


@dataclass(frozen=True)
class TrainSpec:
    """The `train` section."""

    steps: int
    precision: str


@dataclass(frozen=True)
class ProbeSpec:
    """The `probe` section."""

    every: int


@dataclass(frozen=True)
class Facts:
    """What a network must know of its data: shapes and sizes, no numbers.

    ``shape`` is that of one input, (features,) or (time, features); ``loss`` as in `choices.Data`.
    """

    shape: tuple[int, ...]
    outputs: int
    loss: str
    train: int
    heldout: int

    @property
    def inputs(self) -> int:
        """Entries of one input."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class RunSpec:
    """One training run, fully described. Its ``id`` is a digest of every key but where it runs."""

    seed: int
    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    clip: ClipSpec
    train: TrainSpec
    probe: ProbeSpec
    facts: Facts = dataclasses.field(compare=False)
    id: str = dataclasses.field(compare=False)

    def flat(self) -> dict[str, Value]:
        """Every key of `KEYS`, dotted, in order, with its resolved value."""
        values: dict[str, Value] = {"seed": self.seed}
        for section in SECTIONS:
            values.update(_items(getattr(self, section)))
        return values

    @property
    def layers(self) -> int:
        """L: how many layers the `layers` table numbers (an RNN's read-out counts)."""
        return self.model.depth + (1 if MODELS[self.model.name].needs_time else 0)


SECTIONS: dict[str, type] = {
    "model": ModelSpec,
    "data": DataSpec,
    "optim": OptimSpec,
    "clip": ClipSpec,
    "train": TrainSpec,
    "probe": ProbeSpec,
}


def _items(section: object) -> list[tuple[str, Value]]:
    prefix = {kind: name for name, kind in SECTIONS.items()}[type(section)]
    return [(f"{prefix}.{f.name}", getattr(section, f.name)) for f in dataclasses.fields(section)]  # type: ignore[arg-type]


def allowed_keys(model: str, data: str) -> dict[str, Value]:
    """Every key that a run of these choices has, with its default (null where it is resolved later)."""
    return {
        **DEFAULTS,
        **{f"model.{key}": value for key, value in MODELS[model].keys.items()},
        **{f"data.{key}": value for key, value in DATA[data].keys.items()},
    }


def coerce(key: str, given: Value) -> Value:
    """``given`` as the value of ``key``: aliases resolved, integers widened to floats; `SpecError` for a wrong one."""
    if key in NAMED:
        if not isinstance(given, str):
            given = "null" if given is None else str(given)
        return lookup(NOUNS[key], NAMED[key], given, ALIASES.get(key)).name
    rule = KEYS[key]
    if given is None and rule.nullable:
        return None
    if isinstance(given, str) and given in rule.words:
        return given
    accepted: Value = None
    if rule.kind is bool:
        accepted = given if isinstance(given, bool) else None
    elif rule.kind is str:
        accepted = given if isinstance(given, str) and not rule.words else None
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        if isinstance(given, int) and abs(given) >= 2**63:
            raise SpecError(f"{key}={_short(str(given))}: expected a number of at most 64 bits")
        if rule.kind is int:
            accepted = given if isinstance(given, int) else None
        else:
            accepted = float(given) if math.isfinite(given) else None
        if accepted is not None and not _within(rule, accepted):
            accepted = None
    if accepted is None:
        shown = "null" if given is None else str(given).lower() if isinstance(given, bool) else _short(repr(given))
        raise SpecError(f"{key}={shown}: expected {rule.expected()}{_nearest_word(rule, given)}")
    return accepted


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _within(rule: Key, number: float) -> bool:
    if rule.low is not None and (number < rule.low or (rule.above and number == rule.low)):
        return False
    return rule.below is None or number < rule.below


def _nearest_word(rule: Key, given: Value) -> str:
    return nearest(given, rule.words) if isinstance(given, str) else ""


def check_key(key: str, model: str, data: str) -> None:
    """Raises `SpecError` unless a run of this model on these data has ``key``."""
    if key in DEFAULTS or key in (allowed := allowed_keys(model, data)):
        return
    section = key.partition(".")[0]
    if key in KEYS:
        owner = f"model {model!r}" if section == "model" else f"data {data!r}"
        names = [name for name in allowed if name.startswith(f"{section}.")]
        raise SpecError(f"{owner} has no key {key!r}; it has: {', '.join(names)}")
    raise unknown_key(key, KEYS)


def unknown_key(given: str, keys: Iterable[str]) -> SpecError:
    """The error of a key that is none of ``keys``: the nearest of them; where none is near, those of its section."""
    names = list(keys)
    section, _, last = given.rpartition(".")
    inside = {name.rpartition(".")[2]: name for name in names if name.startswith(f"{section}.")}
    elsewhere = {name.rpartition(".")[2]: name for name in reversed(names)}
    # A section in common must not make two keys near: model.zzz is not model.norm.
    near = inside.get(closest(last, inside) or "") or elsewhere.get(last) or (not inside and closest(given, names))
    if near:
        return SpecError(f"unknown key {_short(given)!r}; did you mean {near!r}?")
    heads = dict.fromkeys(name if "." not in name else f"{name.partition('.')[0]}.*" for name in names)
    return SpecError(f"unknown key {_short(given)!r}; keys: {', '.join(inside.values() or heads)}")


def build(values: Mapping[str, Value]) -> RunSpec:
    """The run that ``values`` (dotted keys; what is not given takes its default) describe.

    Raises `SpecError` for an unknown key, a value that its key does not take, a key that the chosen model or data does
    not have, and combinations that no network can have (shapes, batch norm over one sample).
    """
    model = str(coerce("model.name", values.get("model.name", DEFAULTS["model.name"])))
    data = str(coerce("data.name", values.get("data.name", MODELS[model].data)))
    given: dict[str, list[tuple[str, type, Value]]] = {}
    for key, value in values.items():
        given.setdefault(key.partition(".")[0], []).append((key, value.__class__, value))
    for section in given:
        if section != "seed" and section not in SECTIONS:
            check_key(given[section][0][0], model, data)
    parts = {name: _section(name, tuple(given.get(name, ())), model, data) for name in SECTIONS}
    seed = coerce("seed", values.get("seed", DEFAULTS["seed"]))
    network, task, facts = _fit(parts["model"], parts["data"])
    _check_together(parts["optim"])
    digest = hashlib.sha256(
        "\n".join(
            [f"gradlab {SCHEMA}", str(seed), *map(_canonical, (network, task, *list(parts.values())[2:]))]
        ).encode()
    )
    return RunSpec(
        seed=seed,  # type: ignore[arg-type]
        model=network,
        data=task,
        optim=parts["optim"],
        clip=parts["clip"],
        train=parts["train"],
        probe=parts["probe"],
        facts=facts,
        id=digest.hexdigest()[:16],
    )


@lru_cache(maxsize=65536)
def _section(name: str, items: tuple[tuple[str, type, Value], ...], model: str, data: str):  # type: ignore[no-untyped-def]
    """One section, each value validated by itself. The type of a value is part of the cache's key: 1 is not true."""
    explicit = {key: value for key, _, value in items}
    for key in explicit:
        check_key(key, model, data)
    values = {key: value for key, value in allowed_keys(model, data).items() if key.startswith(f"{name}.")}
    if name == "optim":
        chosen = str(coerce("optim.name", explicit.get("optim.name", DEFAULTS["optim.name"])))
        values.update({f"optim.{key}": value for key, value in OPTIMIZERS[chosen].defaults.items()})
    if name == "model":
        values["model.name"] = model
    if name == "data":
        values["data.name"] = data
    values.update({key: coerce(key, value) for key, value in explicit.items()})
    kind = SECTIONS[name]
    return kind(**{f.name: values.get(f"{name}.{f.name}") for f in dataclasses.fields(kind)})


@lru_cache(maxsize=65536)
def _fit(model: ModelSpec, data: DataSpec) -> tuple[ModelSpec, DataSpec, Facts]:
    """Model and data, what depends on both resolved, and the facts of the data; `SpecError` where they do not fit."""
    choice = MODELS[model.name]
    if "features" in DATA[data.name].keys and data.features is None:
        data = dataclasses.replace(data, features=model.width if model.name == "linear_chain" else 64)
    if model.activation is not None and model.slope is None:
        model = dataclasses.replace(model, slope=ACTIVATIONS[model.activation].slope)
    facts = _facts(data)
    if cast("int | str", data.batch_size) == "full":  # the word that `_section` leaves to be resolved here
        data = dataclasses.replace(data, batch_size=facts.train)
    if data.batch_size > facts.train:
        raise SpecError(
            f"data.batch_size={data.batch_size}: the training part of {data.name!r} has {facts.train} samples; "
            "give at most that, or full"
        )
    if model.depth < choice.least_depth:
        raise SpecError(f"model.depth={model.depth}: {model.name!r} needs at least {choice.least_depth} layers")
    if model.norm is not None and model.norm not in choice.norms:
        raise SpecError(
            f"model.norm={model.norm}: {model.name!r} shares its weights over time, so running statistics have no "
            f"meaning; it takes: {', '.join(choice.norms)}"
        )
    if model.norm is not None and NORMS[model.norm].over_batch and data.batch_size == 1:
        raise SpecError(f"model.norm={model.norm} with data.batch_size=1: a batch norm needs at least 2 samples")
    if choice.needs_time and len(facts.shape) != 2:
        raise SpecError(
            f"data.name={data.name}: {model.name!r} needs data with a time axis: "
            f"{', '.join(name for name, entry in DATA.items() if len(entry.shape) == 2)}"
        )
    if model.name == "linear_chain" and not model.width == facts.inputs == facts.outputs:
        raise SpecError(
            f"model.name=linear_chain: its matrices are square, so width = inputs = outputs; given model.width="
            f"{model.width} on {data.name!r} with {facts.inputs} inputs and {facts.outputs} outputs (its data is "
            "'linear_teacher')"
        )
    if model.init == "torch_default" and model.weight_var is None and model.bias_var:
        raise SpecError(f"model.bias_var={model.bias_var:g}: init 'torch_default' draws its own biases; leave it at 0")
    return model, data, facts


@lru_cache(maxsize=1024)
def _check_together(optim: OptimSpec) -> None:
    if optim.name == "sgd" and optim.nesterov and optim.momentum == 0:
        raise SpecError("optim.nesterov=true needs optim.momentum above 0 (as torch.optim.SGD does)")


@lru_cache(maxsize=65536)
def _facts(data: DataSpec) -> Facts:
    entry = DATA[data.name]
    train, heldout = entry.train, entry.heldout
    by_key = (data.features if len(entry.shape) == 1 else data.length) or 0
    shape = tuple(by_key if size is None else size for size in entry.shape)
    if data.root is not None:
        from gradlab.data.idx import header_sizes

        train, heldout, rows, columns = header_sizes(data.root)
        shape = (rows, columns)
    outputs = math.prod(shape) if entry.outputs is None else entry.outputs
    return Facts(shape, outputs, entry.loss, train, heldout)


@lru_cache(maxsize=65536)
def _canonical(section: object) -> str:
    return json.dumps([pair for pair in _items(section) if pair[0] not in OUTSIDE_DIGEST])


def unused(spec: RunSpec) -> frozenset[str]:
    """Keys that this run has but that do nothing in it: a threshold without clipping, momentum under adam."""
    idle = {
        f"optim.{f.name}"
        for f in dataclasses.fields(OptimSpec)
        if f.name != "name" and f.name not in OPTIMIZERS[spec.optim.name].uses
    }
    idle |= {f"clip.{name}" for name in ("threshold", "output_threshold") if name not in CLIPS[spec.clip.mode].uses}
    if spec.model.activation not in ("leaky_relu", "prelu"):
        idle.add("model.slope")
    if spec.facts.loss == "cross_entropy":
        idle.add("data.target_scale")
    return frozenset(idle)
