"""What it gains to train networks of one's own as one, beside one after the other: the bound of `grid.cohorts.SMALL`.

Run as ``python -m benchmarks.stacking``. Each network is lent to the engine as `model=module` lends it, 8, 16 and 32
times, on random batches of 64; steps between two records are taken both ways in turn, on one thread, and the median
of the ratios of their seconds is printed beside the operations of a layer's call, and what `launch.stacked=auto` does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data import function
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.lent import Lent, lend, obstacle_of
from gradlab.engine.task import task_of
from gradlab.engine.tried import extent
from gradlab.grid.cohorts import gains
from gradlab.spec.named import Value

SECONDS = 0.2
"""Of one turn."""


def noise() -> Any:
    """Images of 8x8 and their classes, at random."""
    rng = np.random.default_rng(0)
    images, classes = rng.normal(size=(128, 8, 8)), rng.integers(0, 10, 128)
    return (images, classes), (images[:8], classes[:8])


def mlp(depth: int, width: int) -> nn.Module:
    """Fully connected."""
    sizes = [64, *[width] * (depth - 1)]
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def cnn(channels: int, depth: int = 4) -> nn.Module:
    """Convolutions with batch norm."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8))]
    for enter, leave in pairwise([1, *[channels] * depth]):
        layers += [nn.Conv2d(enter, leave, 3, padding=1, bias=False), nn.BatchNorm2d(leave), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Cells(nn.Module):
    """A recurrence over the rows of an image: torch's cell, or one written by hand."""

    def __init__(self, width: int, kind: str = "") -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(8, width) if kind else None
        self.enter, self.turn, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 10)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8, 8) -> (B, 10)."""
        state = x.new_zeros(len(x), self.width)
        for row in x.unbind(1):
            state = torch.tanh(self.enter(row) + self.turn(state)) if self.cell is None else self.cell(row, state)
        out: Tensor = self.head(state)
        return out


class Attention(nn.Module):
    """Blocks of attention without dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(8, width), nn.Linear(width, 10)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8, 8) -> (B, 10)."""
        out: Tensor = self.out(self.blocks(self.enter(x)).mean(1))
        return out


NETWORKS: dict[str, tuple[str, dict[str, Value]]] = {
    **{f"MLP, 10 layers of {width}": ("mlp", {"depth": 10, "width": width}) for width in (32, 64, 128, 256)},
    **{f"CNN with batch norm, {channels} channels": ("cnn", {"channels": channels}) for channels in (4, 8, 16, 32)},
    **{f"cells by hand, {width} units": ("Cells", {"width": width}) for width in (16, 64, 128)},
    "GRUCell, 32 units": ("Cells", {"width": 32, "kind": "GRUCell"}),
    "attention, width 32": ("Attention", {"width": 32}),
}
COMPANIES = (8, 16, 32)


def lent(name: str, members: int, *, stacked: bool) -> tuple[Lent, Any]:
    """So many networks as `model=module` has them, and their batches."""
    target, arguments = NETWORKS[name]
    values: dict[str, Value] = {
        "model.name": "module",
        "model.target": f"{__file__}:{target}",
        **{f"model.args.{key}": value for key, value in arguments.items()},
        "data.name": "function",
        "data.target": f"{__file__}:noise",
    }
    runs = [described({**values, "seed": seed}) for seed in range(members)]
    task = task_of(runs, load(runs[0].data), torch.float32, torch.device("cpu"))
    return lend(runs, task, torch.device("cpu"), stacked=stacked), (runs, task)


def a_step(way: Lent, task: Any) -> float:
    """The seconds of a step between two records."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + SECONDS:
        way.there_and_back(task, 1, record=False, last=False)
        count += 1
    return (time.perf_counter() - start) / count


def main() -> None:
    """Prints a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default 5)")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    function.allow()
    sys.path.insert(0, str(Path(__file__).parent))
    for name in NETWORKS:
        _, (runs, task) = lent(name, 2, stacked=False)
        size = extent(runs[0], task)
        obstacle = obstacle_of(runs, task)
        cells = []
        for members in COMPANIES:
            ways = [lent(name, members, stacked=stacked) for stacked in (False, True)]
            ratios = []
            for _ in range(turns):
                apart, together = (a_step(way, task) for way, (_, task) in ways)
                ratios.append(apart / together)
            cells.append(f"{statistics.median(ratios):5.2f}")
        said = obstacle or ("stacked" if gains(size, COMPANIES[0], "auto") else "one by one")
        print(f"{name:<36}{size.work / size.calls / 1e6:>8.2f} M  {' '.join(cells):<18} {said}", flush=True)


if __name__ == "__main__":
    main()
