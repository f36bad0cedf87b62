"""The manifest: what was planned, with what, on which machine, and how far it came; a dictionary, kept as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from gradlab.grid.cohorts import Piece
from gradlab.grid.plugins import needed
from gradlab.spec.named import SpecError
from gradlab.spec.run import SCHEMA, RunSpec
from gradlab.store.documents import PIECE, RESUMABLE
from gradlab.store.forms import Each
from gradlab.store.surroundings import surroundings

if TYPE_CHECKING:
    from gradlab.grid.cohorts import Plan
    from gradlab.grid.expand import Grid
    from gradlab.launch.devices import Device
    from gradlab.store.documents import Manifest
    from gradlab.store.folder import Folder


def drawn_up(
    grid: Grid, plan: Plan, device: Device, command: Sequence[str], now: dt.datetime, workers: int
) -> Manifest:
    """What the manifest says before the first piece runs, on at most so many ``workers``."""
    # Never more than pieces, but for a cure, which has more to come.
    most = workers if grid.cure is not None else min(workers, len(plan.pieces))
    manifest = {
        "schema": SCHEMA,
        "name": grid.name,
        "command": list(command),
        "experiment": grid.experiment,
        "about": dict(grid.about),
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
        **surroundings(asdict(device)),
        "starts": [],
        "weights": grid.weights,
        "plugins": [asdict(source) for source in needed(grid.runs)],
        "launch": grid.launch.stored(),
        "workers": most,
        "cohorts": plan.cohorts,
        "memory": plan.budget,
        "diagnose": dict(grid.limits),
        "pieces": [written(piece, grid.runs) for piece in plan.pieces],
        **({} if grid.cure is None else {"cure": dict(grid.cure)}),
    }
    return manifest | {"starts": [start_of(manifest)]}


def start_of(manifest: Manifest) -> Manifest:
    """With what a manifest says that it was carried out, as one of its ``starts``: each resume adds one."""
    found = {
        "started": manifest.get("started"),
        "versions": manifest.get("versions", {}),
        "git": manifest.get("git"),
        "host": manifest.get("host", {}).get("name"),
        "device": manifest["device"]["label"],
    }
    return found | ({"kernels": manifest["kernels"]} if "kernels" in manifest else {})


def differing(then: Manifest, now: Manifest) -> tuple[str, str] | None:
    """In what two starts differ that numbers may depend on, in words of the one and of the other; None: in nothing."""
    named = [{**start["versions"], "device": start["device"]} for start in (then, now)]
    for start, one in zip((then, now), named, strict=True):
        one |= {f"{precision} kernels": kind for precision, kind in start.get("kernels", {}).items()}
    keys = [key for key in named[0] if key in named[1] and named[0][key] != named[1][key]]
    said = [", ".join(f"{key} {one[key]}" for key in keys) for one in named]
    return (said[0], said[1]) if keys else None


def written(piece: Piece, runs: Sequence[RunSpec]) -> Manifest:
    """A piece as the manifest keeps it: its members by their ids."""
    return {**asdict(piece), "members": [runs[position].id for position in piece.members]}


def planned(folder: Folder, manifest: Manifest, runs: Sequence[RunSpec]) -> tuple[Piece, ...]:
    """The pieces of the plan, as `written` wrote them; before there was an effort, the work stood for it.

    Raises `SpecError` where they are not there, or do not hold every run exactly once.
    """
    RESUMABLE.check(manifest, str(folder.manifest))
    where = f"{folder.manifest}: pieces"
    kept = manifest.get("pieces", [])
    Each(PIECE, least=1).check(kept, where)
    place = {run.id: position for position, run in enumerate(runs)}
    # Of a cure, specs of a further round may be written already, and its pieces not.
    left = dict(list(place.items())[: manifest["runs"]])
    if manifest["runs"] > len(place):
        raise SpecError(f"{folder.grid}: expected {manifest['runs']} runs, each once; found {len(place)}")
    for number, piece in enumerate(kept, start=1):
        if piece["index"] != number - 1:
            raise SpecError(f"{where} {number}: index: expected {number - 1}, found {piece['index']}")
        if sum(piece["chunks"]) != len(piece["members"]):
            raise SpecError(f"{where} {number}: chunks: expected {len(piece['members'])} runs, as it has members")
        for run_id in piece["members"]:
            if left.pop(run_id, None) is None:
                raise SpecError(f"{where} {number}: members: expected runs of {folder.grid.name}, once; found {run_id}")
    if left:
        raise SpecError(f"{where}: expected every run of {folder.grid.name}; {next(iter(left))} is in none")
    return tuple(_read_back(piece, place) for piece in kept)


def _read_back(kept: Manifest, place: Mapping[str, int]) -> Piece:
    members = tuple(place[run_id] for run_id in kept["members"])
    values = {"effort": kept["work"], "stacked": False, **kept, "members": members, "chunks": tuple(kept["chunks"])}
    return Piece(**{entry.name: values[entry.name] for entry in fields(Piece)})
