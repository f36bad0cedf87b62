"""Pieces on this machine: a few processes, each with its own torch, fed one piece at a time, on a GPU several.

The largest come first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from gradlab.launch.devices import Device, workers_on
from gradlab.launch.events import ENDS, Event, Job, bury
from gradlab.launch.interrupts import STOPPING, held

if TYPE_CHECKING:
    from gradlab.grid.cohorts import Piece

EARLY = 4
"""Workers that are started before it is known how many there is work for."""

STOP_SECONDS = 1.0
"""How long a worker may take to end before it is killed, for each piece that it has to keep."""


@dataclass
class Worker:
    """A process, our end of its pipe, and the jobs that it has, by their pieces."""

    process: SpawnProcess
    pipe: Connection
    jobs: dict[int, Job] = field(default_factory=dict)


@dataclass
class Crew:
    """Workers on one device, each of which trains so many pieces by turns on a GPU (``streams``; None: by default)."""

    device: Device
    workers: list[Worker] = field(default_factory=list)
    here: bool = True
    streams: int | None = None

    @property
    def there(self) -> int:
        """Workers that are started."""
        return len(self.workers)

    def at_once(self, asked: int | None, pieces: Sequence[Piece]) -> tuple[int, str | None]:
        """As many as there are cores and memory for."""
        return workers_on(self.device, asked, max((piece.memory for piece in pieces), default=0))

    def fit(self, count: int) -> None:
        """Starts or ends workers until there are ``count``.

        They are ended without a word: an idle one has nothing to lose, and tables are renamed into their places whole.
        """
        while len(self.workers) < count:
            self.workers.append(_start(self.device.name))
        with held(*STOPPING, signal.SIGALRM):
            leaving = self.workers[count:]
            for worker in leaving:
                worker.process.terminate()
            deadline = time.monotonic() + STOP_SECONDS * max((len(worker.jobs) for worker in leaving), default=1)
            for worker in leaving:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
                worker.pipe.close()
            del self.workers[count:]

    def run(self, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
        """Runs ``jobs`` and yields what is said of them, as it is said.

        A worker that dies takes its piece with it, whose runs are recorded as failed, and is replaced; of several
        pieces, each is tried again alone. With ``fail_fast`` nothing is heard after the first failure.
        """
        waiting, alone = list(reversed(jobs)), set[int]()
        while waiting or any(worker.jobs for worker in self.workers):
            while waiting and (worker := self._next_for(waiting[-1], alone)) is not None:
                if _tell(worker, waiting[-1]):
                    yield Event("started", waiting.pop().piece.index)
                elif worker.jobs:
                    break  # It is dead, and is heard to be so below.
                else:
                    _replace(self, worker)
            for worker in _speaking(self.workers):
                event = _heard(worker)
                if event is None and len(worker.jobs) > 1:
                    alone.update(worker.jobs)
                    waiting[:0] = worker.jobs.values()
                    worker.jobs.clear()
                    continue
                event = event or _bury(worker)
                if event.kind in ENDS:
                    del worker.jobs[event.piece]
                yield event
                if fail_fast and event.kind == "failed":
                    return

    def _next_for(self, job: Job, alone: Container[int] = ()) -> Worker | None:
        """The worker with the fewest jobs, if it may have this one beside them.

        An idle one takes whatever comes. Beside others a job must find memory for all; and a network of the user's own,
        whose code may leave a process or a card in disorder, is never beside others, as are pieces that go ``alone``.
        """
        worker = min(self.workers, key=lambda one: len(one.jobs))
        others = [other for one in self.workers for other in one.jobs.values()]
        if not worker.jobs:
            return worker
        most = 1 if self.device.is_cpu else self.streams or self.device.streams
        together = (job, *worker.jobs.values())
        if len(worker.jobs) >= most or any(one.runs[0].model.free or one.piece.index in alone for one in together):
            return None
        return worker if sum(map(_memory, (job, *others))) <= self.device.room else None


@contextmanager
def crew_of(count: int, device: Device) -> Iterator[Crew]:
    """Starts ``count`` workers, which import torch while the caller goes on, and ends them whatever happens."""
    crew = Crew(device)
    try:
        crew.fit(count)
        yield crew
    finally:
        crew.fit(0)


def _start(device: str) -> Worker:
    context = multiprocessing.get_context("spawn")
    # Otherwise the first start would start the tracker, and with it lift the mask that the worker is to inherit.
    resource_tracker.ensure_running()
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, device), daemon=True)
    # The command alone decides what an interrupt means.
    with held(signal.SIGINT):
        process.start()
    theirs.close()
    return Worker(process, ours)


def _serve(connection: Connection, device: str) -> None:
    # Where the system has no thread left, the end of the pipe says that the parent is gone: a piece later.
    with suppress(RuntimeError):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    from gradlab.launch.worker import serve

    serve(connection, device)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone, however long the step that it is in."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tell(worker: Worker, job: Job) -> bool:
    """Whether the worker is there to be told."""
    try:
        worker.pipe.send(job)
    except (BrokenPipeError, ConnectionResetError):
        return False
    worker.jobs[job.piece.index] = job
    return True


def _memory(job: Job) -> int:
    """Bytes of a piece on a GPU, with its copy of the data."""
    facts = job.runs[0].facts
    return job.piece.memory + 8 * (facts.train + facts.heldout) * (facts.inputs + 1)


def _speaking(crew: Sequence[Worker]) -> list[Worker]:
    busy = {worker.pipe: worker for worker in crew if worker.jobs}
    return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)] if busy else []


def _replace(crew: Crew, worker: Worker) -> None:
    worker.pipe.close()
    crew.workers[crew.workers.index(worker)] = _start(crew.device.name)


def _heard(worker: Worker) -> Event | None:
    """What a worker says; None of a dead one."""
    try:
        event: Event = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        return None
    return event


def _bury(worker: Worker) -> Event:
    """Records that the runs of a dead worker failed."""
    (job,) = worker.jobs.values()
    worker.process.join()
    return bury(job, f"the worker process was ended: {_how(worker.process.exitcode)}")


def _how(code: int | None) -> str:
    """The exit code of a process in words.

    >>> _how(-9), _how(1)
    ('SIGKILL (out of memory?)', 'exit code 1')
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"{signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
