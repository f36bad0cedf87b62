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


def closest(given: str, names: Iterable[str]) -> str | None:
    """The name that ``given`` may have been meant to be, if one is near."""
    return next(iter(difflib.get_close_matches(given, list(names), n=1, cutoff=0.6)), None)


def nearest(given: str, names: Iterable[str]) -> str:
    """``; did you mean 'relu'?`` where a name is near, else nothing."""
    name = closest(given, names)
    return f"; did you mean {name!r}?" if name else ""


def lookup(noun: str, table: Mapping[str, ChoiceT], given: object, aliases: Mapping[str, str] | None = None) -> ChoiceT:
    """The entry called ``given``; raises `SpecError` with the nearest name and all names where there is none."""
    name = (aliases or {}).get(str(given), str(given))
    if name not in table:
        hint = nearest(name, [*table, *(aliases or {})])
        raise SpecError(f"unknown {noun} {given!r}{hint or ';'} available: {', '.join(sorted(table))}")
    return table[name]
