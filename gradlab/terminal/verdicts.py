"""What `gradlab verdict` says: verdicts and clipping of every run of a folder, as sentences or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from gradlab.diagnose import ORDER, History, Verdict, judge
from gradlab.diagnose.clip_advice import Advice, advise, summed_up
from gradlab.diagnose.tables import histories
from gradlab.diagnose.thresholds import limits
from gradlab.spec.named import SpecError, nearest
from gradlab.store.documents import read_manifest
from gradlab.store.record import with_final_losses
from gradlab.store.tables import load_tables
from gradlab.terminal.ranks import Run

SCHEMA = 1
"""Of the JSON."""

ANY = "any"

AT_A_TIME = 500_000
"""Rows of a table of a large result that are in memory."""

MOST_ADVISED = 10_000
"""Runs whose steps the sentence on the clipping of all is of."""


@dataclass(frozen=True)
class Judged:
    """A run with its verdicts and its advice on clipping, and of a watched one where its first number broke."""

    row: Run
    name: str | None
    verdicts: tuple[Verdict, ...]
    clipping: Advice | None
    not_finite: Mapping[str, Any] | None = None


class Findings:
    """The judged runs of a result, each when it is asked for: of a large one never all at once.

    ``given`` are the names of the verdicts of those that were.
    """

    def __init__(self, path: Path) -> None:
        self.manifest = read_manifest(path)
        self.tables = load_tables(path)
        self.given: set[str] = set()
        if not len(self):
            raise SpecError(f"{path}: holds no finished run yet")

    def __len__(self) -> int:
        return self.tables.rows("runs")

    def __iter__(self) -> Iterator[Judged]:
        names, broken = self.manifest.get("watched", {}), self.manifest.get("not_finite", {})
        bounds = limits(self.manifest.get("diagnose"))
        for tables in self.tables.stretches(AT_A_TIME) if self.tables.large else (self.tables,):
            runs = with_final_losses(tables["runs"], tables["steps"])
            found = zip(runs.to_pylist(), histories(runs, tables["steps"], tables["layers"]), strict=True)
            for row, history in found:
                verdicts = judge(_so_far(history), bounds)
                self.given |= {verdict.name for verdict in verdicts}
                run_id = row["run_id"]
                yield Judged(row, names.get(run_id), verdicts, advise(history), broken.get(run_id))


def judged(path: Path) -> Findings:
    """The runs of the result at ``path``, judged by the thresholds of its manifest, one that crashed by what it left.

    Raises `SpecError` for no result, and for one that has no run yet.
    """
    return Findings(path)


def _so_far(history: History) -> History:
    """A run that crashed as far as it came; one that left nothing has nothing to be judged by."""
    return replace(history, state="finished") if history.state == "failed" and history.loss.size else history


def fatal(asked: str | None) -> frozenset[str]:
    """The names of ``--fail-on``, separated by commas. Raises `SpecError` for one that is no verdict."""
    names = [name.strip() for name in (asked or "").split(",") if name.strip()]
    known = [*(name for name in ORDER if name != "healthy"), ANY]
    if asked is not None and not names:
        raise SpecError("--fail-on is empty; expected names of verdicts, or any")
    for name in names:
        if name not in known:
            near = nearest(name, known) or f"; expected some of {', '.join(known)}"
            raise SpecError(f"--fail-on {name}: no such verdict{near}")
    return frozenset(names)


def failing(found: Findings, names: frozenset[str]) -> bool:
    """Whether a run, of those that were told, has one of the ``names``; `any` means whatever is not healthy."""
    given = found.given - {"healthy"}
    return bool(given & names) or (ANY in names and bool(given))


def show(out: Console, found: Findings) -> None:
    """A sentence for each verdict, with its cause, and one on clipping; of several runs behind the id of each."""
    advised: list[Advice] = []
    for one in found:
        of = f"{one.name or one.row['run_id']}: " if len(found) > 1 else ""
        if one.row["state"] == "failed":
            out.print(escape(f"{of}crashed: {one.row['error']}"))
        for verdict in one.verdicts:
            out.print(f"{escape(of)}[bold]{verdict.name}[/bold]{escape(verdict.sentence.removeprefix(verdict.name))}.")
            if verdict.name == "diverged" and one.not_finite is not None:
                out.print(_below(one.not_finite["sentence"]))
            if verdict.cause is not None:
                out.print(_below(f"cause {verdict.cause.name}: {verdict.cause}"))
        if one.clipping is not None:
            out.print(escape(f"{of}{one.clipping.sentence}."))
            advised += [one.clipping] if len(advised) < MOST_ADVISED else []
    if len(advised) > 1:
        some = " (the first that can be advised)" if len(advised) == MOST_ADVISED else ""
        out.print(escape(f"{summed_up(advised)}{some}."))


def _below(sentence: str) -> Padding:
    """What belongs to the line above: all its lines stand two columns in."""
    return Padding.indent(escape(sentence), 2)


def written(path: Path, found: Findings) -> Iterator[str]:
    """The same as JSON for other programs, part by part; what is no finite number is a text, as in the CSV files."""
    yield f'{{\n "schema": {SCHEMA},\n "folder": {json.dumps(str(path), ensure_ascii=False)},\n "runs": ['
    for number, one in enumerate(found):
        run = {
            "run_id": one.row["run_id"],
            "name": one.name,
            "state": one.row["state"],
            "error": one.row["error"],
            "loss_final": one.row["loss_final"],
            "not_finite": None if one.not_finite is None else dict(one.not_finite),
            "verdicts": [_told(verdict) for verdict in one.verdicts],
            "clipping": None if one.clipping is None else _advised(one.clipping),
        }
        text = json.dumps(_finite(run), indent=1, ensure_ascii=False)
        yield f"{',' if number else ''}\n{indent(text, '  ')}"
    yield "\n ]\n}"


def _told(verdict: Verdict) -> dict[str, Any]:
    cause = verdict.cause
    return {
        "name": verdict.name,
        "grade": verdict.grade,
        "sentence": verdict.sentence,
        "evidence": dict(verdict.evidence),
        "thresholds": dict(verdict.threshold),
        "source": verdict.source,
        "cause": None if cause is None else {"name": cause.name, "sentence": cause.sentence, "change": cause.change},
    }


def _advised(advice: Advice) -> dict[str, Any]:
    return {
        "mode": advice.mode,
        "threshold": advice.threshold,
        "reason": advice.reason,
        "sentence": advice.sentence,
        "thresholds": {str(share): norm for share, norm in advice.thresholds.items()},
        "spikes": [{"step": one.step, "norm": one.norm, "around": one.around} for one in advice.spikes],
        "share_of_spikes": advice.spiking,
        "usual": advice.usual,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
