"""Several pieces by turns on a fake card, each on a stream of its own: as alone, bit for bit, whatever befalls one."""

from __future__ import annotations

import gc
import signal
import sys
import threading
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
from gradlab.launch.turns import Turns
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
    {"model.name": "rnn", "data.name": "adding", "data.length": 3, "clip.mode": "autoclip"},
)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    monkeypatch.setattr(train, "WINDOW", 5)
    with fake_cards() as made:
        yield made


def jobs_in(root: Path, kinds: Sequence[dict[str, Value]] = KINDS) -> list[Job]:
    """A piece of two runs for each kind; one of them diverges."""
    (root / "pieces").mkdir(parents=True)
    small: dict[str, Value] = {"model.depth": 2, "model.width": 4, "data.batch_size": 4, "train.steps": 12}
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


def alone(root: Path, kinds: Sequence[dict[str, Value]] = KINDS) -> list[list[object]]:
    """The tables of pieces each of which has the card for itself."""
    jobs = jobs_in(root, kinds)
    for job in jobs:
        worker.run_job(job, CARD, lambda _: None)
    return [tables(job) for job in jobs]


def test_a_worker_trains_several_pieces_to_what_they_are_alone(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    worker.serve(theirs, "cuda:0")
    thread.join()
    kinds = [(event.kind, event.piece) for event in said]
    assert {kind for kind, _ in kinds} == {"progress", "finished"}
    # Each has had a turn before any has had its third.
    assert {piece for _, piece in kinds[: 2 * len(jobs)]} == {job.piece.index for job in jobs}
    assert len(card.streams) - 1 == len(jobs)
    assert [tables(job) for job in jobs] == alone(tmp_path / "alone")
