"""Commands that are killed or interrupted, and what `--resume` makes of what they left; real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gradlab
from gradlab.store.folder import Folder
from tests.commands import alive, assert_same_tables, children, fork, forked, spawn, wait_for, workers

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
    ended = forked([*SWEEP, "-o", "out"], folder)
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
    ended = forked(["sweep", "--resume", "out", "--no-report"], folder)
    assert (ended.status, ended.err) == (0, "")
    if missing is not None:
        (count,) = (int(line.split()[2]) for line in ended.out.splitlines() if line.startswith("Resuming out:"))
        assert count in missing
    manifest = json.loads((folder / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert not list((folder / "out").glob(".*")), "nothing temporary is left"


def test_kill_9_of_the_command_alone(started: subprocess.Popen[str], tmp_path: Path, undisturbed: Path) -> None:
    """Of the whole group: `tests/faults/test_kills.py`."""
    wait_for(lambda: finished_pieces(tmp_path) >= 3)
    family = children(started.pid)
    assert len(workers(started.pid)) == 2
    os.kill(started.pid, signal.SIGKILL)
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


def interrupted(process: subprocess.Popen[str], folder: Path, send: Callable[[], object]) -> None:
    """``send`` interrupts the command, which ends soon, in peace and with all whom it started."""
    family = children(process.pid)
    began = time.monotonic()
    send()
    _, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert took < PATIENCE
    print(f"ended {took:.2f} s after the interrupt")
    assert process.returncode == 130
    assert "gradlab sweep --resume out" in err
    assert "Traceback" not in err
    wait_for(lambda: not any(map(alive, family)), seconds=PATIENCE)
    assert json.loads((folder / "out/manifest.json").read_text(encoding="utf-8"))["state"] == "interrupted"


def test_an_interrupt_of_the_command_alone_while_torch_is_imported(
    started: subprocess.Popen[str], tmp_path: Path
) -> None:
    wait_for((tmp_path / "out/manifest.json").exists)
    assert len(workers(started.pid)) == 2
    assert not finished_pieces(tmp_path)
    interrupted(started, tmp_path, lambda: os.kill(started.pid, signal.SIGINT))


def test_a_second_command_is_refused_and_an_impatient_user_is_heard_in_mid_sweep(
    started: subprocess.Popen[str], tmp_path: Path, undisturbed: Path
) -> None:
    wait_for(lambda: finished_pieces(tmp_path) >= 1)
    second = forked(["sweep", "--resume", "out"], tmp_path)
    assert (second.status, second.out) == (2, "")
    assert second.err == "gradlab: error: out: another gradlab is at work in this folder\n"

    def five_times() -> None:
        for _ in range(5):
            os.killpg(started.pid, signal.SIGINT)
            time.sleep(0.02)

    interrupted(started, tmp_path, five_times)
    assert len(gradlab.load(tmp_path / "out").runs) == finished_pieces(tmp_path)
    resume(tmp_path)
    assert_same_tables(tmp_path / "out", undisturbed)


def test_commands_started_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    line = ["run", "model.width=8", "model.depth=2", "train.steps=0", "--no-report"]
    rivals = [fork([*line, "-o", "same"], tmp_path) for _ in range(2)]
    friends = [fork(line, tmp_path) for _ in range(2)]
    assert sorted(end().status for end in rivals) == [0, 2]
    assert [end().status for end in friends] == [0, 0]
    assert len(gradlab.load(tmp_path / "same").runs) == 1
    folders = list((tmp_path / "outputs").glob("20*/*"))
    assert len(folders) == 2
    assert all(len(gradlab.load(folder).runs) == 1 for folder in folders)
