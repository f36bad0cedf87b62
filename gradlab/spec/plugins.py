"""Named choices of the user's own: an entry like gradlab's, and functions that are asked for where they are needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.spec.choices import ALIASES, NAMED, NOUNS, Activation, Clip, Data, Init, Model, Optimizer
from gradlab.spec.named import Choice, SpecError, Value, canonical

KINDS: Mapping[str, type[Choice]] = {
    "model.activation": Activation,
    "model.init": Init,
    "optim.name": Optimizer,
    "clip.mode": Clip,
    "model.name": Model,
    "data.name": Data,
}
"""The keys whose names may come from plugins, with the form of an entry."""


@dataclass(frozen=True)
class Plugin:
    """A choice for ``key`` (one of `KINDS`).

    ``engine()`` returns what gradlab's own table of the functions of this kind holds under a name (see docs/house.md),
    and is called in the processes that train alone, so that torch may be imported there; ``theory()`` returns an
    entry of `gradlab.theory.activations.ACTIVATIONS` or `gradlab.theory.setting.WEIGHT_VARIANCES`.
    """

    key: str
    choice: Choice
    engine: Callable[[], Any]
    theory: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Source:
    """Where plugins come from: an installed package's entry point, or a file of the user's own.

    ``kind`` is ``package`` or ``file``; ``place`` names the entry point (with package and version) or the file;
    ``sha256`` is that of the file that defines them, part of the id of every run that uses one.
    """

    kind: str
    place: str
    sha256: str


PRESENT: dict[tuple[str, str], tuple[Source, Plugin]] = {}
"""By key and name, the choices that plugins have entered into gradlab's tables in this process."""


def enter(source: Source, given: object) -> None:
    """Enters the plugins that a source lists. Raises `SpecError` for a list of anything else, and for a taken name."""
    if not isinstance(given, list | tuple) or not all(isinstance(one, Plugin) for one in given):
        raise SpecError(f"{source.place}: expected PLUGINS, a list of gradlab.spec.plugins.Plugin")
    for plugin in given:
        _check(source, plugin)
    for plugin in given:
        PRESENT[plugin.key, plugin.choice.name] = source, plugin
        NAMED[plugin.key][plugin.choice.name] = plugin.choice  # type: ignore[index]


def _check(source: Source, plugin: Plugin) -> None:
    kind, name = KINDS.get(plugin.key), plugin.choice.name
    if kind is None:
        raise SpecError(f"{source.place}: key {plugin.key!r} takes no plugins; expected {', '.join(KINDS)}")
    if not isinstance(plugin.choice, kind):
        raise SpecError(f"{source.place}: {plugin.key}={name}: expected a {kind.__name__}, given a {_kind(plugin)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not (plugin.choice.summary + plugin.choice.source).isprintable():
        raise SpecError(f"{source.place}: {name!r}: expected a name of a-z, 0-9 and _, and a line about it")
    there = PRESENT.get((plugin.key, name))
    if there is not None and there[0] == source:
        return
    taken = canonical(name, NAMED[plugin.key], ALIASES.get(plugin.key))
    if taken in NAMED[plugin.key]:
        own = PRESENT.get((plugin.key, taken))
        whose = "gradlab's own" if own is None else f"that of {own[0].place}"
        raise SpecError(f"{source.place}: {NOUNS[plugin.key]} {name!r} is {whose}; a plugin needs a name of its own")


def _kind(plugin: Plugin) -> str:
    return type(plugin.choice).__name__


def used(values: Mapping[str, Value]) -> dict[str, Source]:
    """The sources of the names in a run's ``values`` (dotted keys), by ``key=name``."""
    if not PRESENT:
        return {}
    named = [(key, str(values.get(key))) for key in KINDS]
    return {f"{key}={name}": PRESENT[key, name][0] for key, name in named if (key, name) in PRESENT}


def names_of(key: str) -> list[str]:
    """The names for ``key`` that come from plugins."""
    return [name for other, name in PRESENT if other == key]


def are_known(values: Mapping[str, Value]) -> bool:
    """Whether gradlab itself knows every name in a run's ``values``, whatever plugins are there."""
    named: Iterable[tuple[str, Value]] = ((key, values.get(key)) for key in KINDS)
    return all(name is None or (name in NAMED[key] and (key, name) not in PRESENT) for key, name in named)
