"""Cohorts of every architecture beside the plain loop: torch's fused operations, one network at a time.

Run as ``python -m benchmarks.architectures --cohorts rnn``. Each row is a cohort of 24 and its milliseconds a step of
all networks, on so many threads: gradlab's with nothing recorded, what recording the per-layer table costs every tenth
step and at every step, and the loop's, with as many threads and with one. The ratio is to the faster loop. Each cell is
the median of rounds, in which all are measured one after the other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.loaders import load
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.launches import Captured
from gradlab.engine.playing import WINDOW, Rehearsed, perform, rehearse
from gradlab.launch.worker import keep_memory
from gradlab.nn.kernels.program import Program
from gradlab.nn.losses import objective
from gradlab.spec.choices.models import DIGIT_OVER_PRIMARY, primary_capsules
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build

MEMBERS = 24
STEPS, TURNS = 10, 3
"""Of gradlab's cohort at a time, recorded or not, and how often each is timed in a round, in turn with the others."""

LOOP_NETWORKS, LOOP_STEPS = 6, 3
"""Networks that the loop trains in a round, whose time is scaled to all members, and steps of each."""


Clock = Callable[[], float]
"""Seconds: those of the wall, or of the processor."""


@dataclass(frozen=True)
class Row:
    """A cohort: its ``settings``, torch's network of them, which takes (B, *shape), and the ``ratio`` aimed at."""

    settings: dict[str, Value]
    network: Callable[[RunSpec], nn.Module]
    ratio: float


class Recurrent(nn.Module):
    """torch.nn.RNN, LSTM or GRU, and a read-out of the last step, or of each."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.every = run.facts.positions > 0
        kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[run.model.name]
        self.recurrent = kind(run.facts.features, run.model.width, run.model.depth, batch_first=True)
        self.read_out = nn.Linear(run.model.width, run.facts.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, K), or (B, T, K)."""
        h = self.recurrent(x.flatten(2))[0]
        output: Tensor = self.read_out(h if self.every else h[:, -1])
        return output


class Translator(nn.Module):
    """torch.nn.GRU that reads, GRUCell or GRU that writes, and attention between them, one layer each."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        facts, width, self.kind = run.facts, run.model.width, run.model.attention
        self.read = facts.steps - facts.positions
        self.source, self.target = nn.Embedding(facts.vocabulary, width), nn.Embedding(facts.vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        if self.kind == "additive":
            self.cell = nn.GRUCell(2 * width, width)
            self.keys, self.query = nn.Linear(width, width), nn.Linear(width, width, bias=False)
            self.score = nn.Linear(width, 1, bias=False)
        else:
            self.decoder = nn.GRU(width, width, batch_first=True)
        if self.kind == "dot":
            self.mix = nn.Linear(2 * width, width)
        self.read_out = nn.Linear(width, facts.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) -> (B, P, K)."""
        memory, h = self.encoder(self.source(x[:, : self.read]))
        embedded = self.target(x[:, self.read :])
        states: Tensor = (
            self._attending(embedded, memory, h[0]) if self.kind == "additive" else self.decoder(embedded, h)[0]
        )
        if self.kind == "dot":
            context = torch.softmax(states @ memory.transpose(1, 2), -1) @ memory
            states = torch.tanh(self.mix(torch.cat((context, states), -1)))
        output: Tensor = self.read_out(states)
        return output

    def _attending(self, embedded: Tensor, memory: Tensor, h: Tensor) -> Tensor:
        keys, states = self.keys(memory), []
        for y in embedded.unbind(1):
            scores = self.score(torch.tanh(keys + self.query(h).unsqueeze(1))).squeeze(-1)
            context = (torch.softmax(scores, -1).unsqueeze(1) @ memory).squeeze(1)
            h = self.cell(torch.cat((y, context), -1), h)
            states.append(h)
        return torch.stack(states, 1)


class Convolutions(nn.Module):
    """torch.nn.Conv2d and torch.nn.ReLU one after the other, and a read-out of the mean over all pixels."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        width = run.model.width
        channels = [run.facts.channels, *[width] * run.model.depth]
        layers = [(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(channels)]
        self.convolutions = nn.Sequential(*chain(*layers))
        self.read_out = nn.Linear(width, run.facts.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W) -> (B, K)."""
        output: Tensor = self.read_out(self.convolutions(x.unsqueeze(1)).mean((2, 3)))
        return output


class Block(nn.Module):
    """Two pre-activated convolutions beside the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        one, two = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.branch = nn.Sequential(nn.ReLU(), one, nn.ReLU(), two)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x + self.branch(x)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """A read-in, blocks, and a read-out of the mean over all pixels."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        width, blocks = run.model.width, (run.model.depth - 2) // 2
        read_in = nn.Conv2d(run.facts.channels, width, 3, padding=1)
        self.stream = nn.Sequential(read_in, *(Block(width) for _ in range(blocks)), nn.ReLU())
        self.read_out = nn.Linear(width, run.facts.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W) -> (B, K)."""
        output: Tensor = self.read_out(self.stream(x.unsqueeze(1)).mean((2, 3)))
        return output


class Transformer(nn.Module):
    """torch.nn.TransformerEncoder, norms first and attention fused, between an embedding and a read-out."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        model, facts, width = run.model, run.facts, run.model.width
        assert model.heads is not None
        assert model.activation is not None
        self.embedding = nn.Embedding(facts.vocabulary, width)
        self.places = nn.Parameter(torch.randn(facts.steps, width))
        block = nn.TransformerEncoderLayer(
            width, model.heads, 4 * width, 0.0, model.activation, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, model.depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.read_out = nn.Linear(width, facts.outputs)
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(facts.steps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) -> (B, T, K)."""
        stream = self.blocks(self.embedding(x) + self.places, mask=self.mask, is_causal=True)
        output: Tensor = self.read_out(stream)
        return output


class Capsules(nn.Module):
    """Convolutions, capsules of the last one's channels, and one for each class by routing (Sabour et al. 2017)."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        model, facts = run.model, run.facts
        assert model.capsule_width is not None
        assert model.routing is not None
        self.size, self.times, self.eps = model.capsule_width, model.routing, model.squash_eps or 0.0
        channels = [facts.channels, *[model.width] * (model.depth - 2)]
        layers = [(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(channels)]
        self.convolutions = nn.Sequential(*chain(*layers), nn.Conv2d(model.width, model.width, 3, 2, 1))
        shape = primary_capsules(model, facts), self.size, facts.outputs * DIGIT_OVER_PRIMARY * self.size
        self.pairs = nn.Parameter(torch.randn(shape) * self.size**-0.5)
        self.outputs = facts.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W) -> (B, K)."""
        z = self.convolutions(x.unsqueeze(1)).permute(0, 2, 3, 1)
        u = self._squash(z.reshape(len(x), -1, self.size))
        votes = torch.bmm(u.transpose(0, 1), self.pairs).view(len(self.pairs), len(x), self.outputs, -1)
        logits = votes.new_zeros(votes.shape[:-1])
        for _ in range(self.times - 1):
            agreed = self._squash((logits.softmax(-1).unsqueeze(-1) * votes).sum(0))
            logits = logits + (votes * agreed).sum(-1)
        found = self._squash((logits.softmax(-1).unsqueeze(-1) * votes).sum(0))
        return (found.square().sum(-1) + self.eps).sqrt()

    def _squash(self, s: Tensor) -> Tensor:
        square = s.square().sum(-1, keepdim=True)
        return s * (square / (1 + square) / (square + self.eps).sqrt())


COHORTS: dict[str, Row] = {
    "rnn": Row({"model.name": "rnn", "model.width": 32, "model.activation": "tanh"}, Recurrent, 2.0),
    **{
        name: Row({"model.name": name, "model.width": 32, "data.name": "adding", "data.length": 20}, Recurrent, 5.0)
        for name in ("lstm", "gru")
    },
    **{
        f"seq2seq-{kind}": Row({"model.name": "seq2seq", "model.width": 32, "model.attention": kind}, Translator, 4.0)
        for kind in ("none", "additive", "dot")
    },
    "cnn6": Row({"model.name": "cnn", "model.depth": 6}, Convolutions, 3.0),
    "cnn20": Row({"model.name": "cnn", "model.depth": 20}, Convolutions, 3.0),
    "resnet20": Row({"model.name": "resnet", "model.depth": 20, "model.branch_scale": 0.3}, Residual, 3.0),
    "transformer": Row({"model.name": "transformer", "model.width": 32, "data.length": 16}, Transformer, 5.0),
    "capsule": Row({"model.name": "capsule"}, Capsules, 3.0),
}
"""By the name that ``--cohorts`` takes."""

COMMON: dict[str, Value] = {"data.batch_size": 32, "optim.lr": 0.01, "train.steps": 10_000}


def cohort(row: Row, device: str = "cpu") -> Cohort:
    """The row's members, which differ in their seeds."""
    runs = [build({**COMMON, **row.settings, "seed": seed}) for seed in range(MEMBERS)]
    return prepare(runs, load(runs[0].data), torch.device(device))


def wait(found: Cohort) -> None:
    """Until a GPU has done what it was asked for."""
    if found.parameters.is_cuda:
        torch.cuda.synchronize(found.parameters.device)


def step_of_gradlab(found: Cohort, rehearsed: Rehearsed, every: int, clock: Clock) -> float:
    """Milliseconds a step, the table recorded ``every`` so many."""
    members = np.arange(len(found.runs))
    began = clock()
    for start in range(0, STEPS, WINDOW):
        span = range(start, min(start + WINDOW, STEPS))
        perform(found, span, range(every - 1, STEPS, every), rehearsed, members)
    wait(found)
    return 1e3 * (clock() - began) / STEPS


def step_of_loop(found: Cohort, networks: list[nn.Module], threads: int, clock: Clock) -> float:
    """Milliseconds of a step of as many networks as there are members, one after the other, each by itself."""
    torch.set_num_threads(threads)
    task, judge = found.task, objective(found.runs[0].loss)
    spent = 0.0
    for network in networks:
        optimizer = torch.optim.SGD(network.parameters(), lr=COMMON["optim.lr"], foreach=True)  # type: ignore[arg-type]
        began = clock()
        for batch in task.order[:LOOP_STEPS]:
            optimizer.zero_grad()
            torch.autograd.backward(judge(network(task.inputs[batch]), task.targets[batch]))
            optimizer.step()
        wait(found)
        spent += clock() - began
    return 1e3 * spent / LOOP_STEPS * MEMBERS / len(networks)


def measure(name: str, row: Row, threads: int, rounds: int, clock: Clock, device: str = "cpu") -> str:
    """One line of the table."""
    torch.set_num_threads(threads)
    found = cohort(row, device)
    rehearsed = rehearse(found)
    networks = [row.network(found.runs[0]).to(device) for _ in range(LOOP_NETWORKS)]
    cells: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        torch.set_num_threads(threads)
        seen = [(str(every), step_of_gradlab(found, rehearsed, every, clock)) for every in (10 * STEPS, 10, 1) * TURNS]
        seen += [(f"loop {count}", step_of_loop(found, networks, count, clock)) for count in sorted({1, threads})]
        for cell, spent in seen:
            cells.setdefault(cell, []).extend([spent] if turn else [])  # the first round warms up
    bare, tenth, every, *loops = (statistics.median(spent) for spent in cells.values())
    kinds = {type(one) for one in rehearsed.values()}
    written = "program" if kinds == {Program} else "graph" if kinds == {Captured} else "-"
    ratio = min(loops) / bare
    return (
        f"{name:<16}{bare:>9.2f}{tenth / bare - 1:>+9.0%}{every / bare - 1:>+9.0%}{loops[-1]:>11.1f}{loops[0]:>11.1f}"
        f"{ratio:>8.1f} x{row.ratio:>7.1f} x  {written}"
    )


def main() -> None:
    """Prints a row for each cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="+", choices=COHORTS, default=list(COHORTS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="processor time of one thread: other work disturbs it less")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default cpu)")
    arguments = parser.parse_args()
    threads, clock = (1, time.process_time) if arguments.busy else (arguments.threads, time.perf_counter)
    keep_memory()
    print(f"{MEMBERS} networks; milliseconds a step of all, threads: {threads}, median of {arguments.rounds}")
    heads = ("gradlab", "/10", "/1", "loop", "1 thread")
    print(
        f"{'cohort':<16}" + "".join(f"{head:>{9 if len(head) < 8 else 11}}" for head in heads) + "     ratio    aimed"
    )
    for name in arguments.cohorts:
        print(measure(name, COHORTS[name], threads, arguments.rounds, clock, arguments.device), flush=True)


if __name__ == "__main__":
    main()
