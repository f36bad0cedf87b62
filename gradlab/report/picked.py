"""Runs that somebody asked for by their ids: what they are, their verdicts, and the commands that run and heal them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gradlab.cure.command import command
from gradlab.data.facts import described
from gradlab.diagnose import judge
from gradlab.diagnose.tables import histories
from gradlab.report.findings import Table, figure
from gradlab.report.groups import in_words, varying
from gradlab.report.layout import FEW, Facets, by_id
from gradlab.report.tables import Result
from gradlab.report.verdicts import thresholds
from gradlab.spec.named import SpecError
from gradlab.store.tables import load_tables

NEAREST = 3
"""Ids that a message names."""


@dataclass(frozen=True)
class Picked:
    """A run: each verdict as its sentence and what it was judged by, and the commands that repeat and heal it.

    ``own``: whether gradlab trained it, and nobody else's script. ``again`` is None where the files that its data lay
    in are gone, ``cure`` where nothing is wrong, and both are of a training that was watched.
    """

    run_id: str
    state: str
    own: bool
    verdicts: tuple[tuple[str, str], ...]
    again: str | None
    cure: str | None


def find(paths: Sequence[Path], wanted: Sequence[str]) -> dict[str, Path]:
    """The runs of ``paths`` that ``wanted`` are unmistakable beginnings of, with their folders, in the grids' order.

    Raises `SpecError` for a beginning of none, with the nearest ids, and of several, and for more runs than a figure
    can tell apart.
    """
    homes = homes_of(paths)
    found = {_one(list(homes), text.strip().lower()) for text in wanted}
    if len(found) > FEW:
        raise SpecError(f"--run is given {len(found)} times; expected at most {FEW} runs, which a figure tells apart")
    return {run_id: path for run_id, path in homes.items() if run_id in found}


def homes_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Every run of ``paths``, with the folder that it lies in first."""
    return {run_id: path for path in reversed(paths) for run_id in load_tables(path).ids.to_pylist()}


def _one(ids: Sequence[str], given: str) -> str:
    found = [run_id for run_id in ids if run_id.startswith(given)]
    if len(found) == 1 or given in found:
        return given if given in found else found[0]
    if found:
        more = ", ..." if len(found) > NEAREST else ""
        raise SpecError(
            f"--run {given}: {len(found)} runs with such an id; give more of it: {', '.join(found[:NEAREST])}{more}"
        )
    near = sorted(ids, key=partial(_alike, given), reverse=True)[:NEAREST]
    raise SpecError(f"--run {given}: no run with this id; the nearest are {', '.join(near)}")


def _alike(given: str, run_id: str) -> tuple[int, int]:
    """How many characters two ids share: at their beginning, and in their places."""
    alike = [mine == theirs for mine, theirs in zip(given, run_id, strict=False)]
    return [*alike, False].index(False), sum(alike)


def folder_name(ids: Iterable[str]) -> str:
    """What the folder of a report of ``ids`` is called, beside that of the whole result.

    >>> folder_name(["3f2a90b1c4d5e6f7", "77aa12bc34de56f0"])
    'report-3f2a90b1-77aa12bc'
    """
    return "-".join(["report", *(run_id[:8] for run_id in ids)])


def only(result: Result, ids: Iterable[str]) -> Result:
    """The runs ``ids`` alone; what the manifests say of the whole sweep, as its maps and its cure, is left out."""
    some = result.only(np.isin(result.ids, list(ids)))
    whole = ("cure", "maps", "duplicates")
    manifests = {
        path: {key: value for key, value in manifest.items() if key not in whole}
        for path, manifest in result.manifests.items()
    }
    return Result(some.tables, manifests, result.notes, asked=True)


def runs(result: Result, homes: Mapping[str, Path], *, commands: bool = True) -> list[Picked]:
    """Each run of ``result``; ``homes``: the folder that each lies in.

    ``commands``: whether what repeats each is told, of which the overrides have to be found.
    """
    told = zip(
        result.runs.to_pylist(),
        histories(result.runs, result.tables["steps"], result.tables["layers"]),
        strict=True,
    )
    found = []
    for row, history in told:
        run_id, own, judged = row["run_id"], row["model.name"] is not None, judge(history, result.limits)
        ill = [one.name for one in judged] != ["healthy"]
        found.append(
            Picked(
                run_id=run_id,
                state=row["state"],
                own=own,
                verdicts=tuple((one.told, thresholds(one)) for one in judged),
                again=_again(result, row) if own and commands else None,
                cure=f"gradlab cure --from {shlex.quote(str(homes[run_id]))} {run_id}" if own and ill else None,
            )
        )
    return found


def _again(result: Result, row: Mapping[str, object]) -> str | None:
    values = {key: row[key] for key in result.keys if row[key] is not None}
    try:
        return command(described(values))  # type: ignore[arg-type]
    except SpecError:
        # Its data lay in files that are not there any more: no overrides run it, and the report needs none of them.
        return None


def facets(result: Result) -> Facets:
    """A colour for each run, the same in every figure."""
    keys = varying(result)
    names = {
        run_id: f"{run_id[:8]}: {in_words(result, place, keys, limit=4)}" for place, run_id in enumerate(result.ids)
    }
    place = {run_id: number for number, run_id in enumerate(names)}
    return Facets({}, fixed=by_id("run", tuple(names.values()), place, ()))


def differences(result: Result) -> Table:
    """The keys in which the runs differ, a column a run."""
    rows = tuple((key, *map(figure, result.columns[key])) for key in varying(result))
    return Table(("key", *result.ids), (False,) * (1 + result.size), rows, "")
