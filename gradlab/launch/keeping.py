"""A piece that is kept while it trains, so that an interrupted sweep goes on in the middle of it.

What is kept lies beside the tables of the pieces, one file for each part of a piece that trains together, and goes with
them. It is used by the same runs on the same torch, kernels and kind of device alone: tables are those of a sweep that
nobody interrupted, bit for bit, or the part is trained from its beginning.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

import gradlab
from gradlab.engine.keeper import Keeper
from gradlab.engine.precision import FORMATS
from gradlab.launch.events import Job
from gradlab.nn.kernels.calls import serves
from gradlab.nn.kernels.compiler import library, on_a_gpu
from gradlab.spec.run import RunSpec
from gradlab.store.arrays import Kept, read_arrays, write_arrays
from gradlab.store.folder import Folder
from gradlab.store.weights import FROM_WEIGHTS, save_weights

SECONDS = 60.0
"""Between two writings, at least."""

SHARE = 0.01
"""Of the time, at most, that writing takes: what took long is not done again so soon."""


class ToldToStop(BaseException):
    """A worker was told to end, and what it had is written."""


class UnwritableError(OSError):
    """What a training leaves cannot be written: a full disk, a folder that is gone."""


@contextmanager
def writing() -> Iterator[None]:
    """Within it what the system refuses is no crash of a run: it raises `UnwritableError`."""
    try:
        yield
    except OSError as error:
        raise UnwritableError(error.errno, error.strerror) from error


def keeper_of(job: Job, start: int, runs: Sequence[RunSpec], device: torch.device, told: Sequence[int]) -> Keeper:
    """Keeps the part of a piece that begins at its run ``start``; ``told`` holds a signal as soon as one has come."""
    folder = Folder(job.folder)
    path = folder.checkpoint(job.piece.index, start)
    ids = [run.id for run in runs]
    made_by = surroundings(runs[0].train.precision, device)
    due = time.monotonic() + SECONDS

    def load() -> Kept | None:
        kept = read_arrays(path)
        if kept is None or kept.facts.get("runs") != ids or kept.facts.get("made_by") not in (made_by, FROM_WEIGHTS):
            return None
        return kept

    def wanted(_t: int) -> bool:
        return time.monotonic() >= due or bool(told)

    def save(kept: Kept) -> None:
        nonlocal due
        began = time.monotonic()
        try:
            write_arrays(path, replace(kept, facts={**kept.facts, "runs": ids, "made_by": made_by}))
        except OSError:
            # No room for it: the training goes on without, and its tables may still find some.
            due = math.inf
        if told:
            raise ToldToStop
        now = time.monotonic()
        due = max(due, now + max(SECONDS, (now - began) / SHARE))

    def finish(kept: Kept) -> None:
        if job.weights:
            with writing():
                save_weights(folder, ids, kept)
        if len(job.piece.chunks) > 1:
            save(kept)

    return Keeper(load, wanted, save, finish if job.weights or len(job.piece.chunks) > 1 else None)


def surroundings(precision: str, device: torch.device) -> dict[str, str]:
    """What the last digits depend on, beside the runs."""
    own = library(precision) if serves(torch.empty(0, dtype=FORMATS[precision].passes, device=device)) else None
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "gradlab": gradlab.__version__,
        "torch": torch.__version__,
        "device": f"{device.type}, {card}",
        "kernels": own.stem if own else on_a_gpu() if device.type == "cuda" else "torch",
        "threads": str(torch.get_num_threads()),
    }
