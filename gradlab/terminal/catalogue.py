"""What `gradlab list` prints: every named choice, with one line about it and its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gradlab.cure.remedies import REMEDIES
from gradlab.diagnose import meanings
from gradlab.grid.launching import LAUNCHERS
from gradlab.spec.choices import (
    ACTIVATIONS,
    CLIPS,
    DATA,
    INITS,
    INSTRUMENTS,
    LOSSES,
    MODELS,
    NORMS,
    OPTIMIZERS,
    PRETRAINING,
    PROBES,
    SCHEDULES,
    Optimizer,
)
from gradlab.spec.keys import DEFAULTS
from gradlab.spec.named import Choice, SpecError, nearest

KINDS: dict[str, Mapping[str, Choice]] = {
    "models": MODELS,
    "data": DATA,
    "activations": ACTIVATIONS,
    "inits": INITS,
    "norms": NORMS,
    "clips": CLIPS,
    "losses": LOSSES,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "pretraining": PRETRAINING,
    "probes": {**PROBES, **{name: choice for name, choice in INSTRUMENTS.items() if name != "none"}},
    "verdicts": meanings.VERDICTS,
    "causes": meanings.CAUSES,
    "thresholds": meanings.KEYS,
    "remedies": REMEDIES,
    "launchers": LAUNCHERS,
}

Rows = list[tuple[str, str, str]]
"""Name, what it is, source."""


def choices(
    kind: str | None, config_dirs: Sequence[Path], skipped: Callable[[SpecError], None]
) -> list[tuple[str, Rows]]:
    """The choices of ``kind``, or of every kind, each under its title. Raises `SpecError` for an unknown kind.

    ``skipped`` is told of each experiment whose file cannot be read.
    """
    names = [*KINDS, "experiments"]
    if kind is not None and kind not in names:
        raise SpecError(f"unknown kind {kind!r}{nearest(kind, names) or ';'} available: {', '.join(names)}")
    listed = [(name, _rows(KINDS[name].values())) for name in KINDS if kind in (None, name)]
    return listed + (_experiments(config_dirs, skipped) if kind in (None, "experiments") else [])


def _rows(found: Iterable[Choice]) -> Rows:
    return [(choice.name, _line(choice), choice.source) for choice in found]


def _line(choice: Choice) -> str:
    """What a choice is; of an optimizer also the defaults of its own."""
    if not isinstance(choice, Optimizer):
        return choice.summary
    own = {"lr": DEFAULTS["optim.lr"], **choice.defaults}
    return f"{choice.summary}; {', '.join(f'{key} {str(value).lower()}' for key, value in own.items())}"


def _experiments(config_dirs: Sequence[Path], skipped: Callable[[SpecError], None]) -> list[tuple[str, Rows]]:
    """Those of a theme together."""
    # Hydra takes a tenth of a second to import, and only experiments are files of its.
    from gradlab.grid.compose import experiments
    from gradlab.grid.experiment import by_theme

    return [
        (f"experiments, {theme or 'others'}", [(one.name, one.question, one.source) for one in some])
        for theme, some in by_theme(experiments(config_dirs, skipped)).items()
    ]
