"""How a command starts: what points to its folder, with what it is carried out, and on how many workers."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gradlab.engine.keeper import Keeper
from gradlab.grid.cohorts import Piece, make_plan
from gradlab.launch import devices, rounds
from gradlab.launch.devices import CPU_MEMORY, Device
from gradlab.launch.local import Crew
from gradlab.launch.manifest import differing
from gradlab.spec.run import RunSpec, build
from gradlab.store import documents
from gradlab.store.folder import Folder
from gradlab.terminal.progress import Tally
from tests.commands import TINY, Gradlab, before_training


def said(text: str) -> str:
    return " ".join(text.split())


def test_a_start_that_is_refused_leaves_latest_as_it_was(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = tmp_path / "outputs/latest"

    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "write_inputs", refused)
        assert gradlab_("run", *TINY).status == 1
    assert not latest.is_symlink()
    assert gradlab_("run", *TINY).status == 0
    first = latest.resolve(strict=True)
    with monkeypatch.context() as patched:
        patched.setattr(documents, "write_manifest", refused)
        assert gradlab_("run", *TINY).status == 1
    assert latest.resolve(strict=True) == first
    assert (latest / "manifest.json").is_file()
    assert gradlab_("run", *TINY, "seed=1", "-o", "elsewhere").status == 0
    assert latest.resolve(strict=True) == first


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_so(
    number: int, gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    ended = gradlab_("run", *TINY, "-o", "out")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("gradlab: error: out: its file system cannot lock a folder (No locks available)")
    assert "give a folder elsewhere, with -o DIR" in ended.err


@pytest.mark.parametrize("changed", [False, True])
def test_each_start_is_recorded_and_a_change_is_said(
    changed: bool, gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after the first of two pieces."""
    trained: list[RunSpec] = []

    def train(runs: list[RunSpec], _: Keeper) -> None:
        if trained:
            raise KeyboardInterrupt
        trained.extend(runs)

    with monkeypatch.context() as patched:
        before_training(patched, train)
        line = ("seed=0,1", "launch.memory=1", "--no-report", "--device", "cpu")
        assert gradlab_("sweep", *TINY, *line, "-o", "out").status == 130
    before = documents.read_manifest(tmp_path / "out")
    (start,) = before["starts"]
    assert start["kernels"] == before["kernels"]
    assert set(start["versions"]) >= {"gradlab", "python", "torch"}
    if changed:
        start |= {"versions": start["versions"] | {"torch": "1.0"}, "kernels": {"float32": "others"}}
        documents.write_manifest(Folder(tmp_path / "out"), before)
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert ended.status == 0
    after = documents.read_manifest(tmp_path / "out")
    now = after["starts"][1]["kernels"]["float32"]
    assert after["starts"][0] == start
    assert after["kernels"] == {"float32": f"others and {now}" if changed else now}
    line_of_change = (
        f"So far with torch 1.0, float32 kernels others, now with torch {torch.__version__}, float32 kernels"
    )
    assert (line_of_change in said(ended.out)) == changed
    assert ("numbers may differ in their last digits" in said(ended.out)) == changed


def test_in_what_two_starts_differ() -> None:
    one = {"versions": {"torch": "2.12", "numpy": "2"}, "device": "cpu", "kernels": {"float32": "own"}}
    assert differing(one, one) is None
    other = {**one, "versions": {"torch": "2.13", "numpy": "2"}, "kernels": {"float32": "torch"}}
    assert differing(one, other) == ("torch 2.12, float32 kernels own", "torch 2.13, float32 kernels torch")
    older = {"versions": {"torch": "2.12"}, "device": "cpu"}
    assert differing(older, one) is None


def test_fewer_workers_than_were_asked_for_are_said(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "memory", lambda: 600 << 20)
    ended = gradlab_("sweep", *TINY, "seed=0,1,2", "launch.memory=1", "launch.workers=400", "-o", "out")
    assert "2 workers at once instead of 400: this machine has" in said(ended.out)
    assert documents.read_manifest(tmp_path / "out")["workers"] == 2


@pytest.mark.parametrize("cure", [False, True])
def test_no_more_workers_are_started_than_there_are_pieces(
    cure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cure too, whose next round has more of them: they come then."""
    runs = tuple(build({"model.width": 8, "model.depth": 2, "train.steps": 1, "seed": seed}) for seed in range(5))
    pieces = make_plan(runs, 1, 1).pieces
    rest: list[Sequence[Piece]] = [pieces[2:]] if cure else []
    fitted: list[int] = []
    monkeypatch.setattr(Crew, "fit", lambda _crew, count: fitted.append(count))
    monkeypatch.setattr(rounds, "_round", lambda *_: False)

    def following(_site: rounds.Site, _runs: Sequence[RunSpec]) -> tuple[Sequence[RunSpec], Sequence[Piece]] | None:
        return (runs, rest.pop()) if rest else None

    monkeypatch.setattr(rounds, "_following", following)
    site = rounds.Site(
        Crew(Device("cpu", "cpu", CPU_MEMORY, 8)),
        Folder(tmp_path),
        {"workers": 8},
        Tally(5),
        Console(quiet=True),
        fail_fast=False,
        further=(lambda *_: None) if cure else None,
    )
    assert not rounds.run(site, runs, pieces[:2])
    assert fitted == ([2, 3, 0] if cure else [2, 0])
