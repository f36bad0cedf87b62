"""Pieces that go on slowly while a file is there: what a test does in the middle of one comes in time on any machine.

A process of another machine, or as good as one, is given these functions instead of those of `launch`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gradlab.data.dataset import Dataset
from gradlab.engine.keeper import Keeper
from gradlab.engine.train import Progress, training
from gradlab.launch import ray_task, slurm_job, worker
from gradlab.launch.events import Job
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record

STEP_SECONDS = 0.005


def file_of(folder: Path) -> Path:
    """While it is there, the pieces of a result in ``folder`` go on slowly."""
    return folder.with_name("slowly")


def train_pieces(jobs: Sequence[Job], device: str) -> None:
    """As `slurm_job.train_pieces`."""
    _slow_down(jobs[0].folder)
    slurm_job.train_pieces(jobs, device)


def train_piece(job: Job, *others: Any) -> Any:
    """As `ray_task.train_piece`."""
    _slow_down(job.folder)
    return ray_task.train_piece(job, *others)


def _slow_down(folder: Path) -> None:
    file = file_of(folder)

    def slowly(
        runs: Sequence[RunSpec], data: Dataset, device: torch.device, said: Progress, keeper: Keeper, *, stacked: bool
    ) -> Generator[None, None, Record]:
        def wanted(t: int) -> bool:
            if file.exists():
                time.sleep(STEP_SECONDS)
            return keeper.wanted(t)

        return training(runs, data, device, said, replace(keeper, wanted=wanted), stacked=stacked)

    mock.patch.object(worker, "training", slowly).start()
    # So that a keeper is asked after every step.
    mock.patch("gradlab.engine.train.SPAN_SECONDS", 0.0).start()
