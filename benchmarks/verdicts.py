"""How often a verdict is right: trained networks whose pathology theory fixes, and healthy ones.

    python -m benchmarks.verdicts [--seeds 10 11 12]

`--seeds` trains the same cohorts from other weights than those by which thresholds were chosen.

Each cohort is one call of `engine.train.train`, but for the dead networks. A pathological run is right where the
expected verdict is among those given, a healthy one where `healthy` is the only one. No setting was drawn at random:
seeds, depths, widths, inits and learning rates are enumerated, and why theory decides is said beside each cohort.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradlab
from gradlab.data.loaders import load
from gradlab.diagnose import Verdict, judge
from gradlab.diagnose.tables import histories
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.record import tidy

Values = Mapping[str, Value]


@dataclass(frozen=True)
class Group:
    """Runs of one cohort: the verdict that theory gives them, why, what they share, and the grid inside the cohort."""

    expected: str
    why: str
    shared: Values
    inside: Mapping[str, Sequence[Value]]

    def runs(self) -> list[dict[str, Value]]:
        """The values of each run."""
        points = itertools.product(*self.inside.values())
        return [{**COMMON, **self.shared, **dict(zip(self.inside, point, strict=True))} for point in points]

    def seeded(self, seeds: Sequence[int]) -> Group:
        """The same from other seeds; where weights are not drawn, as it is."""
        drawn = len(self.inside.get("seed", ())) > 1
        return replace(self, inside={**self.inside, "seed": tuple(seeds)}) if drawn and seeds else self


@dataclass(frozen=True)
class Judged:
    """A run's group, its values, and the verdicts that it got."""

    group: Group
    values: Values
    verdicts: tuple[Verdict, ...]

    @property
    def right(self) -> bool:
        """Whether the expected verdict was given; of a healthy run, whether it was the only one."""
        names = [verdict.name for verdict in self.verdicts]
        return names == ["healthy"] if self.group.expected == "healthy" else self.group.expected in names


COMMON: dict[str, Value] = {"model.width": 32, "train.steps": 60, "probe.every": 30, "optim.lr": 0.01}
SEEDS = (0, 1)

SICK = (
    Group(
        "vanishing",
        "sigmoid: rate 0.236 with σw² = 1, 0.14 with 1/3 (mean field)",
        {"model.activation": "sigmoid", "model.depth": 12},
        {"seed": SEEDS, "model.init": ("xavier_normal", "lecun_normal", "torch_default")},
    ),
    Group(
        "vanishing",
        "ReLU below He: rate 0.707 with σw² = 1, 0.408 with 1/3",
        {"model.activation": "relu", "model.depth": 20, "model.width": 64},
        {"seed": SEEDS, "model.weight_var": (1.0, 1 / 3)},
    ),
    Group(
        "vanishing",
        "tanh in the ordered phase: rate 0.577 with σw² = 1/3; 0.871 with σw² = 1, σb² = 0.05",
        {"model.activation": "tanh", "model.depth": 40, "model.bias_var": 0.05},
        {"seed": SEEDS, "model.weight_var": (1 / 3, 1.0)},
    ),
    Group(
        "vanishing",
        "an Elman network of small weights forgets: at most gain a time step, 29 of them (Pascanu et al. 2013)",
        {"model.name": "rnn", "data.name": "adding", "data.length": 30, "model.activation": "tanh"},
        {"seed": SEEDS, "model.init": ("orthogonal",), "model.gain": (0.5, 0.7)},
    ),
    Group(
        "vanishing",
        "all weights 0: nothing comes back through the output layer",
        {"model.activation": "tanh", "model.depth": 5},
        {"model.init": ("zeros",), "seed": (0,)},
    ),
    Group(
        "exploding",
        "ReLU above He: rate √2 with σw² = 4, 2 with 8",
        {"model.activation": "relu", "model.depth": 20, "optim.lr": 1e-6},
        {"seed": SEEDS, "model.weight_var": (4.0, 8.0)},
    ),
    Group(
        "exploding",
        "batch norm before ReLU: rate 1.21 (Yang et al. 2019)",
        {"model.activation": "relu", "model.norm": "batch", "model.depth": 40, "optim.lr": 1e-4},
        {"seed": SEEDS, "model.init": ("he_normal", "xavier_normal")},
    ),
    Group(
        "exploding",
        "tanh in the chaotic phase: rate 1.16 with σw² = 4, σb² = 0.05",
        {"model.activation": "tanh", "model.depth": 40, "model.bias_var": 0.05, "model.width": 64, "optim.lr": 1e-4},
        {"seed": SEEDS, "model.weight_var": (4.0,)},
    ),
    Group(
        "exploding",
        "whole residual branches: ‖δ‖² doubles a layer",
        {"model.name": "residual_mlp", "model.depth": 20, "optim.lr": 1e-6},
        {"seed": SEEDS, "model.init": ("he_normal",)},
    ),
    Group(
        "diverged",
        "ReLU He, learning rates far above 2/λ: the loss overflows",
        {"model.activation": "relu", "model.depth": 6},
        {"seed": SEEDS, "optim.lr": (5.0, 50.0)},
    ),
    Group(
        "diverged",
        "a linear network whose error grows by its learning rate each step",
        {"model.name": "linear_chain", "model.depth": 3},
        {"optim.lr": (10.0, 20.0, 40.0), "model.gain": (1.0, 1.2)},
    ),
    Group(
        "oscillating",
        "tanh cannot overflow: learning rates far above 2/λ throw it about",
        {"model.activation": "tanh", "model.init": "lecun_normal", "model.depth": 6},
        {"seed": SEEDS, "optim.lr": (5.0, 20.0)},
    ),
    Group(
        "oscillating",
        "Adam moves every weight by its learning rate: 1 is ten standard deviations of them",
        {"model.activation": "tanh", "model.init": "lecun_normal", "model.depth": 4, "optim.name": "adam"},
        {"seed": SEEDS, "optim.lr": (1.0, 3.0)},
    ),
    Group(
        "saturated",
        "tanh: with σw² = 25 and 100, z has a standard deviation above 4 from layer 2 on",
        {"model.activation": "tanh", "model.depth": 8, "optim.lr": 1e-3},
        {"seed": SEEDS, "model.weight_var": (25.0, 100.0)},
    ),
    Group(
        "saturated",
        "sigmoid: with σw² = 400, z has a standard deviation of 12 and more",
        {"model.activation": "sigmoid", "model.depth": 6, "optim.lr": 1e-3},
        {"seed": SEEDS, "model.weight_var": (400.0, 900.0)},
    ),
    Group(
        "underflow",
        "sigmoid in float32: 0.236 to the power of 80 and more is below 1e-45",
        {"model.activation": "sigmoid", "model.depth": 90},
        {"seed": SEEDS, "model.init": ("xavier_normal", "torch_default")},
    ),
    Group(
        "underflow",
        "a linear network of small weights: 0.1 to the power of 60",
        {"model.activation": "linear", "model.depth": 60},
        {"seed": SEEDS, "model.weight_var": (0.01,)},
    ),
    Group(
        "overclipped",
        "a threshold of a hundredth of the gradient norm and less",
        {"model.activation": "relu", "model.depth": 5},
        {"seed": SEEDS, "clip.mode": ("norm", "layerwise", "value"), "clip.threshold": (1e-3, 1e-4)},
    ),
    Group(
        "stalled",
        "a sound network whose learning rate is a million times too small",
        {"model.activation": "relu", "model.depth": 6, "train.steps": 200},
        {"seed": SEEDS, "optim.lr": (1e-7, 1e-6)},
    ),
)

HEALTHY = (
    Group(
        "healthy",
        "ReLU He",
        {"model.activation": "relu", "model.depth": 5},
        {"seed": (0, 1, 2, 3), "optim.lr": (0.05, 0.1)},
    ),
    Group("healthy", "ReLU He", {"model.depth": 10, "model.width": 64}, {"seed": (0, 1, 2), "optim.lr": (0.05, 0.1)}),
    Group(
        "healthy",
        "ReLU He, another task",
        {"model.depth": 8, "data.name": "gaussian_mixture"},
        {"seed": (0, 1, 2), "model.init": ("he_normal", "he_uniform"), "optim.lr": (0.05,)},
    ),
    Group(
        "healthy",
        "leaky ReLU, He",
        {"model.activation": "leaky_relu", "model.depth": 8},
        {"seed": (0, 1, 2), "optim.lr": (0.05, 0.1)},
    ),
    Group(
        "healthy",
        "tanh, LeCun",
        {"model.activation": "tanh", "model.depth": 8},
        {"seed": (0, 1, 2), "model.init": ("lecun_normal", "xavier_normal"), "optim.lr": (0.1,)},
    ),
    Group(
        "healthy",
        "tanh on the critical line",
        {"model.activation": "tanh", "model.depth": 20, "model.width": 64, "model.bias_var": 0.05},
        {"seed": (0, 1, 2), "model.weight_var": (1.76,), "optim.lr": (0.03, 0.05)},
    ),
    Group(
        "healthy",
        "layer norm",
        {"model.activation": "relu", "model.norm": "layer", "model.depth": 10},
        {"seed": (0, 1, 2), "model.init": ("he_normal", "xavier_normal"), "optim.lr": (0.1,)},
    ),
    Group(
        "healthy",
        "batch norm, shallow",
        {"model.activation": "relu", "model.norm": "batch", "model.depth": 6},
        {"seed": (0, 1, 2), "optim.lr": (0.05, 0.1)},
    ),
    Group(
        "healthy",
        "residual branches of 1/√L",
        {"model.name": "residual_mlp", "model.depth": 25, "model.branch_scale": 0.2},
        {"seed": (0, 1, 2), "optim.lr": (0.02, 0.05)},
    ),
    Group(
        "healthy",
        "sigmoid, three layers",
        {"model.activation": "sigmoid", "model.depth": 3},
        {"seed": (0, 1, 2), "model.init": ("xavier_normal",), "optim.lr": (1.0,)},
    ),
    Group(
        "healthy",
        "Adam at its usual rate",
        {"model.activation": "relu", "model.depth": 6, "optim.name": "adam"},
        {"seed": (0, 1, 2), "optim.lr": (0.001, 0.003)},
    ),
    Group(
        "healthy",
        "an Elman network of orthogonal weights over eight rows",
        {"model.name": "rnn", "model.activation": "tanh", "model.width": 64},
        {"seed": (0, 1, 2), "model.init": ("orthogonal",), "optim.lr": (0.1,)},
    ),
    Group(
        "healthy",
        "a threshold that cuts the peaks",
        {"model.activation": "relu", "model.depth": 5},
        {"seed": (0, 1, 2), "clip.mode": ("norm",), "clip.threshold": (5.0,), "optim.lr": (0.05,)},
    ),
    Group(
        "healthy",
        "a linear network of identities",
        {"model.name": "linear_chain", "model.depth": 4},
        {"model.gain": (0.95, 1.0, 1.05), "optim.lr": (0.3,)},
    ),
)


DEAD = Group(
    "dead",
    "ReLU whose biases are all far below 0: no sample wakes a unit, and no gradient its weights (Lu et al. 2019)",
    {"optim.lr": 0.01, "train.steps": 20},
    {"model.depth": (3, 6, 10), "seed": SEEDS, "bias": (-10.0, -30.0)},
)
"""No key of a run sets a bias: these are plain torch networks, trained by hand and judged by `gradlab.verdict`."""


BY_HAND = ("model.depth", "bias", "seed", "train.steps", "optim.lr")


def judged_by_hand(group: Group) -> list[Judged]:
    """The runs of `DEAD`: He-initialised ReLU networks on the digits with one bias in every hidden layer."""
    data = load(build({}).data)
    inputs = torch.from_numpy(data.train_inputs[:64]).float().flatten(1)
    targets = torch.from_numpy(data.train_targets[:64])
    results = []
    for values in group.runs():
        depth, bias, seed, steps, lr = (float(values[key] or 0) for key in BY_HAND)
        network = biased(int(depth), bias, int(seed))
        mover = torch.optim.SGD(network.parameters(), lr=lr)
        for _ in range(int(steps)):
            mover.zero_grad()
            torch.autograd.backward(cross_entropy(network(inputs), targets))
            mover.step()
        frame = gradlab.measure(network, cross_entropy, (inputs, targets))
        results.append(Judged(group, values, gradlab.verdict(frame)))
    return results


def biased(depth: int, bias: float, seed: int) -> nn.Sequential:
    """``depth`` linear layers of the usual width, ReLU between them."""
    torch.manual_seed(seed)
    width = int(COMMON["model.width"] or 0)
    modules: list[nn.Module] = []
    for fan_in in (64, *[width] * (depth - 2)):
        linear = nn.Linear(fan_in, width)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.constant_(linear.bias, bias)
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(width, 10))


def judged(group: Group) -> list[Judged]:
    """Trains the runs of a group as one cohort and judges each."""
    values = group.runs()
    runs = [build(run) for run in values]
    tables = tidy(train(runs, load(runs[0].data), torch.device("cpu"), lambda *_: None))
    found = histories(tables.runs, tables.steps, tables.layers)
    return [Judged(group, run, judge(history)) for run, history in zip(values, found, strict=True)]


def sick(seeds: Sequence[int] = ()) -> list[Judged]:
    """Every run whose pathology theory fixes, from ``seeds`` if there are any."""
    trained = [result for group in SICK for result in judged(group.seeded(seeds))]
    return [*trained, *judged_by_hand(DEAD.seeded(seeds))]


def healthy(seeds: Sequence[int] = ()) -> list[Judged]:
    """Every run that nothing is wrong with, from ``seeds`` if there are any."""
    return [result for group in HEALTHY for result in judged(group.seeded(seeds))]


def share(results: Sequence[Judged]) -> float:
    """The part that is right."""
    return sum(result.right for result in results) / len(results)


def lines(results: Sequence[Judged]) -> Iterator[str]:
    """What the script prints of one half of the set."""
    for group, members in itertools.groupby(results, key=lambda result: result.group):
        mine = list(members)
        yield f"  {sum(result.right for result in mine):3d} of {len(mine):3d} {group.expected}: {group.why}"
        for result in mine:
            if not result.right:
                setting = " ".join(f"{key}={result.values[key]}" for key in group.inside)
                yield f"        {setting}: {'; '.join(verdict.sentence for verdict in result.verdicts)}"


def main() -> None:
    """Prints both rates, and every run that was judged wrongly with the verdict that it got."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="other seeds of the initial weights")
    seeds = parser.parse_args().seeds
    for what, results in (("pathologies found", sick(seeds)), ("healthy runs left alone", healthy(seeds))):
        print(f"{what}: {sum(result.right for result in results)} of {len(results)}, {share(results):.1%}")
        print("\n".join(lines(results)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
