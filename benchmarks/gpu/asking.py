"""What the parts ask with: a little grid to rehearse with, sweeps, the limits of a card, what a step must move."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.settings import BATCH, WIDTH, overrides
from benchmarks.timing import timed

COMMAND = (sys.executable, "-m", "gradlab")

SIGNAL_PASSES, PARAMETER_PASSES = 10, 6
"""How often a step reads or writes each layer's signal and each parameter at the least.

A signal: H read and Z written by the product, Z read and H written by the activation; back dH read and dZ written, dZ
and H read for the matrix's gradient, dZ read and dH written for the layer below. A parameter: read forth and back, its
gradient written, read for its norm and for the update, and itself written.
"""


def say(what: str, **figures: Any) -> None:
    """One line of the results."""
    print(json.dumps({"what": what, **figures}), flush=True)


def is_gpu(device: str) -> bool:
    """Whether this is no rehearsal."""
    return device != "cpu"


def grid(device: str, *more: str, width: int = WIDTH) -> tuple[str, ...]:
    """The reference grid, or a little one to rehearse with."""
    if is_gpu(device):
        return (*overrides(width=width), *more)
    return ("model.depth=3,5", "model.activation=relu,tanh", f"model.width={min(width, 16)}", "train.steps=12", *more)


def seeds(count: int) -> str:
    """So many of them."""
    return f"seed=range({count})"


def sweep(device: str, out: Path, *asked: str) -> float:
    """The seconds of a whole ``gradlab sweep`` into ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return timed([*COMMAND, "sweep", *asked, *quietly(device, out)], out.parent).seconds


def quietly(device: str, out: Path) -> tuple[str, ...]:
    """Options of a sweep."""
    return ("--device", device, "--no-report", "-q", "-o", str(out))


def runs_in(out: Path) -> int:
    """How many a result has."""
    return pq.read_metadata(out / "runs.parquet").num_rows  # type: ignore[no-any-return]


@contextmanager
def memory_watched(device: str) -> Iterator[list[float]]:
    """The MiB in use on the card, twice a second."""
    seen: list[float] = []
    over = threading.Event()
    ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def look() -> None:
        while not over.wait(0.5):
            seen.append(float(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]))

    thread = threading.Thread(target=look, daemon=True)
    if is_gpu(device):
        thread.start()
    try:
        yield seen
    finally:
        over.set()


def best(run: Callable[[], object], device: str, turns: int = 20) -> float:
    """The seconds of the fastest of some turns."""
    seconds = []
    for _ in range(turns):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def wait(device: str) -> None:
    """Until the card has done what it was asked for."""
    if is_gpu(device):
        torch.cuda.synchronize(device)


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
