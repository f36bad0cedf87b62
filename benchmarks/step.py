"""One step of a cohort on one core: by torch, by our kernels called one by one, and written down as a program.

Run as ``python -m benchmarks.step --depth 10 --width 64 --members 12``. Each cell is the median of the fast half of the
steps, in milliseconds, beside the time that the step's matrix products alone take in torch.bmm.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from gradlab.data.loaders import load
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.playing import perform, rehearse
from gradlab.engine.step import advance
from gradlab.grid.cohorts import cost
from gradlab.launch.worker import keep_memory
from gradlab.nn.kernels import calls
from gradlab.spec.named import Value
from gradlab.spec.run import build

CLIPS = ("none", "norm", "value")
NORMS = ("none", "batch", "layer")
ACTIVATIONS = ("relu", "tanh", "sigmoid")
STEPS, SPAN = 120, 10


def cohort(depth: int, width: int, members: int, activation: str, norm: str) -> Cohort:
    """Members of the reference grid's kind: He weights, three ways of clipping."""
    shape: dict[str, Value] = {
        "model.depth": depth,
        "model.width": width,
        "model.activation": activation,
        "model.norm": norm,
    }
    common: dict[str, Value] = {**shape, "optim.lr": 0.01, "train.steps": 10_000}
    runs = [
        build({**common, "seed": member, "clip.mode": CLIPS[member * len(CLIPS) // members]})
        for member in range(members)
    ]
    return prepare(runs, load(runs[0].data), torch.device("cpu"))


def milliseconds(step: Callable[[int], object]) -> float:
    """Of one step."""
    spent = []
    for t in range(STEPS):
        began = time.perf_counter()
        step(t)
        spent.append(time.perf_counter() - began)
    return 1e3 * statistics.median(sorted(spent)[: STEPS // 2])


@contextmanager
def by_torch() -> Iterator[None]:
    """Without our kernels."""
    ours = calls.kernels
    calls.kernels = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        calls.kernels = ours


def products(found: Cohort, width: int) -> float:
    """Milliseconds of the step's matrix products, at the rate of a hot torch.bmm of width x width matrices."""
    left, right = torch.randn(2, len(found.runs), 64, width), torch.randn(len(found.runs), width, width)
    out = torch.empty(len(found.runs), 64, width)
    rate = 2 * len(found.runs) * 64 * width * width / milliseconds(lambda _: torch.bmm(left[0], right, out=out))
    run = found.runs[0]
    return cost(run).work / (run.train.steps + 1) * len(found.runs) / rate


def row(found: Cohort, width: int) -> tuple[float, ...]:
    """Milliseconds: the products alone, by torch, kernels one by one, the program, and the program with record."""
    members = np.arange(len(found.runs))
    with by_torch():
        torches = milliseconds(lambda t: advance(found, t, record=False))
    singly = milliseconds(lambda t: advance(found, t, record=False))
    rehearsed = rehearse(found)

    def spans(due: range) -> float:
        """Of a step among as many as are played in one go."""
        return milliseconds(lambda _: perform(found, range(SPAN), due, rehearsed, members)) / SPAN

    return products(found, width), torches, singly, spans(range(0)), spans(range(SPAN))


def main() -> None:
    """Prints one row a kind of network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--members", type=int, default=12)
    sizes = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    print(f"{sizes.members} members, depth {sizes.depth}, width {sizes.width}; milliseconds a step, one core")
    heads = ("products", "torch", "one by one", "program", "recorded")
    print(f"{'':<18}" + "".join(f"{head:>12}" for head in heads))
    for activation, norm in itertools.product(ACTIVATIONS, NORMS):
        found = cohort(sizes.depth, sizes.width, sizes.members, activation, norm)
        cells = "".join(f"{value:>12.2f}" for value in row(found, sizes.width))
        print(f"{activation + ', ' + norm:<18}{cells}", flush=True)


if __name__ == "__main__":
    main()
