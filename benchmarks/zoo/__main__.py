"""How often `gradlab.verdict` leaves networks alone that train.

    python -m benchmarks.zoo [--half tune|held|further] [--seeds 0 1 2] [--steps 30] [--only NAME ...] [--csv FILE]

Stock networks of torchvision, timm and transformers and of common hand-written kinds, each by `gradlab.measure` at its
own initialization, and those that are quick again after some steps of their usual optimizer. Anything but `healthy`
is a false alarm. Families are split in two halves by a digest of their names: thresholds are chosen on one (tune), and
reported on the other (held); further kinds were written when the rules stood. Needs the extra `zoo`.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import repeat
from pathlib import Path

import torch

import gradlab
from benchmarks.zoo.cases import OPTIMIZERS, Stock
from benchmarks.zoo.common_kinds import common
from benchmarks.zoo.other_kinds import others
from benchmarks.zoo.published import PUBLISHED

HALVES = ("tune", "held", "further")
QUICK = 0.3
"""Seconds of the process, of a plain pass, below which a network is trained too."""


@dataclass(frozen=True)
class Result:
    """One network at one moment: its verdicts, and how many of its activations were judged."""

    name: str
    half: str
    seed: int
    when: str
    verdicts: str
    cause: str
    positions: int
    judged: int
    sentence: str

    @property
    def alarm(self) -> bool:
        """Whether anything is said to be wrong."""
        return self.verdicts != "healthy"


def tried(stock: Stock, seed: int, steps: int) -> Iterator[Result]:
    """The network at its initialization and, where it is quick, after ``steps`` updates."""
    torch.manual_seed(seed)
    network, batch = stock.make(), stock.batch()
    network.train()
    plain = min(_plain(stock, network, batch) for _ in range(2))
    yield _measured(stock, network, batch, seed, "start", [])
    if plain > QUICK or not steps:
        return
    optimizer, losses = OPTIMIZERS[stock.optimizer](network.parameters()), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = stock.loss(called(network, batch[0]), batch[1])
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss))
    yield _measured(stock, network, batch, seed, f"step {steps}", losses)


def called(network: torch.nn.Module, inputs: object) -> object:
    """What a network puts out, called as its inputs say."""
    if isinstance(inputs, tuple):
        return network(*inputs)
    return network(**inputs) if isinstance(inputs, dict) else network(inputs)


def _plain(stock: Stock, network: torch.nn.Module, batch: tuple[object, object]) -> float:
    start = time.process_time()
    loss = stock.loss(called(network, batch[0]), batch[1])
    torch.autograd.grad(loss, [one for one in network.parameters() if one.requires_grad], allow_unused=True)
    return time.process_time() - start


def _measured(
    stock: Stock,
    network: torch.nn.Module,
    batch: tuple[object, object],
    seed: int,
    when: str,
    losses: Sequence[float],
) -> Result:
    frame = gradlab.measure(network, stock.loss, batch)
    found = gradlab.verdict(frame, losses=[*losses, frame.attrs["loss"]] if losses else None)
    seen = frame.attrs["activations"].values()
    return Result(
        name=stock.name,
        half=stock.half,
        seed=seed,
        when=when,
        verdicts="+".join(verdict.name for verdict in found),
        cause=found[0].cause.name if found[0].cause else "",
        positions=sum(positions for positions, _ in seen),
        judged=sum(judged for _, judged in seen),
        sentence=found[0].sentence,
    )


def zoo(half: str | None, only: Sequence[str]) -> list[Stock]:
    """The networks of a half, or of both, or those whose names begin so: what none of these is of is not imported."""
    published = [one for one in PUBLISHED if not only or any(map(_alike, only, repeat(one.__name__)))]
    every = [stock for source in (common, others, *published) for stock in source()]
    chosen = [stock for stock in every if half in (None, stock.half)]
    return [stock for stock in chosen if not only or stock.name.startswith(tuple(only))]


def _alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def told(results: Sequence[Result]) -> Iterator[str]:
    """What the script prints of some results."""
    for when in dict.fromkeys(result.when for result in results):
        mine = [result for result in results if result.when == when]
        networks = {result.name for result in mine}
        alarms = {result.name for result in mine if result.alarm}
        yield f"{when}: false alarms on {len(alarms)} of {len(networks)} networks ({len(alarms) / len(networks):.1%})"
        for result in mine:
            if result.alarm:
                yield f"    {result.name} (seed {result.seed}): {result.sentence[:200]}"
    positions, judged = (sum(getattr(result, name) for result in results) for name in ("positions", "judged"))
    yield f"activations judged: {judged} of {positions} positions ({judged / max(1, positions):.1%})"


def main() -> None:
    """Measures the zoo and prints the false alarms of each half."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--half", choices=HALVES)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    results: list[Result] = []
    for stock in zoo(given.half, given.only):
        for seed in given.seeds:
            results += tried(stock, seed, given.steps)
        print(
            f"{stock.name}: {', '.join(dict.fromkeys(r.verdicts for r in results if r.name == stock.name))}", flush=True
        )
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Result)])
            writer.writerows(astuple(result) for result in results)
    for half in HALVES:
        if mine := [result for result in results if result.half == half]:
            print(f"\n{half}: {len({result.name for result in mine})} networks, seeds {given.seeds}")
            print("\n".join(told(mine)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
