"""What a cure came to, for the report: sentences, a table for the page, and cure.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gradlab.cure.ranking import Outcome, front, is_healthy, outcomes, ranked
from gradlab.cure.words import factor, headline, loss, patient, summed_up, theory, what_it_is
from gradlab.report.cells import write_cells
from gradlab.report.findings import Table, figure
from gradlab.report.tables import Result


@dataclass(frozen=True)
class Cure:
    """The run as it was, every change that was tried, the best first, and the smallest that heal."""

    before: Outcome
    tried: tuple[Outcome, ...]
    best: tuple[Outcome, ...]


def cure(result: Result) -> Cure | None:
    """The cure that a result is; None where it is none, of several folders, and where its first round is not over."""
    (manifest, *others) = result.manifests.values()
    found = outcomes(manifest["cure"], result.tables) if "cure" in manifest and not others else []
    if not found or found[0].state == "crashed":
        return None
    return Cure(found[0], tuple(ranked(found)), tuple(front(found)))


def sentences(found: Cure | None) -> list[str]:
    """The run as it was, and what its changes came to, for the page."""
    if found is None:
        return []
    said = [patient(found.before)]
    if not is_healthy(found.before):
        said.append(summed_up(found.tried, found.before.seeds))
    return said


@dataclass(frozen=True)
class Best:
    """A change as the page tells it: what it is, what it does to the loss, why, and the command that runs it."""

    override: str
    cost: int
    what: str
    loss: str
    theory: str
    source: str
    command: str
    script: tuple[str, ...]
    run: str


def best(found: Cure | None) -> list[Best]:
    """The smallest changes that heal."""
    if found is None:
        return []
    return [
        Best(
            override=one.change["override"],
            cost=one.cost,
            what=what_it_is(one),
            loss=loss(one, found.before),
            theory=theory(one, found.before),
            source="; ".join(one.change["sources"]),
            command=one.change["command"],
            script=tuple(one.change.get("script", ())),
            run=one.run_id,
        )
        for one in found.best
    ]


def heading(found: Cure | None) -> str:
    """What stands above them."""
    if found is None or not found.best:
        return "Nothing that was tried heals it, and nothing helps beyond doubt"
    return headline(found.best)


def table(found: Cure | None) -> Table | None:
    """Every change for the page; None where nothing was tried."""
    if found is None or not found.tried:
        return None
    head = (
        "change",
        "result",
        "cost",
        "times lower",
        "final loss",
        "accuracy",
        "healthy",
        "verdict",
        "δ₁/δ",
        "override",
        "run",
    )
    rows = tuple(
        (
            one.name,
            one.state,
            str(one.cost),
            "–" if math.isnan(one.gain) else factor(one),
            figure(one.final),
            figure(one.accuracy),
            f"{one.healthy} of {one.seeds}",
            one.verdict,
            figure(one.ends),
            one.change["override"],
            one.run_id,
        )
        for one in found.tried
    )
    numeric = (False, False, True, False, True, True, False, False, True, False, False)
    note = (
        "Times lower: the final loss before over that after, seed by seed, with its 95 % interval. "
        "δ₁/δ: of the first layer over the last hidden one (time step 1 over T), at step 0. Run: at the first seed."
    )
    return Table(head, numeric, rows, note)


def write_cure(found: Cure | None, out: Path) -> tuple[Path, ...]:
    """Writes cure.csv into ``out``, one row a change; an earlier one is removed where there is none."""
    file = out / "cure.csv"
    if found is None or not found.tried:
        file.unlink(missing_ok=True)
        return ()
    return (write_cells(pa.table(_columns(found.before, found.tried, found.best)), file),)


def _columns(before: Outcome, tried: Sequence[Outcome], smallest: Sequence[Outcome]) -> dict[str, list[object]]:
    return {
        "change": [one.name for one in tried],
        "kinds": ["+".join(one.change["kinds"]) for one in tried],
        "override": [one.change["override"] for one in tried],
        "run_id": [one.run_id for one in tried],
        "cost": [one.cost for one in tried],
        "state": [one.state for one in tried],
        "smallest": [one in smallest for one in tried],
        "seeds": [one.seeds for one in tried],
        "healthy": [one.healthy for one in tried],
        "verdict": [one.verdict for one in tried],
        "loss_before": [before.final for _ in tried],
        "loss_after": [one.final for one in tried],
        "gain": [one.gain for one in tried],
        "gain_median": [float(np.median(one.gains)) if one.seeds else math.nan for one in tried],
        "gain_low": [one.gain - one.margin for one in tried],
        "gain_high": [one.gain + one.margin for one in tried],
        "accuracy_before": [before.accuracy for _ in tried],
        "accuracy_after": [one.accuracy for one in tried],
        "vanishing_ratio_before": [before.ends for _ in tried],
        "vanishing_ratio_after": [one.ends for one in tried],
        "rate_before": [before.rate for _ in tried],
        "rate_after": [one.rate for one in tried],
        "rate_theory_before": [before.change["theory"]["rate"] for _ in tried],
        "rate_theory_after": [one.change["theory"]["rate"] for one in tried],
        "theory": [one.change["theory"]["note"] for one in tried],
        "source": ["; ".join(one.change["sources"]) for one in tried],
        "command": [one.change["command"] for one in tried],
    }
