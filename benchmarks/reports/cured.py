"""Reports whose remedy is a change that a run can be given, as runs: is it among what `gradlab cure` finds?

Each is one `gradlab cure` in a process of its own, as a user would start it, of the network that the report has
(`model=module`) on a task of the same kind with more samples: 512 to train on, 128 held out. A report is cured where
one of the remedies that answers to such reports name is among the smallest changes that heal, alone or in a pair: each
was trained over several seeds beside the sick run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.cases import Batch, Composed, classes, images, mlp, regression, rings
from benchmarks.reports.posts import biased, convolutions, dense, equal, lstm, strong
from benchmarks.timing import ROOT
from gradlab.cure.ranking import front, outcomes
from gradlab.store.documents import read_manifest
from gradlab.store.tables import load_tables

TRAIN, HELDOUT = 512, 128

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sick:
    """A report as a run: its ``network`` and ``data``, its recipe, and the remedies that answers to it name.

    ``title`` is that of the report. Without a ``network`` it is one of gradlab's own, and the recipe says which.
    """

    title: str
    network: Callable[[], nn.Module] | None
    data: Callable[[int], Batch]
    recipe: str
    named: str

    @property
    def overrides(self) -> list[str]:
        """What `gradlab cure` is given."""
        own = [] if self.network is None else ["model=module", *_of("model", "network", self.title)]
        return [*own, "data=function", *_of("data", "data", self.title), *self.recipe.split()]


def _of(section: str, name: str, title: str) -> list[str]:
    return [f"{section}.target={__name__}.{name}", f"{section}.args.title='{title}'"]


def network(title: str) -> nn.Module:
    """The network of a report, drawn as its author's code draws it."""
    make = SICK[title].network
    assert make is not None
    return make()


def data(title: str) -> tuple[Pair, Pair]:
    """What is trained on and what is held out, the same whatever the seed of a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, y = SICK[title].data(TRAIN + HELDOUT)
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def summed(output: Tensor, targets: Tensor) -> Tensor:
    """The loss over the batch, summed."""
    return F.cross_entropy(output, targets, reduction="sum")


def pictures(samples: int) -> Batch:
    """From 0 to 255, as they come from their files."""
    x, y = images(samples)
    return x * 60 + 128, y


def prices(samples: int) -> Batch:
    """In dollars."""
    x, y = regression(samples)
    return x, y * 8e4 + 2e5


def tenfold(samples: int) -> Batch:
    """Targets up to 10."""
    x, y = regression(samples)
    return x, y * 10


def far_below(samples: int) -> Batch:
    """Targets below zero, all of them."""
    x, y = regression(samples)
    return x, y - 20


def tiny(samples: int) -> Batch:
    """Inputs in the units of a sensor."""
    x, y = classes(samples)
    return x * 1e-5, y


def sequences(samples: int, length: int) -> Batch:
    """The class shows in the first step, and noise follows."""
    centres, y = torch.randn(10, 8), torch.arange(samples) % 10
    x = torch.randn(samples, length, 8) * 0.3
    x[:, 0] += centres[y]
    return x, y


def spoken(samples: int, length: int) -> Batch:
    """The class shows in every step, under noise."""
    centres, y = torch.randn(10, 8), torch.arange(samples) % 10
    return centres[y][:, None] * 0.5 + torch.randn(samples, length, 8), y


def recurrent(cell: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A recurrent network whose last output is classified."""
    way = lambda parts, x: parts["head"](parts["cell"](x)[0][:, -1])  # noqa: E731
    return lambda: Composed(way, cell=cell(), head=nn.Linear(32, 10))


def _reports() -> tuple[Sick, ...]:
    of_three = partial(dense, 20, 64, 64, 10)
    number = partial(dense, 20, 64, 1)
    drawn = "he xavier orthogonal"
    slower = "lr/3 lr/10 lr/100"
    acts = "tanh relu leaky_relu elu gelu"
    norms = "batch layer rms"
    clips = "clip-norm clip-tenth clip-half clip-most clip-value clip-layers normalize"
    return (
        Sick("house prices, not scaled", partial(dense, 20, 64, 64, 1), prices, "optim.lr=0.01", "unit-targets"),
        Sick("pictures from 0 to 255", convolutions, pictures, "data.standardise=false optim.lr=0.05", "standardise"),
        Sick("Adam with 0.1, stuck at 2.30", convolutions, images, "optim=adam optim.lr=0.1", f"lr-usual {slower}"),
        Sick("SGD with 1e-6, nothing happens", of_three, classes, "optim.lr=1e-6", "lr*10 lr*100 lr-usual adam"),
        Sick("ten sigmoid layers", partial(dense, 20, *[64] * 10, 10, act=nn.Sigmoid), classes, "optim.lr=0.05",
             f"{acts} {norms}"),
        Sick("five linear layers and nothing between", None, rings,
             "model.depth=5 model.activation=linear optim.lr=0.1", acts),
        Sick("biases of -10, all ReLUs asleep", lambda: biased(of_three(), -10.0), classes, "optim.lr=0.05",
             f"{drawn} leaky_relu elu"),
        Sick("LSTM forgets after 200 steps", recurrent(lstm), partial(sequences, length=200),
             "optim=adam optim.lr=0.003", f"{drawn} {clips}"),
        Sick("all weights zero", lambda: equal(of_three(), 0.0), classes, "optim.lr=0.05", drawn),
        Sick("all weights a half", lambda: equal(of_three(), 0.5), classes, "optim.lr=0.05", drawn),
        Sick("weight decay of 1", partial(mlp, 3), classes, "optim.lr=0.1 optim.weight_decay=1", "no-decay"),
        Sick("gradients clipped to 1e-5", of_three, classes, "optim.lr=0.05 clip.mode=norm clip.threshold=1e-5",
             "clip-off clip-wider clip-norm clip-tenth clip-half clip-most"),
        Sick("tanh output, targets up to 10", number, tenfold, "model.output=tanh optim.lr=0.1",
             "unit-targets bare-output"),
        Sick("LSTM with softmax before CrossEntropyLoss", recurrent(lstm), partial(spoken, length=20),
             "model.output=softmax optim=adam optim.lr=0.01", "bare-output"),
        Sick("ReLU after the last layer of a regression", number, far_below, "model.output=relu optim.lr=0.05",
             "bare-output"),
        Sick("ReLU RNN explodes",
             recurrent(lambda: strong(nn.RNN(8, 32, nonlinearity="relu", batch_first=True), 0.5)),
             partial(spoken, length=60), "optim.lr=0.05", f"orthogonal {clips} {drawn}"),
        Sick("loss summed over the batch, SGD", partial(mlp, 3), classes,
             f"optim.lr=0.1 train.loss={__name__}.summed", f"{slower} lr-usual"),
        Sick("momentum of 0.99", partial(mlp, 3), classes, "optim.lr=0.3 optim.momentum=0.99",
             f"calmer-momentum {slower} lr-usual"),
        Sick("thirty layers, loss stays at 2.30", partial(dense, 20, *[64] * 30, 10), classes, "optim.lr=0.05",
             f"{drawn} {norms}"),
        Sick("inputs of 1e-5 (units of the sensor)", of_three, tiny, "data.standardise=false optim.lr=0.05",
             "standardise"),
    )  # fmt: skip


SICK = {one.title: one for one in _reports()}
"""By the titles of the reports."""


@dataclass(frozen=True)
class Cured:
    """What a cure came to: whether a named remedy is among the smallest that heal, what these are, and which heal."""

    title: str
    right: bool
    before: str
    best: tuple[str, ...]
    heal: tuple[str, ...]

    def __str__(self) -> str:
        best, heal = ("; ".join(self.best) or "nothing"), (", ".join(self.heal) or "none")
        return f"{self.title}: {self.before}; the smallest that heal: {best}; of the named heal: {heal}"


def cured(title: str, folder: Path) -> Cured:
    """Cures a report in ``folder``, unless it has been."""
    sick = SICK[title]
    if not (folder / "manifest.json").is_file():
        command = [sys.executable, "-m", "gradlab", "cure", *sick.overrides, "-o", str(folder), "--no-report", "-q"]
        subprocess.run(command, check=True, cwd=ROOT)
    before, *tried = outcomes(read_manifest(folder)["cure"], load_tables(folder))
    best = [one for one in front(tried) if one.state == "heals"]
    named = set(sick.named.split())
    heal = tuple(one.name for one in tried if one.state == "heals" and one.name in named)
    right = any(named & set(one.change["remedies"]) for one in best)
    return Cured(title, right, before.verdict, tuple(f"{one.name} ({one.cost})" for one in best), heal)
