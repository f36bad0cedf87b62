"""A run as the command that repeats it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping

from gradlab.cure.changes import typed
from gradlab.data.facts import described
from gradlab.spec.keys import DEFAULTS
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec

PLACES_OF_DATA = ("data.root", "data.mirror", "data.path")
"""Keys that are no part of a run's id, and yet what it needs."""

PLAIN = re.compile(r"[\w./:+-]+")
"""What Hydra's grammar reads without quotes."""

INDENT = "     "


def command(spec: RunSpec, told: Collection[str] = ()) -> str:
    """``gradlab run`` with the overrides that make this very run, for a shell: no others, but for the keys ``told``.

    >>> command(described({"model.depth": 3, "model.activation": "tanh", "optim.lr": 0.1}))
    'gradlab run model.depth=3 model.activation=tanh'
    """
    values = {key: value for key, value in spec.flat().items() if value is not None}
    kept = {*told, *PLACES_OF_DATA}
    # Most keys have their default, and nearly always all of those say nothing: they are asked together first.
    unusual = {key: value for key, value in values.items() if key in kept or value != DEFAULTS.get(key)}
    if _says(unusual, spec):
        values = unusual
    for key in tuple(values):
        fewer = {name: value for name, value in values.items() if name != key}
        if key not in kept and _says(fewer, spec):
            values = fewer
    return " ".join(["gradlab run", *(shlex.quote(f"{key}={_quoted(value)}") for key, value in values.items())])


def _says(values: Mapping[str, Value], spec: RunSpec) -> bool:
    """Whether ``values`` describe ``spec``: a key may say nothing, or be one that others cannot do without."""
    try:
        return described(values).id == spec.id
    except SpecError:
        return False


def _quoted(value: Value) -> str:
    if not isinstance(value, str) or PLAIN.fullmatch(value):
        return typed(value)
    # To Hydra a backslash stands for itself, but before a quote it escapes.
    inside = re.sub(r"(\\*)'", r"\1\1\\'", value)
    inside = re.sub(r"(\\+)$", r"\1\1", inside)
    return f"'{inside}'"


def folded(line: str, width: int) -> list[str]:
    r"""A command in lines of at most ``width`` characters, where its words allow that, which a shell reads as one.

    >>> folded("gradlab run model.depth=3 seed=1", 24)
    ['gradlab run \\', '     model.depth=3 \\', '     seed=1']
    """
    lines: list[str] = []
    now = ""
    for word in map(shlex.quote, shlex.split(line)):
        if now and len(now) + len(word) + len("  \\") > width:
            lines.append(f"{now} \\")
            now = f"{INDENT}{word}"
        else:
            now = f"{now} {word}" if now else word
    return [*lines, now]
