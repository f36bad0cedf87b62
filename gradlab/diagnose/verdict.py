"""What a verdict is: a name, the numbers that it rests on, and the thresholds that they crossed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradlab.diagnose.thresholds import THRESHOLDS, Limits

Evidence = Mapping[str, float | int | str | None]


@dataclass(frozen=True)
class Verdict:
    """One diagnosis of a run.

    ``evidence``: its numbers by name. ``threshold``: the keys that it crossed, with their values; empty for what needs
    none. ``source``: where they come from. ``sentence``: all of it for a reader.
    """

    name: str
    evidence: Evidence
    threshold: Mapping[str, float]
    source: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def crossing(
    name: str, crossed: Sequence[str], limits: Limits, evidence: Evidence, sentence: str, source: str = ""
) -> Verdict:
    """A verdict by the thresholds called ``crossed``, from their sources unless another is given."""
    keys = {THRESHOLDS[key].key: limits[key] for key in crossed}
    sources = [(f"{key}: " if len(crossed) > 1 else "") + THRESHOLDS[key].source for key in crossed]
    return Verdict(name, evidence, keys, source or "; ".join(sources), sentence)
