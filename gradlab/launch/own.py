"""What is the user's own, looked at before anything is written: the network is made and called once. Torch-free."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.data.dataset import DataError
from gradlab.data.facts import LOOK
from gradlab.grid.cohorts import Plan, cohort_key, gains
from gradlab.grid.expand import Grid
from gradlab.spec.choices import DATA
from gradlab.spec.named import SpecError
from gradlab.spec.run import Extent, RunSpec

if TYPE_CHECKING:
    from gradlab.engine.drawn import Drawn


def allow() -> None:
    """Code of the user's own may run from here on: the command line names it."""
    from gradlab.data import function

    function.allow()


def check(runs: Sequence[RunSpec], *, allowed: bool, what: str) -> None:
    """Raises `SpecError` where ``runs`` of a result need code of the user's own that has changed or is not allowed."""
    for path in dict.fromkeys(run.data.path for run in runs if run.data.path):
        if not Path(str(path)).expanduser().exists():
            raise SpecError(f"{what}: its runs learn from {path}, which is not there any more")
    targets = {run.model.target: run.model.source for run in runs if run.model.target}
    targets |= {run.data.target: run.data.source for run in runs if run.data.target}
    targets |= {run.train.loss: run.train.source for run in runs if run.train.source}
    if not targets:
        return
    if not allowed:
        raise SpecError(
            f"{what}: its runs are made by {', '.join(map(str, targets))}; to run that code add --allow-code"
        )
    allow()
    for target, source in targets.items():
        if LOOK.source(str(target)) != source:
            raise SpecError(f"{target}: has changed since {what} was made; a run of it would be another run")


def named(grid: Grid, *, allowed: bool, what: str) -> Grid:
    """The grid of a result, `check`ed."""
    check(grid.runs, allowed=allowed, what=what)
    return grid


def known(grid: Grid) -> Grid:
    """The grid with the size of every network of the user's own, each called on one batch.

    Raises `SpecError` where one cannot be made, called or differentiated.
    """
    if not any(run.model.free for run in grid.runs):
        return grid
    members = Counter(cohort_key(run) for run in grid.runs if run.model.free)
    # A cure tries each change on a few seeds.
    wish = "no" if grid.cure is not None else grid.launch.stacked
    found: dict[object, Extent] = {}
    runs = []
    for run in grid.runs:
        if not run.model.free:
            runs.append(run)
            continue
        # All of a cohort are as large; what one key alone cannot have (a norm, an activation) shows here, too.
        cohort = cohort_key(run)
        key = cohort, run.model.init
        if key not in found:
            found[key] = _extent(run, members[cohort], wish)
        runs.append(dataclasses.replace(run, extent=found[key]))
    return dataclasses.replace(grid, runs=tuple(runs))


def takes(run: RunSpec) -> bool:
    """Whether a network can be what ``run`` asks of it, where it is the user's own: what a cure tries may be too much.

    One without a module that is an activation has none to replace; rms norm is no norm of convolutions.
    """
    if not run.model.free:
        return True
    try:
        _extent(run, 1, "no")
    except DataError:
        return False
    return True


def _extent(run: RunSpec, members: int, wish: str) -> Extent:
    import torch

    from gradlab.data.loaders import load
    from gradlab.engine.lent import obstacle_of
    from gradlab.engine.precision import FORMATS
    from gradlab.engine.task import task_of
    from gradlab.engine.tried import extent

    pair = run, dataclasses.replace(run, seed=run.seed + 1)
    task = task_of(pair, load(run.data), FORMATS[run.train.precision].beside, torch.device("cpu"))
    size = extent(run, task)
    # Recorded steps are taken one by one.
    if run.train.steps < 2 or run.probe.every == 1 or not gains(size, members, wish):
        return size
    obstacle = obstacle_of(pair, task)
    return dataclasses.replace(size, stacks=not obstacle, obstacle=obstacle)


def drawn(runs: Sequence[RunSpec]) -> list[tuple[RunSpec, Drawn]]:
    """What can be known of each network of the user's own without a batch, those of equal arguments once."""
    if not any(run.model.free for run in runs):
        return []
    from gradlab.engine.drawn import drawn_of

    firsts = {run.model: run for run in reversed(runs) if run.model.free}
    return [(run, drawn_of(run)) for run in reversed(firsts.values())]


def trained_as(grid: Grid, plan: Plan) -> list[str]:
    """How the networks of the user's own are trained, where that was asked: as one, or why not."""
    found: dict[str, None] = {}
    for piece in plan.pieces:
        run = grid.runs[piece.members[0]]
        if piece.stacked:
            found[f"{run.model.target}: trained as one between records (launch.stacked)"] = None
        elif run.extent is not None and run.extent.obstacle:
            found[f"{run.model.target}: trained one after the other: {run.extent.obstacle}"] = None
    return list(found)


def understood(runs: Sequence[RunSpec]) -> list[str]:
    """How the data of the user's own were understood, a line each."""
    return list(dict.fromkeys(run.facts.told for run in runs if DATA[run.data.name].own and run.facts.told))
