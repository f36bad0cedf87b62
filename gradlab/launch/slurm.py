"""Pieces as a job array of Slurm, handed over by submitit: the command may leave, and a later one follows its jobs.

What is needed to follow them lies in the folder: `slurm/jobs.json` says which task of which array has which pieces, and
is written before anything is handed over; beside the tables of a piece stands what its job says of it, a line an event.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gradlab.grid.launching import Launch
from gradlab.launch.devices import WORKER_MEMORY, Device
from gradlab.launch.events import ENDS, DetachedError, Event, Job, bury, halved
from gradlab.launch.interrupts import SIGHUP_STATUS, STOPPING, held, status
from gradlab.launch.places import planned_for
from gradlab.launch.slurm_job import said_by, train_pieces
from gradlab.launch.speed import USUAL
from gradlab.spec.named import SpecError
from gradlab.store import atomic
from gradlab.store.folder import Folder
from gradlab.store.pieces import lost

if TYPE_CHECKING:
    from gradlab.grid.cohorts import Piece

AT_ONCE = 64
"""Jobs at a time unless `launch.workers` says otherwise."""

MOST_JOBS = 1000
"""Of an array, where the cluster does not say how many it takes."""

JOB_SECONDS = 60.0
"""Of work that a job has at least, as it is predicted: small pieces share one, since each imports PyTorch anew."""

WARNING_SECONDS = 90
"""Before its time limit a job is told, keeps what it has, and queues again."""

HOST_MEMORY = 8 * 2**30
"""Bytes beside a GPU."""

LOOK_SECONDS, ASK_SECONDS = 0.5, 15.0
"""Between two looks at what jobs say, and at most between two questions to Slurm."""

STOP_SECONDS = 45.0
"""How long cancelled jobs may take to keep what they have: Slurm gives them 30 by default."""

AGAIN = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "DEADLINE", "COMPLETED")
"""States of a job after which its pieces are handed over again; completed without them, it could not queue again."""


KILLED = ("137:0", "0:9")
"""Exit codes of a job that somebody killed without a word, as a system does that is out of memory."""

EPILOGUE = "srun: Force Terminated"
"""What a log ends with behind the reason."""


@dataclass(frozen=True)
class Array:
    """A job array under a name that no other has: the pieces of each of its tasks."""

    name: str
    pieces: tuple[tuple[int, ...], ...]


@dataclass
class Crew:
    """Jobs of a Slurm cluster; ``open`` are the pieces that they still have, each with its array and task."""

    device: Device
    launch: Launch
    detach: bool = False
    here: bool = False
    count: int = 0
    open: dict[int, tuple[str, int]] = field(default_factory=dict)
    leaving: bool = False

    @property
    def there(self) -> int:
        """As many jobs as run at once."""
        return self.count

    def at_once(self, asked: int | None, pieces: Sequence[Piece]) -> tuple[int, str | None]:
        """As many as were asked for, or `AT_ONCE`. Raises `SpecError` where the cluster refuses such a job."""
        if pieces:
            flags = [f"--{key.replace('_', '-')}={value}" for key, value in self._wanted(pieces).items()]
            done = _slurm("sbatch", "--test-only", *flags, "--wrap", "true")
            if done.returncode:
                raise SpecError(f"launch=slurm: the cluster refuses such a job: {_last_line(done.stderr)}")
        return asked or AT_ONCE, None

    def fit(self, count: int) -> None:
        """Nothing is started in advance; with 0 the jobs are cancelled, unless the terminal is only gone."""
        self.count = count
        stopped = sys.exception()
        hung_up = isinstance(stopped, KeyboardInterrupt) and status(stopped) == SIGHUP_STATUS
        if count or not self.open or self.leaving or hung_up:
            return
        names = sorted({name for name, _ in self.open.values()})
        with held(*STOPPING, signal.SIGALRM):
            for name in names:
                _slurm("scancel", "-u", str(os.getuid()), "-n", name)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline and _live(names):
                time.sleep(LOOK_SECONDS)
        self.open.clear()

    def run(self, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
        """Runs ``jobs``: those that an earlier command handed over are followed, the others handed over."""
        jobs = [replace(job, folder=job.folder.resolve()) for job in jobs]
        by_index = {job.piece.index: job for job in jobs}
        folder = Folder(jobs[0].folder)
        places = {index: place for place, indices in _alive(folder).items() for index in indices if index in by_index}
        self.open |= places
        if places:
            names = ", ".join(sorted({name for name, _ in places.values()}))
            yield Event("told", -1, details=f"At work already: {_jobs(len(set(places.values())))} of {names}.")
        fresh = list[Job]()
        for job in jobs:
            if job.piece.index in places:
                continue
            if (ended := _ended_well(folder, job)) is None:
                fresh.append(job)
            else:
                yield ended
        if fresh:
            yield self._hand_over(folder, fresh)
        if self.detach and self.open:
            self.leaving = True
            names = ",".join(sorted({name for name, _ in self.open.values()}))
            raise DetachedError(
                f"The jobs go on without this command (squeue -n {names}).\n"
                f"Follow them with: gradlab sweep --resume {jobs[0].folder}\nEnd them with: scancel -n {names}"
            )
        for event in self._follow(folder, by_index):
            yield event
            if fail_fast and event.kind == "failed":
                return
        folder.jobs.unlink(missing_ok=True)

    def _follow(self, folder: Folder, by_index: Mapping[int, Job]) -> Iterator[Event]:
        """What the jobs say, until each has ended; what Slurm says of those that have gone without a word."""
        read, begun, tries = dict[int, int](), set[int](), dict[int, int]()
        missing = set[tuple[str, int]]()
        asked, pause = time.monotonic(), LOOK_SECONDS
        while self.open:
            time.sleep(LOOK_SECONDS)
            yield from self._heard(folder, read, begun)
            if time.monotonic() - asked < pause:
                continue
            asked, pause = time.monotonic(), min(ASK_SECONDS, 1.5 * pause)
            live = _live(sorted({name for name, _ in self.open.values()}))
            if live is None:
                # The controller does not answer now: its jobs go on.
                continue
            gone = {place for place in self.open.values() if place not in live}
            # Twice, so that what a job said last has arrived on a slow file system.
            for place in gone & missing:
                pieces = [index for index, at in self.open.items() if at == place]
                for index in pieces:
                    read.pop(index, None)
                yield from self._ended(folder, place, [by_index[index] for index in pieces], begun, tries)
            missing = gone

    def _heard(self, folder: Folder, read: dict[int, int], begun: set[int]) -> Iterator[Event]:
        """What was said since, of each open piece from the byte on that is ``read``; that one has begun, once."""
        for index in list(self.open):
            events, read[index] = said_by(folder, index, read.get(index, 0))
            for event in events:
                if event.kind == "started" and index in begun:
                    continue
                begun.add(index)
                if event.kind in ENDS:
                    del self.open[index]
                yield event

    def _ended(
        self, folder: Folder, place: tuple[str, int], jobs: Sequence[Job], begun: set[int], tries: dict[int, int]
    ) -> Iterator[Event]:
        """What becomes of the ``jobs`` of a task that is gone: the first that had begun is what it was at."""
        for job in jobs:
            del self.open[job.piece.index]
        state, why = _end_of(folder, *place)
        again = list[Job]()
        reached = next((job for job in jobs if job.piece.index in begun), None)
        # A piece that ends its job, as at home its worker, takes no other with it; a job that ends before it has begun
        # any would do so again.
        others = state == "OUT_OF_MEMORY" or (state == "FAILED" and reached is not None)
        for job in jobs:
            index = job.piece.index
            at_it = job is (reached or jobs[0])
            chunks = halved(job.piece.chunks) if at_it and state == "OUT_OF_MEMORY" else None
            tries[index] = tries.get(index, 0) + at_it
            if chunks:
                again.append(replace(job, piece=replace(job.piece, chunks=chunks)))
                yield Event("halved", index, chunks=chunks)
            elif (state in AGAIN or (others and not at_it)) and tries[index] <= self.launch.retries:
                again.append(job)
            else:
                yield bury(job, why)
        if again:
            yield Event("told", -1, details=f"{why}: {len(again)} of its pieces are handed over again.")
            yield self._hand_over(folder, again)

    def _hand_over(self, folder: Folder, jobs: Sequence[Job]) -> Event:
        """Submits a job array, whose tasks have the pieces of ``jobs``."""
        import submitit

        label = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.root.name)[:40]
        tasks = packed(jobs, _most_jobs())
        array = Array(f"gradlab-{label}-{uuid.uuid4().hex[:8]}", tuple(_indices(task) for task in tasks))
        for job in jobs:
            # What an earlier attempt left: its word would be taken for this one's.
            folder.said(job.piece.index).unlink(missing_ok=True)
            folder.piece(job.piece.index, "runs").unlink(missing_ok=True)
        folder.jobs.parent.mkdir(exist_ok=True)
        arrays = [*_arrays(folder), array]
        atomic.replace(folder.jobs, lambda path: path.write_text(json.dumps([asdict(one) for one in arrays])))
        executor = submitit.SlurmExecutor(folder=folder.jobs.parent)
        executor.update_parameters(
            job_name=array.name,
            array_parallelism=self.count or AT_ONCE,
            setup=[self.launch.setup] if self.launch.setup else None,
            signal_delay_s=WARNING_SECONDS,
            stderr_to_stdout=True,
            wckey=None,
            additional_parameters={"requeue": True},
            **{"time": None, **self._wanted([job.piece for job in jobs])},
        )
        try:
            handed = executor.map_array(train_pieces, tasks, [self.device.name] * len(tasks))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            raise OSError(0, f"Slurm took no jobs: {_last_line(str(error))}") from error
        self.open |= {index: (array.name, task) for task, indices in enumerate(array.pieces) for index in indices}
        number = handed[0].job_id.partition("_")[0]
        most = self.count or AT_ONCE
        bound = f", at most {most} at once" if most < len(tasks) else ""
        told = f"Slurm job {number}, {_jobs(len(tasks))}{bound}: {array.name}; logs in {folder.jobs.parent}"
        return Event("told", -1, details=told)

    def _wanted(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """What a job for any of ``pieces`` asks of Slurm, in words of sbatch."""
        launch, largest = self.launch, max(piece.memory for piece in pieces)
        memory = 2 * WORKER_MEMORY + largest * 5 // 4 if self.device.is_cpu else HOST_MEMORY
        asked = {key: getattr(launch, key) for key in ("partition", "account", "qos", "constraint", "time")}
        gpus = {"gpus_per_node": int(launch.gpus)} if launch.gpus else {}
        given = {"cpus_per_task": max(piece.threads for piece in pieces), "mem": f"{memory >> 20}M", **gpus, **asked}
        return {key: value for key, value in given.items() if value is not None}


@contextmanager
def crew_of(launch: Launch) -> Iterator[Crew]:
    """Jobs of the cluster that this machine can submit to. Raises `SpecError` where it can to none."""
    if shutil.which("sbatch") is None:
        raise SpecError("launch=slurm: there is no sbatch here; expected a machine that submits to a Slurm cluster")
    yield Crew(planned_for(launch), launch)


def _ended_well(folder: Folder, job: Job) -> Event | None:
    """What an earlier job said at the end of a piece that is whole."""
    said, _ = said_by(folder, job.piece.index)
    whole = said and said[-1].kind == "finished" and not lost(folder, {job.piece.index: [run.id for run in job.runs]})
    return said[-1] if whole else None


def packed(jobs: Sequence[Job], most: int) -> list[list[Job]]:
    """The jobs of each task, at most so many tasks: of `JOB_SECONDS` at least, and as even as they can be."""
    work = sum(job.piece.effort / job.piece.threads for job in jobs) / USUAL
    count = max(1, min(len(jobs), most, int(work / JOB_SECONDS) if JOB_SECONDS else len(jobs)))
    tasks: list[list[Job]] = [[] for _ in range(count)]
    loads = [(0.0, number) for number in range(count)]
    for job in sorted(jobs, key=lambda job: -job.piece.effort):
        load, number = loads[0]
        tasks[number].append(job)
        heapq.heapreplace(loads, (load + job.piece.effort, number))
    return tasks


def at_work(folder: Folder) -> list[str]:
    """The names of job arrays that are still queued or at work for a folder."""
    return sorted({name for name, _ in _alive(folder)}) if shutil.which("squeue") else []


def _alive(folder: Folder) -> dict[tuple[str, int], tuple[int, ...]]:
    """The tasks, by array and number, that are queued or at work, with their pieces."""
    arrays = _arrays(folder)
    live = _live([array.name for array in arrays])
    if live is None:
        raise SpecError(f"{folder.root}: its jobs are Slurm's, which does not answer (squeue)")
    tasks = {(array.name, task): pieces for array in arrays for task, pieces in enumerate(array.pieces)}
    return {place: pieces for place, pieces in tasks.items() if place in live}


def _arrays(folder: Folder) -> list[Array]:
    if not folder.jobs.is_file():
        return []
    try:
        told = json.loads(folder.jobs.read_text(encoding="utf-8"))
        arrays = [Array(str(one["name"]), tuple(tuple(map(int, task)) for task in one["pieces"])) for one in told]
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(f"{folder.jobs}: cannot be read as the jobs of Slurm: {error}") from error
    if not all(re.fullmatch(r"gradlab-[A-Za-z0-9._-]+", array.name) for array in arrays):
        raise SpecError(f"{folder.jobs}: expected names of jobs that begin with gradlab-")
    return arrays


def _live(names: Sequence[str]) -> set[tuple[str, int]] | None:
    """The tasks of these arrays that Slurm has queued or at work; None where it does not answer."""
    if not names:
        return set()
    done = _slurm("squeue", "-h", "-r", "-u", str(os.getuid()), "-n", ",".join(names), "-o", "%j|%K")
    if done.returncode:
        return None
    lines = [line.rpartition("|") for line in done.stdout.split("\n") if line]
    # A job that is no array has no number of a task.
    return {(name.strip(), int(task) if task.isdecimal() else 0) for name, _, task in lines}


def _end_of(folder: Folder, name: str, task: int) -> tuple[str, str]:
    """How a job ended: Slurm's word for its state, and a sentence with the reason and the last line of its log."""
    logs = sorted(folder.jobs.parent.glob("*_log.out"), key=lambda path: path.stat().st_mtime)
    shown = _slurm("scontrol", "show", "job", "-o").stdout
    found = dict[str, str]()
    for line in shown.splitlines():
        job = dict(re.findall(r"(\w+)=(\S+)", line))
        if job.get("JobName") == name and job.get("ArrayTaskId", "0") == str(task):
            found = job
    if not found and shutil.which("sacct"):
        fields = ("JobID", "State", "ExitCode")
        shown = _slurm("sacct", "-n", "-X", "-P", "--name", name, "-o", ",".join(fields)).stdout
        rows = [row.split("|") for row in shown.splitlines()]
        mine = [row for row in rows if len(row) == len(fields) and row[0].rpartition("_")[2] in (str(task), row[0])]
        found = {"JobId": mine[-1][0], "JobState": mine[-1][1].split()[0], "ExitCode": mine[-1][2]} if mine else {}
    state, number = found.get("JobState", "gone"), found.get("ArrayJobId", found.get("JobId", "?"))
    log = next((path for path in reversed(logs) if re.match(rf"{number}(_{task})?_", path.name)), None)
    told = [f"Slurm job {number}_{task} {state}"]
    if found.get("Reason", "None") != "None":
        told.append(f"reason {found['Reason']}")
    if found.get("ExitCode", "0:0") != "0:0":
        killed = " (killed: out of memory?)" if found["ExitCode"] in KILLED else ""
        told.append(f"exit code {found['ExitCode']}{killed}")
    last = _last_line(log.read_text(encoding="utf-8", errors="replace")) if log else ""
    return state, ", ".join(told) + (f"; its log ends: {last}" if last else "")


def _most_jobs() -> int:
    """The tasks that an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config").stdout)
    return max(1, int(found[1])) if found else MOST_JOBS


def _slurm(*line: str) -> subprocess.CompletedProcess[str]:
    # The user's own squeue format would change what is read here.
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SACCT_FORMAT"))}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=own, stdin=subprocess.DEVNULL)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(EPILOGUE)]
    return lines[-1][:300] if lines else ""


def _indices(task: Sequence[Job]) -> tuple[int, ...]:
    return tuple(job.piece.index for job in task)


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"
