"""The reference grid on a GPU: gradlab beside the plain loop there, and its share of the card's two limits.

Run as ``python -m benchmarks.gpu``; ``--device cpu --width 16`` shows on any machine that it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.limit import training
from benchmarks.settings import BATCH, WIDTH, overrides
from benchmarks.timing import GRADLAB, line, timed
from gradlab.grid.cohorts import cost
from gradlab.spec.run import build

SHARE = 12
"""The loop runs one in so many of the grid's networks."""

SIGNAL_PASSES, PARAMETER_PASSES = 10, 6
"""How often a step reads or writes each layer's signal and each parameter at the least.

A signal: H read and Z written by the product, Z read and H written by the activation; back dH read and dZ written, dZ
and H read for the matrix's gradient, dZ read and dH written for the layer below. A parameter: read forth and back, its
gradient written, read for its norm and for the update, and itself written.
"""


def best(run: Callable[[], object], device: str, turns: int = 20) -> float:
    """The seconds of the fastest of some turns."""
    seconds = []
    for _ in range(turns):
        if device != "cpu":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limits(device: str, side: int) -> tuple[float, float]:
    """Operations a second of a float32 product of ``side`` (no TF32), and bytes a second of a copy, there and back."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = torch.randn(2, side, side, device=device)
    out = torch.empty_like(a)
    arithmetic = 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out), device)
    source = torch.empty(16, side, side, device=device)
    target = torch.empty_like(source)
    return arithmetic, 2.0 * source.nbytes / best(lambda: target.copy_(source), device)


def traffic(depth: int, width: int) -> float:
    """Bytes that a step of one network moves at the least.

    >>> traffic(1, 64) == 4 * (PARAMETER_PASSES * 650 + SIGNAL_PASSES * BATCH * 10)
    True
    """
    widths = [64, *[width] * (depth - 1), 10]
    parameters = sum((before + 1) * after for before, after in pairwise(widths))
    return 4.0 * (PARAMETER_PASSES * parameters + SIGNAL_PASSES * BATCH * sum(widths[1:]))


def main() -> None:
    """Prints the seconds of both, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="default cuda:0")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the hidden layers (default {WIDTH})")
    parser.add_argument("--side", type=int, default=8192, help="of the square product of the limit (default 8192)")
    arguments = parser.parse_args()
    device, width = arguments.device, arguments.width
    with tempfile.TemporaryDirectory(prefix="gradlab-benchmark-") as name:
        folder = Path(name)
        out = folder / "out"
        asked = [GRADLAB, "sweep", *overrides(width=width), "--device", device, "--no-report", "-q", "-o", str(out)]
        ours = timed(asked, folder)
        options = ("--share", str(SHARE), "--width", str(width), "--device", device)
        loop = timed([sys.executable, "-m", "benchmarks.loop", *options], folder)
        scaled = loop.seconds + (SHARE - 1) * json.loads(loop.output.splitlines()[-1])["work_s"]
        line("gradlab sweep", [ours])
        print(f"loop, scaled from one run in {SHARE}: {scaled:.1f} s, {scaled / ours.seconds:.1f} times gradlab")
        arithmetic, bandwidth = limits(device, arguments.side)
        reached = training(out, width, arithmetic)
        grid = [build({"model.depth": depth, "model.width": width}) for depth in (5, 10, 20)]
        # Every depth has as many runs as the others.
        moved = sum(traffic(run.model.depth, width) for run in grid) / sum(cost(run).work / 201 for run in grid)
        by_memory = reached.limit * arithmetic * moved / bandwidth
        print(
            f"training phase {reached.seconds:.2f} s: {reached.share:.1%} of float32 arithmetic "
            f"({arithmetic / 1e12:.2f} TFLOP/s), "
            f"{by_memory / reached.seconds:.1%} of memory bandwidth ({bandwidth / 1e9:.0f} GB/s)"
        )


if __name__ == "__main__":
    main()
