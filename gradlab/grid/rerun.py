"""One run of a finished result, to be run again."""

from __future__ import annotations

from pathlib import Path

from gradlab.grid.expand import Grid, Launch, spec_yaml
from gradlab.spec.named import SpecError
from gradlab.store.documents import read_runs
from gradlab.store.folder import open_result


def again(path: Path, run_id: str) -> Grid:
    """The grid of one run of the result at ``path``, by its id or an unmistakable beginning of it."""
    found = [run for run in read_runs(open_result(path)) if run.id.startswith(run_id)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        raise SpecError(f"--from {path} {run_id}: {what} with this id; the ids are in {path}/runs.parquet")
    base = spec_yaml(found[0])
    return Grid((found[0],), 0, (), frozenset(), f"again-{found[0].id[:8]}", Launch(None, None), base, (), None)
