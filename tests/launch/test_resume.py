"""Commands that are killed or interrupted, and what `--resume` makes of what they left; real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradlab
from gradlab.store.folder import Folder
from tests.commands import alive, assert_same_tables, children, run, spawn, wait_for, workers

SWEEP = (
    "sweep",
    "seed=range(10)",
    "optim.lr=0.1,1e38",
    "model.width=8",
    "model.depth=2",
    "train.steps=4000",
    "probe.every=100",
    "launch.memory=1",
    "launch.workers=2",
    "--device",
    "cpu",
    "--no-report",
)
"""20 pieces of one run each on two workers: there is time to kill something; half of the runs diverge at once."""

PATIENCE = 5.0
"""Seconds that an interrupted command may take on a loaded machine; the promise is two."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the sweep that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = run([*SWEEP, "-o", "out"], folder)
    assert (ended.status, ended.err) == (0, "")
    return folder / "out"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The same sweep, just begun, into the folder `out`."""
    process = spawn([*SWEEP, "-o", "out"], tmp_path)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finished_pieces(root: Path) -> int:
    return len(list(Folder(root / "out").pieces.glob("[0-9]*.runs.parquet")))


def resume(folder: Path, missing: range | None = None) -> None:
    ended = run(["sweep", "--resume", "out", "--no-report"], folder)
    assert (ended.status, ended.err) == (0, "")
    if missing is not None:
        (count,) = (int(line.split()[2]) for line in ended.out.splitlines() if line.startswith("Resuming out:"))
        assert count in missing
    manifest = json.loads((folder / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert not list((folder / "out").glob(".*")), "nothing temporary is left"


@pytest.mark.parametrize("whole_group", [False, True], ids=["the command alone", "the whole group"])
def test_kill_9_in_mid_sweep(
    whole_group: bool, started: subprocess.Popen[str], tmp_path: Path, undisturbed: Path
) -> None:
    wait_for(lambda: finished_pieces(tmp_path) >= 3)
    family = children(started.pid)
    assert len(workers(started.pid)) == 2
    (os.killpg if whole_group else os.kill)(started.pid, signal.SIGKILL)
    started.wait()
    wait_for(lambda: not any(map(alive, family)), seconds=20)
    done = finished_pieces(tmp_path)
    assert 3 <= done < 20
    seen = gradlab.load(tmp_path / "out").runs
    assert len(seen) == done
    resume(tmp_path, range(20 - done, 21 - done))
    assert_same_tables(tmp_path / "out", undisturbed)


def test_a_worker_killed_fails_its_piece_and_the_sweep_goes_on(
    started: subprocess.Popen[str], tmp_path: Path, undisturbed: Path
) -> None:
    wait_for(lambda: finished_pieces(tmp_path) >= 2)
    os.kill(workers(started.pid)[0], signal.SIGKILL)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 1
    assert "1 of 20 runs crashed" in err
    assert "1 failed" in out
    runs = gradlab.load(tmp_path / "out").runs
    assert len(runs) == 20
    assert runs["error"].dropna().tolist() == ["the worker process was ended: SIGKILL (out of memory?)"]
    resume(tmp_path, range(1, 2))
    assert_same_tables(tmp_path / "out", undisturbed)


@pytest.mark.parametrize("at_the_start", [True, False], ids=["while torch is imported", "in mid-sweep"])
@pytest.mark.parametrize("whole_group", [False, True], ids=["the command alone", "the whole group"])
def test_an_interrupt(
    whole_group: bool, at_the_start: bool, started: subprocess.Popen[str], tmp_path: Path, undisturbed: Path
) -> None:
    if at_the_start:
        wait_for((tmp_path / "out/manifest.json").exists)
        assert len(workers(started.pid)) == 2
        assert not finished_pieces(tmp_path)
    else:
        wait_for(lambda: finished_pieces(tmp_path) >= 3)
    family = children(started.pid)
    began = time.monotonic()
    (os.killpg if whole_group else os.kill)(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=60)
    took = time.monotonic() - began
    assert took < PATIENCE
    print(f"ended {took:.2f} s after the interrupt")
    assert started.returncode == 130
    assert "gradlab sweep --resume out" in err
    assert "Traceback" not in err
    wait_for(lambda: not any(map(alive, family)), seconds=PATIENCE)
    assert json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    if whole_group and not at_the_start:
        resume(tmp_path)
        assert_same_tables(tmp_path / "out", undisturbed)


def test_a_second_command_is_refused_and_an_impatient_user_is_heard(
    started: subprocess.Popen[str], tmp_path: Path
) -> None:
    wait_for(lambda: finished_pieces(tmp_path) >= 1)
    second = run(["sweep", "--resume", "out"], tmp_path)
    assert (second.status, second.out) == (2, "")
    assert second.err == "gradlab: error: out: another gradlab is at work in this folder\n"
    family = children(started.pid)
    for _ in range(5):
        os.killpg(started.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Traceback" not in err
    wait_for(lambda: not any(map(alive, family)), seconds=PATIENCE)
    assert len(gradlab.load(tmp_path / "out").runs) == finished_pieces(tmp_path)


def test_commands_started_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    line = ["run", "model.width=8", "model.depth=2", "train.steps=0", "--no-report"]
    rivals = [spawn([*line, "-o", "same"], tmp_path) for _ in range(2)]
    friends = [spawn(line, tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in (*rivals, *friends)]
    assert sorted(process.returncode for process in rivals) == [0, 2], said
    assert [process.returncode for process in friends] == [0, 0], said
    assert len(gradlab.load(tmp_path / "same").runs) == 1
    folders = list((tmp_path / "outputs").glob("20*/*"))
    assert len(folders) == 2
    assert all(len(gradlab.load(folder).runs) == 1 for folder in folders)
