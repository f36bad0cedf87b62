"""Devices without torch, and one piece in the worker: what it says and what it writes."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from gradlab.engine.keeper import Keeper
from gradlab.grid.cohorts import make_plan
from gradlab.grid.launching import Launch
from gradlab.launch import devices, local, worker
from gradlab.launch.devices import CPU_MEMORY
from gradlab.launch.events import Event, Job
from gradlab.launch.local import crew_of
from gradlab.launch.places import crew_for
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec, build
from gradlab.store.folder import Folder
from gradlab.store.pieces import saved_pieces
from tests.commands import alive, before_training

CPU = torch.device("cpu")

CARD = devices.Device("cuda:0", "cuda:0, a card", 2**30, 4)


def jobs_of(folder: Path, seeds: int, steps: int = 3) -> list[Job]:
    """A job for each of two cohorts of ``seeds`` runs."""
    runs = [
        build({"model.width": 8, "model.depth": depth, "train.steps": steps, "seed": seed})
        for depth in (2, 3)
        for seed in range(seeds)
    ]
    (folder / "pieces").mkdir()
    plan = make_plan(runs, CPU_MEMORY, 1)
    return [Job(piece, tuple(runs[place] for place in piece.members), folder) for piece in plan.pieces]


def test_the_processor() -> None:
    device = devices.choose("cpu")
    assert (device.name, device.memory, device.is_cpu) == ("cpu", CPU_MEMORY, True)
    assert device.cores >= 1


@pytest.mark.parametrize("asked", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA", "cuda:0 "])
def test_what_is_no_device(asked: str) -> None:
    with pytest.raises(SpecError, match="expected auto, cpu, cuda or cuda:N"):
        devices.choose(asked)


@pytest.mark.parametrize(
    ("asked", "largest", "count", "said"),
    [
        (None, 0, 4, None),
        (8, 0, 8, None),
        (400, 0, 8, "8 workers at once instead of 400: this machine has 4 cores."),
        (6, 2 << 30, 3, "3 workers at once instead of 6: this machine has memory of 8 GiB."),
        (None, 100 << 30, 1, "1 worker at once instead of 4: this machine has memory of 8 GiB."),
    ],
)
def test_workers_are_as_many_as_there_are_cores_and_memory_for(
    asked: int | None, largest: int, count: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "memory", lambda: 8 << 30)
    assert devices.workers_on(devices.Device("cpu", "cpu", CPU_MEMORY, 4), asked, largest) == (count, said)


def test_the_memory_of_this_machine() -> None:
    assert 2**28 < devices.memory() < 2**48


def test_a_piece_says_how_far_it_is_and_writes_its_tables(tmp_path: Path) -> None:
    job = jobs_of(tmp_path, 3, steps=120)[0]
    said: list[Event] = []
    worker.run_job(job, CPU, said.append)
    assert [event.kind for event in said] == ["progress"] * (len(said) - 1) + ["finished"]
    shares = [event.share for event in said]
    assert shares == sorted(shares)
    assert shares[-2:] == [1.0, 1.0]
    assert len(shares) >= 3
    runs = saved_pieces(Folder(tmp_path))[job.piece.index]
    assert runs["run_id"].to_pylist() == [run.id for run in job.runs]


@pytest.mark.parametrize(
    "refusal",
    [
        torch.OutOfMemoryError("too large"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError("std::bad_alloc"),
    ],
    ids=["GPU", "CPU", "C++"],
)
def test_halving_keeps_every_run_and_says_so(
    refusal: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs_of(tmp_path, 5)[0]

    def train(runs: list[RunSpec], _: Keeper) -> None:
        if len(runs) > 2:
            raise refusal

    before_training(monkeypatch, train)
    said: list[Event] = []
    worker.run_job(job, CPU, said.append)
    assert [event.chunks for event in said if event.kind == "halved"] == [(3, 2), (2, 1, 2)]
    assert said[-1].kind == "finished"
    shares = [event.share for event in said if event.kind == "progress"]
    assert shares == sorted(shares)
    runs = saved_pieces(Folder(tmp_path))[job.piece.index]
    assert runs["run_id"].to_pylist() == [run.id for run in job.runs]
    assert set(runs["state"].to_pylist()) == {"finished"}
    said.clear()
    worker.run_job(replace(job, piece=replace(job.piece, chunks=(2, 1, 2))), CPU, said.append)
    assert not [event for event in said if event.kind == "halved"]


def test_a_crew_runs_its_jobs_and_leaves_nobody_behind(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, 2)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with crew_of(2, devices.choose("cpu")) as crew:
        pids = [member.process.pid for member in crew.workers]
        events = list(crew.run(jobs, fail_fast=False))
    assert sorted(event.piece for event in events if event.kind == "finished") == [0, 1]
    assert not any(alive(pid) for pid in pids if pid)
    assert not multiprocessing.active_children()
    assert sorted(saved_pieces(Folder(tmp_path))) == [0, 1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_crew_that_cannot_train_fails_its_jobs(tmp_path: Path) -> None:
    """Each worker ends before it has said anything; each piece fails once, and none is tried for ever."""
    jobs = jobs_of(tmp_path, 1)
    with crew_of(1, devices.choose("cpu")) as crew:
        crew.workers[0].process.terminate()
        crew.workers[0].process.join()
        crew.workers[0].jobs[0] = jobs[0]
        events = list(crew.run(jobs[1:], fail_fast=False))
    failed = [event for event in events if event.kind == "failed"]
    assert [(event.piece, event.error) for event in failed] == [(0, "the worker process was ended: SIGTERM")]
    assert [event.piece for event in events if event.kind == "finished"] == [1]
    assert saved_pieces(Folder(tmp_path))[0]["state"].to_pylist() == ["failed"]


class Gone:
    """A process that was killed."""

    exitcode = -9

    def join(self) -> None:
        """It has ended already."""


def test_of_several_pieces_of_a_worker_that_dies_each_is_tried_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each kills the next one, too."""
    jobs, had = jobs_of(tmp_path, 1), list[int]()

    def killed(_: str) -> local.Worker:
        ours, theirs = multiprocessing.Pipe()

        def die() -> None:
            with suppress(EOFError), theirs:
                had.append(theirs.recv().piece.index)

        threading.Thread(target=die).start()
        return local.Worker(cast("Any", Gone()), ours)

    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    monkeypatch.setattr(local, "_start", killed)
    crew = local.Crew(CARD, [local.Worker(cast("Any", Gone()), ours, {job.piece.index: job for job in jobs})])
    events = list(crew.run([], fail_fast=False))
    crew.workers[0].pipe.close()
    assert sorted(had) == [0, 1]
    assert [event.kind for event in events] == ["started", "failed"] * 2
    assert sorted({event.piece for event in events}) == [0, 1]
    assert {event.error for event in events[1::2]} == {"the worker process was ended: SIGKILL (out of memory?)"}
    assert sorted(saved_pieces(Folder(tmp_path))) == [0, 1]


def test_pieces_on_a_card_are_shared_by_its_workers_while_there_is_room(tmp_path: Path) -> None:
    (job, _) = jobs_of(tmp_path, 1)

    def given(
        memory: int,
        device: devices.Device = CARD,
        workers: int = 2,
        job: Job = job,
        streams: int | None = None,
        alone: Any = (),
    ) -> list[int]:
        nobody: Any = None
        crew = local.Crew(device, [local.Worker(nobody, nobody) for _ in range(workers)])
        with crew_for(Launch(streams=streams), crew):
            pass
        for number in range(20):
            like = replace(job, piece=replace(job.piece, index=number, memory=memory))
            if (worker := crew._next_for(like, alone)) is None:
                break
            worker.jobs[number] = like
        return [len(worker.jobs) for worker in crew.workers]

    assert given(0) == [8, 8]
    assert given(0, streams=3) == [3, 3]
    assert given(0, devices.Device("cpu", "cpu", CPU_MEMORY, 4), streams=3) == [1, 1]
    assert given(CARD.memory) == [1, 1]
    assert given(CARD.memory, workers=1) == [2]
    assert given(100 * CARD.memory) == [1, 1]
    assert given(0, alone=range(20)) == [1, 1]
    own = replace(job.runs[0], model=replace(job.runs[0].model, name="module"))
    assert given(0, job=replace(job, runs=(own,))) == [1, 1]


def test_an_exception_ends_the_crew_at_once(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, 1, steps=1_000_000)
    pids: list[int | None] = []

    def interrupted() -> None:
        with crew_of(2, devices.choose("cpu")) as crew:
            pids.extend(member.process.pid for member in crew.workers)
            assert next(crew.run(jobs, fail_fast=False)).kind == "started"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids if pid)
    assert local.STOP_SECONDS <= 1
