"""The manifest: what was planned, with what, on which machine, and how far it came; a dictionary, kept as JSON."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import gradlab
from gradlab.grid.cohorts import Piece
from gradlab.spec.run import SCHEMA, RunSpec

if TYPE_CHECKING:
    from gradlab.grid.cohorts import Plan
    from gradlab.grid.expand import Grid
    from gradlab.launch.devices import Device
    from gradlab.store.documents import Manifest

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "hydra-core")
"""Whose versions it names."""


def drawn_up(grid: Grid, plan: Plan, device: Device, command: Sequence[str], now: dt.datetime) -> Manifest:
    """What the manifest says before the first piece runs."""
    return {
        "schema": SCHEMA,
        "name": grid.name,
        "command": list(command),
        "experiment": grid.experiment,
        "expect": list(grid.expect),
        "altered": list(grid.altered),
        "maps": dict(grid.maps),
        "swept": list(grid.swept),
        "runs": len(grid.runs),
        "duplicates": grid.duplicates,
        "state": "running",
        "started": now.isoformat(timespec="seconds"),
        "finished": None,
        "elapsed_s": 0.0,
        **_surroundings(device),
        "workers": _workers(grid, plan, device),
        "cohorts": plan.cohorts,
        "memory": plan.budget,
        "diagnose": dict(grid.limits),
        "pieces": [written(piece, grid.runs) for piece in plan.pieces],
        **({} if grid.cure is None else {"cure": dict(grid.cure)}),
    }


def _workers(grid: Grid, plan: Plan, device: Device) -> int:
    """Processes: never more than pieces, but for a cure, which has more to come."""
    most = grid.launch.workers or device.workers
    return most if grid.cure is not None else min(most, len(plan.pieces))


def _surroundings(device: Device) -> Manifest:
    """Versions, commit, host and device, for the manifest."""
    return {
        "versions": {
            "gradlab": gradlab.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "git": _commit(),
        "host": {"name": socket.gethostname(), "system": platform.platform(), "cores": os.cpu_count()},
        "device": asdict(device),
    }


def _commit() -> str | None:
    """The commit of gradlab's own sources, where they are a git checkout."""
    sources = Path(__file__).resolve().parents[2]
    if not (sources / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(sources), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def written(piece: Piece, runs: Sequence[RunSpec]) -> Manifest:
    """A piece as the manifest keeps it: its members by their ids."""
    return {**asdict(piece), "members": [runs[position].id for position in piece.members]}


def read_back(written: Manifest, place: Mapping[str, int]) -> Piece:
    """The piece that `written` wrote; before there was an effort, the work stood for it."""
    members = tuple(place[run_id] for run_id in written["members"])
    return Piece(**{"effort": written["work"], **written, "members": members, "chunks": tuple(written["chunks"])})
