"""A job of Slurm: its pieces trained one after the other in a folder that all machines see, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict

from gradlab.launch.events import ENDS, Event, Job
from gradlab.store.folder import Folder

SAY_SECONDS, SAY_SHARE = 2.0, 0.005
"""Between two sayings of a piece, at least, and of its work."""


def said_by(folder: Folder, index: int, start: int = 0) -> tuple[list[Event], int]:
    """What was said of a piece from byte ``start`` on, whole lines alone, and where they end."""
    try:
        with folder.said(index).open("rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return [], 0
    whole = text[: text.rfind(b"\n") + 1]
    return [_read(line) for line in whole.splitlines()], start + len(whole)


def _read(line: bytes) -> Event:
    told = json.loads(line)
    return Event(**{**told, "chunks": tuple(told["chunks"])})


def train_pieces(jobs: Sequence[Job], device: str) -> None:
    """Trains pieces in a job: those that are done already, of a job that was queued again, are left out.

    Told to end (before its time limit, or by a job that goes first), it keeps what it has and queues again; cancelled,
    it keeps it and ends.
    """
    import torch

    from gradlab.launch.keeping import ToldToStop
    from gradlab.launch.worker import keep_memory, run_job

    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda number, _: told.append(number))
    keep_memory()
    for job in jobs:
        folder, index = Folder(job.folder), job.piece.index
        before, _ = said_by(folder, index)
        if before and before[-1].kind in ENDS:
            continue
        if told:
            _queue_again()
        torch.set_num_threads(job.piece.threads)
        spoke, share = 0.0, 0.0

        def say(event: Event) -> None:
            nonlocal spoke, share
            now = time.monotonic()
            if event.kind == "progress" and (now - spoke < SAY_SECONDS or event.share - share < SAY_SHARE):
                return
            spoke, share = now, event.share
            with Folder(job.folder).said(job.piece.index).open("a", encoding="utf-8") as file:  # noqa: B023
                file.write(json.dumps(asdict(event)) + "\n")

        say(Event("started", index))
        try:
            run_job(job, torch.device(device), say, told)
        except ToldToStop:
            _queue_again()


def _queue_again() -> None:
    """Ends this job, and has it queued again unless it was cancelled: one that ends by itself counts as done."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=False).stdout
    if "JobState=RUNNING" in shown:
        # Where that is not allowed the command hands its pieces over anew.
        subprocess.run(["scontrol", "requeue", number], check=False)
    # Not by an exception: submitit would note a result.
    os._exit(0)
