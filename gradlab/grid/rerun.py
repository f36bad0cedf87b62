"""One run of a finished result, to be run again as it was or with a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradlab.data.facts import described
from gradlab.grid.expand import OUTSIDE, Grid, Setting, spec_yaml, stores_weights
from gradlab.grid.launching import Launch
from gradlab.grid.overrides import read
from gradlab.grid.search_path import search_path
from gradlab.spec.choices import SCHEDULES
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec
from gradlab.store.documents import read_manifest, read_runs
from gradlab.store.folder import open_result

FEW = 3
"""Ids that a message names."""

UNNAMED = ("run", "sweep")
"""Labels that nobody gave."""


def again(path: Path, run_id: str, changes: Sequence[str] = ()) -> Grid:
    """The grid of one run of the result at ``path``, by its id or an unmistakable beginning of it.

    ``changes`` are overrides of its keys, and `store.weights`. A run that only has more steps than it had goes on where
    it ended, if its weights are there and its schedule does not depend on its steps. Raises `SpecError` for an id of no
    run or of several, and for a change that the run cannot have.
    """
    runs = read_runs(open_result(path))
    found = [run for run in runs if run.id.startswith(run_id)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        ids = ", ".join(run.id for run in (found or runs)[:FEW]) + (", ..." if len(found or runs) > FEW else "")
        raise SpecError(f"--from {path} {run_id}: {what} with this id; there are {ids}")
    settings = [read(text, search_path(())) for text in changes]
    storing = [setting for setting in settings if setting.key == "store.weights" and not setting.swept]
    settings = [setting for setting in settings if setting not in storing]
    spec = _changed(found[0], settings) if settings else found[0]
    name = str(read_manifest(path)["name"])
    if name in UNNAMED:
        name = f"again-{found[0].id[:8]}"
    given = frozenset(change.key for change in settings)
    grid = Grid((spec,), 0, (), given, name, Launch(), spec_yaml(spec), tuple(changes), None)
    weights = stores_weights({setting.key: (*setting.values, False)[0] for setting in storing})
    # A schedule that ends with the training had other learning rates on its way to a later end.
    longer = not SCHEDULES[spec.optim.schedule].to_the_end and spec.train.steps > found[0].train.steps
    longer = longer and replace(spec, train=found[0].train) == found[0]
    return replace(grid, weights=weights, longer=(path, found[0].id) if longer else None)


def _changed(run: RunSpec, changes: Sequence[Setting]) -> RunSpec:
    values: dict[str, Value] = {key: value for key, value in run.flat().items() if value is not None}
    for change in changes:
        if change.swept:
            raise SpecError(f"{change.text}: a sweep; --from runs one run, with one value a key")
        if change.key in OUTSIDE or change.key == "experiment":
            raise SpecError(f"{change.text}: --from changes the keys of a run; {change.key} is none")
        values.pop(change.key, None)
        if change.values:
            values[change.key] = change.values[0]
    return described(values)
