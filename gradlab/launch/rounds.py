"""Pieces on a crew, round after round: most grids have one; some plan the next from what the last one found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.markup import escape

from gradlab.diagnose.thresholds import limits
from gradlab.grid.cohorts import Piece, make_plan
from gradlab.launch.events import Crew, Event, Job
from gradlab.launch.manifest import written
from gradlab.nn.kernels.compiler import library, on_a_gpu
from gradlab.spec.plugins import Source
from gradlab.spec.run import RunSpec
from gradlab.store import documents
from gradlab.store.sources import Merged
from gradlab.store.tables import merged
from gradlab.terminal import progress

if TYPE_CHECKING:
    from gradlab.grid.expand import Round
    from gradlab.store.documents import Manifest
    from gradlab.store.folder import Folder

Further: TypeAlias = "Callable[[Sequence[RunSpec], Merged], Round | None]"
"""The next round, from the runs planned so far and the tables that they left; None where nothing follows."""


@dataclass(frozen=True)
class Site:
    """Where pieces run, what keeps their tables, who is told, and what plans a further round, if anything does."""

    crew: Crew
    folder: Folder
    manifest: Manifest
    tally: progress.Tally
    out: Console
    fail_fast: bool
    further: Further | None


def run(site: Site, runs: Sequence[RunSpec], pieces: Sequence[Piece]) -> bool:
    """Runs ``pieces``, and those of the rounds that follow them; whether a run crashed. The crew is gone then."""
    manifest, crashed = site.manifest, False
    # Where the kernels were never compiled on this machine, that happens while the workers import torch.
    if site.crew.here:
        beside(partial(kernels, runs, site.crew.device.name))
    try:
        while True:
            # Of a cure further rounds follow: who is there already is kept for them.
            there = site.crew.there if site.further else 0
            site.crew.fit(min(manifest["workers"], max(there, len(pieces))))
            crashed |= bool(pieces) and _round(site, runs, pieces)
            if (crashed and site.fail_fast) or (following := _following(site, runs)) is None:
                return crashed
            runs, pieces = following
            site.tally.total = len(runs)
    finally:
        site.crew.fit(0)


def beside(work: Callable[[], object]) -> threading.Thread | None:
    """Starts ``work`` beside the command; None where the system has no thread left: what it prepares is done later."""
    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def _round(site: Site, runs: Sequence[RunSpec], pieces: Sequence[Piece]) -> bool:
    """Runs ``pieces`` on the crew; whether a run crashed."""
    folder, manifest = site.folder, site.manifest
    judged_by = limits(manifest.get("diagnose"))
    weights = manifest.get("weights", False)
    plugins = tuple(Source(**kept) for kept in manifest.get("plugins", []))
    jobs = [
        Job(piece, tuple(runs[place] for place in piece.members), folder.root, judged_by, weights, plugins)
        for piece in pieces
    ]
    crashed = False
    with progress.gauge(site.out, pieces, site.tally) as bars:
        for event in site.crew.run(jobs, fail_fast=site.fail_fast):
            _show(event, bars)
            if site.crew.here and event.kind != "started" and "kernels" not in manifest["starts"][-1]:
                note_kernels(manifest, runs)
                documents.write_manifest(folder, manifest)
            if event.kind == "halved":
                manifest["pieces"][event.piece]["chunks"] = list(event.chunks)
                documents.write_manifest(folder, manifest)
            elif event.kind == "failed":
                crashed = True
                documents.log_error(folder, f"piece {event.piece}: {event.error}\n{event.details}")
            elif event.kind == "unwritable":
                raise OSError(event.error)
    return crashed


def kernels(runs: Sequence[RunSpec], device: str) -> dict[str, str]:
    """What computes in each precision, compiled if it never was on this machine: our own kernels, or torch's.

    On a GPU it is torch, or what is asked for.
    """
    precisions = sorted({run.train.precision for run in runs})
    own = {precision: device == "cpu" and library(precision) is not None for precision in precisions}
    other = "torch" if device == "cpu" else on_a_gpu()
    return {precision: "own" if found else other for precision, found in own.items()}


def note_kernels(manifest: Manifest, runs: Sequence[RunSpec]) -> None:
    """Enters what computes from this start on, and what has computed in all of them."""
    starts = manifest["starts"]
    starts[-1]["kernels"] = kernels(runs, manifest["device"]["name"])
    told = [start["kernels"] for start in starts if "kernels" in start]
    manifest["kernels"] = {
        precision: " and ".join(dict.fromkeys(one[precision] for one in told if precision in one))
        for precision in told[-1]
    }


def _following(site: Site, runs: Sequence[RunSpec]) -> tuple[tuple[RunSpec, ...], tuple[Piece, ...]] | None:
    """All runs with those of the next round, and the pieces of these; None where no round follows.

    What is planned is written before it is run: an interrupted cure is resumed like any sweep. A round whose runs were
    written and whose pieces were not is planned again, the same, since it follows from the tables.
    """
    folder, manifest = site.folder, site.manifest
    planned = tuple(runs[: manifest["runs"]])
    following = site.further(planned, merged(folder)) if site.further else None
    if following is None:
        return None
    site.out.print(following.said)
    every = (*planned, *following.runs)
    pieces: tuple[Piece, ...] = ()
    cohorts = manifest["cohorts"]
    if following.runs:
        plan = make_plan(following.runs, manifest["memory"], site.crew.device.cores)
        pieces = tuple(_behind(piece, len(planned), len(manifest["pieces"]), cohorts) for piece in plan.pieces)
        cohorts += plan.cohorts
        documents.write_runs(folder, every)
    # All at once: an interrupt finds the manifest as it was, or as it will be.
    manifest |= {
        "runs": len(every),
        "swept": _differing(every),
        "cohorts": cohorts,
        **following.entries,
        "pieces": [*manifest["pieces"], *(written(piece, every) for piece in pieces)],
    }
    documents.write_manifest(folder, manifest)
    return every, pieces


def _behind(piece: Piece, runs: int, pieces: int, cohorts: int) -> Piece:
    """A piece of a later round, counted on from what is planned already."""
    members = tuple(place + runs for place in piece.members)
    return replace(piece, index=piece.index + pieces, members=members, cohort=piece.cohort + cohorts)


def _differing(runs: Sequence[RunSpec]) -> list[str]:
    """The keys in which runs differ."""
    flats = [run.flat() for run in runs]
    return [key for key in flats[0] if len({flat[key] for flat in flats}) > 1]


def _show(event: Event, bars: progress.Gauge) -> None:
    match event.kind:
        case "started":
            bars.started(event.piece)
        case "progress":
            bars.moved(event.piece, event.share)
        case "told":
            bars.console.print(escape(event.details), soft_wrap=True)
        case "finished" | "failed":
            bars.tally.diverged += event.diverged
            bars.tally.failed += event.failed
            bars.tally.finished += len(bars.pieces[event.piece].members) - event.diverged - event.failed
            bars.ended(event.piece)
