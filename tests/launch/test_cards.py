"""GPUs as the command finds them, and a piece on one: a fake driver, and the fake card of `tests.card`."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from gradlab.grid.cohorts import make_plan
from gradlab.launch import devices, worker
from gradlab.launch.events import Event, Job
from gradlab.launch.keeping import surroundings
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import build
from gradlab.store.folder import Folder
from gradlab.store.pieces import saved_pieces
from tests.card import fake_cards


class Driver:
    """What is asked of ``libcuda.so.1``, of a machine with two cards."""

    def __init__(
        self, version: int = 13000, cards: tuple[tuple[str, int], ...] = (("Card A", 8), ("Card B", 4))
    ) -> None:
        self.version, self.cards = version, cards

    def __call__(self, name: str) -> Driver:
        assert name == "libcuda.so.1"
        return self

    def cuInit(self, flags: int) -> int:  # noqa: N802 - as the driver calls it
        assert flags == 0
        return 0 if self.cards else 100

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.cards[device.value][0].encode()[:size]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = self.cards[device.value][1] << 30
        return 0


def given(monkeypatch: pytest.MonkeyPatch, driver: Driver, built: int = 13) -> None:
    monkeypatch.setattr(ctypes, "CDLL", driver)
    monkeypatch.setattr(devices, "_cuda_of_torch", lambda: built)


def test_the_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, Driver())
    auto, second = devices.choose("auto"), devices.choose("cuda:1")
    assert (auto.name, auto.label, auto.memory, auto.is_cpu) == ("cuda:0", "cuda:0, Card A", 2 << 30, False)
    assert (second.name, second.memory, second.workers) == ("cuda:1", 1 << 30, 1)
    assert devices.choose("cuda").name == "cuda:0"
    assert devices.choose("cpu").is_cpu
    with pytest.raises(SpecError, match=r"--device cuda:2: no such GPU \(torch sees 2 GPUs\)"):
        devices.choose("cuda:2")


@pytest.mark.parametrize(
    ("driver", "built", "why"),
    [
        (Driver(), 0, "the installed torch is a CPU build"),
        (Driver(12080), 13, "its driver knows CUDA 12, and the installed torch needs 13"),
        (Driver(cards=()), 13, "torch sees 0 GPUs"),
    ],
    ids=["CPU build", "old driver", "no card"],
)
def test_without_a_gpu(driver: Driver, built: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, driver, built)
    assert devices.choose("auto").is_cpu
    with pytest.raises(SpecError, match=rf"--device cuda: no such GPU \({why}\)"):
        devices.choose("cuda")


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert devices._cards() == (0, [])


@pytest.mark.parametrize(
    ("line", "built"),
    [("cuda: Optional[str] = '13.0'", 13), ("cuda = '12.6'", 12), ("cuda: Optional[str] = None", 0)],
)
def test_what_torch_is_built_for_is_read_off_its_files(
    line: str, built: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"debug = False\n{line}\ngit_version = '12'\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "torch")]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    assert devices._cuda_of_torch() == built


def job_of(folder: Path, seeds: int) -> Job:
    common: dict[str, Value] = {"model.depth": 3, "data.batch_size": "full", "train.steps": 12}
    runs = [build({**common, "seed": seed}) for seed in range(seeds)]
    (folder / "pieces").mkdir()
    (piece,) = make_plan(runs, 2**30, 1).pieces
    return Job(piece, tuple(runs), folder)


def test_a_piece_too_large_for_a_card_is_halved(tmp_path: Path) -> None:
    """It is the second of two, and the first is not touched. Two thirds of what five runs take are enough for three."""
    job, said = job_of(tmp_path, 5), list[Event]()
    with fake_cards(2) as cards:
        worker.run_job(job, torch.device("cuda:1"), said.append)
        assert not [event for event in said if event.kind == "halved"]
        assert cards.peak < job.piece.memory
        cards.room = cards.peak * 2 // 3
        said.clear()
        worker.run_job(job, torch.device("cuda:1"), said.append)
        assert cards.chosen == 1
        assert {stream.device for stream in cards.streams[2:]} == {1}
        assert cards.emptied >= 1
        assert surroundings("float32", torch.device("cuda:1"))["device"] == "cuda, Fake card 1"
    assert [event.chunks for event in said if event.kind == "halved"] == [(3, 2)]
    assert said[-1].kind == "finished"
    runs = saved_pieces(Folder(tmp_path))[job.piece.index]
    assert runs["run_id"].to_pylist() == [run.id for run in job.runs]
    assert set(runs["state"].to_pylist()) == {"finished"}


def test_a_run_alone_that_does_not_fit_fails(tmp_path: Path) -> None:
    job, said = job_of(tmp_path, 1), list[Event]()
    with fake_cards() as cards:
        cards.room = 300_000
        worker.run_job(job, torch.device("cuda:0"), said.append)
    assert (said[-1].kind, said[-1].error) == (
        "failed",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate more than this card has.",
    )


def test_a_card_counts_as_exactly_as_a_processor() -> None:
    """No TF32, and the same convolutions every time."""
    with fake_cards(2) as cards:
        worker.take(torch.device("cuda:1"))
        assert cards.chosen == 1
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.deterministic
