"""What a verdict is: a name, a grade, the numbers that it rests on, the thresholds that they crossed, and its cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from gradlab.diagnose.thresholds import THRESHOLDS, Limits

Evidence = Mapping[str, float | int | str | None]

SOUND, RISK, SICK = "healthy", "risk", "sick"
"""The grades: what a profile shows before any training is a risk, what has happened or is certain is a fact."""


@dataclass(frozen=True)
class Cause:
    """What a verdict comes from, as far as it can be known: its name, how it shows, and the thing to change."""

    name: str
    sentence: str
    change: str

    def __str__(self) -> str:
        return f"{self.sentence}; {self.change}"


@dataclass(frozen=True)
class Verdict:
    """One diagnosis of a run.

    ``evidence``: its numbers by name. ``threshold``: the keys that it crossed, with their values; empty for what needs
    none. ``source``: where they come from. ``sentence``: all of it for a reader. ``grade``: "risk" of what only a
    profile shows (also of a `healthy` that tells of one), "sick" of what is certain or has happened, else "healthy".
    ``cause``: what it comes from, None where that cannot be known.
    """

    name: str
    evidence: Evidence
    threshold: Mapping[str, float]
    source: str
    sentence: str
    grade: str = SICK
    cause: Cause | None = None

    @property
    def told(self) -> str:
        """The sentence, and what it comes from where that is known."""
        return self.sentence if self.cause is None else f"{self.sentence}. Cause ({self.cause.name}): {self.cause}"

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        by = ", ".join(f"{key}={value:g}" for key, value in self.threshold.items())
        source = f"<br><small>{escape(f'{by}: {self.source}' if by else self.source)}</small>" if self.source else ""
        return f"<p><b>{escape(self.name)}</b>{escape(self.told.removeprefix(self.name))}.{source}</p>"


class Verdicts(tuple[Verdict, ...]):
    """The verdicts of one network, which a notebook shows one below the other."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self)


def crossing(
    name: str,
    crossed: Sequence[str],
    limits: Limits,
    evidence: Evidence,
    sentence: str,
    source: str = "",
    grade: str = SICK,
) -> Verdict:
    """A verdict by the thresholds called ``crossed``, from their sources unless another is given."""
    keys = {THRESHOLDS[key].key: limits[key] for key in crossed}
    sources = [(f"{key}: " if len(crossed) > 1 else "") + THRESHOLDS[key].source for key in crossed]
    return Verdict(name, evidence, keys, source or "; ".join(sources), sentence, grade)
