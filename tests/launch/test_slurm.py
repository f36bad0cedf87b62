"""`launch=slurm` on a real Slurm of one node: a job cancelled, and one preempted in mid-piece."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import gradlab
from gradlab.grid.launching import Launch
from gradlab.launch import slurm
from gradlab.launch.devices import CPU_MEMORY, Device
from gradlab.launch.events import Event, Job
from gradlab.launch.slurm_job import said_by
from gradlab.launch.speed import USUAL
from gradlab.store.folder import Folder
from gradlab.store.pieces import saved_pieces
from tests.commands import ENVIRONMENT, Ended, assert_same_tables, forked, run, spawn, wait_for
from tests.launch.slowly import file_of
from tests.launch.test_local import jobs_of

SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
SWEEP = (
    *("sweep", "seed=0,1", "model.width=8", "model.depth=2", "train.steps=30000", "probe.every=1000"),
    *("launch.memory=1", "--no-report"),
)
"""Two pieces of one run each."""

APART = """
from gradlab.launch import slurm
from tests.launch import slowly
slurm.JOB_SECONDS = 0
slurm.train_pieces = slowly.train_pieces
from gradlab.cli import main
main()
"""
"""The command, with a job for each piece however small it is, which goes slowly where a test wants it."""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of one node with two cores."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        pytest.skip("no Slurm: slurm-wlm and munge are not installed")
    if os.getuid() != 0:
        pytest.skip("only root starts a Slurm")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], check=False, stderr=subprocess.PIPE, text=True)
    if started.returncode:
        pytest.skip(f"no Slurm: it does not start here: {started.stderr.strip()[-500:]}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(ENVIRONMENT, "SLURM_CONF", str(folder / "slurm.conf"))
        patched.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
        ask("scancel", "-u", str(os.getuid()))
    subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the same sweep on this machine."""
    folder = tmp_path_factory.mktemp("home")
    ended = forked([*SWEEP, "-o", "out"], folder)
    assert (ended.status, ended.err) == (0, "")
    return folder / "out"


def ask(*line: str) -> str:
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def start(line: list[str], folder: Path) -> subprocess.Popen[str]:
    return spawn(line, folder, APART)


def end_of(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def in_mid_piece(folder: Folder, index: int) -> bool:
    return any(event.kind == "progress" for event in said_by(folder, index)[0])


def tasks() -> list[str]:
    """The jobs of gradlab, as Slurm numbers them."""
    return [line for line in ask("squeue", "-h", "-r", "-p", "low", "-o", "%i").split("\n") if line]


def test_jobs_that_were_left_are_followed_and_a_preempted_one_goes_on(tmp_path: Path, at_home: Path) -> None:
    folder = Folder(tmp_path / "out")
    slowly = file_of(folder.root)
    slowly.touch()
    leaving = start([*SWEEP, "launch=slurm", "--detach", "-o", "out"], tmp_path)
    wait_for(lambda: in_mid_piece(folder, 0) and in_mid_piece(folder, 1))
    ask("sbatch", "-p", "high", "-n2", "-o", "/dev/null", "--wrap", "true")
    wait_for(lambda: bool(folder.checkpoints(0) and folder.checkpoints(1)), 20)
    left = end_of(leaving)
    assert (left.status, left.err) == (0, "")
    assert "Follow them with: gradlab sweep --resume" in left.out
    wait_for(lambda: ask("squeue", "-h", "-r", "-p", "low", "-o", "%T %r").split("\n").count("PENDING BeginTime") == 2)
    assert all(said_by(folder, index)[0][-1].kind == "progress" for index in (0, 1))
    elsewhere = run(["sweep", "--resume", "out", "launch=local"], tmp_path)
    assert elsewhere.status == 2
    assert "jobs of Slurm are still at work in it" in elsewhere.err
    slowly.unlink()
    following = start(["sweep", "--resume", "out", "--no-report"], tmp_path)
    for task in tasks():
        # Slurm lets what it took from its node wait for two minutes.
        ask("scontrol", "update", f"jobid={task}", "StartTime=now")
    ended = end_of(following)
    assert (ended.status, ended.err) == (0, "")
    assert "At work already: 2 jobs of gradlab-out-" in ended.out
    assert "handed over" not in ended.out
    assert not folder.jobs.exists()
    assert_same_tables(folder.root, at_home)


def test_a_job_that_is_cancelled_says_so_and_a_resume_goes_on(tmp_path: Path, at_home: Path) -> None:
    folder = Folder(tmp_path / "out")
    slowly = file_of(folder.root)
    slowly.touch()
    process = start([*SWEEP, "launch=slurm", "-o", "out"], tmp_path)
    wait_for(lambda: in_mid_piece(folder, 1))
    (second,) = (task for task in tasks() if task.endswith("_1"))
    ask("scancel", second)
    slowly.unlink()
    ended = end_of(process)
    assert ended.status == 1
    assert "1 of 2 runs crashed" in ended.err
    (error,) = gradlab.load(folder.root).runs["error"].dropna()
    assert error.startswith(f"Slurm job {second} CANCELLED")
    assert folder.checkpoints(1), "what it had trained is kept"
    again = forked(["sweep", "--resume", "out", "launch=local", "--no-report"], tmp_path)
    assert (again.status, again.err) == (0, "")
    assert_same_tables(folder.root, at_home)


def test_an_interrupt_cancels_the_jobs_and_what_the_cluster_refuses_is_said(tmp_path: Path) -> None:
    refused = run([*SWEEP, "launch=slurm", "launch.partition=nowhere", "-o", "out"], tmp_path)
    assert (refused.status, refused.out) == (2, "")
    assert "launch=slurm: the cluster refuses such a job: " in refused.err
    assert "Invalid partition name specified" in refused.err
    assert not (tmp_path / "out").exists()
    file_of(tmp_path / "out").touch()
    process = start([*SWEEP, "launch=slurm", "-o", "out"], tmp_path)
    wait_for(lambda: len(tasks()) == 2)
    os.killpg(process.pid, signal.SIGINT)
    ended = end_of(process)
    assert ended.status == 130
    assert "gradlab sweep --resume out" in ended.err
    assert not tasks()


def test_small_pieces_share_a_job(tmp_path: Path) -> None:
    job = jobs_of(tmp_path, 1)[0]

    def of(index: int, seconds: float) -> Job:
        return replace(job, piece=replace(job.piece, index=index, effort=seconds * USUAL))

    jobs = [of(index, seconds) for index, seconds in enumerate([300, 50, 40, 30, 20, 10, 5, 5])]
    assert [slurm._indices(task) for task in slurm.packed(jobs[1:], 1000)] == [(1, 4, 5), (2, 3, 6, 7)]
    assert [slurm._indices(task) for task in slurm.packed(jobs, 2)] == [(0,), (1, 2, 3, 4, 5, 6, 7)]
    assert len(slurm.packed(jobs[4:], 1000)) == 1


def test_what_becomes_of_the_pieces_of_a_job_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory: the piece that it was at is halved; its node lost: run again, so often; anything else: failed."""
    jobs = jobs_of(tmp_path, 3)
    handed: list[tuple[int, ...]] = []

    def ended(state: str, lost: dict[int, int], begun: tuple[int, ...] = (0,)) -> list[tuple[str, int]]:
        monkeypatch.setattr(slurm, "_end_of", lambda *_: (state, f"Slurm job 3_0 {state}"))
        crew = slurm.Crew(Device("cpu", "cpu", CPU_MEMORY, 1), Launch(name="slurm", retries=1))
        crew.open = {0: ("gradlab-x", 0), 1: ("gradlab-x", 0)}
        told = crew._ended(Folder(tmp_path), ("gradlab-x", 0), jobs, set(begun), lost)
        return [(event.kind, event.piece) for event in told]

    def hand_over(_crew: slurm.Crew, _folder: Folder, again: list[Job]) -> Event:
        handed.append(tuple(len(job.piece.chunks) for job in again))
        return Event("told", -1)

    monkeypatch.setattr(slurm.Crew, "_hand_over", hand_over)
    assert ended("OUT_OF_MEMORY", {}) == [("halved", 0), ("told", -1), ("told", -1)]
    assert ended("NODE_FAIL", {}) == [("told", -1), ("told", -1)]
    assert handed == [(2, 1), (1, 1)]
    assert ended("NODE_FAIL", {0: 1}) == [("failed", 0), ("told", -1), ("told", -1)]
    assert ended("FAILED", {}) == [("failed", 0), ("told", -1), ("told", -1)], "of its other pieces none is lost"
    assert handed[2:] == [(1,), (1,)]
    assert ended("FAILED", {}, begun=()) == ended("CANCELLED", {}) == [("failed", 0), ("failed", 1)]
    runs = saved_pieces(Folder(tmp_path))[1]
    assert set(runs["error"].to_pylist()) == {"Slurm job 3_0 CANCELLED"}
