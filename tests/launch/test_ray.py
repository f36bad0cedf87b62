"""`launch=ray` on a cluster of two nodes, one of which is killed in mid-sweep: tables are those of this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gradlab.grid.launching import Launch
from gradlab.launch.devices import CPU_MEMORY, Device
from gradlab.launch.events import Job
from gradlab.store import documents
from gradlab.store.folder import Folder
from gradlab.store.pieces import saved_pieces
from tests.commands import ENVIRONMENT, REPOSITORY, assert_same_tables, forked, run, spawn, wait_for
from tests.launch.slowly import file_of
from tests.launch.test_local import jobs_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")

SWEEP = (
    *("sweep", "seed=range(4)", "optim.lr=0.1,0.05", "model.width=8", "model.depth=2", "train.steps=8000"),
    *("probe.every=100", "launch.memory=1", "--no-report"),
)
"""8 pieces of one run each."""

SLOWLY = """
from gradlab.launch import ray
from tests.launch import slowly
ray.train_piece = slowly.train_piece
from gradlab.cli import main
main()
"""
"""The command, whose pieces go slowly where a test wants it."""

UNSEEN = f"""
import contextlib
from gradlab.launch import ray
ray._marked = lambda folder: contextlib.nullcontext("a file that no node sees")
{SLOWLY}
"""
"""The same, whose folder no node sees."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster, and who kills its second node at a line."""
    line = [sys.executable, str(Path(__file__).with_name("two_nodes.py"))]
    process = subprocess.Popen(
        line,
        env=ENVIRONMENT | {"PYTHONPATH": REPOSITORY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip(), process
    process.communicate("\n\n", timeout=30)


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the same sweep on this machine."""
    folder = tmp_path_factory.mktemp("home")
    ended = forked([*SWEEP, "-o", "out"], folder)
    assert (ended.status, ended.err) == (0, "")
    return folder / "out"


def start(script: str, address: str, folder: Path) -> subprocess.Popen[str]:
    return spawn([*SWEEP, "launch=ray", f"launch.address={address}", "-o", "out"], folder, script)


def finished(root: Path) -> int:
    return len(list(Folder(root / "out").pieces.glob("[0-9]*.runs.parquet")))


def at_work() -> int:
    """How many tasks are in the middle of a piece, on all nodes: Ray names their processes."""
    found = 0
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += place.read_bytes().startswith(b"ray::gradlab piece")
    return found


def test_an_interrupt_cancels_what_is_queued_and_a_resume_goes_on(
    cluster: tuple[str, subprocess.Popen[str]], tmp_path: Path, at_home: Path
) -> None:
    process = start(SLOWLY, cluster[0], tmp_path)
    wait_for(lambda: finished(tmp_path) >= 1)
    file_of(tmp_path / "out").touch()
    # Into the middle of those behind it.
    wait_for(lambda: at_work() == 2)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    file_of(tmp_path / "out").unlink()
    assert process.returncode == 130, err
    assert f"Ray at {cluster[0]}: 2 nodes, 2 cores" in out
    assert "gradlab sweep --resume out" in err
    assert "Traceback" not in err
    assert 1 <= finished(tmp_path) < 8
    assert list(Folder(tmp_path / "out").pieces.glob("*.from*.safetensors")), "what was at work is kept"
    refused = run(["sweep", "--resume", "out"], tmp_path)
    assert refused.status == 2
    assert f"launch.address={cluster[0]}, as its manifest says; to do so add --allow-code" in refused.err
    ended = run(["sweep", "--resume", "out", "--allow-code", "--no-report"], tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert_same_tables(tmp_path / "out", at_home)


def test_a_node_killed_in_mid_sweep_that_shares_no_file_system(
    cluster: tuple[str, subprocess.Popen[str]], tmp_path: Path, at_home: Path
) -> None:
    address, killer = cluster
    process = start(UNSEEN, address, tmp_path)
    wait_for(lambda: finished(tmp_path) >= 1)
    file_of(tmp_path / "out").touch()
    # One on each node, whatever Ray does first.
    wait_for(lambda: at_work() == 2)
    assert killer.stdin is not None
    killer.stdin.write("\n")
    killer.stdin.flush()
    file_of(tmp_path / "out").unlink()
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    assert "was lost with its worker or node, and is run again" in out
    assert documents.read_manifest(tmp_path / "out")["state"] == "done"
    assert_same_tables(tmp_path / "out", at_home)


def test_what_no_node_has_is_refused_before_anything_is_written(
    cluster: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    line = ["run", "train.steps=1", "launch=ray", f"launch.address={cluster[0]}", "-o", "out"]
    for wish, why in (
        ("launch.gpus=1", "no node of the Ray cluster"),
        ("launch.cores=64", "a piece takes 64 cores, and no node has more than 1"),
    ):
        ended = run([*line, wish], tmp_path)
        assert (ended.status, ended.out) == (2, "")
        assert why in ended.err
    assert not (tmp_path / "out").exists()


def test_what_becomes_of_a_task_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory: halved; lost with its worker: run again, so often; cancelled by somebody else: failed."""
    import ray as package
    from ray.exceptions import OutOfMemoryError, TaskCancelledError, WorkerCrashedError

    from gradlab.launch import ray

    (job, _) = jobs_of(tmp_path, 3)
    crew = ray.Crew(Device("cpu", "cpu", CPU_MEMORY, 1), Launch(name="ray", retries=1), ray.Cluster("here", ()))
    lost: dict[int, int] = {}
    waiting: deque[Job] = deque()

    def outcome(error: Exception) -> list[str]:
        def get(_task: object) -> None:
            raise error

        monkeypatch.setattr(package, "get", get)
        return [event.kind for event in crew._outcome(None, job, lost, waiting)]

    assert outcome(OutOfMemoryError("too large")) == ["halved"]
    assert waiting.pop().piece.chunks == (2, 1)
    assert outcome(WorkerCrashedError()) == ["told"]
    assert waiting.pop() is job
    assert outcome(WorkerCrashedError()) == ["failed"]
    assert outcome(TaskCancelledError()) == ["failed"]
    assert not waiting
    assert saved_pieces(Folder(tmp_path))[job.piece.index]["error"].to_pylist() == ["Ray: the task was cancelled"] * 3
