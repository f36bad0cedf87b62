"""Pieces on this machine: a few processes, each with its own torch, fed one piece at a time, largest first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from gradlab.launch.devices import Device
from gradlab.launch.events import Event, Job
from gradlab.launch.interrupts import STOPPING

EARLY = 4
"""Workers that are started before it is known how many there is work for."""

STOP_SECONDS = 1.0
"""How long a worker may take to end before it is killed."""


@dataclass
class Worker:
    """A process, our end of its pipe, and the job that it has."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


@dataclass
class Crew:
    """Workers on one device."""

    device: Device
    workers: list[Worker] = field(default_factory=list)


@contextmanager
def crew_of(count: int, device: Device) -> Iterator[Crew]:
    """Starts ``count`` workers, which import torch while the caller goes on, and ends them whatever happens."""
    crew = Crew(device)
    try:
        fit(crew, count)
        yield crew
    finally:
        fit(crew, 0)


def fit(crew: Crew, count: int) -> None:
    """Starts or ends workers until there are ``count``.

    They are ended without a word: an idle one has nothing to lose, and tables are renamed into their places whole.
    """
    while len(crew.workers) < count:
        crew.workers.append(_start(crew.device.name))
    with _held(*STOPPING, signal.SIGALRM):
        leaving = crew.workers[count:]
        for worker in leaving:
            worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in leaving:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        del crew.workers[count:]


@contextmanager
def _held(*signals: signal.Signals) -> Iterator[None]:
    """These signals wait until the block is left; processes that are started in it never hear of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(device: str) -> Worker:
    context = multiprocessing.get_context("spawn")
    # Otherwise the first start would start the tracker, and with it lift the mask that the worker is to inherit.
    resource_tracker.ensure_running()
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, device), daemon=True)
    # The command alone decides what an interrupt means.
    with _held(signal.SIGINT):
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
    worker.job = job
    return True


def run_jobs(crew: Crew, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
    """Runs ``jobs`` on the crew and yields what is said of them, as it is said.

    A worker that dies takes its piece with it, whose runs are recorded as failed, and is replaced. With ``fail_fast``
    nothing is heard after the first failure.
    """
    waiting = list(reversed(jobs))
    while waiting or any(worker.job for worker in crew.workers):
        for worker in [idle for idle in crew.workers if idle.job is None][: len(waiting)]:
            if _tell(worker, waiting[-1]):
                yield Event("started", waiting.pop().piece.index)
            else:
                _replace(crew, worker)
        for worker in _speaking(crew.workers):
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                event = _bury(worker)
            if event.kind in ("finished", "failed", "unwritable"):
                worker.job = None
            yield event
            if fail_fast and event.kind == "failed":
                return


def _speaking(crew: Sequence[Worker]) -> list[Worker]:
    busy = {worker.pipe: worker for worker in crew if worker.job is not None}
    return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)] if busy else []


def _replace(crew: Crew, worker: Worker) -> None:
    worker.pipe.close()
    crew.workers[crew.workers.index(worker)] = _start(crew.device.name)


def _bury(worker: Worker) -> Event:
    """Records that the runs of a dead worker failed."""
    # Arrow, which these import, is not needed before workers are started.
    from gradlab.store.folder import Folder
    from gradlab.store.pieces import save_piece
    from gradlab.store.record import failed_tables

    job = worker.job
    if job is None:
        raise RuntimeError("a worker without a job was heard")
    worker.process.join()
    error = f"the worker process was ended: {_how(worker.process.exitcode)}"
    save_piece(Folder(job.folder), job.piece.index, failed_tables(job.runs, error))
    return Event("failed", job.piece.index, 1.0, failed=len(job.runs), error=error)


def _how(code: int | None) -> str:
    """The exit code of a process in words.

    >>> _how(-9), _how(1)
    ('SIGKILL (out of memory?)', 'exit code 1')
    """
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"{signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
