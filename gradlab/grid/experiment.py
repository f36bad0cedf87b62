"""The file of a named experiment: its question and source, its axes, the keys of its maps, and its shape checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.grid.expand import OUTSIDE
from gradlab.spec.keys import GROUPS, KEYS, is_key, unknown_key
from gradlab.spec.named import SpecError, nearest

BESIDE = ("axes", "experiment", "expect", "report")
"""Sections of the file that are no settings of a run."""

KNOWN = tuple(dict.fromkeys(("defaults", *BESIDE, *(key.partition(".")[0] for key in (*KEYS, *OUTSIDE)))))
"""Every section that a file may have."""


THEMES = (
    *("chains of layers", "initial weights", "activations", "order and chaos", "norms and residual branches"),
    *("recurrent networks", "attention", "clipping", "precision", "training"),
)
"""Of gradlab's own experiments, in the order of a list; others stand behind them."""


@dataclass(frozen=True)
class Experiment:
    """A file of `configs/experiment/`: the question, where it comes from, and its axes in the sweep grammar.

    ``expectations``: how many its file holds; ``theme``: what a list puts it under, nothing where its file names none.
    """

    name: str
    question: str
    source: str
    axes: tuple[tuple[str, str], ...]
    expectations: int
    theme: str = ""


def checked(name: str, raw: object) -> dict[str, Any]:
    """The content of the file of experiment ``name``. Raises `SpecError` where a section has not its shape."""
    if not isinstance(raw, dict):
        raise SpecError(f"experiment {name!r}: expected a mapping with experiment, defaults, axes and values")
    for section in raw:
        if section not in KNOWN:
            hint = nearest(str(section), KNOWN) or f"; expected {', '.join(KNOWN)}"
            raise SpecError(f"experiment {name!r}: unknown section {str(section)!r}{hint}")
    for section in BESIDE:
        kind, word = (list, "a list") if section == "expect" else (dict, "a mapping")
        if not isinstance(raw.get(section) or kind(), kind):
            raise SpecError(f"experiment {name!r}: expected {section} to be {word}")
    for group, key in GROUPS.items():
        if isinstance(raw.get(group), dict) and key.partition(".")[2] in raw[group]:
            raise SpecError(f"experiment {name!r} sets {key}: expected '- override /{group}: ...' in its defaults")
    return {str(key): value for key, value in raw.items()}


def record(name: str, raw: Mapping[str, Any]) -> Experiment:
    """What the checked content says of itself."""
    told = about(raw)
    axes = tuple((str(key), grammar(values)) for key, values in (raw.get("axes") or {}).items())
    expectations = len(raw.get("expect") or [])
    return Experiment(
        name, told.get("question", ""), told.get("source", ""), axes, expectations, _said(raw, "theme").get("theme", "")
    )


def about(raw: Mapping[str, Any]) -> dict[str, str]:
    """The question and the source, as far as the file gives them, a line each."""
    return _said(raw, "question", "source")


def _said(raw: Mapping[str, Any], *names: str) -> dict[str, str]:
    given = raw.get("experiment") or {}
    return {name: " ".join(str(given[name]).split()) for name in names if given.get(name)}


def by_theme(found: Iterable[Experiment]) -> dict[str, list[Experiment]]:
    """Experiments under their themes, in the order of `THEMES`, then of the alphabet; what has none is last."""
    ordered = sorted(found, key=lambda one: (not one.theme, *_place(one.theme), one.name))
    themes: dict[str, list[Experiment]] = {}
    for one in ordered:
        themes.setdefault(one.theme, []).append(one)
    return themes


def _place(theme: str) -> tuple[int, str]:
    return (THEMES.index(theme), "") if theme in THEMES else (len(THEMES), theme)


def grammar(values: object) -> str:
    """The values of an axis in the sweep grammar; a list of YAML is a choice.

    >>> grammar("1,2"), grammar([1, None])
    ('1,2', 'choice(1,null)')
    """
    if not isinstance(values, list):
        return str(values)
    return f"choice({','.join('null' if value is None else str(value) for value in values)})"


def maps(name: str | None, raw: Mapping[str, Any]) -> dict[str, str]:
    """The keys along x and y of the heat maps, as far as the file names them. Raises `SpecError` for what is no key."""
    given = raw.get("report") or {}
    for side, key in given.items():
        if side not in ("x", "y"):
            raise SpecError(f"experiment {name!r}: report: unknown key {side!r}; expected x and y, keys of heat maps")
        if not isinstance(key, str):
            raise SpecError(f"experiment {name!r}: report: {side}: expected one key, such as model.depth")
        if not is_key(key):
            raise SpecError(f"experiment {name!r}: report: {side}: {unknown_key(key, KEYS)}")
    return {str(side): str(key) for side, key in given.items()}
