"""An unfinished result, gone on with: what is missing is run, in the pieces that were planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gradlab.expect.form import parse
from gradlab.grid.cohorts import Piece
from gradlab.grid.launching import Launch, launch_of
from gradlab.launch import interrupts, own, places
from gradlab.launch.conduct import (
    Wishes,
    carry_out,
    drawing_prepared,
    is_drawn,
    members,
    report,
    verdict_on_expectations,
)
from gradlab.launch.devices import choose
from gradlab.launch.events import Crew
from gradlab.launch.local import crew_of
from gradlab.launch.manifest import differing, planned, start_of
from gradlab.launch.rounds import kernels, note_kernels
from gradlab.launch.slurm import at_work
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec
from gradlab.store import documents
from gradlab.store.documents import Manifest
from gradlab.store.folder import Folder, locked, open_result, sweep_up, time_here
from gradlab.store.pieces import drop_pieces, saved_pieces
from gradlab.store.surroundings import surroundings
from gradlab.store.tables import finished_runs
from gradlab.terminal.progress import Tally
from gradlab.terminal.screen import point, show_files


def resume(
    path: Path,
    asked: str,
    wishes: Wishes,
    command: Sequence[str],
    out: Console,
    *,
    allow_code: bool = False,
    launch: Callable[[Launch], Launch] = lambda before: before,
) -> int:
    """Finishes what is unfinished in the folder ``path``: runs that are missing, tables, the report; the exit status.

    Runs are trained in the pieces that were planned, on the device that is ``asked`` for; auto is the one that it began
    on. A piece whose tables are damaged, or of other runs, is missing. What killed processes left behind is removed.
    ``launch`` says where, from where it began.
    """
    folder = open_result(path)
    given = None if asked == "auto" else choose(asked)
    with locked(folder):
        manifest = documents.read_manifest(path)
        documents.read_expectations(path)
        sweep_up(folder)
        # Pieces are dropped when all is merged, and not before: without them only the tables count.
        ended = manifest["state"] == "done" or not folder.pieces.is_dir()
        if ended and finished_runs(folder, documents.ids_of(folder)[: manifest["runs"]]):
            return _ended(folder, manifest, wishes, out)
        runs = documents.read_runs(folder)
        own.check(runs, allowed=allow_code, what=str(path))
        pieces = planned(folder, manifest, runs)
        parse(manifest.get("expect", []), f"{folder.manifest}: expect")
        folder.pieces.mkdir(exist_ok=True)
        whole = {
            index: table
            for index, table in saved_pieces(folder, members(manifest)).items()
            if "failed" not in table["state"].to_pylist()
        }
        missing = [piece for piece in pieces if piece.index not in whole]
        tally = Tally(manifest["runs"])
        for table in whole.values():
            tally.add(table["state"].to_pylist())
        where = _place(manifest, launch, allowed=allow_code, what=str(path))
        if where.name != "slurm" and (names := at_work(folder)):
            raise SpecError(
                f"{path}: jobs of Slurm are still at work in it ({', '.join(names)}); follow them with launch=slurm, "
                f"or end them with scancel -n {','.join(names)}"
            )
        device = given or choose(manifest["device"]["name"] if where.name == "local" else "cpu")
        with crew_of(0, device) as early, places.crew_for(where, early, detach=wishes.detach) as crew:
            return _go_on(folder, manifest, runs, missing, tally, wishes, crew, where, command, out)


def _place(manifest: Manifest, changed: Callable[[Launch], Launch], *, allowed: bool, what: str) -> Launch:
    """Where a result goes on. Raises `SpecError` where its folder alone would say what this machine is made to do."""
    try:
        before = launch_of({f"launch.{key}": value for key, value in manifest.get("launch", {}).items()})
    except SpecError as error:
        raise SpecError(f"{what}: its manifest: {error}") from error
    now, asked = changed(before), changed(before).asks_trust()
    # What the command line says itself is there without the manifest, too.
    if asked is not None and asked != changed(replace(before, address=None, setup=None)).asks_trust() and not allowed:
        raise SpecError(f"{what}: goes on with {asked}, as its manifest says; to do so add --allow-code")
    return now


def _go_on(
    folder: Folder,
    manifest: Manifest,
    runs: Sequence[RunSpec],
    missing: Sequence[Piece],
    tally: Tally,
    wishes: Wishes,
    crew: Crew,
    where: Launch,
    command: Sequence[str],
    out: Console,
) -> int:
    starts = manifest.get("starts") or [start_of(manifest)]
    now = time_here().isoformat(timespec="seconds")
    facts = surroundings(asdict(crew.device)) | {"started": now}
    fresh = start_of(facts | ({"kernels": kernels(runs, crew.device.name)} if crew.here else {}))
    workers, fewer = crew.at_once(where.workers or manifest["workers"], missing)
    manifest |= {
        "state": "running",
        "resumed": [*manifest.get("resumed", []), list(command)],
        "device": asdict(crew.device),
        "launch": where.stored(),
        "starts": [*starts, fresh],
        "workers": workers,
    }
    if crew.here:
        note_kernels(manifest, runs)
    documents.write_manifest(folder, manifest)
    count = sum(len(piece.members) for piece in missing)
    halfway = sum(len(piece.members) for piece in missing if folder.checkpoints(piece.index))
    kept = f" {halfway} of them were kept in mid-training." if halfway else ""
    out.print(escape(f"Resuming {folder.root}: {count} of {len(runs)} runs are missing.{kept}"), soft_wrap=True)
    if len(missing) < len(manifest["pieces"]) and (change := differing(starts[-1], fresh)) is not None:
        out.print(
            escape(f"So far with {change[0]}, now with {change[1]}: numbers may differ in their last digits."),
            soft_wrap=True,
        )
    if fewer is not None:
        out.print(escape(fewer), soft_wrap=True)
    crew.fit(min(workers, len(missing)))
    with drawing_prepared(wishes):
        return carry_out(folder, manifest, runs, missing, tally, wishes, crew, out)


def _ended(folder: Folder, manifest: Manifest, wishes: Wishes, out: Console) -> int:
    """What is left where every run is there: the report, where a kill or a wish left it out."""
    drop_pieces(folder)
    if manifest["state"] != "done":
        documents.write_manifest(folder, manifest | {"state": "done"})
    total = manifest["runs"]
    out.print(escape(f"Nothing is missing in {folder.root}: {total} of {total} runs are done."), soft_wrap=True)
    if wishes.report and not is_drawn(folder.report):
        try:
            report([folder.root], folder.report, out)
        except KeyboardInterrupt as stopped:
            interrupts.heard()
            point("Interrupted while the report was drawn; the tables are whole.", "report", folder.root)
            return interrupts.status(stopped)
        show_files(out, [("report", str(folder.report / "index.html"))])
    return verdict_on_expectations(folder)
