"""From a grid to a finished folder: plan, record the plan, run its pieces, merge their tables, end with the report."""

from __future__ import annotations

import datetime as dt
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from gradlab.cure import trials
from gradlab.data.loaders import prefetch
from gradlab.diagnose.thresholds import limits
from gradlab.expect.form import parse
from gradlab.grid.cohorts import Piece, Plan, plan_of
from gradlab.grid.expand import Grid
from gradlab.launch import rounds
from gradlab.launch.devices import Device
from gradlab.launch.local import Crew
from gradlab.launch.manifest import drawn_up
from gradlab.spec.run import RunSpec, unused
from gradlab.store import documents
from gradlab.store.documents import Manifest
from gradlab.store.folder import Folder, new_report, new_result
from gradlab.store.pieces import TABLES, drop_pieces, saved_pieces
from gradlab.store.tables import Merged, merge
from gradlab.terminal import cure, progress, screen, summary

DONE, CRASHED, INTERRUPTED = 0, 1, 130
"""Exit statuses; a wrong command or value is 2, and is raised as `SpecError`."""

UNMET = 1
"""Exit status where an experiment did not show what its file expects."""


@dataclass(frozen=True)
class Wishes:
    """How a command was asked to go about it."""

    out: Path | None = None
    report: bool = True
    fail_fast: bool = False


def start(grid: Grid, wishes: Wishes, crew: Crew, command: Sequence[str], out: Console) -> int:
    """Runs a grid on ``crew`` in a new folder; the exit status. Raises `SpecError` before anything is written."""
    plan = plan_of(grid, crew.device.memory, crew.device.cores)
    for data in {run.data for run in grid.runs}:
        prefetch(data)
    now = dt.datetime.now().astimezone()
    manifest = drawn_up(grid, plan, crew.device, command, now)
    with new_result(wishes.out, grid.name, now) as folder, drawing_prepared(wishes):
        documents.write_inputs(folder, grid.base, grid.overrides, grid.runs)
        _announce(out, grid, plan, crew.device, folder)
        # From here on an interrupt leaves something to resume, and says so.
        documents.write_manifest(folder, manifest)
        return carry_out(folder, manifest, grid.runs, plan.pieces, wishes, crew, out)


def carry_out(
    folder: Folder,
    manifest: Manifest,
    runs: Sequence[RunSpec],
    pieces: Sequence[Piece],
    wishes: Wishes,
    crew: Crew,
    out: Console,
) -> int:
    """Runs ``pieces``, merges all tables of the folder, and reports."""
    began = dt.datetime.now().astimezone()
    tally = progress.Tally(manifest["runs"])
    missing = {piece.index for piece in pieces}
    try:
        for index, table in saved_pieces(folder).items():
            if index not in missing:
                tally.add(table["state"].to_pylist())
        site = rounds.Site(crew, folder, manifest, tally, out, wishes.fail_fast, _further(manifest))
        crashed = rounds.run(site, runs, pieces)
        if crashed and wishes.fail_fast:
            _close(folder, manifest, "stopped", began)
            screen.point(f"Stopped at the first crashed run: {tally}.", "sweep --resume", folder.root)
            return CRASHED
        manifest["kernels"] = rounds.kernels(runs, manifest["device"]["name"])
        tables = merge(folder)
        # Before the manifest says that all is done: a resume must find nothing left to do then.
        _hold_expectations(folder, manifest, tables)
        _close(folder, manifest, "failed" if crashed else "done", began)
        if not crashed:
            drop_pieces(folder)
    except KeyboardInterrupt:
        # Whoever presses Ctrl-C twice has been heard the first time.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _close(folder, manifest, "interrupted", began)
        screen.point(f"Interrupted: {tally}. What has finished is kept.", "sweep --resume", folder.root)
        return INTERRUPTED
    except OSError as error:
        screen.say_error(f"{folder.root}: {error.strerror or error}")
        screen.point("What has finished is kept.", "sweep --resume", folder.root)
        return CRASHED
    try:
        _finish(folder, manifest, tables, wishes, out)
    except KeyboardInterrupt:
        screen.point("Interrupted while the report was drawn; the tables are whole.", "report", folder.root)
        return INTERRUPTED
    if crashed:
        screen.say_error(f"{tally.failed} of {tally.total} runs crashed; {folder.errors} says where")
        return CRASHED
    return _verdict_on_expectations(folder)


def _further(manifest: Manifest) -> rounds.Further | None:
    """A cure plans each round from the last one; every other grid is planned whole."""
    if "cure" not in manifest:
        return None
    return lambda runs, tables: trials.next_round(manifest["cure"], runs, tables)


@contextmanager
def drawing_prepared(wishes: Wishes) -> Iterator[None]:
    """What the report needs is imported beside the workers, not behind them; nothing is left importing at the end."""

    def prepare() -> None:
        from gradlab.report import get_ready

        get_ready()

    beside = threading.Thread(target=prepare)
    if wishes.report:
        beside.start()
    try:
        yield
    finally:
        if wishes.report:
            beside.join()


def _hold_expectations(folder: Folder, manifest: Manifest, tables: Merged) -> None:
    """Writes what the experiment was expected to show beside what its tables say, where anything was expected."""
    if not manifest.get("expect"):
        return
    from gradlab.expect.evaluate import evaluate

    altered = manifest["altered"]
    outcomes = evaluate(parse(manifest["expect"]), tables, lenient=bool(altered))
    told = {"experiment": manifest["experiment"], "altered": altered}
    documents.write_expectations(folder, {**told, "outcomes": [outcome.stored() for outcome in outcomes]})


def _verdict_on_expectations(folder: Folder) -> int:
    """The exit status: an experiment as its file sets it must show what the file expects; altered, it may not."""
    told = documents.read_expectations(folder.root)
    if told is None or told["altered"]:
        return DONE
    unmet = sum(outcome["result"] == "fail" for outcome in told["outcomes"])
    if not unmet:
        return DONE
    screen.say_error(f"{told['experiment']}: {unmet} of {len(told['outcomes'])} expectations failed")
    return UNMET


def _close(folder: Folder, manifest: Manifest, state: str, began: dt.datetime) -> None:
    now = dt.datetime.now().astimezone()
    manifest["state"] = state
    manifest["finished"] = now.isoformat(timespec="seconds")
    manifest["elapsed_s"] = round(manifest["elapsed_s"] + (now - began).total_seconds(), 3)
    documents.write_manifest(folder, manifest)


def _finish(folder: Folder, manifest: Manifest, tables: Merged, wishes: Wishes, out: Console) -> None:
    """The end of a command: what happened, the report, the files."""
    if "cure" in manifest:
        cure.show(out, manifest["cure"], tables)
    elif manifest["runs"] == 1:
        summary.show_run(out, tables, limits(manifest.get("diagnose")))
    else:
        summary.show_sweep(out, tables["runs"], manifest["swept"])
    if (told := documents.read_expectations(folder.root)) is not None:
        summary.show_expectations(out, told)
    written = ",".join(name for name in TABLES if folder.table(name).is_file())
    places = [("tables", f"{folder.root}/{{{written}}}.parquet")]
    if wishes.report:
        report([folder.root], folder.report, out)
        places.append(("report", str(folder.report / "index.html")))
    screen.show_files(out, places)


def report_again(paths: Sequence[Path], wanted: Path | None, out: Console, keys: Mapping[str, str | None]) -> None:
    """`gradlab report`: a single result's report goes into its own folder, that of several into a new one."""
    for path in paths:
        documents.read_manifest(path)
    if wanted is None and len(paths) == 1:
        to = Folder(paths[0]).report
        report(paths, to, out, keys)
    else:
        with new_report(wanted, dt.datetime.now().astimezone()) as to:
            report(paths, to, out, keys)
    screen.show_files(out, [("report", str(to / "index.html"))])


def report(paths: Sequence[Path], to: Path, out: Console, keys: Mapping[str, str | None] | None = None) -> None:
    """Writes tables, plots and page of one or several results into ``to``; ``keys`` as `write_report` has them."""
    from gradlab.report import write_report

    with screen.waiting(out, "Drawing the report"):
        written = write_report(paths, to, **(keys or {}))
    for note in written.notes:
        out.print(escape(note))


def _announce(out: Console, grid: Grid, plan: Plan, device: Device, folder: Folder) -> None:
    count = len(grid.runs)
    twice = f" ({grid.duplicates:,} more were the same as others)" if grid.duplicates else ""
    if count == 1:
        out.print(f"Run {grid.runs[0].id}{twice} on {device.label}")
    else:
        out.print(f"{count:,} runs{twice} in {screen.counted(plan.cohorts, 'cohort')} on {device.label}")
    out.print(f"Results in {escape(str(folder.root))}", soft_wrap=True)
    idle = frozenset.intersection(*(unused(run) for run in grid.runs)) & grid.given
    for key in sorted(idle):
        out.print(f"Note: {key} has no effect here.")
