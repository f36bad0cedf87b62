"""An unfinished result, gone on with: what is missing is run, in the pieces that were planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gradlab.launch.conduct import DONE, Wishes, carry_out, drawing_prepared
from gradlab.launch.devices import choose
from gradlab.launch.local import crew_of
from gradlab.launch.manifest import read_back
from gradlab.store import documents
from gradlab.store.folder import locked, open_result
from gradlab.store.pieces import drop_pieces, saved_pieces


def resume(path: Path, asked: str, wishes: Wishes, command: Sequence[str], out: Console) -> int:
    """Runs what is missing in the folder ``path``, in the pieces that were planned; the exit status.

    On the device that is ``asked`` for; auto is the one that it began on.
    """
    folder = open_result(path)
    given = None if asked == "auto" else choose(asked)
    with locked(folder):
        manifest = documents.read_manifest(path)
        if manifest["state"] == "done":
            drop_pieces(folder)
            out.print(
                escape(f"Nothing is missing in {path}: {manifest['runs']} of {manifest['runs']} runs are done."),
                soft_wrap=True,
            )
            return DONE
        runs = documents.read_runs(folder)
        place = {run.id: position for position, run in enumerate(runs)}
        pieces = [read_back(kept, place) for kept in manifest["pieces"]]
        whole = {index for index, table in saved_pieces(folder).items() if "failed" not in table["state"].to_pylist()}
        missing = [piece for piece in pieces if piece.index not in whole]
        manifest |= {"state": "running", "resumed": [*manifest.get("resumed", []), list(command)]}
        device = given or choose(manifest["device"]["name"])
        manifest |= {"device": asdict(device)}
        documents.write_manifest(folder, manifest)
        count = sum(len(piece.members) for piece in missing)
        out.print(escape(f"Resuming {path}: {count} of {len(runs)} runs are missing."), soft_wrap=True)
        with crew_of(min(manifest["workers"], len(missing)), device) as crew, drawing_prepared(wishes):
            return carry_out(folder, manifest, runs, missing, wishes, crew, out)
