"""What a named choice is, and how one is found by its name or refused with the nearest. Torch-free."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Value = str | int | float | bool | None
"""What a key of a run may hold."""


class SpecError(ValueError):
    """A key or value that no run can have; the message is meant for the user, one line."""


@dataclass(frozen=True)
class Choice:
    """One named choice: a line about it, and the paper or page that it comes from."""

    name: str
    summary: str
    source: str


ChoiceT = TypeVar("ChoiceT", bound=Choice)


def table(*choices: ChoiceT) -> dict[str, ChoiceT]:
    """The choices by their names."""
    return {choice.name: choice for choice in choices}


NO_SLIPS = frozenset({"cnn", "gru", "lstm", "gan", "vae", "vit", "gcn"})
"""Names of the field that are near to another one and yet no slip of the keyboard: a cnn is no rnn."""


def closest(given: str, names: Iterable[str]) -> str | None:
    """The name that ``given`` may have been meant to be, if one is near.

    >>> closest("rellu", ["relu", "rnn"]), closest("cnn", ["relu", "rnn"])
    ('relu', None)
    """
    if given in NO_SLIPS:
        return None
    return next(iter(difflib.get_close_matches(given, list(names), n=1, cutoff=0.6)), None)


def folded(name: str) -> str:
    """A name as other libraries may write it, in one way: ``LeakyReLU``, ``leaky-relu`` and ``leaky_relu``.

    >>> folded("LeakyReLU"), folded("leaky_relu")
    ('leakyrelu', 'leakyrelu')
    """
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def canonical(given: str, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """The one of ``names`` that ``given`` is: itself, an alias, or either in other letters; ``given`` if none is."""
    known = {**{name: name for name in names}, **(aliases or {})}
    if given in known:
        return known[given]
    return {folded(name): meant for name, meant in known.items()}.get(folded(given), given)


def nearest(given: str, names: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """``; did you mean 'relu'?`` where a name is near, or ``elsewhere`` tells what is meant; else nothing."""
    name = (elsewhere or {}).get(folded(given)) or closest(given, names)
    return f"; did you mean {name!r}?" if name else ""


def lookup(
    noun: str,
    table: Mapping[str, ChoiceT],
    given: object,
    aliases: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> ChoiceT:
    """The entry called ``given``; raises `SpecError` with the nearest name and all names where there is none.

    ``elsewhere``: what other libraries call them, of `spec.elsewhere`.
    """
    name = canonical(str(given), table, aliases)
    if name not in table:
        hint = nearest(name, [*table, *(aliases or {})], elsewhere)
        raise SpecError(f"unknown {noun} {given!r}{hint or ';'} available: {', '.join(sorted(table))}")
    return table[name]


def short(text: str) -> str:
    """What was given, as far as a message has room for it."""
    return text if len(text) <= 60 else f"{text[:60]}..."
