"""What a run is: frozen sections of validated values, and the digest of them that is the run's id.

`build` is the one gate: whatever passes it can be trained, and whatever cannot is refused there with one line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from gradlab.spec.checks import check_fit, check_instrument, check_loss, check_pretraining, check_together
from gradlab.spec.choices import ACTIVATIONS, DATA, MODELS
from gradlab.spec.keys import DEFAULTS, FREE, HAVE_DEFAULTS, allowed_keys, check_key, is_free, own_defaults
from gradlab.spec.named import SpecError, Value
from gradlab.spec.own import Look, judged, lent, looked_at, own_facts
from gradlab.spec.plugins import PRESENT, used
from gradlab.spec.sections import (
    ClipSpec,
    DataSpec,
    Extent,
    Facts,
    ModelSpec,
    OptimSpec,
    PretrainSpec,
    ProbeSpec,
    TrainSpec,
)
from gradlab.spec.values import coerce

__all__ = [
    "SCHEMA",
    "SECTIONS",
    "SILENT",
    "ClipSpec",
    "DataSpec",
    "Extent",
    "Facts",
    "ModelSpec",
    "OptimSpec",
    "PretrainSpec",
    "ProbeSpec",
    "RunSpec",
    "TrainSpec",
    "build",
    "but_for_seeds",
    "seeded",
]

SCHEMA = 1
"""Version of the spec's schema and of the tables; part of every run's id."""

OUTSIDE_DIGEST = ("data.root", "data.mirror", "data.path")
"""Keys that say where the same data are found."""

SILENT: dict[str, tuple[object, ...]] = {
    "probe.instrument": ("none",),
    "train.loss": ("auto",),
    "train.loss_scale": ("1",),
    "train.rounding": ("nearest",),
    "data.bad_every": (0,),
    "model.output": (None, "none"),
    **dict.fromkeys(("model.target", "model.source", "model.pool", "model.block"), (None,)),
    **dict.fromkeys(("model.forget_bias", "model.chrono", "model.attention"), (None,)),
    **dict.fromkeys(("model.capsule_width", "model.routing", "model.squash_eps"), (None,)),
    **dict.fromkeys(("model.heads", "model.norm_place", "model.skip", "model.feed_forward"), (None,)),
    **dict.fromkeys(("model.causal", "model.qk_norm", "model.attention_scale"), (None,)),
    "model.parametrization": (None, "standard"),
    "model.base_width": (None,),
    "model.base_depth": (None,),
    "model.dropout": (None, 0.0),
    "model.groups": (None, 4),
    "model.norm_order": (None, "before"),
    **dict.fromkeys(("data.ask", "data.permuted", "train.source"), (None,)),
    **dict.fromkeys(("data.label", "data.heldout", "data.task", "data.target", "data.source"), (None,)),
    **{key: (DEFAULTS[key],) for key in ("optim.dampening", "optim.amsgrad", "optim.maximize")},
    **{key: (DEFAULTS[key],) for key in ("optim.schedule", "optim.warmup", "optim.end_factor")},
    **{key: (DEFAULTS[key],) for key in DEFAULTS if key.startswith("pretrain.")},
    **{key: (DEFAULTS[key],) for key in ("optim.decay", "optim.decay_every")},
}
"""Keys that came later, with the values at which a run is what it was before: it keeps its id."""


@dataclass(frozen=True)
class RunSpec:
    """One training run, fully described. Its ``id`` is a digest of every key but where it runs.

    ``extent`` is that of a network of the user's own, where somebody has looked.
    """

    seed: int
    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    clip: ClipSpec
    train: TrainSpec
    pretrain: PretrainSpec
    probe: ProbeSpec
    facts: Facts = dataclasses.field(compare=False)
    id: str = dataclasses.field(compare=False)
    extent: Extent | None = dataclasses.field(default=None, compare=False)

    def flat(self) -> dict[str, Value]:
        """Every key of `KEYS`, dotted, in order, with its resolved value; the arguments of the user's own follow."""
        values: dict[str, Value] = {"seed": self.seed}
        for section in SECTIONS:
            values.update(_items(getattr(self, section)))
        for section, prefix in FREE.items():
            values.update((f"{prefix}{name}", value) for name, value in getattr(self, section).args)
        return values

    @property
    def layers(self) -> int:
        """L: how many layers the `layers` table numbers (an RNN's read-out counts)."""
        choice = MODELS[self.model.name]
        return self.model.depth if choice.free else len(choice.matrices(self.model, self.facts))

    @property
    def loss(self) -> str:
        """The loss that is trained: that of the data or the architecture, unless `train.loss` names another."""
        return self.train.loss if self.train.loss != "auto" else MODELS[self.model.name].loss or self.facts.loss


SECTIONS: dict[str, type] = {
    "model": ModelSpec,
    "data": DataSpec,
    "optim": OptimSpec,
    "clip": ClipSpec,
    "train": TrainSpec,
    "pretrain": PretrainSpec,
    "probe": ProbeSpec,
}


PLACES = {
    kind: tuple((f"{name}.{field.name}", field.name) for field in dataclasses.fields(kind) if field.name != "args")
    for name, kind in SECTIONS.items()
}
"""The key of each field of a section but for the arguments of the user's own."""


def _items(section: object) -> list[tuple[str, Value]]:
    return [(key, getattr(section, name)) for key, name in PLACES[type(section)]]


def build(values: Mapping[str, Value], look: Look | None = None) -> RunSpec:
    """The run that ``values`` (dotted keys; what is not given takes its default) describe.

    Networks and data of the user's own need ``look``, which `data.facts.described` brings.

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
    network, task = parts["model"], parts["data"]
    if MODELS[model].free:
        network = lent(network, look)
        parts["train"] = judged(parts["train"], look)
    # What is the user's own may change while this process lives.
    fit = _fit.__wrapped__ if DATA[data].own else _fit
    network, task, facts = fit(network, task, look)  # type: ignore[arg-type]
    check_together(parts["optim"], parts["clip"], network)
    check_loss(parts["train"], network, facts)
    spec = RunSpec(
        seed=seed,  # type: ignore[arg-type]
        model=network,
        data=task,
        optim=parts["optim"],
        clip=parts["clip"],
        train=parts["train"],
        pretrain=parts["pretrain"],
        probe=parts["probe"],
        facts=facts,
        id="",
    )
    spec = seeded(spec)(seed)
    if spec.pretrain.mode != "none":
        check_pretraining(spec)
    if spec.probe.instrument != "none":
        check_instrument(spec)
    return spec


@lru_cache(maxsize=65536)
def _section(name: str, items: tuple[tuple[str, type, Value], ...], model: str, data: str):  # type: ignore[no-untyped-def]
    """One section, each value validated by itself. The type of a value is part of the cache's key: 1 is not true."""
    explicit = {key: value for key, _, value in items}
    for key in explicit:
        check_key(key, model, data)
    values = {key: value for key, value in allowed_keys(model, data).items() if key.startswith(f"{name}.")}
    for key in HAVE_DEFAULTS:
        if key.startswith(f"{name}."):
            values.update(own_defaults(key, str(coerce(key, explicit.get(key, DEFAULTS[key])))))
    if name == "model":
        values["model.name"] = model
    if name == "data":
        values["data.name"] = data
    values.update({key: coerce(key, value) for key, value in explicit.items()})
    kind = SECTIONS[name]
    fields = {field: values.get(key) for key, field in PLACES[kind]}
    if name in FREE:
        named = {key.removeprefix(FREE[name]): value for key, value in values.items() if is_free(key)}
        return kind(**fields, args=tuple(sorted(named.items())))
    return kind(**fields)


@lru_cache(maxsize=65536)
def _fit(model: ModelSpec, data: DataSpec, look: Look | None) -> tuple[ModelSpec, DataSpec, Facts]:
    """Model and data, what depends on both resolved, and the facts of the data; `SpecError` where they do not fit."""
    choice = MODELS[model.name]
    if "features" in DATA[data.name].keys and data.features is None:
        data = dataclasses.replace(data, features=model.width if model.name == "linear_chain" else 64)
    if model.activation is not None and model.slope is None and not choice.free:
        model = dataclasses.replace(model, slope=ACTIVATIONS[model.activation].slope)
    if model.parametrization == "mup" and model.base_width is None:
        model = dataclasses.replace(model, base_width=cast("int", choice.keys["width"]))
    if model.parametrization != "mup" and model.base_depth is not None:
        # Where it scales nothing it tells no runs apart.
        model = dataclasses.replace(model, base_depth=None)
    if model.chrono:
        # It draws what forget_bias would be added to.
        model = dataclasses.replace(model, forget_bias=None)
    elif model.forget_bias is None and "forget_bias" in choice.keys:
        raise SpecError("model.forget_bias=null: expected a finite number, unless model.chrono=true")
    facts = own_facts(data, look) if DATA[data.name].own else _facts(data, look)  # type: ignore[arg-type]
    if facts.source != data.source:
        if data.source is not None:
            raise SpecError(f"{data.path or data.target}: has changed: data.source={data.source[:12]}... is another")
        data = dataclasses.replace(data, source=facts.source)
    if cast("int | str", data.batch_size) == "full":  # the word that `_section` leaves to be resolved here
        data = dataclasses.replace(data, batch_size=facts.train)
    if data.batch_size > facts.train:
        raise SpecError(
            f"data.batch_size={data.batch_size}: the training part of {data.name!r} has {facts.train} samples; "
            "give at most that, or full"
        )
    if not choice.free:
        facts = facts.channels_last()
        model = _resolved(model, facts)
        check_fit(model, data, facts)
    return model, data, facts


def _resolved(model: ModelSpec, facts: Facts) -> ModelSpec:
    """What an attention takes from its width and its data."""
    if model.heads is None:
        return model
    given = cast("float | str | None", model.attention_scale)
    if given is None and model.parametrization == "mup" and model.base_width:
        # 1/d of a head's d units, as large as one over their root at the base (Yang et al. 2022, definition 4.1).
        given = math.sqrt(model.base_width * model.heads) / model.width
    return dataclasses.replace(
        model,
        norm="none" if model.norm_place == "none" else model.norm,
        causal=facts.positions > 0 if model.causal is None else model.causal,
        attention_scale=model.heads / model.width if isinstance(given, str) else given,
    )


def seeded(spec: RunSpec) -> Callable[[Value], RunSpec]:
    """From a seed to the run that is ``spec`` from that one: a million of them are made without building each.

    What it returns raises `SpecError` for what is no seed.
    """
    lines = [_canonical(getattr(spec, section)) for section in SECTIONS]
    # A section that came later and says nothing is none: the run keeps its id.
    lines = [line for line in lines if line != "[]"]
    if PRESENT:
        # A name says nothing of somebody else's function: the file that defines it is part of what the run is.
        lines += [f"{choice} {source.sha256}" for choice, source in used(spec.flat()).items()]
    rest = "\n".join(lines)
    shared = {field.name: getattr(spec, field.name) for field in dataclasses.fields(RunSpec)}

    def of(given: Value) -> RunSpec:
        # An integer needs no more words.
        seed = given if given.__class__ is int and 0 <= given < 2**63 else coerce("seed", given)
        digest = hashlib.sha256(f"gradlab {SCHEMA}\n{seed}\n{rest}".encode())
        return RunSpec(**(shared | {"seed": seed, "id": digest.hexdigest()[:16]}))

    return of


def but_for_seeds(specs: Iterable[RunSpec]) -> list[RunSpec]:
    """The first of all runs that are the same but for their seeds, as far as they share their sections."""
    found: dict[tuple[int, ...], RunSpec] = {}
    for spec in specs:
        sections = (spec.model, spec.data, spec.optim, spec.clip, spec.train, spec.pretrain, spec.probe)
        place = tuple(map(id, sections))
        found.setdefault(place, spec)
    return list(found.values())


@lru_cache(maxsize=65536)
def _facts(data: DataSpec, look: Look | None) -> Facts:
    if data.root is not None:
        return looked_at(data, look)
    entry = DATA[data.name]
    if data.length is not None and data.length < entry.least_length:
        raise SpecError(f"data.length={data.length}: {data.name!r} needs at least {entry.least_length} time steps")
    by_key = (data.length if "length" in entry.keys else data.features) or 0
    shape = tuple(by_key if size is None else size for size in entry.shape)
    outputs = math.prod(shape) if entry.outputs is None else entry.outputs
    return Facts(
        shape,
        outputs,
        entry.loss,
        entry.train,
        entry.heldout,
        image=entry.image,
        vocabulary=entry.vocabulary,
        positions=shape[0] if entry.positions is None else entry.positions,
        dictated=entry.dictated,
    )


@lru_cache(maxsize=65536)
def _canonical(section: object) -> str:
    pairs: list[tuple[str, object]] = [(key, value) for key, value in _items(section) if key not in OUTSIDE_DIGEST]
    if arguments := getattr(section, "args", ()):
        pairs.append(("args", arguments))
    return json.dumps([(key, value) for key, value in pairs if value not in SILENT.get(key, ())])
