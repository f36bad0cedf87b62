"""Hydra and OmegaConf behind a wall: nothing else knows them, and no `DictConfig` leaves.

Hydra's parser reads an override in its grammar, and Hydra composes the config files of one choice of groups (40 ms a
call). Whatever they raise leaves as one line in a `SpecError`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradlab.grid.expand import MOST_RUNS, sections
from gradlab.grid.experiment import BESIDE
from gradlab.grid.files import check, refuse_calls
from gradlab.spec.choices import NAMED
from gradlab.spec.keys import FREE, GROUPS, defaults_of, is_free
from gradlab.spec.named import SpecError, Value
from gradlab.spec.plugins import names_of

_SIGNS = {OverrideType.CHANGE: "", OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++", OverrideType.DEL: "~"}
MOST_SHOWN = 400
"""Characters of what cannot be read, and of why."""

_COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, RecursionError)


@dataclass(frozen=True)
class Typed:
    """One override as Hydra's grammar reads it: what it sets (a key or a group), how (`Setting.sign`), to what.

    ``swept``: a sweep, also one of a single value; ``package``: what stands behind an ``@``.
    """

    text: str
    sets: str
    package: str | None
    sign: str
    swept: bool
    read: Override

    def values(self, names: Sequence[str]) -> tuple[Value, ...]:
        """The values in their order, of a ``glob()`` those of ``names`` that match; empty for ``~key``.

        Raises `SpecError` for a sweep that has no values, or no end of them.
        """
        given: object = self.read.value()
        if isinstance(given, IntervalSweep):
            raise SpecError(f"{self.text}: interval() has no end of values; expected a,b or range(start,stop,step)")
        if isinstance(given, Glob):
            if not names:
                raise SpecError(f"{self.text}: glob() is for named choices: {', '.join(NAMED)}")
            matching = tuple(given.filter(list(names)))
            if not matching:
                raise SpecError(f"{self.text}: matches nothing; available: {', '.join(names)}")
            return matching
        if not isinstance(given, Sweep):
            return () if self.read.value_type is None else (value_of(self.sets, given, self.text),)
        try:
            values = list(itertools.islice(self.read.sweep_iterator(), MOST_RUNS + 1))
        except (HydraException, ValueError, ArithmeticError, TypeError) as error:
            raise SpecError(f"{self.text}: {_one_line(error)}; expected a,b or range(start,stop,step)") from error
        if not values:
            raise SpecError(f"{self.text}: an empty sweep; expected at least one value")
        return tuple(value_of(self.sets, value, self.text) for value in values)


def parse(text: str) -> Typed:
    """An override, read. Raises `SpecError` for what the grammar does not know, and for a sweep without end."""
    _check_lengths(text)
    try:
        read = OverridesParser.create().parse_overrides([text])[0]
    except (HydraException, ValueError, RecursionError) as error:
        reason = _one_line(error)
        said = f"quote special characters{_in_quotes(text)}" if reason == text else reason
        shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
        said = said if len(said) <= MOST_SHOWN else "too long, or nested too deep"
        raise SpecError(f"cannot read {shown!r}: {said}; expected key=value, key=a,b or 'key=range(1,5)'") from error
    swept = read.value_type not in (None, ValueType.ELEMENT)
    return Typed(text, read.key_or_group, read.package, _SIGNS[read.type], swept, read)


def _check_lengths(text: str) -> None:
    """Raises `SpecError` for a `range()` that is too long, before it is written out (`shuffle()` does so at once)."""
    for inside in re.findall(r"\brange\(([^()]*)\)", text):
        given = [part.rpartition("=")[2].strip() for part in inside.split(",")]
        names = [part.rpartition("=")[0].strip() for part in inside.split(",")]
        try:
            numbers = [float(word) for word in given]
        except ValueError:
            # What the grammar says of it is better.
            continue
        order = ("start", "stop", "step") if len(numbers) > 1 else ("stop",)
        named = {name or place: number for name, place, number in zip(names, order, numbers, strict=False)}
        step = named.get("step", 1.0)
        length = (named.get("stop", 0.0) - named.get("start", 0.0)) / step if step else 0.0
        if length > MOST_RUNS:
            raise SpecError(f"{text}: a sweep of {length:,.0f} values; expected at most {MOST_RUNS:,}")


def _in_quotes(text: str) -> str:
    """How to write an override in a shell so that its value stays one text; nothing where quotes nest too deep."""
    key, _, value = text.partition("=")
    return "" if re.search(r"""["'$`!\\]""", text) else f""", in a shell as "{key}='{value}'\""""


def scalar(given: object, text: str) -> Value:
    """One value; raises `SpecError`, which begins with ``text``, for a list, a mapping or a sweep."""
    if isinstance(given, QuotedString):
        return given.text
    if given is None or isinstance(given, (str, bool, int, float)):
        return given
    kind = "a list" if isinstance(given, list) else "a mapping" if isinstance(given, dict) else "a sweep inside a sweep"
    raise SpecError(f"{text}: expected one value, or a sweep such as a,b; given {kind}")


def value_of(key: str, given: object, text: str) -> Value:
    """One value of ``key``; what a user's own code is called with may also be a list or a mapping, kept as JSON."""
    if is_free(key) and isinstance(given, (list, dict)):
        return json.dumps(_unquoted(given))
    return scalar(given, text)


def _unquoted(given: object) -> object:
    match given:
        case QuotedString():
            return given.text
        case list():
            return [_unquoted(one) for one in given]
        case dict():
            return {str(_unquoted(name)): _unquoted(one) for name, one in given.items()}
        case _:
            return given


Composer = Callable[[tuple[tuple[str, str], ...]], dict[str, Any]]
"""From further choices of groups to the composed config, unresolved."""


@contextmanager
def composing(fixed: Mapping[str, str], dirs: Sequence[Path]) -> Iterator[Composer]:
    """Composes the files of ``dirs`` with the choices ``fixed`` and those asked for on top; each combination once."""
    path = [f"hydra.searchpath=[{','.join(_quoted(f'file://{folder}') for folder in dirs[1:])}]"]

    @cache
    def composed(further: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        choices = {**fixed, **dict(further)}
        shown = " ".join(f"{group}={option}" for group, option in choices.items())
        files = [folder / group / f"{option}.yaml" for group, option in choices.items() for folder in dirs[1:]]
        try:
            for file in filter(Path.is_file, files):
                check(file)
            config = compose("config", path + [f"{group}={_quoted(option)}" for group, option in choices.items()])
            plain = OmegaConf.to_container(config, resolve=False)
            # Of files, too, that these name in their defaults.
            refuse_calls(plain)
        except _COMPOSING as error:
            raise SpecError(f"cannot compose {shown or 'the configs'}: {_one_line(error)}") from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    for group, key in GROUPS.items():
        for name in names_of(key):
            # A file of the same name in a folder of configs goes first.
            ConfigStore.instance().store(name, defaults_of(key, name), group)
    with initialize_config_dir(str(dirs[0]), version_base="1.3"):
        yield composed


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def read_file(file: Path) -> object:
    """The plain content of a config file as it stands. Raises `SpecError` where it cannot be read."""
    try:
        check(file)
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except _COMPOSING as error:
        raise SpecError(f"cannot be read: {_one_line(error)}") from error


def flatten(config: Mapping[str, Any]) -> dict[str, Value]:
    """Dotted keys, without what else an experiment's file says; a list or a deeper mapping is refused."""
    flat: dict[str, Value] = {}
    for section, content in config.items():
        if section in BESIDE:
            continue
        if not isinstance(content, dict):
            flat[section] = scalar(content, section)
            continue
        for key, value in content.items():
            if f"{section}.{key}." in FREE.values() and (value is None or isinstance(value, dict)):
                named = {f"{section}.{key}.{name}": one for name, one in (value or {}).items()}
                flat |= {name: value_of(name, one, name) for name, one in named.items()}
            else:
                flat[f"{section}.{key}"] = scalar(value, f"{section}.{key}")
    return flat


def resolve(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values with their interpolations replaced, as OmegaConf does it."""
    try:
        plain = OmegaConf.to_container(OmegaConf.create(sections(values)), resolve=True)
    except RecursionError as error:
        raise SpecError("cannot resolve: ${...} is nested too deep") from error
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise SpecError(f"cannot resolve {where}{_one_line(error)}") from error
    assert isinstance(plain, dict)
    return flatten({str(key): value for key, value in plain.items()})


def _one_line(error: BaseException) -> str:
    """What an error of Hydra, its parser, OmegaConf or YAML says, without the lines for programmers."""
    if isinstance(error, RecursionError):
        return "defaults that lead back to their own file, or ${...} nested too deep"
    text = str(error) or str(error.__cause__ or type(error).__name__)
    noise = r"See https?://|full_key: |object_type=|\^|Error parsing override "
    about_files = r"\n\s*(?:Available options in|(?:Config s|S)earch path:)"
    lines = [line.strip() for line in re.split(about_files, text)[0].splitlines()]
    kept = [line for line in lines if line and not re.match(noise, line)]
    said = re.sub(r"^(LexerNoViableAltException: |\w+ while evaluating )", "", "; ".join(kept[:3]))
    return re.sub(r" expecting \{.*\}", "", said).replace("<EOF>", "end of line")
