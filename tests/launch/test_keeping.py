"""A piece is kept while it trains: told to stop, killed, damaged, foreign, cut into chunks; and runs made longer."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gradlab
from gradlab.engine.keeper import Keeper
from gradlab.grid.cohorts import make_plan
from gradlab.launch import keeping, worker
from gradlab.launch.devices import CPU_MEMORY
from gradlab.launch.events import Event, Job
from gradlab.nn.kernels import calls
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.arrays import Kept, read_arrays, write_arrays
from gradlab.store.folder import Folder
from gradlab.store.pieces import TABLES, read_table
from tests.commands import ENVIRONMENT, Gradlab, assert_same_tables, before_training, bits

CPU = torch.device("cpu")
STEPS = 400


def job_in(root: Path, chunks: Sequence[int] = (4,)) -> Job:
    """Four runs of one piece, one of which diverges."""
    base: dict[str, Value] = {"model.width": 8, "model.depth": 3, "model.norm": "batch", "train.steps": STEPS}
    runs = [
        build(base | {"optim.name": "adam", "seed": seed, "optim.lr": lr})
        for seed, lr in enumerate((0.001, 0.01, 1e38, 0.1))
    ]
    (root / "pieces").mkdir(parents=True)
    (piece,) = make_plan(runs, CPU_MEMORY, 1).pieces
    return Job(replace(piece, chunks=tuple(chunks)), tuple(runs), root)


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many runs train together, and from which step, each time that some do."""
    found: list[tuple[int, int]] = []

    def train(runs: list[RunSpec], keeper: Keeper) -> None:
        kept = keeper.load()
        found.append((len(runs), 0 if kept is None else kept.facts["step"]))

    before_training(monkeypatch, train)
    return found


def stopped(job: Job, after: int) -> None:
    """Runs a job that is told to stop when it has said ``after`` times how far it is."""
    told: list[int] = []
    said = itertools.count(1)

    def say(event: Event) -> None:
        if event.kind == "progress" and next(said) == after:
            told.append(signal.SIGTERM)

    with pytest.raises(keeping.ToldToStop):
        worker.run_job(job, CPU, say, told)


def assert_whole(job: Job, tmp_path: Path) -> None:
    """The piece's tables are those of a job that nobody stopped, and nothing else is left beside them."""
    undisturbed = job_in(tmp_path / "undisturbed", job.piece.chunks)
    worker.run_job(undisturbed, CPU, lambda _: None)
    for name in TABLES:
        mine, theirs = (read_table(Folder(one.folder).piece(0, name), name) for one in (job, undisturbed))
        assert bits(mine) == bits(theirs), name
    assert {path.suffix for path in (job.folder / "pieces").iterdir()} == {".parquet"}


@pytest.mark.usefixtures("either_engine")
def test_a_piece_that_was_told_to_stop_goes_on(tmp_path: Path, begins: list[tuple[int, int]]) -> None:
    job = job_in(tmp_path / "out")
    stopped(job, 2)
    stopped(job, 2)
    worker.run_job(job, CPU, lambda _: None)
    assert begins[0] == (4, 0)
    assert 0 < begins[1][1] < begins[2][1] < STEPS
    assert_whole(job, tmp_path)


def test_chunks_that_were_done_are_not_trained_again(tmp_path: Path, begins: list[tuple[int, int]]) -> None:
    job = job_in(tmp_path / "out", (1, 2, 1))
    stopped(job, STEPS // 50 + 3)
    del begins[:]
    worker.run_job(job, CPU, lambda _: None)
    assert begins[0] == (1, STEPS + 1)
    assert 0 < begins[1][1] < STEPS
    assert begins[2] == (1, 0)
    assert_whole(job, tmp_path)


def test_a_damaged_or_foreign_file_counts_as_missing(
    tmp_path: Path, begins: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path / "out")
    stopped(job, 2)
    path = Folder(job.folder).checkpoint(0, 0)
    whole, kept = path.read_bytes(), read_arrays(path)
    assert kept is not None
    del begins[:]

    def begins_at_zero() -> bool:
        stopped(job, 1)
        return begins.pop() == (4, 0)

    for damaged in (b"", whole[:1000], whole[:-1], whole[:2000] + b"\xff" + whole[2001:]):
        path.write_bytes(damaged)
        assert begins_at_zero()
    for key, value in (("torch", "1.0"), ("kernels", "others"), ("gradlab", "0"), ("device", "cuda, A card")):
        write_arrays(path, replace(kept, facts={**kept.facts, "made_by": kept.facts["made_by"] | {key: value}}))
        assert begins_at_zero(), key
    write_arrays(path, replace(kept, facts={**kept.facts, "runs": kept.facts["runs"][::-1]}))
    assert begins_at_zero()
    path.write_bytes(whole)
    monkeypatch.setattr(calls, "kernels", lambda _: None)
    assert begins_at_zero()
    monkeypatch.undo()


def test_a_disk_that_takes_no_checkpoint_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def full(*given: object) -> None:
        tried.append(given)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "SECONDS", 0.0)
    monkeypatch.setattr(keeping, "write_arrays", full)
    job = job_in(tmp_path / "out")
    said: list[Event] = []
    worker.run_job(job, CPU, said.append)
    assert said[-1].kind == "finished"
    assert len(tried) == 1


def test_writing_takes_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: a step takes a second, a writing three."""
    now = 0.0
    written: list[float] = []

    def write(*_: object) -> None:
        nonlocal now
        now += 3.0
        written.append(now)

    monkeypatch.setattr("gradlab.launch.keeping.time.monotonic", lambda: now)
    monkeypatch.setattr(keeping, "write_arrays", write)
    job = job_in(tmp_path / "out")
    kept = keeping.keeper_of(job, 0, job.runs, CPU, [])
    for t in range(1000):
        now += 1.0
        if kept.wanted(t):
            kept.save(Kept({}, {}))
    assert written[:3] == [63.0, 366.0, 669.0]


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from gradlab.engine import train
from gradlab.launch import keeping, worker
from tests.launch.test_keeping import job_in

def write_and_die(path, kept):
    write(path, kept)
    if kept.facts["step"] == 233:
        os.kill(os.getpid(), signal.SIGKILL)

write, keeping.write_arrays = keeping.write_arrays, write_and_die
keeping.SECONDS, keeping.SHARE, train.SPAN_SECONDS = 0.0, 1e9, 0.0
torch.set_num_threads(1)
worker.run_job(job_in(Path(sys.argv[1])), torch.device("cpu"), lambda _: None)
"""


def test_after_a_kill_the_last_checkpoint_is_gone_on_from(tmp_path: Path, begins: list[tuple[int, int]]) -> None:
    root = Path(__file__).parents[2]
    line = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    killed = subprocess.run(line, cwd=root, env=ENVIRONMENT | {"PYTHONPATH": str(root)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    torch.set_num_threads(1)
    job = replace(job_in(tmp_path / "same"), folder=tmp_path / "out")
    worker.run_job(job, CPU, lambda _: None)
    assert begins == [(4, 233)]
    assert_whole(job, tmp_path)


LONGER = {
    "batch norm, adam": ("model.norm=batch", "optim=adam", "optim.lr=0.01"),
    "momentum, layerwise": ("optim.momentum=0.9", "clip=layerwise", "model.activation=prelu", "probe.every=7"),
    "rnn": ("model=rnn", "data=adding", "data.length=6", "optim=rmsprop"),
    "a plateau": ("optim.schedule=plateau", "optim.decay_every=3", "optim.decay=0.8", "optim.warmup=5"),
    "inverse_sqrt": ("optim.schedule=inverse_sqrt", "optim.warmup=20"),
    "a twin": ("probe.instrument=twin_distance", "train.precision=float64", "optim.momentum=0.5"),
    "a pre-training": ("pretrain.mode=masked", "pretrain.steps=9", "probe.instrument=weight_motion"),
    "spectra": ("probe.instrument=jacobian_spectrum", "train.precision=float64", "model.norm=rms"),
}


@pytest.mark.parametrize("setting", LONGER)
def test_a_longer_run_goes_on_where_its_weights_are(
    setting: str, gradlab_: Gradlab, tmp_path: Path, begins: list[tuple[int, int]]
) -> None:
    line = ("model.width=8", "model.depth=3", "data.batch_size=32", "--device", "cpu", *LONGER[setting])
    assert gradlab_("sweep", *line, "train.steps=60", "seed=0,1", "store.weights=true", "-o", "a").status == 0
    run_id = gradlab.load(tmp_path / "a").runs.run_id[1]
    assert gradlab_("run", *line, "train.steps=130", "seed=1", "-o", "whole").status == 0
    del begins[:]
    ended = gradlab_("run", "--from", "a", run_id, "train.steps=130", "-o", "longer")
    assert ended.status == 0
    assert f"Goes on from step 60 of run {run_id} in a." in " ".join(ended.out.split())
    assert begins == [(1, 60)]
    assert_same_tables(tmp_path / "longer", tmp_path / "whole")


def test_a_run_beside_another_architectures_goes_on(
    gradlab_: Gradlab, tmp_path: Path, begins: list[tuple[int, int]]
) -> None:
    line = ("model.width=4", "model.depth=2", "train.steps=3", "store.weights=true", "--device", "cpu")
    assert gradlab_("sweep", *line, "model=mlp,cnn", "-o", "both").status == 0
    del begins[:]
    for number, run_id in enumerate(gradlab.load(tmp_path / "both").runs.run_id):
        assert gradlab_("run", "--from", "both", run_id, "train.steps=5", "-o", f"longer{number}").status == 0
    assert begins == [(1, 3)] * 2


def test_what_cannot_go_on_says_so_and_is_trained_from_the_start(
    gradlab_: Gradlab, tmp_path: Path, begins: list[tuple[int, int]]
) -> None:
    line = ("model.width=8", "model.depth=2", "train.steps=20", "optim.lr=0.1,1e38", "--device", "cpu")
    assert gradlab_("sweep", *line, "-o", "bare").status == 0
    assert not (tmp_path / "bare/weights").exists()
    assert gradlab_("sweep", *line, "store.weights=true", "-o", "kept").status == 0
    fine, diverged = gradlab.load(tmp_path / "kept").runs.run_id
    assert [path.stem for path in (tmp_path / "kept/weights").iterdir()] == [fine]
    del begins[:]
    for number, (folder, run_id) in enumerate((("bare", fine), ("kept", diverged))):
        ended = gradlab_("run", "--from", folder, run_id, "train.steps=40", "-o", f"out{number}")
        said = " ".join(ended.out.split())
        assert f"{folder} has no weights of run {run_id}: trained from the first step." in said
        assert "store.weights=true" in said
    for number, change in enumerate((("optim.lr=0.2", "train.steps=40"), ("train.steps=10",), ("seed=3",))):
        ended = gradlab_("run", "--from", "kept", fine, *change, "-o", f"other{number}")
        assert "Goes on" not in ended.out
        assert "weights" not in ended.out
    weights = tmp_path / f"kept/weights/{fine}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    gradlab_("run", "--from", "kept", fine, "train.steps=40", "-o", "damaged")
    assert begins == [(1, 0)] * 6


def test_weights_are_named_by_layer_and_role(gradlab_: Gradlab, tmp_path: Path) -> None:
    line = ("model.width=8", "model.depth=2", "model.norm=batch", "optim=adam", "train.steps=12", "store.weights=true")
    assert gradlab_("run", *line, "-o", "out").status == 0
    (path,) = (tmp_path / "out/weights").iterdir()
    kept = read_arrays(path)
    assert kept is not None
    own = {"1.weight": (8, 64), "1.bias": (8,), "2.weight": (10, 8), "2.bias": (10,), "1.gain": (8,), "1.shift": (8,)}
    expected = {**own, "1.running_mean": (8,), "1.running_var": (8,)}
    expected |= {f"optimizer.{buffer}.{name}": shape for buffer in ("mean", "square") for name, shape in own.items()}
    assert {name: array.shape for name, array in kept.arrays.items()} == expected
    layers = gradlab.load(tmp_path / "out").layers
    norm = layers[(layers.step == 12) & (layers.layer == 1)].weight_norm.item()
    assert float((kept.arrays["1.weight"].astype(float) ** 2).sum() ** 0.5) == pytest.approx(norm, rel=1e-12)
    assert gradlab_("run", "store.weights=yes").status == 2
