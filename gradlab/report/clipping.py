"""What the page says of clipping: which threshold would clip how many steps, where spikes were, and which mode fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.diagnose.clip_advice import SHARES, Advice, advise, summed_up
from gradlab.diagnose.tables import histories
from gradlab.report.findings import MOST_ROWS, Table, figure
from gradlab.report.groups import in_words, swept, varying
from gradlab.report.tables import Result

MOST_SPIKES = 50
"""Spikes of a single run in its table, the largest."""


@dataclass(frozen=True)
class Clipping:
    """The part of the page on clipping: sentences, and the spikes of a single run or a row for each of several."""

    sentences: tuple[str, ...]
    table: Table | None


def clipping(result: Result) -> Clipping | None:
    """None where no run has made enough steps to be advised; of very many runs evenly spread ones."""
    stride = -(-result.size // MOST_ROWS)
    some = result.only(np.arange(result.size) % stride == 0) if stride > 1 else result
    asked = zip(some.ids, histories(some.runs, some.tables["steps"], some.tables["layers"]), strict=True)
    found = [(run_id, advice) for run_id, history in asked if (advice := advise(history)) is not None]
    if not found:
        return None
    if result.size == 1:
        (_, advice) = found[0]
        return Clipping((_sentence(advice.sentence),), _spikes(advice) if advice.spikes else None)
    summary = summed_up([advice for _, advice in found]) if len(found) > 1 else found[0][1].sentence
    return Clipping((_sentence(summary),), _runs(some, found, stride))


def _sentence(told: str) -> str:
    return f"{told[0].upper()}{told[1:]}."


def _spikes(advice: Advice) -> Table:
    largest = sorted(advice.spikes, key=lambda one: -one.times)[:MOST_SPIKES]
    rows = tuple(
        tuple(map(figure, (one.step, one.norm, one.around, one.times)))
        for one in sorted(largest, key=lambda one: one.step)
    )
    more = f", the {MOST_SPIKES} largest of {len(advice.spikes)}" if len(advice.spikes) > MOST_SPIKES else ""
    note = f"Spikes of ‖∂loss/∂θ‖ before clipping{more}."
    return Table(("step", "norm", "median around it", "times"), (True,) * 4, rows, note)


def _runs(result: Result, found: Sequence[tuple[str, Advice]], stride: int) -> Table:
    keys, place = swept(result) or varying(result), {run_id: number for number, run_id in enumerate(result.ids)}
    head = ("run_id", "setting", "fits", "spikes", "largest", *(f"{share:.0%} above" for share in SHARES), "reason")
    rows = tuple(
        (
            run_id,
            in_words(result, place[run_id], keys),
            one.overrides.replace("clip.mode=", "").replace("clip.threshold=", ""),
            str(len(one.spikes)),
            figure(max((spike.times for spike in one.spikes), default=None)),
            *(figure(norm) for norm in one.thresholds.values()),
            one.reason,
        )
        for run_id, one in found
    )
    of = f" Every {stride}th run is here; gradlab verdict has all." if stride > 1 else ""
    note = (
        "Norms of ‖∂loss/∂θ‖ before clipping that 1, 5 and 10 % of the steps exceed: a threshold is a question about "
        f"one training, and clips all of another. A spike is given as times the median around it.{of}"
    )
    return Table(head, (False, False, False, *(True,) * (2 + len(SHARES)), False), rows, note)
