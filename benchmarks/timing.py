"""Whole processes, timed from outside, and a row of the table for them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GRADLAB = str(Path(sys.executable).with_name("gradlab"))


@dataclass(frozen=True)
class Timing:
    """One finished command: wall-clock seconds, peak memory of its largest process in MiB, and what it printed."""

    seconds: float
    memory: float
    output: str


def timed(command: Sequence[str], folder: Path) -> Timing:
    """Runs ``command`` in the project's root, its output kept in ``folder``; ends the benchmark where it fails."""
    log = folder / "output.txt"
    with log.open("w", encoding="utf-8") as stream:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(encoding="utf-8")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with status {process.returncode}:\n{output[-4000:]}")
    per_mebibyte = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return Timing(seconds, usage.ru_maxrss / per_mebibyte, output)


def sweep(overrides: Sequence[str], out: Path, folder: Path) -> Timing:
    """A whole ``gradlab sweep`` without its report, into ``out``."""
    return timed([GRADLAB, "sweep", *overrides, "--no-report", "-q", "-o", str(out)], folder)


def median(timings: Sequence[Timing]) -> float:
    """Of the seconds."""
    return statistics.median(timing.seconds for timing in timings)


def spread(values: Sequence[float]) -> str:
    """The least and the most of several measurements; nothing of one.

    >>> spread([3.0, 1.0, 2.0]), spread([1.0])
    ('1.00..3.00', '')
    """
    return f"{min(values):.2f}..{max(values):.2f}" if len(values) > 1 else ""


def line(label: str, timings: Sequence[Timing], remark: str = "") -> None:
    """Prints one row of the table: the median, the spread, the peak memory and a remark."""
    extent = spread([timing.seconds for timing in timings])
    memory = max(timing.memory for timing in timings)
    print(f"{label:<34}{median(timings):>9.2f} s  {extent:<16}{memory:>7.0f} MiB  {remark}".rstrip(), flush=True)
