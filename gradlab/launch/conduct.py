"""From a grid to a finished folder: plan, record the plan, run its pieces, merge their tables, end with the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from rich.console import Console
from rich.markup import escape

from gradlab.cure import trials
from gradlab.data.loaders import prefetch
from gradlab.diagnose.thresholds import limits
from gradlab.expect.form import parse
from gradlab.grid.cohorts import Piece, Plan, plan_of
from gradlab.grid.expand import Grid
from gradlab.launch import interrupts, local, own, places, rounds, speed
from gradlab.launch.devices import Device
from gradlab.launch.events import Crew, DetachedError
from gradlab.launch.manifest import drawn_up
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec
from gradlab.store import documents
from gradlab.store.arrays import Kept, write_arrays
from gradlab.store.documents import Manifest
from gradlab.store.folder import Folder, has_begun, locked, new_report, new_result, sweep_up, time_here
from gradlab.store.lean import summed
from gradlab.store.pieces import TABLES, drop_pieces, lost
from gradlab.store.sources import Merged
from gradlab.store.tables import merge
from gradlab.store.weights import going_on
from gradlab.terminal import cure, illnesses, progress, screen, summary

DONE, CRASHED = 0, 1
"""Exit statuses; a wrong command or value is 2, and is raised as `SpecError`."""

IMPORT_SECONDS = 20.0
"""How long the end of a command waits for what the report imports."""

UNMET = 1
"""Exit status where an experiment did not show what its file expects."""


@dataclass(frozen=True)
class Wishes:
    """How a command was asked to go about it."""

    out: Path | None = None
    report: bool = True
    fail_fast: bool = False
    detach: bool = False


def start(grid: Grid, wishes: Wishes, early: local.Crew, command: Sequence[str], out: Console) -> int:
    """Runs a grid in a new folder, on the workers ``early`` unless it is launched elsewhere; the exit status.

    Raises `SpecError` before anything is written.
    """
    with places.crew_for(grid.launch, early, detach=wishes.detach) as crew:
        return _start(grid, wishes, crew, command, out)


def _start(grid: Grid, wishes: Wishes, crew: Crew, command: Sequence[str], out: Console) -> int:
    grid = own.known(grid)
    plan = plan_of(grid, crew.device.memory, crew.device.cores)
    for data in {run.data for run in grid.runs}:
        prefetch(data)
    now = time_here()
    workers, fewer = crew.at_once(grid.launch.workers, plan.pieces)
    manifest = drawn_up(grid, plan, crew.device, command, now, workers)
    kept, said = _longer(grid)
    with new_result(wishes.out, grid.name, now) as folder, drawing_prepared(wishes):
        documents.write_inputs(folder, grid.base, grid.overrides, grid.runs)
        if kept is not None:
            write_arrays(folder.checkpoint(0, 0), kept)
        _announce(out, grid, plan, crew.device, folder)
        for line in filter(None, (said, fewer if len(plan.pieces) > workers or grid.launch.workers else None)):
            out.print(escape(line), soft_wrap=True)
        # From here on an interrupt leaves something to resume, and says so.
        documents.write_manifest(folder, manifest)
        has_begun(folder)
        tally = progress.Tally(len(grid.runs))
        return carry_out(folder, manifest, grid.runs, plan.pieces, tally, wishes, crew, out)


def _longer(grid: Grid) -> tuple[Kept | None, str | None]:
    """Where a run that only has more steps than it had goes on from its weights: these, and what to say of it."""
    if grid.longer is None:
        return None, None
    path, run_id = grid.longer
    kept = going_on(Folder(path), run_id, grid.runs[0].id)
    if kept is not None:
        return kept, f"Goes on from step {kept.facts['step']:,} of run {run_id} in {path}."
    return None, (
        f"{path} has no weights of run {run_id}: trained from the first step. "
        "With store.weights=true those of runs that do not diverge are kept, to go on from."
    )


def carry_out(
    folder: Folder,
    manifest: Manifest,
    runs: Sequence[RunSpec],
    pieces: Sequence[Piece],
    tally: progress.Tally,
    wishes: Wishes,
    crew: Crew,
    out: Console,
) -> int:
    """Runs ``pieces``, merges all tables of the folder, and reports; ``tally`` counts what is there already."""
    began = time.monotonic()
    try:
        site = rounds.Site(crew, folder, manifest, tally, out, wishes.fail_fast, _further(manifest))
        clock = time.monotonic()
        crashed = rounds.run(site, runs, pieces)
        if not crashed and site.further is None and crew.here:
            workers = min(manifest["workers"], max(1, len(pieces)))
            speed.remember(manifest["device"]["name"], pieces, workers, time.monotonic() - clock)
        if crashed and wishes.fail_fast:
            _close(folder, manifest, "stopped", began)
            screen.point(f"Stopped at the first crashed run: {tally}.", "sweep --resume", folder.root)
            return CRASHED
        tables = _merged_whole(folder, manifest)
        if isinstance(tables, str):
            _close(folder, manifest, "stopped", began)
            screen.say_error(tables)
            screen.point("What is whole is kept.", "sweep --resume", folder.root)
            return CRASHED
        # Before the manifest says that all is done: a resume must find nothing left to do then.
        _hold_expectations(folder, manifest, tables)
        _close(folder, manifest, "failed" if crashed else "done", began)
    except DetachedError as left:
        out.print(escape(str(left)), soft_wrap=True)
        return DONE
    except KeyboardInterrupt as stopped:
        interrupts.heard()
        _close(folder, manifest, "interrupted", began)
        screen.point(f"Interrupted: {tally}. What has finished is kept.", "sweep --resume", folder.root)
        return interrupts.status(stopped)
    except OSError as error:
        if not folder.root.is_dir():
            screen.say_error(
                f"{folder.root}: the folder was removed while its runs were trained, and with it their tables"
            )
            return CRASHED
        # As far as the disk lets the manifest say so; the sentence is what counts.
        with suppress(OSError):
            _close(folder, manifest, "stopped", began)
        screen.say_error(f"{folder.root}: {error.strerror or error}")
        screen.point("What has finished is kept.", "sweep --resume", folder.root)
        return CRASHED
    try:
        if not crashed:
            drop_pieces(folder)
        _finish(folder, manifest, tables, wishes, out)
    except KeyboardInterrupt as stopped:
        interrupts.heard()
        screen.point("Interrupted while the report was drawn; the tables are whole.", "report", folder.root)
        return interrupts.status(stopped)
    except OSError as error:
        screen.say_error(f"{folder.report}: {error.strerror or error}")
        screen.point("The tables are whole; the report is not.", "report", folder.root)
        return CRASHED
    if crashed:
        screen.say_error(f"{tally.failed} of {tally.total} runs crashed; {folder.errors} says where")
        return CRASHED
    return verdict_on_expectations(folder)


def members(manifest: Manifest) -> dict[int, list[str]]:
    """The ids of the runs that each piece of the plan holds."""
    return {piece["index"]: piece["members"] for piece in manifest["pieces"]}


def _merged_whole(folder: Folder, manifest: Manifest) -> Merged | str:
    """The tables, with every run of the plan in them; where some are lost, what is."""
    plan = members(manifest)
    missing = lost(folder, plan)
    if missing:
        count = sum(len(plan[index]) for index in missing)
        first = folder.piece(missing[0], "runs")
        return f"{count} of {manifest['runs']} runs are not there: {first} was removed or changed after it was written"
    try:
        tables = merge(folder, sorted(plan))
        rows = tables.rows("runs")
    except SpecError as error:
        return str(error)
    if rows != manifest["runs"]:
        return f"{folder.table('runs')}: expected {manifest['runs']} runs, found {rows}"
    return tables


def _further(manifest: Manifest) -> rounds.Further | None:
    """A cure plans each round from the last one; every other grid is planned whole."""
    if "cure" not in manifest:
        return None
    return lambda runs, tables: trials.next_round(manifest["cure"], runs, tables, own.takes)


@contextmanager
def drawing_prepared(wishes: Wishes) -> Iterator[None]:
    """What the report needs is imported beside the workers, not behind them; nothing is left importing at the end."""

    def prepare() -> None:
        from gradlab.report import get_ready

        get_ready()

    # A daemon, and waited for only so long: an interrupt that is lost in an import's lock must not hold the command.
    importing = rounds.beside(prepare) if wishes.report and not wishes.detach else None
    try:
        yield
    finally:
        if importing is not None:
            importing.join(IMPORT_SECONDS)


def _hold_expectations(folder: Folder, manifest: Manifest, tables: Merged) -> None:
    """Writes what the experiment was expected to show beside what its tables say, where anything was expected."""
    if not manifest.get("expect"):
        return
    from gradlab.expect.evaluate import columns, evaluate

    altered, expected = manifest["altered"], parse(manifest["expect"])
    asked = tables.narrow(columns(expected)) if tables.large else tables
    outcomes = evaluate(expected, asked, lenient=bool(altered))
    told = {"experiment": manifest["experiment"], "altered": altered}
    documents.write_expectations(folder, {**told, "outcomes": [outcome.stored() for outcome in outcomes]})


def verdict_on_expectations(folder: Folder) -> int:
    """The exit status: an experiment as its file sets it must show what the file expects; altered, it may not."""
    told = documents.read_expectations(folder.root)
    if told is None or told["altered"]:
        return DONE
    unmet = sum(outcome["result"] == "fail" for outcome in told["outcomes"])
    if not unmet:
        return DONE
    screen.say_error(f"{told['experiment']}: {unmet} of {len(told['outcomes'])} expectations failed")
    return UNMET


def _close(folder: Folder, manifest: Manifest, state: str, began: float) -> None:
    manifest["state"] = state
    manifest["finished"] = time_here().isoformat(timespec="seconds")
    # Not by the wall clock, which may be set while runs are trained.
    manifest["elapsed_s"] = round(manifest.get("elapsed_s", 0.0) + (time.monotonic() - began), 3)
    documents.write_manifest(folder, manifest)


def _finish(folder: Folder, manifest: Manifest, tables: Merged, wishes: Wishes, out: Console) -> None:
    """The end of a command: what is wrong and what happened, the report, the files."""
    bounds = limits(manifest.get("diagnose"))
    if "cure" in manifest:
        cure.show(out, manifest["cure"], tables)
    elif manifest["runs"] == 1:
        summary.show_run(out, tables, bounds, folder.root)
    else:
        wrong = illnesses.found(tables, manifest["swept"], bounds)
        summary.show_sweep(out, summed(tables), manifest["swept"], wrong, folder.root)
        summary.show_scaling(out, tables, manifest["swept"])
    if (told := documents.read_expectations(folder.root)) is not None:
        summary.show_expectations(out, told)
    written = ",".join(name for name in TABLES if folder.table(name).exists())
    places = [("weights", f"{folder.weights}/")] if folder.weights.is_dir() else []
    places += [("tables", f"{folder.root}/{{{written}}}.parquet")]
    if wishes.report:
        report([folder.root], folder.report, out)
        places.append(("report", str(folder.report / "index.html")))
    screen.show_files(out, places)


def report_again(
    paths: Sequence[Path], wanted: Path | None, out: Console, keys: Mapping[str, str | None], runs: Sequence[str] = ()
) -> None:
    """`gradlab report`: a single result's report goes into its own folder, that of several into a new one.

    That of ``runs``, given by beginnings of their ids, lies beside the report of all. A folder that is given twice, as
    `latest` and by its name, is one.
    """
    from gradlab.report import picked

    paths = list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
    for path in paths:
        documents.read_manifest(path)
        # A folder that is at work, or cannot be written, keeps what killed processes left there.
        with suppress(SpecError, OSError), locked(Folder(path)):
            sweep_up(Folder(path))
    asked = next((name for name, key in keys.items() if key is not None), None)
    if runs and asked is not None:
        raise SpecError(f"--{asked}: of runs that --run chooses no map is drawn, and each has a colour of its own")
    chosen = picked.find(paths, runs) if runs else {}
    if wanted is None and len(paths) == 1:
        to = Folder(paths[0]).report
        to = to.with_name(picked.folder_name(chosen)) if chosen else to
        report(paths, to, out, keys, chosen)
    else:
        with new_report(wanted, time_here()) as to:
            report(paths, to, out, keys, chosen)
    screen.show_files(out, [("report", str(to / "index.html"))])


def serve(paths: Sequence[Path], port: int, out: Console, keys: Mapping[str, str | None]) -> None:
    """`gradlab report --serve`: the page of one result, drawn anew as its pieces appear, until Ctrl-C.

    Raises `SpecError` for several folders and for one that holds no result.
    """
    from gradlab.report import write_report
    from gradlab.report.serving import Follower, serving

    if len(paths) > 1:
        raise SpecError(f"--serve is given {len(paths)} folders; expected one")
    documents.read_manifest(paths[0])
    with TemporaryDirectory(prefix="gradlab-") as name:

        def draw(folder: Path, to: Path) -> None:
            write_report([folder], to, x=keys["x"], y=keys["y"], facet=keys["facet"], color=keys["color"])

        follower = Follower(paths[0], Path(name) / "report", draw)
        with serving(follower, port) as address, suppress(KeyboardInterrupt):
            screen.show_files(out, [("serving", f"{address} (Ctrl-C ends it)")])
            Event().wait()


def report(
    paths: Sequence[Path],
    to: Path,
    out: Console,
    keys: Mapping[str, str | None] | None = None,
    runs: Mapping[str, Path] | None = None,
) -> None:
    """Writes tables, plots and page of one or several results into ``to``: ``keys`` and ``runs`` as in `write_report`.

    Files are written into ``to`` itself: a symbolic link in the place of one is removed, and ``to`` must be none. Until
    all are there a file beside it says so: see `is_drawn`.
    """
    from gradlab.report import write_report

    if to.is_symlink():
        raise SpecError(f"{to}: a symbolic link; a report is written into a folder of its own, such as -o DIR")
    begun = _drawing(to)
    begun.touch()
    try:
        with screen.waiting(out, "Drawing the report"):
            written = write_report(paths, to, **(keys or {}), runs=runs)
    except SpecError:
        begun.unlink(missing_ok=True)
        raise
    begun.unlink(missing_ok=True)
    for note in written.notes:
        out.print(escape(note))


def _drawing(to: Path) -> Path:
    return to.with_name(f".{to.name}.drawing")


def is_drawn(to: Path) -> bool:
    """Whether the report in ``to`` is whole."""
    return (to / "index.html").is_file() and not _drawing(to).exists()


def _announce(out: Console, grid: Grid, plan: Plan, device: Device, folder: Folder) -> None:
    screen.show_question(out, grid.experiment, grid.about)
    count = len(grid.runs)
    twice = f" ({grid.duplicates:,} more were the same as others)" if grid.duplicates else ""
    if count == 1:
        out.print(f"Run {grid.runs[0].id}{twice} on {device.label}")
    else:
        out.print(f"{count:,} runs{twice} in {screen.counted(plan.cohorts, 'cohort')} on {device.label}")
    for line in (*own.understood(grid.runs), *own.trained_as(grid, plan)):
        out.print(escape(line), soft_wrap=True)
    out.print(f"Results in {escape(str(folder.root))}", soft_wrap=True)
    screen.show_notes(out, grid)
