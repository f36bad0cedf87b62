"""A worker: a process that trains the pieces it is sent, on a GPU several by turns, and writes their tables.

Imports torch, so `local` starts it in a process of its own and never imports it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.abc import MetaPathFinder
from multiprocessing.connection import Connection

import torch

from gradlab.data.dataset import Dataset
from gradlab.data.loaders import load
from gradlab.engine.plugins import install
from gradlab.engine.train import to_its_end, training
from gradlab.launch.events import Event, Job
from gradlab.launch.keeping import UnwritableError, keeper_of, writing
from gradlab.launch.turns import ALONE, Turns, Wish, Work
from gradlab.spec.run import DataSpec, RunSpec
from gradlab.store.folder import Folder
from gradlab.store.pieces import save_piece
from gradlab.store.record import Tables, failed_tables, joined, tidy

LONG = 1e11
"""The effort of a piece after which a few milliseconds for memory do not count."""

OF_MEMORY = ("CUDA error: out of memory", "ALLOC_FAILED")
"""What the libraries of a GPU say where torch itself did not ask for the memory."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""


def keep_memory() -> None:
    """Tells glibc's allocator to keep freed memory for the next step instead of handing it back to the system.

    A step allocates and frees the same tensors as the one before; asking the system for their pages each time can take
    longer than the arithmetic on them. Elsewhere than on glibc nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)


def give_memory_back(device: torch.device) -> None:
    """Hands what is free back to the system: pieces of different shapes leave gaps that only grow.

    On a GPU others may take it then.
    """
    if device.type == "cuda":
        # What a piece has left in a cycle of references holds its tensors, and its graphs their pool.
        gc.collect()
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class WithoutPandas(MetaPathFinder):
    """Says that there is no pandas: Arrow would import it, for a third of a second, to see that no array is its own."""

    def find_spec(self, name: str, *_: object) -> None:
        """Raises `ModuleNotFoundError` for pandas; anything else is left to the finders behind."""
        if name == "pandas":
            raise ModuleNotFoundError("a worker does without pandas", name=name)


def serve(connection: Connection, device: str) -> None:
    """Trains what arrives, until the other end is gone."""
    keep_memory()
    here, without = torch.device(device), WithoutPandas()
    sys.meta_path.insert(0, without)
    turns, sent = Turns(here), list[Job]()

    def hear() -> None:
        while here.type == "cuda" and connection.poll():
            sent.append(connection.recv())

    def say(event: Event) -> None:
        # First it hears: else both ends could wait for the other to read.
        with suppress(EOFError):
            hear()
        connection.send(event)

    def work(job: Job) -> Work:
        if without in sys.meta_path and any(map(_is_own, job.runs)):
            # What is the user's own may import it.
            sys.meta_path.remove(without)
        torch.set_num_threads(job.piece.threads)
        yield from running(job, here, say, told, lambda: turns.shared)
        if job.piece.effort > LONG:
            give_memory_back(here)

    try:
        while True:
            sent.append(connection.recv())
            with _heeding() as told:
                while turns or (sent and not told):
                    hear()
                    while sent and not told:
                        turns.begin(work(sent.pop(0)))
                    turns.round()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _is_own(run: RunSpec) -> bool:
    return any((run.model.target, run.data.path, run.data.target))


@contextmanager
def _heeding() -> Iterator[list[int]]:
    """Within it SIGTERM ends this process after the steps at hand, when what there is has been written."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if told:
        os.kill(os.getpid(), signal.SIGTERM)


def take(device: torch.device) -> None:
    """Makes a GPU this process's own, which touches no other, and its numbers those of a processor.

    So products and convolutions are not rounded to TF32, and convolutions are done in the same way every time.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True


def run_job(job: Job, device: torch.device, say: Callable[[Event], None], told: Sequence[int] = ()) -> None:
    """Trains one piece and writes its tables, see `running`."""
    to_its_end(running(job, device, say, told))


def running(
    job: Job,
    device: torch.device,
    say: Callable[[Event], None],
    told: Sequence[int] = (),
    shared: Callable[[], bool] = lambda: False,
) -> Work:
    """Trains one piece and writes its tables; what is ``told`` meanwhile ends it in the middle, see `keeping`.

    Comes back in each window of steps, and before what keeps the host for long, see `turns`; ``shared`` says whether
    others are at work on the device then.
    Runs that crash are recorded as failed, with the error, and do not end the worker. A chunk that does not fit the
    device's memory, or in which a run crashes, is halved and tried again: a crash costs the run that it is of.
    """
    index = job.piece.index
    take(device)
    try:
        whole, crash = yield from _trained(job, device, say, told, shared)
        yield None
        with writing():
            save_piece(Folder(job.folder), index, whole)
    except UnwritableError as unwritable:
        say(Event("unwritable", index, 1.0, error=f"tables cannot be written: {unwritable.strerror}"))
        return
    states = whole.runs["state"].to_pylist()
    diverged, failed = states.count("diverged"), states.count("failed")
    # Of a piece that will be tried again, what has been trained is not trained anew.
    for left in Folder(job.folder).checkpoints(index) if not failed else ():
        left.unlink(missing_ok=True)
    kind = "failed" if failed else "finished"
    say(
        Event(
            kind,
            index,
            1.0,
            diverged,
            failed,
            error=crash.error if crash else None,
            details=crash.details if crash else "",
        )
    )


def _trained(
    job: Job, device: torch.device, say: Callable[[Event], None], told: Sequence[int], shared: Callable[[], bool]
) -> Generator[Wish, None, tuple[Tables, Crash | None]]:
    """The tables of all runs of a piece, and the last crash of a run, if there was one."""
    chunks, done = list(job.piece.chunks), list[Tables]()
    last = None
    while len(done) < len(chunks):
        number, start = len(done), sum(chunks[: len(done)])
        runs = job.runs[start : start + chunks[number]]
        part = replace(job, piece=replace(job.piece, chunks=tuple(chunks)))
        outcome = yield from attempt(part, runs, start, device, say, told)
        if isinstance(outcome, Tables):
            done.append(outcome)
        elif outcome.of_memory and shared():
            # It may be the others who have it: before anything is halved, it is tried without them.
            give_memory_back(device)
            yield ALONE
        elif outcome.divisible and len(runs) > 1:
            chunks[number : number + 1] = [len(runs) - len(runs) // 2, len(runs) // 2]
            give_memory_back(device)
            say(Event("halved", job.piece.index, chunks=tuple(chunks)))
        else:
            last = outcome
            done.append(failed_tables(runs, outcome.error))
    return joined(done), last


@dataclass(frozen=True)
class Crash:
    """Why a chunk did not come to its end; ``divisible`` where half of its runs may come further.

    ``of_memory``: there was too little of it.
    """

    error: str
    details: str
    divisible: bool
    of_memory: bool = False


def attempt(
    job: Job,
    runs: Sequence[RunSpec],
    before: int,
    device: torch.device,
    say: Callable[[Event], None],
    told: Sequence[int] = (),
) -> Generator[Wish, None, Tables | Crash]:
    """Trains ``runs``, ``before`` of whose piece are done already. A crash is a result, for the caller to record."""

    def progress(share: float, diverged: int) -> None:
        say(Event("progress", job.piece.index, (before + share * len(runs)) / len(job.runs), diverged))

    data = None
    try:
        if job.plugins:
            # What the user's own code imports is its own affair.
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, WithoutPandas)]
            install(job.plugins)
        data = _data(runs[0].data)
        keeper = keeper_of(job, before, runs, device, told)
        record = yield from training(runs, data, device, progress, keeper, stacked=job.piece.stacked)
        yield None
        return tidy(record, job.limits)
    except (BrokenPipeError, ConnectionResetError, UnwritableError):
        raise
    except Exception as crash:  # noqa: BLE001 - whatever it is, it is recorded, and the other pieces go on
        first = str(crash).partition("\n")[0]
        # Data that cannot be had are missed by every run alike.
        of_memory = isinstance(crash, torch.OutOfMemoryError) or any(word in str(crash) for word in OF_MEMORY)
        return Crash(f"{type(crash).__name__}: {first}", traceback.format_exc(), data is not None, of_memory)


def _data(spec: DataSpec) -> Dataset:
    """The data of ``spec``, kept for the next piece: what does not change the content is no part of the cache's key."""
    return _load(replace(spec, batch_size=1, seed=0, input_scale=1.0, target_scale=1.0))


@lru_cache(maxsize=2)
def _load(spec: DataSpec) -> Dataset:
    return load(spec)
