"""The grid: every combination of the axes as a validated run, each run once, with what they have in common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradlab.data.facts import described
from gradlab.diagnose.thresholds import DEFAULTS, THRESHOLDS, Limits
from gradlab.grid.launching import KEYS as LAUNCH_KEYS
from gradlab.grid.launching import Launch, launch_of
from gradlab.spec.keys import APART, GROUPS, allowed_keys, is_free
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import SECTIONS, RunSpec, but_for_seeds, seeded

OUTSIDE = (*APART, *LAUNCH_KEYS, *(entry.key for entry in THRESHOLDS.values()))
"""Keys that are no part of a run: a label, how runs are carried out, what is stored, the thresholds of diagnosis."""

UNALTERING = (*OUTSIDE, "seed", "data.seed", "data.root", "data.mirror", "probe.every")
"""Keys that leave an experiment's settings what they are: a label, the machine, and which of equal draws are taken."""

MOST_RUNS = 1_000_000
"""A larger grid is taken for a slip of the keyboard."""

LARGEST = 1e300
"""Of a threshold."""


@dataclass(frozen=True)
class Grid:
    """The runs that one command asks for, the first swept key slowest, each run once.

    ``duplicates`` counts what was dropped; ``swept`` are dotted keys in the order of the axes; ``given`` the keys that
    the overrides or the experiment name; ``base`` is YAML of the resolved values that all runs share, with `name` and
    `launch`; ``overrides`` are as given. ``expect`` is what the experiment's file expects of its runs, as plain data;
    ``about`` its question and source, ``altered`` the overrides that change its settings, ``maps`` the keys along x and
    y of its heat maps. ``limits`` are the thresholds of diagnosis; ``cure`` the facts of a cure, whose rounds add runs
    (`cure.trials`), else None.
    ``weights``: whether those that the runs end with are stored; ``longer`` is the folder of a result and the id of a
    run in it, where the only run is that one with more steps.
    """

    runs: tuple[RunSpec, ...]
    duplicates: int
    swept: tuple[str, ...]
    given: frozenset[str]
    name: str
    launch: Launch
    base: str
    overrides: tuple[str, ...]
    experiment: str | None
    expect: tuple[Mapping[str, Any], ...] = ()
    altered: tuple[str, ...] = ()
    maps: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=lambda: DEFAULTS)
    cure: Mapping[str, Any] | None = None
    weights: bool = False
    longer: tuple[Path, str] | None = None
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """Further runs of a grid that is planned as its tables come in, as a cure is.

    ``entries``: what the manifest keeps of it; ``said``: a line for who waits.
    """

    runs: tuple[RunSpec, ...]
    entries: Mapping[str, Any]
    said: str


@dataclass(frozen=True)
class Setting:
    """One override: its key (of a group, the key that names the choice), and the values that it takes in turn.

    ``sign`` is one of "", "+", "++" and "~"; ``swept`` also for a sweep of one value; ``text`` is what was typed.
    """

    key: str
    sign: str
    values: tuple[Value, ...]
    swept: bool
    text: str

    @property
    def group(self) -> str | None:
        """The config group that the key chooses from, if it does."""
        section = self.key.partition(".")[0]
        return section if GROUPS.get(section) == self.key else None


@dataclass(frozen=True)
class Request:
    """What was asked for, every override applied.

    ``flats``: for each combination of the swept groups' options, in the order of the axes, the dotted values of a run;
    ``outside`` those that are no part of a run.
    """

    flats: dict[tuple[Value, ...], dict[str, Value]]
    axes: tuple[Setting, ...]
    outside: dict[str, Value]
    given: frozenset[str]
    overrides: tuple[str, ...]
    experiment: str | None
    expect: tuple[Mapping[str, Any], ...]
    altered: tuple[str, ...]
    maps: Mapping[str, str]
    about: Mapping[str, str]


Resolve = Callable[[Mapping[str, Value]], dict[str, Value]]
"""Replaces the interpolations (`${...}`) in dotted values, one by another's value."""


def expand(request: Request, resolve: Resolve) -> Grid:
    """The request's runs in the order of its axes, the first slowest; of runs with the same id the first is kept.

    ``resolve`` is called for each run where any value is an interpolation, since the values may be swept. Raises
    `SpecError` for the first run that cannot be trained, a bad name or launch value, and more than `MOST_RUNS`.
    """
    axes, outside = request.axes, request.outside
    size = math.prod(len(axis.values) for axis in axes)
    if size > MOST_RUNS:
        raise SpecError(f"the grid has at least {size:,} runs; expected at most {MOST_RUNS:,}")
    keys = [axis.key for axis in axes if not axis.group]
    grouped = [axis.group is not None for axis in axes]
    valued = [axis.group is None for axis in axes]
    template = any(
        isinstance(value, str) and "${" in value
        for values in (
            outside.values(),
            *(flat.values() for flat in request.flats.values()),
            *(axis.values for axis in axes),
        )
        for value in values
    )
    runs: dict[str, RunSpec] = {}
    first: dict[str, Value] | None = None
    # Runs that differ in their seed alone are validated once, unless an interpolation may look at it.
    place = next((place for place, axis in enumerate(axes) if axis.key == "seed" and not template), len(axes))
    known: dict[tuple[int, ...], Callable[[Value], RunSpec]] = {}
    for point in itertools.product(*(axis.values for axis in axes)):
        # By what they are and not by what they equal: true is not 1.
        others = tuple(map(id, (*point[:place], *point[place + 1 :])))
        if (make := known.get(others)) is not None:
            spec = make(point[place])
            runs.setdefault(spec.id, spec)
            continue
        flat = request.flats[tuple(itertools.compress(point, grouped))]
        values = {**flat, **dict(zip(keys, itertools.compress(point, valued), strict=True))}
        if template:
            resolved = resolve({**outside, **values})
            first = first or resolved
            values = {key: value for key, value in resolved.items() if key not in OUTSIDE}
        spec = described(values)
        runs.setdefault(spec.id, spec)
        if place < len(axes):
            known[others] = seeded(spec)
    settled = first or outside
    name, launch, limits = _name(settled.get("name")), launch_of(settled), _limits(settled)
    specs = tuple(runs.values())
    return Grid(
        runs=specs,
        duplicates=size - len(specs),
        swept=tuple(itertools.chain.from_iterable(_swept_keys(axis, request) for axis in axes)),
        given=request.given,
        name=name,
        launch=launch,
        base=_yaml(
            {
                "name": name,
                **_shared(specs),
                **{f"launch.{key}": value for key, value in launch.stored().items()},
                "store.weights": stores_weights(settled),
                **{THRESHOLDS[threshold].key: value for threshold, value in limits.items()},
            }
        ),
        overrides=request.overrides,
        experiment=request.experiment,
        expect=request.expect,
        altered=request.altered,
        maps=request.maps,
        about=request.about,
        limits=limits,
        weights=stores_weights(settled),
    )


def spec_yaml(spec: RunSpec) -> str:
    """The resolved spec as YAML, in sections; keys that its model or data do not have are left out."""
    return _yaml(_present(spec))


def sections(values: Mapping[str, Value]) -> dict[str, Any]:
    """Dotted values as nested ones: `{"model.depth": 10}` becomes `{"model": {"depth": 10}}`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *around, name = key.split(".", 2) if is_free(key) else key.split(".", 1)
        inside = nested
        for part in around:
            inside = inside.setdefault(part, {})
        inside[name] = value
    return nested


def _yaml(values: Mapping[str, Value]) -> str:
    return str(yaml.safe_dump(sections(values), sort_keys=False, allow_unicode=True))


def _present(spec: RunSpec) -> dict[str, Value]:
    """The keys that a spec's choices have, with its values."""
    allowed = allowed_keys(spec.model.name, spec.data.name)
    return {key: value for key, value in spec.flat().items() if key in allowed or is_free(key)}


def _shared(specs: Sequence[RunSpec]) -> dict[str, Value]:
    """The keys that all specs have, with the same value."""
    seeds = {spec.seed for spec in specs}
    specs = but_for_seeds(specs)
    choices = {(spec.model.name, spec.data.name) for spec in specs}
    had = [allowed_keys(model, data) for model, data in choices]
    shared = {key: value for key, value in specs[0].flat().items() if is_free(key) or all(key in keys for keys in had)}
    for key in [key for key in shared if is_free(key)]:
        if any(spec.flat().get(key) != shared[key] for spec in specs):
            del shared[key]
    if len(seeds) > 1:
        del shared["seed"]
    for section in SECTIONS:
        # Specs share their sections, so each distinct one is compared once.
        others = {id(content): content for content in (getattr(spec, section) for spec in specs)}.values()
        for key in [key for key in shared if key.partition(".")[0] == section and not is_free(key)]:
            name = key.partition(".")[2]
            if any(getattr(content, name) != shared[key] for content in others):
                del shared[key]
    return shared


def _swept_keys(axis: Setting, request: Request) -> tuple[str, ...]:
    """The axis's key; of a group whose files share a name (two widths of an mlp), the keys that they differ in."""
    if axis.group is None:
        return (axis.key,)
    position = [other.key for other in request.axes if other.group].index(axis.key)
    flats = {
        options[position]: {**allowed_keys(str(flat["model.name"]), str(flat["data.name"])), **flat}
        for options, flat in request.flats.items()
    }
    if len({flat[axis.key] for flat in flats.values()}) == len(flats):
        return (axis.key,)
    keys = dict.fromkeys(key for flat in flats.values() for key in flat if key.startswith(f"{axis.group}."))
    return tuple(key for key in keys if len({flat.get(key) for flat in flats.values()}) > 1)


def _name(given: Value) -> str:
    name = "" if given is None or isinstance(given, bool) else str(given)
    if not name.isprintable() or not 0 < len(name) <= 100:
        shown = "null" if given is None else str(given).lower() if isinstance(given, bool) else repr(given)
        raise SpecError(f"name={shown}: expected a label of 1 to 100 printable characters")
    return name


def stores_weights(values: Mapping[str, Value]) -> bool:
    """Whether the weights that runs end with are stored. Raises `SpecError` for what is neither true nor false."""
    given = values.get("store.weights", False)
    if not isinstance(given, bool):
        raise SpecError(f"store.weights={'null' if given is None else str(given)[:60]}: expected true or false")
    return given


def _limits(values: Mapping[str, Value]) -> Limits:
    """The thresholds of diagnosis, the defaults where nothing is given (or null)."""
    found = dict(DEFAULTS)
    for name, entry in THRESHOLDS.items():
        given = values.get(entry.key)
        if given is None:
            continue
        # Compared before it is made a float, which an integer of 400 digits cannot be.
        wrong = isinstance(given, (bool, str)) or not 0 <= given <= min(entry.most, LARGEST)
        if wrong:
            most = "" if math.isinf(entry.most) else f" and at most {entry.most:g}"
            raise SpecError(f"{entry.key}={str(given)[:60]}: expected a finite number of at least 0{most}, or null")
        found[name] = float(given)
    return found
