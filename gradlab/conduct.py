"""From a grid to a finished folder: plan, record the plan, run its pieces, merge their tables, end with the report."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

import gradlab
from gradlab import screen, store, summary
from gradlab.choices import SpecError
from gradlab.cure import terminal, trials
from gradlab.data import prefetch
from gradlab.diagnose.thresholds import limits
from gradlab.expect.form import parse
from gradlab.grid import Grid, Launch, spec_yaml
from gradlab.kernels.compiler import library
from gradlab.launch.devices import Device, choose
from gradlab.launch.events import Event, Job
from gradlab.launch.local import Worker, crew_of, run_jobs
from gradlab.plan import Piece, Plan, make_plan
from gradlab.spec import SCHEMA, RunSpec, unused
from gradlab.store import Folder, Manifest

DONE, CRASHED, INTERRUPTED = 0, 1, 130
"""Exit statuses; a wrong command or value is 2, and is raised as `SpecError`."""

UNMET = 1
"""Exit status where an experiment did not show what its file expects."""

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "hydra-core")


@dataclass(frozen=True)
class Wishes:
    """How a command was asked to go about it."""

    out: Path | None = None
    device: str = "auto"
    report: bool = True
    fail_fast: bool = False


def start(grid: Grid, wishes: Wishes, command: Sequence[str], out: Console) -> int:
    """Runs a grid in a new folder; the exit status. Raises `SpecError` before anything is written."""
    device, plan = plan_of(grid, wishes)
    for data in {run.data for run in grid.runs}:
        prefetch(data)
    now = dt.datetime.now().astimezone()
    manifest: Manifest = {
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
        "pieces": [_written(piece, grid.runs) for piece in plan.pieces],
        **({} if grid.cure is None else {"cure": dict(grid.cure)}),
    }
    with store.new_result(wishes.out, grid.name, now) as folder:
        store.write_inputs(folder, grid.base, grid.overrides, grid.runs)
        store.write_manifest(folder, manifest)
        _announce(out, grid, plan, device, folder)
        return _conduct(folder, manifest, grid.runs, plan.pieces, wishes, out)


def resume(path: Path, wishes: Wishes, command: Sequence[str], out: Console) -> int:
    """Runs what is missing in the folder ``path``, in the pieces that were planned; the exit status."""
    folder = store.open_result(path)
    device = None if wishes.device == "auto" else choose(wishes.device)
    with store.locked(folder):
        manifest = store.read_manifest(path)
        if manifest["state"] == "done":
            store.drop_pieces(folder)
            out.print(
                escape(f"Nothing is missing in {path}: {manifest['runs']} of {manifest['runs']} runs are done."),
                soft_wrap=True,
            )
            return DONE
        runs = store.read_runs(folder)
        place = {run.id: position for position, run in enumerate(runs)}
        pieces = [_read(written, place) for written in manifest["pieces"]]
        whole = {
            index for index, table in store.saved_pieces(folder).items() if "failed" not in table["state"].to_pylist()
        }
        missing = [piece for piece in pieces if piece.index not in whole]
        manifest |= {"state": "running", "resumed": [*manifest.get("resumed", []), list(command)]}
        manifest |= {"device": asdict(device or choose(manifest["device"]["name"]))}
        store.write_manifest(folder, manifest)
        count = sum(len(piece.members) for piece in missing)
        out.print(escape(f"Resuming {path}: {count} of {len(runs)} runs are missing."), soft_wrap=True)
        return _conduct(folder, manifest, runs, missing, wishes, out)


def again(path: Path, run_id: str) -> Grid:
    """The grid of one run of the result at ``path``, by its id or an unmistakable beginning of it."""
    runs = store.read_runs(store.open_result(path))
    found = [run for run in runs if run.id.startswith(run_id)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        raise SpecError(f"--from {path} {run_id}: {what} with this id; the ids are in {path}/runs.parquet")
    name = f"again-{found[0].id[:8]}"
    base = spec_yaml(found[0])
    return Grid((found[0],), 0, (), frozenset(), name, Launch(None, None), base, (), None)


def plan_of(grid: Grid, wishes: Wishes) -> tuple[Device, Plan]:
    """The device that a grid will take, and its plan there."""
    device = choose(wishes.device)
    return device, make_plan(grid.runs, grid.launch.memory or device.memory, device.cores)


def _conduct(
    folder: Folder, manifest: Manifest, runs: Sequence[RunSpec], pieces: Sequence[Piece], wishes: Wishes, out: Console
) -> int:
    """Runs ``pieces``, merges all tables of the folder, and reports."""
    began = dt.datetime.now().astimezone()
    tally = screen.Tally(manifest["runs"])
    missing = {piece.index for piece in pieces}
    for index, table in store.saved_pieces(folder).items():
        if index not in missing:
            tally.add(table["state"].to_pylist())
    try:
        crashed = _run(folder, manifest, runs, pieces, wishes, tally, out)
        if crashed and wishes.fail_fast:
            _close(folder, manifest, "stopped", began)
            screen.point(f"Stopped at the first crashed run: {tally}.", "sweep --resume", folder.root)
            return CRASHED
        manifest["kernels"] = _kernels(runs, manifest["device"]["name"])
        tables = store.merge(folder)
        # Before the manifest says that all is done: a resume must find nothing left to do then.
        _hold_expectations(folder, manifest, tables)
        _close(folder, manifest, "failed" if crashed else "done", began)
        if not crashed:
            store.drop_pieces(folder)
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


def _hold_expectations(folder: Folder, manifest: Manifest, tables: store.Merged) -> None:
    """Writes what the experiment was expected to show beside what its tables say, where anything was expected."""
    if not manifest.get("expect"):
        return
    from gradlab.expect.measure import evaluate

    altered = manifest["altered"]
    outcomes = evaluate(parse(manifest["expect"]), tables, lenient=bool(altered))
    told = {"experiment": manifest["experiment"], "altered": altered}
    store.write_expectations(folder, {**told, "outcomes": [outcome.stored() for outcome in outcomes]})


def _verdict_on_expectations(folder: Folder) -> int:
    """The exit status: an experiment as its file sets it must show what the file expects; altered, it may not."""
    told = store.read_expectations(folder.root)
    if told is None or told["altered"]:
        return DONE
    unmet = sum(outcome["result"] == "fail" for outcome in told["outcomes"])
    if not unmet:
        return DONE
    screen.say_error(f"{told['experiment']}: {unmet} of {len(told['outcomes'])} expectations failed")
    return UNMET


def _run(
    folder: Folder,
    manifest: Manifest,
    runs: Sequence[RunSpec],
    pieces: Sequence[Piece],
    wishes: Wishes,
    tally: screen.Tally,
    out: Console,
) -> bool:
    """Runs ``pieces``, and those of the rounds that follow them; whether a run crashed."""
    crashed = False
    # Where the kernels were never compiled on this machine, that happens while the workers import torch.
    threading.Thread(target=_kernels, args=(runs, manifest["device"]["name"]), daemon=True).start()
    workers = manifest["workers"] if "cure" in manifest else min(manifest["workers"], len(pieces))
    with crew_of(workers, manifest["device"]["name"]) as crew:
        while True:
            crashed |= bool(pieces) and _run_round(crew, folder, manifest, runs, pieces, wishes, tally, out)
            if (crashed and wishes.fail_fast) or (further := _further(folder, manifest, runs, out)) is None:
                return crashed
            runs, pieces = further
            tally.total = len(runs)


def _run_round(
    crew: list[Worker],
    folder: Folder,
    manifest: Manifest,
    runs: Sequence[RunSpec],
    pieces: Sequence[Piece],
    wishes: Wishes,
    tally: screen.Tally,
    out: Console,
) -> bool:
    """Runs ``pieces`` on the crew; whether a run crashed."""
    judged_by = limits(manifest.get("diagnose"))
    jobs = [Job(piece, tuple(runs[place] for place in piece.members), folder.root, judged_by) for piece in pieces]
    crashed = False
    with screen.gauge(out, pieces, tally) as bars:
        for event in run_jobs(crew, jobs, manifest["device"]["name"], fail_fast=wishes.fail_fast):
            _show(event, bars)
            if event.kind == "halved":
                manifest["pieces"][event.piece]["chunks"] = list(event.chunks)
                store.write_manifest(folder, manifest)
            elif event.kind == "failed":
                crashed = True
                store.log_error(folder, f"piece {event.piece}: {event.error}\n{event.details}")
            elif event.kind == "unwritable":
                raise OSError(event.error)
    return crashed


def _kernels(runs: Sequence[RunSpec], device: str) -> dict[str, str]:
    """What computes in each precision, compiled if it never was on this machine: our own kernels, or torch's."""
    own = {precision: device == "cpu" and library(precision) is not None for precision in _precisions(runs)}
    return {precision: "own" if found else "torch" for precision, found in own.items()}


def _precisions(runs: Sequence[RunSpec]) -> list[str]:
    return sorted({run.train.precision for run in runs})


def _further(
    folder: Folder, manifest: Manifest, runs: Sequence[RunSpec], out: Console
) -> tuple[tuple[RunSpec, ...], tuple[Piece, ...]] | None:
    """All runs with those of a cure's next round, and the pieces of these; None where no round follows.

    What is planned is written before it is run: an interrupted cure is resumed like any sweep. A round whose runs were
    written and whose pieces were not is planned again, the same, since it follows from the tables.
    """
    if "cure" not in manifest:
        return None
    planned = tuple(runs[: manifest["runs"]])
    following = trials.next_round(manifest["cure"], planned, store.merged(folder))
    if following is None:
        return None
    out.print(f"Round {following.facts['round']}: {following.said}.")
    every = (*planned, *following.runs)
    device = Device(**manifest["device"])
    pieces: tuple[Piece, ...] = ()
    cohorts = manifest["cohorts"]
    if following.runs:
        plan = make_plan(following.runs, manifest["memory"], device.cores)
        pieces = tuple(_behind(piece, len(planned), len(manifest["pieces"]), cohorts) for piece in plan.pieces)
        cohorts += plan.cohorts
        store.write_runs(folder, every)
    # All at once: an interrupt finds the manifest as it was, or as it will be.
    manifest |= {
        "runs": len(every),
        "swept": _differing(every),
        "cohorts": cohorts,
        "cure": following.facts,
        "pieces": [*manifest["pieces"], *(_written(piece, every) for piece in pieces)],
    }
    store.write_manifest(folder, manifest)
    return every, pieces


def _behind(piece: Piece, runs: int, pieces: int, cohorts: int) -> Piece:
    """A piece of a later round, counted on from what is planned already."""
    members = tuple(place + runs for place in piece.members)
    return replace(piece, index=piece.index + pieces, members=members, cohort=piece.cohort + cohorts)


def _differing(runs: Sequence[RunSpec]) -> list[str]:
    """The keys in which runs differ."""
    flats = [run.flat() for run in runs]
    return [key for key in flats[0] if len({flat[key] for flat in flats}) > 1]


def _show(event: Event, bars: screen.Gauge) -> None:
    match event.kind:
        case "started":
            bars.started(event.piece)
        case "progress":
            bars.moved(event.piece, event.share)
        case "finished" | "failed":
            bars.tally.diverged += event.diverged
            bars.tally.failed += event.failed
            bars.tally.finished += len(bars.pieces[event.piece].members) - event.diverged - event.failed
            bars.ended(event.piece)


def _close(folder: Folder, manifest: Manifest, state: str, began: dt.datetime) -> None:
    now = dt.datetime.now().astimezone()
    manifest["state"] = state
    manifest["finished"] = now.isoformat(timespec="seconds")
    manifest["elapsed_s"] = round(manifest["elapsed_s"] + (now - began).total_seconds(), 3)
    store.write_manifest(folder, manifest)


def _finish(folder: Folder, manifest: Manifest, tables: store.Merged, wishes: Wishes, out: Console) -> None:
    """The end of a command: what happened, the report, the files."""
    if "cure" in manifest:
        terminal.show(out, manifest["cure"], tables)
    elif manifest["runs"] == 1:
        summary.show_run(out, tables, limits(manifest.get("diagnose")))
    else:
        summary.show_sweep(out, tables["runs"], manifest["swept"])
    if (told := store.read_expectations(folder.root)) is not None:
        summary.show_expectations(out, told)
    places = [("tables", f"{folder.root}/{{runs,steps,layers}}.parquet")]
    if wishes.report:
        report([folder.root], folder.report, out)
        places.append(("report", str(folder.report / "index.html")))
    screen.show_files(out, places)


def report_again(paths: Sequence[Path], wanted: Path | None, out: Console, x: str | None, y: str | None) -> None:
    """`gradlab report`: a single result's report goes into its own folder, that of several into a new one."""
    for path in paths:
        store.read_manifest(path)
    if wanted is None and len(paths) == 1:
        to = Folder(paths[0]).report
        report(paths, to, out, x, y)
    else:
        with store.new_report(wanted, dt.datetime.now().astimezone()) as to:
            report(paths, to, out, x, y)
    screen.show_files(out, [("report", str(to / "index.html"))])


def report(paths: Sequence[Path], to: Path, out: Console, x: str | None = None, y: str | None = None) -> None:
    """Writes tables, plots and page of one or several results into the folder ``to``."""
    from gradlab.report import write_report

    with screen.waiting(out, "Drawing the report"):
        written = write_report(paths, to, x=x, y=y)
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


def _workers(grid: Grid, plan: Plan, device: Device) -> int:
    """Processes: one a core on a CPU, one on a GPU; never more than pieces, but for a cure, which has more to come."""
    most = grid.launch.workers or (device.cores if device.is_cpu else 1)
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
    sources = Path(__file__).parent.parent
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


def _written(piece: Piece, runs: Sequence[RunSpec]) -> Manifest:
    """A piece as the manifest keeps it: its members by their ids."""
    return {**asdict(piece), "members": [runs[position].id for position in piece.members]}


def _read(written: Manifest, place: Mapping[str, int]) -> Piece:
    """The piece that `_written` wrote; before there was an effort, the work stood for it."""
    members = tuple(place[run_id] for run_id in written["members"])
    return Piece(**{"effort": written["work"], **written, "members": members, "chunks": tuple(written["chunks"])})
