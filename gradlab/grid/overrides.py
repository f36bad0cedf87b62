"""One override, from its text to a setting: which key, which values, and whether the contract takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradlab.grid.expand import OUTSIDE, Setting
from gradlab.grid.hydra import parse
from gradlab.grid.search_path import option, options_of
from gradlab.spec.choices import DATA, MODELS, NAMED
from gradlab.spec.keys import GROUPS, KEYS, is_free, is_key, unknown_key
from gradlab.spec.named import SpecError, nearest
from gradlab.spec.run import OUTSIDE_DIGEST, SECTIONS


def read(text: str, dirs: Sequence[Path]) -> Setting:
    """One override in Hydra's grammar, as the contract narrows it."""
    if "=" not in text and not text.startswith("~"):
        known = [*KEYS, *OUTSIDE, *GROUPS]
        raise SpecError(
            f"{text!r}: expected {f'{text}=value' if text in known else 'key=value' + nearest(text, known)}"
        )
    typed = parse(text)
    given, sign = typed.sets, typed.sign
    key = GROUPS.get(given, given)
    if typed.package is not None:
        raise SpecError(f"{text}: packages ('@{typed.package}') have no meaning here; expected key=value")
    if key in SECTIONS or key in ("launch", "diagnose"):
        names = [name for name in (*KEYS, *OUTSIDE) if name.startswith(f"{key}.")]
        raise SpecError(f"{text}: {key!r} is a section; its keys: {', '.join(names)}")
    if not is_key(key) and key not in OUTSIDE and key != "experiment":
        raise unknown_key(given, [*KEYS, *OUTSIDE, *GROUPS, "experiment"])
    if key in GROUPS.values() and (sign == "+" or (sign == "++" and given in GROUPS)):
        raise SpecError(f"{text}: {given} is there already; expected {text.lstrip('+')}")
    if typed.swept and key in OUTSIDE_DIGEST:
        raise SpecError(
            f"{text}: cannot be swept: {key} says where data lie and is no part of a run's id, so that all but the "
            "first would count as the same runs; give each a command of its own"
        )
    if typed.swept and (key in OUTSIDE or key == "experiment" or sign == "~"):
        reason = {"experiment": "one experiment at a time", "~": "~ removes one key"}
        why = reason.get(sign) or reason.get(key) or f"{key} is no part of a run"
        raise SpecError(f"{text}: cannot be swept: {why}")
    if (
        sign == "~"
        and key != "experiment"
        and not key.startswith(("launch.", "diagnose."))
        and not (is_free(key) or (key in KEYS and KEYS[key].nullable))
    ):
        raise SpecError(f"{text}: {key} is required; expected {key}=value, or nothing for its default")
    setting = Setting(key, sign, typed.values(_names(key, dirs)), typed.swept, text)
    if setting.group is None:
        return setting
    return replace(setting, values=tuple(option(setting.group, value, dirs) for value in setting.values))


def _names(key: str, dirs: Sequence[Path]) -> list[str]:
    """The names that `glob()` finds for a key: of a group its files, of another key its words; none where any will do.

    What is the user's own needs more than its name.
    """
    group = next((group for group, named in GROUPS.items() if named == key), None)
    own = {name for name, model in MODELS.items() if model.free} | {name for name, data in DATA.items() if data.own}
    return (
        [name for name in options_of(group, dirs) if name not in own]
        if group
        else sorted(NAMED.get(key, KEYS[key].words if key in KEYS else ()))
    )
