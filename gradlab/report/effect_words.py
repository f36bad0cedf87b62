"""What the report says of effects: names, sentences, a table for the page, and effects.csv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from gradlab.report.cells import write_cells
from gradlab.report.effects import Analysis, Effect
from gradlab.report.findings import Table

LIKELY = 0.05
"""An effect whose p is above it is told with it."""

LEAST_TOLD = 0.01
"""Smaller shares are left to effects.csv."""


def name(effect: Effect, *, words: Callable[[str], str] = str) -> str:
    """An effect for reading, each key in ``words``."""
    if effect.kind == "higher":
        return "three keys or more"
    if effect.kind == "residual":
        return "seeds × settings"
    return " × ".join(map(words, effect.keys)) if effect.keys else "between seeds"


def sentences(found: Sequence[Analysis]) -> list[str]:
    """What explains most of each outcome, in plain words."""
    lines = []
    for one in found:
        told = [effect for effect in one.effects if effect.keys and effect.share >= LEAST_TOLD][:3]
        if told:
            first, *others = (f"{100 * effect.share:.0f} %{_doubt(effect)}" for effect in told)
            more = "".join(f", {name(effect)} {share}" for effect, share in zip(told[1:], others, strict=True))
            lines.append(f"Of the variance of {one.title}, {name(told[0])} explains {first}{more}.")
    return lines


def _doubt(effect: Effect) -> str:
    """What is said beside an effect that may be chance."""
    return "" if effect.p is None or effect.p <= LIKELY else f" (p = {effect.p:.2g}, so perhaps by chance)"


def write_effects(found: Sequence[Analysis], out: Path) -> tuple[Path, ...]:
    """Writes effects.csv into ``out``; an earlier one is removed where there are no effects."""
    file = out / "effects.csv"
    rows = [(one, effect) for one in found for effect in one.effects]
    if not rows:
        file.unlink(missing_ok=True)
        return ()
    columns = {
        "outcome": [one.outcome for one, _ in rows],
        "kind": [effect.kind for _, effect in rows],
        "key": [effect.keys[0] if effect.keys else None for _, effect in rows],
        "other_key": [effect.keys[1] if len(effect.keys) > 1 else None for _, effect in rows],
        "share": [effect.share for _, effect in rows],
        "total_share": [effect.total for _, effect in rows],
        "degrees_of_freedom": [effect.freedom for _, effect in rows],
        "p": [effect.p for _, effect in rows],
        "runs": [one.runs for one, _ in rows],
        "settings": [one.settings for one, _ in rows],
    }
    return (write_cells(pa.table(columns), file),)


def table(found: Sequence[Analysis]) -> Table | None:
    """The effects of at least one hundredth, for the page; None where there are none."""
    rows = [
        (
            one.title,
            name(effect),
            f"{100 * effect.share:.1f}",
            "–" if effect.total is None else f"{100 * effect.total:.1f}",
            "–" if effect.p is None else f"{effect.p:.3f}",
        )
        for one in found
        for effect in one.effects
        if effect.share >= LEAST_TOLD or (effect.total or 0) >= LEAST_TOLD
    ]
    head = ("outcome", "effect", "share, %", "with interactions, %", "p")
    return Table(head, (False, False, True, True, True), tuple(rows), "") if rows else None


def notes(found: Sequence[Analysis]) -> list[str]:
    """What a reader must know of each outcome: what was left out, and whether chance can be told from effect."""
    lines = []
    for one in found:
        said = one.note
        if one.effects:
            blocked = any(effect.kind == "residual" for effect in one.effects)
            chance = "less what the spread between seeds explains by chance" if one.replicated else "one run a setting"
            if blocked:
                chance = "the same seeds at each; p by permutation within the seeds"
            said = f"{one.runs} runs of {one.settings} settings, {chance}. {said}"
        lines.append(f"{one.title[0].upper()}{one.title[1:]}: {said}".strip())
    return lines
