"""What the machine can do at all: the rate of ``torch.bmm`` at the grid's sizes, and the grid's matrix products at it.

Run as ``python -m benchmarks.limit --width 64``, or with ``--sweeps DIR`` for the share that a finished sweep reached.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

import gradlab
from benchmarks.settings import BATCH, DEPTHS, WIDTH
from gradlab.grid.cohorts import cost
from gradlab.spec.run import build

MEMBERS = 12
WINDOWS, WINDOW_S = 5, 0.3


@dataclass(frozen=True)
class Training:
    """The training phase of a finished sweep and its limit in seconds, and how many of its runs diverged."""

    seconds: float
    limit: float
    diverged: int

    @property
    def share(self) -> float:
        """Of the limit that was reached."""
        return self.limit / self.seconds


def operations(rows: Mapping[int, int], width: int) -> float:
    """Operations of the matrix products of ``rows``: depth -> how many times networks of it went forth and back.

    Forth H W', back dZ W and dZ' H, but for the first layer's dZ W: the gradient by the input is taken only where the
    per-layer table is recorded, and is not counted there either.

    >>> operations({2: 1}, width=64) == BATCH * (4 * 64 * 64 + 6 * 64 * 10)
    True
    """
    total = 0.0
    for depth, count in rows.items():
        run = build({"model.depth": depth, "model.width": width, "data.batch_size": BATCH, "train.steps": 0})
        total += count * (cost(run).work - 2.0 * BATCH * run.facts.inputs * width)
    return total


def rate(width: int, processes: int) -> float:
    """Operations a second of ``processes`` processes of one thread, all at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _meet_at, (barrier,)) as pool:
        return sum(pool.map(_rate_of_one, [width] * processes, chunksize=1))


_barrier: Barrier | None = None


def _meet_at(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - a pool hands a barrier to its processes only as they start
    _barrier = barrier
    torch.set_num_threads(1)


def _rate_of_one(width: int) -> float:
    """The fastest of the windows, as a limit should be. A turn is one layer's three products, each M x B x D x D."""
    hidden, slopes = torch.randn(2, MEMBERS, BATCH, width)
    matrices = torch.randn(MEMBERS, width, width)
    signals, gradients = torch.empty_like(hidden), torch.empty_like(matrices)

    def turn() -> None:
        torch.bmm(hidden, matrices.transpose(1, 2), out=signals)
        torch.bmm(slopes, matrices, out=signals)
        torch.bmm(slopes.transpose(1, 2), hidden, out=gradients)

    for _ in range(20):
        turn()
    if _barrier is not None:
        _barrier.wait()
    rates = []
    for _ in range(WINDOWS):
        turns, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < WINDOW_S:
            turn()
            turns += 1
        rates.append(6.0 * MEMBERS * BATCH * width * width * turns / spent)
    return max(rates)


def training(folder: Path, width: int, speed: float) -> Training:
    """The training phase of the sweep in ``folder``, beside its limit at ``speed`` operations a second.

    A piece's seconds, from its networks' first weights to its held-out figures, are shared out equally to its runs. So
    the sum of `duration_s` is the time that all workers spent training; over their number it is the phase without
    start-up, planning, the writing of tables, and a worker that waits for the last piece of another. A run that
    diverged counts with the steps that it took.
    """
    runs = gradlab.load(folder).runs
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = {depth: int((runs.loc[runs["model.depth"] == depth, "steps"] + 1).sum()) for depth in DEPTHS}
    seconds = float(runs["duration_s"].sum()) / int(manifest["workers"])
    return Training(seconds, operations(rows, width) / speed, int((runs["state"] == "diverged").sum()))


def say(trainings: Iterable[Training], speed: float) -> str:
    """The sentence of the table, of the training with the median share.

    >>> say([Training(20.0, 10.0, 0)], 160e9)
    'training phase: 20.0 s, limit 10.0 s, 50 % (torch.bmm at 160 GFLOP/s; 0 runs diverged)'
    """
    ordered = sorted(trainings, key=lambda one: one.share)
    middle = ordered[len(ordered) // 2]
    return (
        f"training phase: {middle.seconds:.1f} s, limit {middle.limit:.1f} s, {100 * middle.share:.0f} %"
        f" (torch.bmm at {speed / 1e9:.0f} GFLOP/s; {middle.diverged} runs diverged)"
    )


def main() -> None:
    """Prints the rate as one line of JSON or, with finished sweeps, the median of the shares that they reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the hidden layers (default {WIDTH})")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each (default 2)")
    parser.add_argument("--sweeps", type=Path, nargs="+", metavar="DIR", help="finished sweeps of the grid, that width")
    arguments = parser.parse_args()
    speed = rate(arguments.width, arguments.processes)
    if arguments.sweeps is None:
        print(json.dumps({"width": arguments.width, "processes": arguments.processes, "gflop_s": speed / 1e9}))
    else:
        print(say([training(folder, arguments.width, speed) for folder in arguments.sweeps], speed))


if __name__ == "__main__":
    main()
