"""One run of a finished result, to be run again as it was or with a change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradlab.data.facts import described
from gradlab.grid.expand import OUTSIDE, Grid, Launch, spec_yaml
from gradlab.grid.overrides import read
from gradlab.grid.search_path import search_path
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec
from gradlab.store.documents import read_manifest, read_runs
from gradlab.store.folder import open_result

UNNAMED = ("run", "sweep")
"""Labels that nobody gave."""


def again(path: Path, run_id: str, changes: Sequence[str] = ()) -> Grid:
    """The grid of one run of the result at ``path``, by its id or an unmistakable beginning of it.

    ``changes`` are overrides of its keys. Raises `SpecError` for an id of no run or of several, and for a change that
    the run cannot have.
    """
    found = [run for run in read_runs(open_result(path)) if run.id.startswith(run_id)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        raise SpecError(f"--from {path} {run_id}: {what} with this id; the ids are in {path}/runs.parquet")
    spec = _changed(found[0], changes)
    name = str(read_manifest(path)["name"])
    if name in UNNAMED:
        name = f"again-{found[0].id[:8]}"
    given = frozenset(read(text, search_path(())).key for text in changes)
    return Grid((spec,), 0, (), given, name, Launch(None, None), spec_yaml(spec), tuple(changes), None)


def _changed(run: RunSpec, changes: Sequence[str]) -> RunSpec:
    values: dict[str, Value] = {key: value for key, value in run.flat().items() if value is not None}
    for text in changes:
        change = read(text, search_path(()))
        if change.swept:
            raise SpecError(f"{text}: a sweep; --from runs one run, with one value a key")
        if change.key in OUTSIDE or change.key == "experiment":
            raise SpecError(f"{text}: --from changes the keys of a run; {change.key} is none")
        values.pop(change.key, None)
        if change.values:
            values[change.key] = change.values[0]
    return described(values) if changes else run
