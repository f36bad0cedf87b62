"""What Ray and Slurm cost beside this machine alone, and what a million runs would ask of the command itself.

    python -m benchmarks.elsewhere --places local ray slurm --seeds 1 10   # 432 and 4,320 runs, whole commands
    python -m benchmarks.elsewhere --simulate 1000000 --workers 1000

Slurm is the one that sbatch reaches; `tests/launch/one_node_slurm.sh start DIR` starts one here. The load of the
machine stands beside every figure. The simulation makes the grid, its plan and its manifest, trains one piece of each
kind, gives its tables to all pieces under their own ids, merges them, and reads them: the training alone is left out.
"""

from __future__ import annotations

import argparse
import heapq
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pyarrow as pa
import torch

from gradlab.grid.cohorts import Piece, plan_of
from gradlab.grid.compose import compose_grid
from gradlab.launch.devices import CPU_MEMORY, Device
from gradlab.launch.events import Job
from gradlab.launch.manifest import drawn_up
from gradlab.launch.worker import run_job
from gradlab.spec.run import RunSpec
from gradlab.store import documents
from gradlab.store.folder import Folder, time_here
from gradlab.store.parts import Parts
from gradlab.store.pieces import TABLES, drop_pieces, lost, read_table, write_table
from gradlab.store.tables import merge

GRID = ("model.depth=2,3", "model.width=8", "train.steps=2", "probe.every=1")
"""Of the simulation: two cohorts, over as many seeds as are asked for."""

LOADED = "import sys, gradlab; frames = gradlab.load(sys.argv[1]); "
SOME = (
    'ids = frames.read("runs", ["run_id"])["run_id"][:1000]; rows = frames.read("layers", ["signal_grad_norm"], ids); '
    "assert ids.size == 1000 and rows.size"
)
SUM = (
    'batches = frames.dataset("layers").to_batches(columns=["signal_grad_norm"]); import pyarrow.compute as pc; '
    "assert sum(pc.sum(batch[0]).as_py() or 0 for batch in batches) > 0"
)

PLANNED = (
    "import sys; from pathlib import Path; from gradlab.launch.manifest import planned; "
    "from gradlab.store import documents; from gradlab.store.folder import Folder; folder = Folder(Path(sys.argv[1])); "
    "assert planned(folder, documents.read_manifest(folder.root), documents.read_runs(folder))"
)

READERS = {
    "resume: specs and plan": ("-c", PLANNED),
    "load": ("-c", LOADED),
    "load, a column of 1,000 runs": ("-c", LOADED + SOME),
    "load, the sum of a column": ("-c", LOADED + SUM),
    "report": ("-m", "gradlab", "report"),
}
"""What reads a finished result, by what is printed of it."""

T = TypeVar("T")


def overhead(places: Sequence[str], seeds: int, extra: Sequence[str], turns: int) -> None:
    """Whole commands over the reference grid, two pieces at a time everywhere, one place after the other."""
    took: dict[str, list[float]] = {place: [] for place in places}
    for _ in range(turns):
        for place in places:
            with TemporaryDirectory(prefix="gradlab-") as folder:
                line = [sys.executable, "-m", "gradlab", "sweep", "-e", "reference-grid", f"seed=range({seeds})"]
                line += [*extra, f"launch={place}", "launch.workers=2", "--no-report", "-q", "-o", f"{folder}/out"]
                load, began = os.getloadavg()[0], time.monotonic()
                subprocess.run(line, check=True)
                took[place].append(time.monotonic() - began)
            print(f"{432 * seeds:6,} runs  {place:6}  {took[place][-1]:7.1f} s  (load {load:.1f})", flush=True)
    first = statistics.median(took[places[0]])
    for place, times in took.items():
        middle = statistics.median(times)
        spread = f"{middle:7.1f} s ({min(times):.1f} to {max(times):.1f})"
        print(f"{432 * seeds:6,} runs  {place:6}  {spread}  x{middle / first:.2f}", flush=True)


def timed(what: str, work: Callable[[], T]) -> T:
    """Prints how long ``work`` takes, by the clock and of a processor, and the most memory that was ever needed."""
    load, began, computed = os.getloadavg()[0], time.monotonic(), time.process_time()
    found = work()
    took, busy = time.monotonic() - began, time.process_time() - computed
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:28} {took:7.1f} s, {busy:7.1f} s of a core; {most:5.2f} GiB so far (load {load:.1f})", flush=True)
    return found


def timed_apart(what: str, line: Sequence[str]) -> None:
    """`timed` of a process of its own: its processor time, and the most memory that it needed."""
    load, began, most = os.getloadavg()[0], time.monotonic(), 0.0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        # Not by its usage at the end, which has the memory of this process, too: it began as a copy of it.
        if high := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")):
            most = int(high[1]) / 2**20
        time.sleep(0.1)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took, busy = time.monotonic() - began, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    ended = "" if process.returncode == 0 else f", exit status {process.returncode}"
    print(f"{what:28} {took:7.1f} s, {busy:7.1f} s of a core; {most:5.2f} GiB (load {load:.1f}){ended}", flush=True)


def simulate(runs: int, workers: int) -> None:
    """Plan, manifest, tables and merging of so many runs, and what reads their tables."""
    with TemporaryDirectory(prefix="gradlab-") as name_of:
        folder = Folder(Path(name_of))
        grid = timed(f"grid of {runs:,} runs", lambda: compose_grid([*GRID, f"seed=range({runs // 2})"]))
        plan = timed("plan", lambda: plan_of(grid, CPU_MEMORY, 1))
        manifest = drawn_up(grid, plan, Device("cpu", "cpu", CPU_MEMORY, 1), ["simulated"], time_here(), workers)
        timed("grid.json", lambda: documents.write_inputs(folder, grid.base, grid.overrides, grid.runs))
        timed("manifest.json", lambda: documents.write_manifest(folder, manifest))
        timed("manifest.json, read", lambda: documents.read_manifest(folder.root))
        seconds = timed(f"tables of {len(plan.pieces):,} pieces", lambda: _filled(folder, plan.pieces, grid.runs))
        print(f"{workers} workers would train for {_makespan(plan.pieces, seconds, workers):,.0f} s")
        planned = {piece["index"]: piece["members"] for piece in manifest["pieces"]}
        assert not timed("looked through", lambda: lost(folder, planned))
        tables = timed("merged", lambda: merge(folder, sorted(planned)))
        drop_pieces(folder)
        documents.write_manifest(folder, {**manifest, "state": "done"})
        for name in TABLES:
            files = [part.file for part in Parts(folder.table(name), name).parts]
            size = sum(file.stat().st_size for file in files) / 2**20
            print(f"{name}: {tables.rows(name):,} rows in {len(files)} files, {size:,.0f} MiB")
        # What follows are commands of their own, with nothing in memory: the grid of this one stays behind.
        for what, words in READERS.items():
            timed_apart(what, [sys.executable, *words, name_of])


def _filled(folder: Folder, pieces: Sequence[Piece], runs: Sequence[RunSpec]) -> dict[tuple[int, int], float]:
    """Writes the tables of all pieces, one of each cohort and size trained; how many seconds that took."""
    trained: dict[tuple[int, int], tuple[float, dict[str, pa.Table], list[str]]] = {}
    for piece in pieces:
        kind = piece.cohort, len(piece.members)
        ids = [runs[place].id for place in piece.members]
        if kind not in trained:
            began = time.monotonic()
            job = Job(piece, tuple(runs[place] for place in piece.members), folder.root)
            with redirect_stdout(StringIO()):
                run_job(job, torch.device("cpu"), lambda _event: None)
            tables = {name: read_table(folder.piece(piece.index, name), name) for name in TABLES}
            trained[kind] = time.monotonic() - began, tables, ids
            continue
        _, tables, before = trained[kind]
        named = dict(zip(before, ids, strict=True))
        for name, table in tables.items():
            column = pa.array(
                [named[run_id] for run_id in table["run_id"].to_pylist()], table.schema.field("run_id").type
            )
            write_table(folder.piece(piece.index, name), name, table.set_column(0, "run_id", column))
    return {kind: seconds for kind, (seconds, _, _) in trained.items()}


def _makespan(pieces: Sequence[Piece], seconds: dict[tuple[int, int], float], workers: int) -> float:
    loads = [0.0] * workers
    for piece in pieces:
        heapq.heapreplace(loads, loads[0] + seconds[piece.cohort, len(piece.members)])
    return max(loads)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", nargs="*", default=[])
    parser.add_argument("--turns", type=int, default=1, help="of each place; their median is compared")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--simulate", type=int, default=0, metavar="RUNS")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--overrides", nargs="*", default=[], help="such as train.steps=50")
    asked = parser.parse_args()
    for count in asked.seeds if asked.places else ():
        overhead(asked.places, count, asked.overrides, asked.turns)
    if asked.simulate:
        simulate(asked.simulate, asked.workers)
