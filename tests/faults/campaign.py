"""Sweeps that are killed again and again, and resumed: at named points and at random moments, from one seed.

`tests/faults/test_kills.py` runs a few; `make faults` many: ``python -m tests.faults.campaign KILLS SEED``.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.commands import assert_same_tables, run, spawn

SWEEP = (
    *("sweep", "seed=range(12)", "optim.lr=0.1,1e38", "model.width=8", "model.depth=2", "train.steps=300"),
    *("probe.every=50", "launch.memory=1", "launch.workers=2", "--device", "cpu", "-o", "out"),
)
"""24 pieces of one run each; half of the runs diverge at once."""

RUNS = 24

POINTS: dict[str, Callable[[Path], bool]] = {
    "the manifest is written": lambda out: (out / "manifest.json").exists(),
    "three pieces are saved": lambda out: len(list(out.glob("pieces/*.runs.parquet"))) >= 3,
    "all pieces are saved": lambda out: len(list(out.glob("pieces/*.runs.parquet"))) == RUNS,
    "runs are merged": lambda out: (out / "runs.parquet").exists(),
    "steps are merged": lambda out: (out / "steps.parquet").exists(),
    "the pieces are dropped": lambda out: (out / "runs.parquet").exists() and not (out / "pieces").exists(),
    "the report is begun": lambda out: (out / ".report.drawing").exists(),
}

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@dataclass(frozen=True)
class Kill:
    """One kill: ``when`` is one of `POINTS`, or seconds after the start; of the ``group``, or of the command alone."""

    when: str | float
    what: signal.Signals
    group: bool

    def __str__(self) -> str:
        at = self.when if isinstance(self.when, str) else f"{self.when:.2f} s"
        return f"{self.what.name} of {'the group' if self.group else 'the command'} when {at}"


def drawn(random_: random.Random) -> Kill:
    """A kill at random, every second at a named point."""
    when = random_.choice(list(POINTS)) if random_.random() < 0.5 else random_.uniform(0.0, 8.0)
    return Kill(when, random_.choice(SIGNALS), random_.random() < 0.5)


def killed(folder: Path, kill: Kill, line: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Runs ``line`` in ``folder`` and kills it; where it ends before that, it has ended."""
    process = spawn(line, folder)
    began = time.monotonic()
    point = POINTS.get(str(kill.when))
    while process.poll() is None and time.monotonic() - began < 120:
        if point(folder / "out") if point else time.monotonic() - began >= float(kill.when):
            break
        time.sleep(0.002)
    if process.poll() is None:
        (os.killpg if kill.group else os.kill)(process.pid, kill.what)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def survives(folder: Path, kills: list[Kill], whole: Path) -> None:
    """Kills a sweep and its resumes, finishes it, and compares it with ``whole``; raises `AssertionError`."""
    for kill in kills:
        begun = (folder / "out/manifest.json").exists()
        ended = killed(folder, kill, ("sweep", "--resume", "out") if begun else SWEEP)
        if not ended.stdout and ended.returncode:
            # Python itself was starting, or the command was read: nothing was written, and the signal did what it does.
            continue
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "Exception ignored" not in ended.stderr, ended.stderr
        # When the last line is said all is written, and the signal does to Python's own end what it does.
        over = [-kill.what] if ended.stdout.endswith("report  out/report/index.html\n") else []
        assert ended.returncode in (0, STATUS[kill.what], *over), ended
    begun = (folder / "out/manifest.json").exists()
    last = run(["sweep", "--resume", "out"] if begun else list(SWEEP), folder)
    assert (last.status, last.err) == (0, ""), last
    assert_same_tables(folder / "out", whole)
    assert (folder / "out/report/index.html").is_file()
    assert not [path.name for path in (folder / "out").glob(".*")]
    assert not (folder / "out/pieces").exists()


def main() -> None:
    """The large campaign: as many kills as are asked for, up to three in a row, and a line for each that failed."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    random_, done, failures = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        ended = run(list(SWEEP), whole)
        assert ended.status == 0, ended.err
        while done < count:
            kills = [drawn(random_) for _ in range(random_.randint(1, 3))]
            folder = Path(scratch) / f"{done}"
            folder.mkdir()
            try:
                survives(folder, kills, whole / "out")
            except (AssertionError, subprocess.TimeoutExpired) as failure:
                failures += 1
                print(f"after {'; '.join(map(str, kills))}: {str(failure)[:600]}", flush=True)
            done += len(kills)
            shutil.rmtree(folder)
    print(f"{done} kills from seed {seed}: {failures} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
