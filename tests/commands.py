"""The `gradlab` command as tests start it: inside this process where that will do, else in processes of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
import torch

from gradlab.cli import main
from gradlab.data.dataset import Dataset
from gradlab.engine.keeper import Keeper
from gradlab.engine.train import Progress
from gradlab.engine.train import training as real_training
from gradlab.launch import local, resume, worker
from gradlab.launch.devices import Device
from gradlab.launch.events import Event, Job
from gradlab.launch.local import Crew
from gradlab.launch.worker import run_job
from gradlab.report import Report
from gradlab.spec.run import RunSpec
from gradlab.store.pieces import OPTIONAL
from gradlab.store.record import Record
from gradlab.store.tables import load_tables

GRADLAB = str(Path(sysconfig.get_path("scripts")) / "gradlab")
REPOSITORY = str(Path(__file__).parents[1])
ENVIRONMENT = {**os.environ, "COLUMNS": "80", "LINES": "24", "PYTHONWARNINGS": "default"}

TINY = ("model.width=8", "model.depth=2", "train.steps=3", "probe.every=2")


@dataclass(frozen=True)
class Ended:
    """A command that is over."""

    status: int
    out: str
    err: str


Gradlab = Callable[..., Ended]
"""The command as a function of its words."""


def call(
    arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cwd: Path
) -> Ended:
    """Runs `gradlab` with ``arguments`` in this process, in the folder ``cwd``."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["gradlab", *arguments])
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    hears_interrupts = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        # An interrupted command hears no second one; this process and its children shall.
        signal.signal(signal.SIGINT, hears_interrupts)
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, said.out, said.err)


def spawn(arguments: Sequence[str], cwd: Path, script: str | None = None) -> subprocess.Popen[str]:
    """Starts `gradlab` as a terminal does, in a process group of its own; or in its place a ``script``.

    The script finds the tests.
    """
    begins, finding = (
        ([GRADLAB], {}) if script is None else ([sys.executable, "-c", script], {"PYTHONPATH": REPOSITORY})
    )
    return subprocess.Popen(
        [*begins, *arguments],
        cwd=cwd,
        env=ENVIRONMENT | finding,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(arguments: Sequence[str], cwd: Path) -> Ended:
    """Runs `gradlab` in a process of its own, to its end."""
    process = spawn(arguments, cwd)
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def forked(arguments: Sequence[str], cwd: Path, site: Path | None = None, *, painted: bool = True) -> Ended:
    """Runs `gradlab` in a process of its own that needs no import and trains there itself, to its end: see `fork`."""
    return fork(arguments, cwd, site, painted=painted)()


def fork(arguments: Sequence[str], cwd: Path, site: Path | None = None, *, painted: bool = True) -> Callable[[], Ended]:
    """Starts `gradlab` in a fork of a process that has imported torch, and returns what waits for its end.

    ``site`` is a folder of installed packages; figures that are not ``painted`` are those of `dotted`.
    """
    context = preloading()
    said = TemporaryDirectory()
    given = (list(arguments), cwd, site, painted, Path(said.name), dict(os.environ))
    process = context.Process(target=_forked, args=given)
    process.start()

    def end() -> Ended:
        process.join(120)
        status = process.exitcode
        if status is None:
            process.kill()
        with said:
            out, err = ((Path(said.name) / name).read_text(encoding="utf-8") for name in ("out", "err"))
        assert status is not None, f"gradlab {arguments} hangs: {out}{err}"
        return Ended(status, out, err)

    return end


def preloading() -> ForkServerContext:
    """Processes that are forked from one which imports torch, once, and what is asked for together with it."""
    context = multiprocessing.get_context("forkserver")
    # torch.optim imports torch._dynamo when it is first used.
    context.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp", "gradlab.report.page", "tests.conftest"])
    with chdir(Path(__file__).parents[1]):
        ensure_running()
    return context


def _forked(
    arguments: list[str], cwd: Path, site: Path | None, painted: bool, said: Path, environment: dict[str, str]
) -> None:
    from tests.conftest import dotted

    for number, name in enumerate(("out", "err"), start=1):
        stream = (said / name).open("w", encoding="utf-8")
        os.dup2(stream.fileno(), number)
        setattr(sys, f"std{name}", stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment, COLUMNS="80", LINES="24")
    if site is not None:
        sys.path.insert(0, str(site))
    warnings.simplefilter("default")
    sys.argv = ["gradlab", *arguments]
    inline(pytest.MonkeyPatch())
    with nullcontext() if painted else dotted():
        main()


def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `conduct` train in this process, without workers: what is patched here is patched there."""

    @contextmanager
    def nobody(count: int, device: Device) -> Iterator[Crew]:
        assert count >= 0
        yield Crew(device)

    def nobody_fits(crew: Crew, count: int) -> None:
        assert not crew.workers
        assert count >= 0

    def run_jobs(crew: Crew, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
        for job in jobs:
            said: list[Event] = []
            interrupted = False
            yield Event("started", job.piece.index)
            try:
                run_job(job, torch.device(crew.device.name), said.append)
            except KeyboardInterrupt:
                interrupted = True
            yield from said
            if interrupted:
                raise KeyboardInterrupt
            if fail_fast and said[-1].kind == "failed":
                return

    torch.set_num_threads(1)
    for place in (resume, local):
        monkeypatch.setattr(place, "crew_of", nobody)
    monkeypatch.setattr(Crew, "fit", nobody_fits)
    monkeypatch.setattr(Crew, "run", run_jobs)


def before_training(monkeypatch: pytest.MonkeyPatch, what: Callable[[list[RunSpec], Keeper], None]) -> None:
    """Calls ``what`` with the runs of each training of a worker, which it may change; what it raises is its crash."""

    def training(
        runs: Sequence[RunSpec], data: Dataset, device: torch.device, said: Progress, keeper: Keeper, *, stacked: bool
    ) -> Generator[None, None, Record]:
        runs = list(runs)
        what(runs, keeper)
        return (yield from real_training(runs, data, device, said, keeper, stacked=stacked))

    monkeypatch.setattr(worker, "training", training)


def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the report's drawing, which takes seconds; the list collects the folders that it is asked to write."""
    asked: list[Path] = []

    def write_report(paths: Sequence[Path], out: Path, **_keys: object) -> Report:
        asked.append(out)
        out.mkdir(exist_ok=True)
        (out / "index.html").write_text("", encoding="utf-8")
        return Report((), out / "index.html", ("a note",))

    monkeypatch.setattr("gradlab.report.write_report", write_report)
    return asked


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns once ``what`` is true; fails where that takes too long."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(parent: int) -> dict[int, str]:
    """The processes that ``parent`` has started, with their command lines."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text(encoding="utf-8")
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found[int(place.name)] = (place / "cmdline").read_text(encoding="utf-8")
        except OSError:
            continue
    return found


def workers(parent: int) -> list[int]:
    """The worker processes of a command."""
    return [pid for pid, line in children(parent).items() if "spawn_main" in line]


def assert_same_tables(one: Path, other: Path) -> None:
    """The tables of two results are equal bit for bit, but for what the clock says."""
    for (name, left), right in zip(load_tables(one).items(), load_tables(other).values(), strict=True):
        assert left.num_rows > 0 or name in OPTIONAL
        columns, others = bits(left), bits(right)
        different = [column for column in columns if columns[column] != others.get(column)]
        assert list(columns) == list(others)
        assert not different, f"{name}: {different}"


def bits(table: pa.Table) -> dict[str, object]:
    """The columns as they lie in memory, where NaN equals itself and 0.0 is not -0.0."""
    columns: dict[str, object] = {}
    for name in table.column_names:
        if name == "duration_s":
            continue
        column = table[name].combine_chunks()
        if pa.types.is_float64(column.type):
            filled = column.fill_null(0.0).to_numpy(zero_copy_only=False)
            columns[name] = (column.is_null().to_pylist(), filled.tobytes())
        else:
            columns[name] = column.to_pylist()
    return columns
