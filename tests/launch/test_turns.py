"""Several pieces by turns on a fake card, each on a stream of its own: as alone, bit for bit, whatever befalls one."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from gradlab.engine import train
from gradlab.engine.keeper import Keeper
from gradlab.grid.cohorts import make_plan
from gradlab.launch import worker
from gradlab.launch.events import ENDS, Event, Job
from gradlab.launch.turns import Turns, Work
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.folder import Folder
from gradlab.store.pieces import TABLES, read_table
from tests.card import Card, fake_cards
from tests.commands import before_training, bits

CARD = torch.device("cuda:0")

KINDS: tuple[dict[str, Value], ...] = (
    {"model.norm": "batch", "optim.name": "adam"},
    {"model.depth": 3, "model.dropout": 0.2, "optim.schedule": "plateau"},
    {"model.norm": "layer", "clip.mode": "autoclip"},
)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    monkeypatch.setattr(train, "WINDOW", 5)
    with fake_cards() as made:
        yield made


def jobs_in(root: Path, kinds: Sequence[dict[str, Value]] = KINDS) -> list[Job]:
    """A piece of two runs for each kind; one of them diverges."""
    (root / "pieces").mkdir(parents=True)
    small: dict[str, Value] = {"model.depth": 2, "model.width": 4, "data.batch_size": 4, "train.steps": 10}
    runs = [
        build({**small, **kind, "probe.every": 4, "seed": seed, "optim.lr": lr})
        for kind in kinds
        for seed, lr in ((0, 0.01), (1, 1e38 if kind is kinds[0] else 0.1))
    ]
    pieces = make_plan(runs, 2**30, 1).pieces
    return [Job(piece, tuple(runs[place] for place in piece.members), root) for piece in pieces]


def by_turns(jobs: Sequence[Job], say: Callable[[Event], None], told: Sequence[int] = ()) -> None:
    turns = Turns(CARD)
    for job in jobs:
        turns.begin(worker.running(job, CARD, say, told, lambda: turns.shared))
    while turns:
        turns.round()


def tables(job: Job) -> list[object]:
    return [bits(read_table(Folder(job.folder).piece(job.piece.index, name), name)) for name in TABLES]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[list[object]]:
    """The tables of pieces each of which has the card for itself."""
    jobs = jobs_in(tmp_path_factory.mktemp("alone") / "out")
    for job in jobs:
        with fake_cards():
            worker.run_job(job, CARD, lambda _: None)
    return [tables(job) for job in jobs]


def test_a_worker_trains_several_pieces_to_what_they_are_alone(
    card: Card, alone: list[list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the worker's own loop: they go side by side, no tensor of one lies on a stream of another."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(worker, "keep_memory", lambda: None)
    jobs, said = jobs_in(tmp_path / "turns"), list[Event]()
    ours, theirs = Pipe()

    def command(connection: Connection) -> None:
        for job in jobs:
            connection.send(job)
        while sum(event.kind in ENDS for event in said) < len(jobs):
            said.append(connection.recv())
        connection.close()

    thread = threading.Thread(target=command, args=(ours,))
    thread.start()
    began = time.perf_counter()
    worker.serve(theirs, "cuda:0")
    took = time.perf_counter() - began
    thread.join()
    kinds = [(event.kind, event.piece) for event in said]
    assert {kind for kind, _ in kinds} == {"progress", "finished"}
    # Each has had a turn before any has had its third.
    assert {piece for _, piece in kinds[: 2 * len(jobs)]} == {job.piece.index for job in jobs}
    assert len(card.streams) - 1 == len(jobs)
    assert [tables(job) for job in jobs] == alone
    seconds = [read_table(Folder(job.folder).piece(job.piece.index, "runs"), "runs")["duration_s"] for job in jobs]
    assert 0 < sum(sum(of_piece.to_pylist()) for of_piece in seconds) < took


def test_nobody_waits_for_a_slow_piece(card: Card) -> None:
    def work(name: str) -> Work:
        x = torch.ones(2, device=CARD)
        for _ in range(4):
            went.append(name)
            x.add_(1)
            yield None

    turns, went = Turns(CARD), list[str]()
    for name in "ab":
        turns.begin(work(name))
    card.order.slow[card.streams[1]] = 6
    while turns:
        turns.round()
    assert "".join(went) == "abbbbaaa"


def test_all_that_are_told_to_stop_are_kept(card: Card, alone: list[list[object]], tmp_path: Path) -> None:
    assert not card.launches
    jobs, told, said = jobs_in(tmp_path / "out"), list[int](), list[int]()

    def say(event: Event) -> None:
        said.append(event.piece)
        if len(said) == len(jobs):
            told.append(signal.SIGTERM)

    by_turns(jobs, say, told)
    assert all(list(Folder(job.folder).checkpoints(job.piece.index)) for job in jobs)
    assert not list((tmp_path / "out" / "pieces").glob("*.parquet"))
    steps = card.launches
    by_turns(jobs, lambda _: None)
    assert [tables(job) for job in jobs] == alone
    assert card.launches - steps < steps


def test_memory_that_others_have_is_waited_for(card: Card, alone: list[list[object]], tmp_path: Path) -> None:
    jobs, said = jobs_in(tmp_path / "out"), list[Event]()
    worker.run_job(jobs[0], CARD, lambda _: None)
    card.room = card.peak + 50_000
    card.emptied = 0
    by_turns(jobs, said.append)
    assert card.emptied
    assert {event.kind for event in said} == {"progress", "finished"}
    assert [tables(job) for job in jobs] == alone


def test_what_does_not_fit_alone_is_halved(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, said, tried = jobs_in(tmp_path / "out", KINDS[:2]), list[Event](), list[int]()

    def fails(runs: Sequence[RunSpec], _: Keeper) -> None:
        if runs[0].model.depth == 3:
            tried.append(len(runs))
            if len(runs) == 2:
                raise torch.OutOfMemoryError("too large")

    before_training(monkeypatch, fails)
    by_turns(jobs, said.append)
    # Among others, alone, and its halves.
    assert tried == [2, 2, 1, 1]
    assert [event.chunks for event in said if event.kind == "halved"] == [(1, 1)]
    assert [event.kind for event in said].count("finished") == 2
    assert card.emptied == 2


def test_a_crash_is_of_its_piece(
    card: Card, alone: list[list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, ended = jobs_in(tmp_path / "out"), dict[int, str]()
    broken = next(job for job in jobs if job.runs[0].optim.name == "adam")

    def crash(runs: Sequence[RunSpec], _: Keeper) -> None:
        if runs[0].optim.name == "adam":
            raise ValueError("it broke")

    before_training(monkeypatch, crash)
    by_turns(jobs, lambda event: ended.update({event.piece: event.kind}))
    assert {index for index, kind in ended.items() if kind == "failed"} == {broken.piece.index}
    left = [(tables(job), whole) for job, whole in zip(jobs, alone, strict=True) if job is not broken]
    assert all(mine == whole for mine, whole in left)
    assert card.launches
