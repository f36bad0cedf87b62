"""How often the interval that a measured rate states holds the rate: over many seeds, kind of network by kind.

    python -m benchmarks.coverage [--seeds 200] [--first 1000]

A run states ln rate ± 2 errors, 95.4 % by Student's t. What it should hold is the mean of ln rate over all seeds. An
interval that holds it in fewer than 92 % of the seeds claims too much, in more than 98 % too little; where layers share
something no error is stated, and none is counted. Nothing is trained: the profiles are those of the initial weights.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gradlab.data.loaders import load
from gradlab.diagnose.passage import passage
from gradlab.diagnose.tables import histories
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.record import tidy

COMMON: dict[str, Value] = {"model.width": 64, "train.steps": 0}
LEAST, MOST = 0.92, 0.98

KINDS: dict[str, Mapping[str, Value]] = {
    "ReLU, He, 6 layers": {"model.depth": 6},
    "ReLU, He, 8 layers": {"model.depth": 8},
    "ReLU, He, 12 layers": {"model.depth": 12},
    "ReLU, He, 30 layers": {"model.depth": 30},
    "ReLU, He, 30 layers of 32": {"model.depth": 30, "model.width": 32},
    "sigmoid, Xavier, 12 layers": {"model.depth": 12, "model.activation": "sigmoid", "model.init": "xavier_normal"},
    "tanh, chaos, 20 layers": {"model.depth": 20, "model.activation": "tanh", "model.weight_var": 2.5},
    "tanh, Xavier, 24 layers": {"model.depth": 24, "model.activation": "tanh", "model.init": "xavier_normal"},
    "tanh, orthogonal, 24 layers": {"model.depth": 24, "model.activation": "tanh", "model.init": "orthogonal"},
    "ReLU behind batch norm, 24 layers": {"model.depth": 24, "model.norm": "batch"},
    "residual ReLU, β = 1, 24 layers": {"model.name": "residual_mlp", "model.depth": 24, "model.branch_scale": 1.0},
    "recurrent tanh, orthogonal": {
        "model.name": "rnn",
        "data.name": "adding",
        "model.activation": "tanh",
        "model.init": "orthogonal",
    },
    "recurrent ReLU, He": {
        "model.name": "rnn",
        "data.name": "adding",
        "model.activation": "relu",
        "model.init": "he_normal",
    },
}
"""The networks that an error was measured on, and those that state none."""


@dataclass(frozen=True)
class Coverage:
    """Of one kind: how many of the ``runs`` state an error, the share whose interval holds the mean, and spreads.

    ``spread`` is the standard deviation of ln rate over the seeds, ``told`` the median of the stated errors (nan
    without any). ``held`` is nan where fewer than half of the runs state an error.
    """

    kind: str
    runs: int
    stating: int
    held: float
    spread: float
    told: float

    @property
    def honest(self) -> bool:
        """Whether the share lies within `LEAST` and `MOST`, by as much as so many seeds can tell, or nothing is said.

        Of n intervals of 95.4 % the share is known to two of its own standard errors.
        """
        slack = 2 * math.sqrt(0.954 * 0.046 / self.stating) if self.stating else 0.0
        return math.isnan(self.held) or min(LEAST, 0.954 - slack) <= self.held <= max(MOST, 0.954 + slack)


def coverage(kind: str, values: Mapping[str, Value], seeds: Sequence[int]) -> Coverage:
    """Draws the networks of ``kind`` from each of ``seeds`` and asks each for its rate and its error."""
    runs = [build({**COMMON, **values, "seed": seed}) for seed in seeds]
    tables = tidy(train(runs, load(runs[0].data), torch.device("cpu"), lambda *_: None))
    logs, errors = [], []
    for history in histories(tables.runs, tables.steps, tables.layers):
        found = passage(history.along[-1])
        if found is not None and found.fit is not None:
            logs.append(math.log(found.fit.rate))
            errors.append(found.fit.error / found.fit.rate)
    return counted(kind, np.array(logs), np.array(errors))


def counted(kind: str, logs: np.ndarray, errors: np.ndarray) -> Coverage:
    """The coverage of intervals ``logs`` ± 2 ``errors``, (R,) each; NaN errors state none."""
    stated = np.isfinite(errors)
    held, told = math.nan, math.nan
    if stated.sum() >= len(logs) / 2:
        held = float(np.mean(np.abs(logs - logs.mean())[stated] <= 2 * errors[stated]))
        told = float(np.median(errors[stated]))
    return Coverage(kind, len(logs), int(stated.sum()), held, float(logs.std(ddof=1)), told)


def lines(found: Iterable[Coverage]) -> list[str]:
    """A Markdown table."""
    rows = ["| network | states an error | held | sd of ln rate | error told |", "| --- | --- | --- | --- | --- |"]
    for one in found:
        said = ("none", "none") if math.isnan(one.held) else (f"{one.held:.3f}", f"{one.told:.4f}")
        rows.append(f"| {one.kind} | {one.stating} of {one.runs} | {said[0]} | {one.spread:.4f} | {said[1]} |")
    return rows


def main() -> None:
    """Prints the coverage of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=200, help="how many draws of each network (default 200)")
    parser.add_argument("--first", type=int, default=1000, help="the first of the seeds (default 1000)")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    print("\n".join(lines(coverage(kind, values, seeds) for kind, values in KINDS.items())))


if __name__ == "__main__":
    main()
