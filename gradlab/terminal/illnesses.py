"""What is wrong, where, since when and what to do: how the end of a command begins, of one run or of many."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from gradlab.diagnose import ORDER, History, Limits, Verdict, judge, names
from gradlab.diagnose.sweep import clearest, gathered, since
from gradlab.diagnose.tables import histories
from gradlab.diagnose.verdict import RISK, SICK, SOUND
from gradlab.store.lean import summed
from gradlab.store.settings import REPLICATES
from gradlab.store.sources import Merged
from gradlab.terminal.ranks import Run, short, spread

MOST = 3
"""Illnesses of a sweep that are told, the gravest first."""

MOST_JUDGED = 50
"""Runs that are judged again in search of the clearest example of an illness."""

INSET = "  "

STYLES = {SOUND: "bold green", RISK: "bold yellow", SICK: "bold red"}
"""Of a verdict's name, by its grade."""


@dataclass(frozen=True)
class Illness:
    """An illness of a sweep: how many of its runs have it and where they gather, and the run that shows it best."""

    name: str
    runs: str
    example: Run
    setting: str
    verdict: Verdict
    step: int | None


def found(tables: Merged, swept: Sequence[str], limits: Limits) -> list[Illness]:
    """The gravest illnesses of a sweep."""
    runs = summed(tables)
    verdicts, ids = runs["verdict"].to_pylist(), runs["run_id"]
    given = {verdict: names(verdict) for verdict in set(verdicts)}
    stored = [given[verdict] for verdict in verdicts]
    keys = [key for key in swept if key in runs.column_names and key not in REPLICATES]
    occurring = [name for name in ORDER if name != "healthy" and any(name in told for told in given.values())]

    def taken(places: Sequence[int]) -> Mapping[str, pa.Table]:
        return tables.of_runs([ids[place].as_py() for place in places])

    told = []
    for name in occurring[:MOST]:
        clear = clearest(taken, stored, name, limits, MOST_JUDGED)
        if clear is not None:
            place, verdict, history = clear
            (example,) = runs.slice(place, 1).to_pylist()
            setting = " ".join(f"{short(key)}={spread([example], key)}" for key in keys)
            step = _since(history, verdict, limits)
            told.append(Illness(name, _where(runs, stored, name, keys), example, setting, verdict, step))
    return told


def _where(runs: pa.Table, stored: Sequence[tuple[str, ...]], name: str, keys: Sequence[str]) -> str:
    """How many runs have an illness, and the value of a key at which it gathers, if at one."""
    ill = [name in run for run in stored]
    groups = []
    for key in keys:
        column = runs[key].to_pylist()
        words = {value: spread([{key: value}], key) for value in set(column)}
        every = Counter(words[value] for value in column)
        sick = Counter(words[value] for value, one in zip(column, ill, strict=True) if one)
        groups += [(short(key), value, count, sick[value]) for value, count in every.items()]
    return gathered(runs.num_rows, sum(ill), groups)


def show_illnesses(out: Console, illnesses: Sequence[Illness], root: Path | None) -> None:
    """Each illness with an example, its cause, and the command that looks for a cure in the result at ``root``."""
    for one in illnesses:
        out.print(f"[{STYLES[one.verdict.grade]}]{one.name}[/]: {escape(one.runs)}.")
        which = f"{one.setting} (run {one.example['run_id']})" if one.setting else f"run {one.example['run_id']}"
        _below(out, "such as", f"{which}: {one.verdict.sentence.removeprefix(f'{one.name}: ')}.")
        _reasons(out, one.verdict, one.step)
        if root is not None and one.example["model.name"] is not None:
            _to_do(out, f"gradlab cure --from {shlex.quote(str(root))} {one.example['run_id']}")


def show_verdicts(out: Console, tables: Mapping[str, pa.Table], limits: Limits, root: Path | None = None) -> None:
    """The verdicts of a single run, each with its cause, and the command that looks for a cure."""
    (run,), (history,) = tables["runs"].to_pylist(), histories(tables["runs"], tables["steps"], tables["layers"])
    given = tell(out, history, limits)
    if any(verdict.name != "healthy" for verdict in given) and root is not None and run["model.name"] is not None:
        _to_do(out, f"gradlab cure {shlex.quote(str(root))}")


def tell(out: Console, history: History, limits: Limits) -> list[Verdict]:
    """Prints the verdicts of one run, and returns them."""
    given = list(judge(history, limits))
    for verdict in given:
        about = escape(verdict.sentence.removeprefix(verdict.name))
        out.print(f"[bold]Verdict[/bold] [{STYLES[verdict.grade]}]{verdict.name}[/]{about}.")
        _reasons(out, verdict, _since(history, verdict, limits))
    return given


def _since(history: History, verdict: Verdict, limits: Limits) -> int | None:
    """Since which step, where that is to be said: a sentence about a divergence has its step."""
    said = verdict.name in ("healthy", "diverged") or len(history.loss) < 2
    return None if said else since(history, verdict.name, limits)


def _reasons(out: Console, verdict: Verdict, step: int | None) -> None:
    if step is not None:
        _below(out, "since", f"step {step}")
    if verdict.cause is not None:
        _below(out, "cause", f"{verdict.cause.name}: {verdict.cause}.")


def _below(out: Console, what: str, text: str) -> None:
    """A line under a verdict: what it says stands behind what it is, and so do its further lines."""
    head = f"{INSET}{what:8}"
    wide = max(40, out.width) - len(head)
    first, *more = textwrap.wrap(text, wide, break_on_hyphens=False, break_long_words=False)
    out.print(f"{INSET}[dim]{what:8}[/dim]{escape(first)}", soft_wrap=True)
    for line in more:
        out.print(escape(" " * len(head) + line), soft_wrap=True)


def _to_do(out: Console, command: str) -> None:
    """A command to be copied: its line is not broken."""
    out.print(f"{INSET}[dim]{'to do':8}[/dim]{escape(command)}", soft_wrap=True)
