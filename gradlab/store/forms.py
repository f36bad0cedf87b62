"""The form that a file of a result must have, and the door at which it is held against what was read.

A form is made of small parts; a fault is one `SpecError` with the file, the place in it, what was expected and what was
found. What a form does not name is left as it is: a newer gradlab may have written it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gradlab.spec.named import SpecError

LONGEST = 60
"""Characters of a found value that a message shows."""


class Form(Protocol):
    """What a place in a file must hold."""

    def check(self, found: object, where: str) -> None:
        """Raises `SpecError`, which begins with ``where``, for what has another form."""


@dataclass(frozen=True)
class Plain:
    """A value of one of ``kinds``; a number lies between ``least`` and ``most``, and is no NaN."""

    noun: str
    kinds: tuple[type, ...]
    least: float = -math.inf
    most: float = math.inf

    def check(self, found: object, where: str) -> None:
        """True and false are no numbers."""
        right = isinstance(found, self.kinds) and (bool in self.kinds or not isinstance(found, bool))
        if right and isinstance(found, (int, float)):
            right = self.least <= found <= self.most
        if not right:
            raise wrong(where, self.noun, found)


@dataclass(frozen=True)
class Words:
    """One of some texts, or one that ``others`` takes."""

    words: Sequence[str]
    others: Callable[[str], bool] = lambda _text: False

    def check(self, found: object, where: str) -> None:
        """The message names them where they are few."""
        if not isinstance(found, str) or not (found in self.words or self.others(found)):
            raise wrong(where, f"one of {', '.join(self.words)}" if len(self.words) < 9 else "a known key", found)


@dataclass(frozen=True)
class Maybe:
    """What ``form`` takes, or null."""

    form: Form

    def check(self, found: object, where: str) -> None:
        """Null is always right."""
        if found is not None:
            self.form.check(found, where)


@dataclass(frozen=True)
class Each:
    """A list, each of whose entries ``form`` takes: ``length`` of them, where that is given."""

    form: Form
    length: int | None = None
    least: int = 0

    def check(self, found: object, where: str) -> None:
        """Entries are counted from 1."""
        if not isinstance(found, list):
            raise wrong(where, "a list", found)
        if (self.length is not None and len(found) != self.length) or len(found) < self.least:
            count = f"{self.length}" if self.length is not None else f"at least {self.least}"
            raise SpecError(f"{where}: expected {count} entries, found {len(found)}")
        for number, entry in enumerate(found, start=1):
            self.form.check(entry, f"{where} {number}")


@dataclass(frozen=True)
class Named:
    """A mapping with any names, each of whose values ``form`` takes."""

    form: Form

    def check(self, found: object, where: str) -> None:
        """The place of a value ends with its name."""
        if not isinstance(found, dict):
            raise wrong(where, "a mapping", found)
        for name, value in found.items():
            self.form.check(value, f"{where}: {name}")


@dataclass(frozen=True)
class Fields:
    """A mapping with the names of ``needed``, and perhaps those of ``optional``."""

    needed: Mapping[str, Form] = field(default_factory=dict)
    optional: Mapping[str, Form] = field(default_factory=dict)

    def check(self, found: object, where: str) -> None:
        """Names that are in neither are left as they are."""
        if not isinstance(found, dict):
            raise wrong(where, "a mapping", found)
        for name, form in self.needed.items():
            if name not in found:
                raise SpecError(f"{where}: {name}: expected, and not there")
            form.check(found[name], f"{where}: {name}")
        for name, form in self.optional.items():
            if name in found:
                form.check(found[name], f"{where}: {name}")


class Anything:
    """A place whose content is somebody else's to read."""

    def check(self, found: object, where: str) -> None:
        """Takes everything."""


TEXT = Plain("a text", (str,))
TRUTH = Plain("true or false", (bool,))
NUMBER = Plain("a number", (int, float))
FINITE = Plain("a finite number", (int, float), -1e300, 1e300)
COUNT = Plain("an integer of at least 0", (int,), 0, 2**63)
SOME = Plain("an integer of at least 1", (int,), 1, 2**63)
VALUE = Maybe(Plain("a text, a number, true, false or null", (str, int, float, bool)))
"""Of a key."""


def wrong(where: str, expected: str, found: object) -> SpecError:
    """The fault of a place: what was expected there, and what was found."""
    return SpecError(f"{where}: expected {expected}, found {_shown(found)}")


def _shown(found: object) -> str:
    try:
        text = json.dumps(found, ensure_ascii=False)
    except RecursionError:
        text = "something nested too deep"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def read_json(file: Path, what: str) -> Any:
    """The content of a JSON file. Raises `SpecError` where it cannot be read as ``what``."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise SpecError(f"{file}: not {what}: {reason}") from error


def check_ids(where: str, ids: Iterable[object], known: Iterable[str]) -> None:
    """Raises `SpecError` where one of ``ids`` is no run's."""
    # A set is not made anew: of a million runs that would take longer than the rest.
    names = known if isinstance(known, frozenset) else frozenset(known)
    if strange := sorted({str(one) for one in ids} - names):
        raise SpecError(f"{where}: expected ids of the result's runs, found {_shown(strange[0])}")
