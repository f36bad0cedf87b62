"""The reference grid through gradlab and its peers, side by side; and the commands that must feel immediate.

Run as ``python -m benchmarks.grid --repeats 3 --parts sweep --peers loop,ensemble-2-processes``. It prints
whole-process seconds (the median, with the least and the most), ratios and peak memory, and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.settings import SHARES, WIDTH, listed, overrides, plane, settings
from benchmarks.timing import GRADLAB, Timing, line, median, sweep, timed

NARROW, WIDE = 16, 256
WIDE_STEPS = 50
"""At width 256 every step multiplies sixteen times as much: a quarter of the steps say the same."""

SEEDS = 10


@dataclass(frozen=True)
class Peer:
    """A module of this folder, its options, and the share of the grid that it runs unless asked for all of it."""

    module: str
    options: tuple[str, ...] = ()
    share: int = SHARES[-1]


PEERS = {
    "loop": Peer("loop"),
    "loop-1-thread": Peer("loop", ("--threads", "1")),
    "hydra": Peer("hydra_peer"),
    "hydra-joblib": Peer("hydra_peer", ("--launcher", "joblib")),
    "ensemble": Peer("ensemble", share=3),
    "ensemble-1-thread": Peer("ensemble", ("--threads", "1"), share=3),
    "ensemble-2-processes": Peer("ensemble", ("--processes", "2"), share=3),
}
USUAL = ("loop", "hydra", "hydra-joblib", "ensemble-2-processes")


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for, and the folder that everything is written into."""

    repeats: int
    peer_repeats: int
    peers: tuple[str, ...]
    whole: bool
    cockpit: str | None
    folder: Path

    def fresh(self) -> Path:
        """A path for one command's output: it does not exist yet."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "out"


def run_peer(peer: Peer, wishes: Wishes, *options: str) -> Timing:
    """A peer over its share of the grid, scaled to all of it: start-up once, training ``share`` times."""
    share = 1 if wishes.whole else peer.share
    module = f"benchmarks.{peer.module}"
    command = [sys.executable, "-m", module, "--share", str(share), *peer.options, *options]
    done = timed(command, wishes.folder)
    work = json.loads(done.output.splitlines()[-1])["work_s"]
    return Timing(done.seconds + (share - 1) * work, done.memory, done.output)


def beside(peers: Sequence[str], wishes: Wishes, width: int) -> list[Path]:
    """The sweep at one width beside ``peers``; gives the folders of the finished sweeps."""
    ours: list[Timing] = []
    folders: list[Path] = []
    others: dict[str, list[Timing]] = {name: [] for name in peers}
    options = () if width == WIDTH else ("--width", str(width))
    # Taken in turn, so that a machine that slows down slows them all.
    for turn in range(max(wishes.repeats, wishes.peer_repeats)):
        if turn < wishes.repeats:
            folders.append(wishes.fresh())
            ours.append(sweep(overrides(width=width), folders[-1], wishes.folder))
        if turn < wishes.peer_repeats:
            for name in peers:
                others[name].append(run_peer(PEERS[name], wishes, *options))
    where = "" if width == WIDTH else f", width {width}"
    line(f"gradlab sweep{where}", ours)
    for name, timings in others.items():
        part = "" if wishes.whole else f", from one run in {PEERS[name].share}"
        line(f"{name}{where}", timings, f"{median(timings) / median(ours):.2f} times gradlab{part}")
    return folders


def say_output_of(module: str, wishes: Wishes, *options: str) -> None:
    """Prints what a module of this folder prints.

    In a process of its own: torch here would count as memory of every command that is timed, since a new process
    begins with the peak of the one that starts it.
    """
    print(timed([sys.executable, "-m", f"benchmarks.{module}", *options], wishes.folder).output, end="", flush=True)


def compare_limit(folders: Sequence[Path], width: int, wishes: Wishes) -> None:
    """Prints the share of the machine's limit that finished sweeps reached."""
    workers = json.loads((folders[0] / "manifest.json").read_text(encoding="utf-8"))["workers"]
    sizes = ("--width", str(width), "--processes", str(workers))
    say_output_of("limit", wishes, *sizes, "--sweeps", *map(str, folders))


def part_commands(wishes: Wishes) -> None:
    """Start-up and planning."""

    def repeated(label: str, command: Callable[[], Sequence[str]], times: int, remark: str = "") -> float:
        timings = [timed(command(), wishes.folder) for _ in range(times)]
        line(label, timings, remark)
        return median(timings)

    def one_step(*options: str) -> Callable[[], Sequence[str]]:
        return lambda: [GRADLAB, "run", "train.steps=1", "-q", *options, "-o", str(wishes.fresh())]

    repeated("gradlab --help", lambda: [GRADLAB, "--help"], wishes.repeats)
    bare = repeated("python -c 'import torch'", lambda: [sys.executable, "-c", "import torch"], wishes.repeats)
    for label, options in (("", ()), (" --no-report", ("--no-report",))):
        full = repeated(f"gradlab run train.steps=1{label}", one_step(*options), wishes.repeats)
        print(f"{'':<34}{full - bare:>+9.2f} s over the import of torch", flush=True)
    seeds = f"seed={listed(range(SEEDS))}"
    for count, grid, times in (
        (len(settings(1)), overrides(), wishes.repeats),
        (100**2, plane(100), wishes.repeats),
        (100**2 * SEEDS, (*plane(100), seeds), 1),
    ):
        repeated(f"gradlab sweep --plan, {count} runs", partial(list, (GRADLAB, "sweep", *grid, "--plan")), times)


def part_sweep(wishes: Wishes) -> None:
    """The reference grid beside the peers, its share of the machine's limit, and its report."""
    folders = beside(wishes.peers, wishes, WIDTH)
    compare_limit(folders, WIDTH, wishes)
    reports = [
        timed([GRADLAB, "report", str(folders[0]), "-o", str(wishes.fresh())], wishes.folder)
        for _ in range(wishes.repeats)
    ]
    line(f"gradlab report, {len(settings(1))} runs", reports)


def part_narrow(wishes: Wishes) -> None:
    """Width 16, where scripts drown in overhead."""
    beside([name for name in wishes.peers if name == "loop"], wishes, NARROW)


def part_wide(wishes: Wishes) -> None:
    """Width 256, where matrix products are all there is."""
    out = wishes.fresh()
    done = sweep(overrides(width=WIDE, steps=WIDE_STEPS), out, wishes.folder)
    line(f"gradlab sweep, width {WIDE}", [done], f"{WIDE_STEPS} steps")
    compare_limit([out], WIDE, wishes)


def part_probes(wishes: Wishes) -> None:
    """What measuring costs."""
    cockpit = () if wishes.cockpit is None else ("--cockpit", wishes.cockpit)
    say_output_of("probes", wishes, "--repeats", str(wishes.repeats), *cockpit)


def part_seeds(wishes: Wishes) -> None:
    """Ten times the grid: time and memory beside the grid's own."""
    timings = []
    for label, more in (("", ()), (f", {SEEDS} seeds", (f"seed={listed(range(SEEDS))}",))):
        out = wishes.fresh()
        timings.append(sweep((*overrides(), *more), out, wishes.folder))
        shutil.rmtree(out)
        line(f"gradlab sweep{label}", timings[-1:])
    one, many = timings
    print(f"{SEEDS} seeds: {many.seconds / one.seconds:.2f} times the time, {many.memory / one.memory:.2f} the memory")


def part_init(wishes: Wishes) -> None:
    """10,000 networks measured at their initial weights: the plane of weight and bias variance."""
    line("gradlab sweep, init only, 10000", [sweep(plane(100), wishes.fresh(), wishes.folder)])


PARTS: dict[str, Callable[[Wishes], None]] = {
    "commands": part_commands,
    "sweep": part_sweep,
    "narrow": part_narrow,
    "wide": part_wide,
    "probes": part_probes,
    "seeds": part_seeds,
    "init": part_init,
}
DEFAULT = tuple(PARTS)


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of gradlab's commands (default 3)")
    parser.add_argument("--peer-repeats", type=int, default=3, help="of the peers (default 3)")
    parser.add_argument("--peers", default=listed(USUAL), help=f"of {', '.join(PEERS)} (default {listed(USUAL)})")
    parser.add_argument("--whole", action="store_true", help="the peers run the whole grid, not a fixed share of it")
    parser.add_argument("--cockpit", metavar="PYTHON", help="an interpreter that has cockpit-for-pytorch, for `probes`")
    parser.add_argument("--parts", default=listed(DEFAULT), help=f"of {', '.join(PARTS)} (default {listed(DEFAULT)})")
    arguments = parser.parse_args()
    peers = tuple(name for name in arguments.peers.split(",") if name)
    parts = arguments.parts.split(",")
    for given, known in ((peers, tuple(PEERS)), (parts, tuple(PARTS))):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown: {', '.join(unknown)}; available: {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="gradlab-benchmark-") as name:
        options = (arguments.repeats, arguments.peer_repeats, peers, arguments.whole, arguments.cockpit)
        wishes = Wishes(*options, folder=Path(name))
        print(f"{len(settings(1))} runs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}")
        for part in parts:
            print(f"\n{part}", flush=True)
            PARTS[part](wishes)


if __name__ == "__main__":
    main()
