"""The reference grid through gradlab and its peers, side by side; and the commands that must feel immediate.

Run as ``python -m benchmarks.grid --repeats 3 --peers loop,loop-1-thread,hydra``. It prints whole-process seconds (the
median, with the least and the most), ratios and peak memory, and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.settings import OVERRIDES, STEPS, settings

ROOT = Path(__file__).resolve().parents[1]
GRADLAB = str(Path(sys.executable).with_name("gradlab"))
PARTS = ("sweep", "report", "commands")
PEERS = ("loop", "loop-1-thread", "hydra")


@dataclass(frozen=True)
class Timing:
    """One finished process: wall-clock seconds, peak memory in MiB and what it printed."""

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


def peer(name: str, share: int, folder: Path) -> Timing:
    """A peer over one in ``share`` runs, scaled to the whole grid: start-up once, training ``share`` times."""
    if name == "hydra":
        swept = "+setting=" + ",".join(setting.override() for setting in settings(share))
        logs = tempfile.mkdtemp(dir=folder)
        command = [sys.executable, "-m", "benchmarks.hydra_peer", "--multirun", f"hydra.sweep.dir={logs}", swept]
    else:
        threads = ["--threads", "1"] if name == "loop-1-thread" else []
        command = [sys.executable, "-m", "benchmarks.loop", "--share", str(share), *threads]
    done = timed(command, folder)
    work = json.loads(done.output.splitlines()[-1])["work_s"]
    return Timing(done.seconds + (share - 1) * work, done.memory, done.output)


def sweep(every: int, out: Path, folder: Path) -> Timing:
    """The grid through ``gradlab sweep``, the per-layer table recorded every so many steps, into ``out``."""
    command = [GRADLAB, "sweep", *OVERRIDES, f"probe.every={every}", "--no-report", "-q", "-o", str(out)]
    return timed(command, folder)


def seconds(timings: Sequence[Timing]) -> float:
    """The median of the seconds."""
    return statistics.median(timing.seconds for timing in timings)


def line(label: str, timings: Sequence[Timing], remark: str = "") -> None:
    """Prints one row of the table."""
    all_seconds = [timing.seconds for timing in timings]
    spread = f"{min(all_seconds):.2f}..{max(all_seconds):.2f}" if len(timings) > 1 else ""
    memory = max(timing.memory for timing in timings)
    print(f"{label:<34}{seconds(timings):>9.2f} s  {spread:<16}{memory:>7.0f} MiB  {remark}".rstrip(), flush=True)


def compare_sweep(peers: Sequence[str], repeats: int, peer_repeats: int, share: int, folder: Path) -> Path:
    """The sweep, its peers, and what the per-layer table costs; gives the folder of one finished sweep."""
    often: list[Timing] = []
    rarely: list[Timing] = []
    others: dict[str, list[Timing]] = {name: [] for name in peers}
    # Taken in turn, so that a machine that slows down slows them all.
    for turn in range(max(repeats, peer_repeats)):
        if turn < repeats:
            often.append(sweep(10, folder / f"often-{turn}", folder))
            rarely.append(sweep(STEPS, folder / f"rarely-{turn}", folder))
        if turn < peer_repeats:
            for name in peers:
                others[name].append(peer(name, share, folder))
    line("gradlab sweep", often)
    cost = seconds(often) / seconds(rarely) - 1
    line(f"gradlab sweep probe.every={STEPS}", rarely, f"every 10 steps costs {cost:+.1%} over this")
    for name, timings in others.items():
        scaled = f", from one run in {share}" if share > 1 else ""
        line(name, timings, f"{seconds(timings) / seconds(often):.2f} times gradlab{scaled}")
    return folder / "often-0"


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of gradlab's commands (default 3)")
    parser.add_argument("--peer-repeats", type=int, default=1, help="of the peers (default 1)")
    parser.add_argument("--peers", default="loop,hydra", help=f"of {', '.join(PEERS)} (default loop,hydra)")
    parser.add_argument("--share", type=int, choices=(1, 12), default=12, help="the peers run one in this many runs")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (default all)")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers.split(",") if name]
    parts = arguments.parts.split(",")
    for given, known in ((peers, PEERS), (parts, PARTS)):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown: {', '.join(unknown)}; available: {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="gradlab-benchmark-") as name:
        folder = Path(name)
        print(f"{len(settings(1))} runs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}\n")
        if "commands" in parts:
            for label, command in (
                ("--help", ["--help"]),
                ("sweep --plan", ["sweep", *OVERRIDES, "--plan"]),
            ):
                line(f"gradlab {label}", [timed([GRADLAB, *command], folder) for _ in range(arguments.repeats)])
        finished: Path | None = None
        if "sweep" in parts:
            finished = compare_sweep(peers, arguments.repeats, arguments.peer_repeats, arguments.share, folder)
        if "report" in parts:
            if finished is None:
                finished = folder / "swept"
                sweep(10, finished, folder)
            reports = [
                timed([GRADLAB, "report", str(finished), "-o", str(folder / f"report-{turn}")], folder)
                for turn in range(arguments.repeats)
            ]
            line("gradlab report", reports)


if __name__ == "__main__":
    main()
