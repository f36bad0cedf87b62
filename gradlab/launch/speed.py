"""How fast this machine is, as its last long sweep showed it: what `gradlab sweep --plan` tells seconds by."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gradlab.grid.cohorts import Piece, plan_of
from gradlab.grid.expand import Grid
from gradlab.launch.devices import Device, workers_on
from gradlab.launch.places import planned_for
from gradlab.store.atomic import replace
from gradlab.terminal import plan, screen

USUAL = 5.5e10
"""Operations of effort a second and worker where nothing was measured yet: the reference grid on two cores of 2024."""

START_SECONDS = 2.5
"""Until the workers have imported torch."""

LEAST_SECONDS = 5.0
"""Of work that tells a speed, on a usual machine too; less is start and end, an instrument, a machine that was busy."""


def measured(device: str) -> float | None:
    """Operations of `Piece.effort` a second and worker on ``device``; None where nothing was measured."""
    try:
        told = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    speed = told.get(device) if isinstance(told, dict) else None
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None


def remember(device: str, pieces: Sequence[Piece], workers: int, elapsed: float) -> None:
    """Notes what ``pieces`` took, ``elapsed`` seconds from start to end; nothing where they were over too soon."""
    busy, effort = elapsed - START_SECONDS, _makespan(pieces, workers)
    if min(busy, effort / USUAL) < LEAST_SECONDS:
        return
    speed = effort / busy
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    text = json.dumps({**(kept if isinstance(kept, dict) else {}), device: speed})
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        replace(_file(), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except OSError:
        # A cache that cannot be written: the next plan tells seconds by what is usual.
        return


def seconds(pieces: Sequence[Piece], workers: int, speed: float | None) -> float:
    """How long ``pieces`` will take, from the start of the command to the end of the last one."""
    return START_SECONDS + _makespan(pieces, workers) / (speed or USUAL)


def _makespan(pieces: Sequence[Piece], workers: int) -> float:
    """The effort of the busiest worker, where who is free takes the next piece; threads share a piece evenly."""
    loads = [0.0] * max(1, workers)
    for piece in pieces:
        heapq.heapreplace(loads, loads[0] + piece.effort / piece.threads)
    return max(loads)


def _file() -> Path:
    import pooch

    return Path(pooch.os_cache("gradlab")) / "speed.json"


def show_plan(grid: Grid, device: Device, out: Console) -> None:
    """What `gradlab sweep --plan` prints of a grid on ``device``."""
    here = grid.launch.name == "local"
    if not here:
        device = planned_for(grid.launch)
    made, known = plan_of(grid, device.memory, device.cores), measured(device.name)
    largest = max(piece.memory for piece in made.pieces)
    workers = workers_on(device, grid.launch.workers, largest)[0] if here else grid.launch.workers or 1
    workers = min(workers, len(made.pieces))
    by = "as fast as this machine was last" if known else "on a usual machine (none was measured here)"
    if not here:
        speed = "this machine was last" if known else "a usual machine"
        by = f"were {screen.counted(workers, 'worker')} there as fast as {speed}, and no job waited"
    plan.show_plan(out, made, grid, device.label, lambda some: seconds(some, workers, known), by)
    screen.show_notes(out, grid)
