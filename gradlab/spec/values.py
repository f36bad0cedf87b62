"""What is given as the value of a key: taken as that, in one form, or refused with a line. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradlab.spec import elsewhere
from gradlab.spec.choices import ALIASES, NAMED, NOUNS
from gradlab.spec.keys import KEYS, Key, is_free
from gradlab.spec.named import SpecError, Value, canonical, lookup, nearest, short


def coerce(key: str, given: Value) -> Value:
    """``given`` as the value of ``key``: aliases resolved, integers widened to floats; `SpecError` for a wrong one."""
    if is_free(key):
        return _argument(key, given)
    if key in NAMED:
        return _named(key, "null" if given is None else str(given))
    rule = KEYS[key]
    if given is None and rule.nullable:
        return None
    if key in WRITTEN:
        return WRITTEN[key](key, given)
    return _checked(key, rule, given)


def _checked(key: str, rule: Key, given: Value) -> Value:
    if isinstance(given, str) and (word := canonical(given, rule.words)) in rule.words:
        return word
    accepted: Value = None
    if rule.kind is bool:
        accepted = given if isinstance(given, bool) else None
    elif rule.kind is str:
        accepted = given if isinstance(given, str) and not rule.words else None
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        if isinstance(given, int) and abs(given) >= 2**63:
            raise SpecError(f"{key}={short(str(given))}: expected a number of at most 64 bits")
        if rule.kind is int:
            accepted = given if isinstance(given, int) else None
        else:
            accepted = float(given) if math.isfinite(given) else None
        if accepted is not None and not _within(rule, accepted):
            accepted = None
    if accepted is None:
        shown = "null" if given is None else str(given).lower() if isinstance(given, bool) else short(repr(given))
        raise SpecError(f"{key}={shown}: expected {rule.expected()}{_nearest_word(key, given)}")
    return accepted


def _named(key: str, given: str) -> str:
    """The name of a choice; or one of the key's words, or of a loss a function of the user's own."""
    if given in KEYS[key].words or (key == "train.loss" and is_target(given)):
        return given
    return lookup(NOUNS[key], NAMED[key], given, ALIASES.get(key), elsewhere.VALUES.get(key)).name


def _layers(key: str, given: Value) -> str:
    """Numbers of layers in order, as ``3+5``; or none.

    >>> _layers("model.pool", "5+3"), _layers("model.pool", 3)
    ('3+5', '3')
    """
    parts = str(given).split("+")
    if given == "none":
        return "none"
    if isinstance(given, bool) or not all(part.isdecimal() and int(part) > 1 for part in parts):
        raise SpecError(f"{key}={short(str(given))}: expected layers from 2 on, as in 3+5, or 'none'")
    return "+".join(map(str, sorted(set(map(int, parts)))))


def _scale(key: str, given: Value) -> str:
    """A loss scale: a number above 0, as it is written shortest, or dynamic.

    >>> _scale("train.loss_scale", 1024.0), _scale("train.loss_scale", "dynamic")
    ('1024', 'dynamic')
    """
    if given == "dynamic":
        return "dynamic"
    try:
        number = math.nan if isinstance(given, bool) else float(str(given))
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf):
        raise SpecError(f"{key}={short(str(given))}: expected a number above 0 or 'dynamic'")
    return f"{number:.17g}" if float(f"{number:g}") != number else f"{number:g}"


WRITTEN: dict[str, Callable[[str, Value], Value]] = {"model.pool": _layers, "train.loss_scale": _scale}
"""Keys whose values are written in a way of their own."""


def is_target(text: str) -> bool:
    """Whether a text names something of the user's own: ``path/to/file.py:Name`` or ``package.module.Name``.

    >>> [is_target(text) for text in ("nets.py:Net", "torchvision.models.resnet18", "nets.py", "Net")]
    [True, True, False, False]
    """
    place, _, name = text.rpartition(":") if ":" in text else text.rpartition(".")
    named = all(part.isidentifier() for part in name.split("."))
    if ":" in text:
        return place.endswith(".py") and named
    return named and name != "py" and all(part.isidentifier() for part in place.split("."))


def _argument(key: str, given: Value) -> Value:
    """An argument of the user's own: a number, a truth, a text, or, as JSON, a list or a mapping of them."""
    if isinstance(given, float) and not math.isfinite(given):
        raise SpecError(f"{key}={given}: expected a finite number")
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) >= 2**63:
        raise SpecError(f"{key}={short(str(given))}: expected a number of at most 64 bits")
    return given


def _within(rule: Key, number: float) -> bool:
    if rule.low is not None and (number < rule.low or (rule.above and number == rule.low)):
        return False
    return (rule.below is None or number < rule.below) and (rule.most is None or number <= rule.most)


def _nearest_word(key: str, given: Value) -> str:
    meant = elsewhere.VALUES.get(key, {})
    return nearest(str(given), KEYS[key].words, meant) if isinstance(given, str) or meant else ""
