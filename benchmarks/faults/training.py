"""Whether the faulty networks fail to train and their twins train: the same cases, trained and not judged.

    python -m benchmarks.faults.training [--steps 100] [--seeds 0 1] [--csv FILE]

Each is trained on its batch by its own optimizer. It has learned where its loss comes below half of where learning
begins: the loss of the best single answer to every input, or its own first loss where none is known or that lies lower.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.faults.cases import Case, Fault
from benchmarks.faults.start import at_start
from benchmarks.faults.trained import in_training

LEARNED = 0.5


@dataclass(frozen=True)
class Course:
    """A case and when its loss first came below half of where learning begins (None: it did not), and its last loss."""

    name: str
    half: str
    seed: int
    state: str
    learned_at: int | None
    last: float


def trained(fault: Fault, seed: int, steps: int) -> Iterator[Course]:
    """The faulty network and its twin with one seed."""
    for state, make in (("sick", fault.sick), ("cured", fault.cured)):
        torch.manual_seed(seed)
        losses = _losses(make(), steps)
        begins, last = losses[0], losses[-1]
        below = [step for step, loss in enumerate(losses[1:], start=1) if loss < LEARNED * begins]
        # What was learned and lost again was not learned.
        learned = bool(below) and math.isfinite(last) and last < LEARNED * begins
        yield Course(fault.name, fault.half, seed, state, below[0] if learned else None, last)


def _losses(case: Case, steps: int) -> list[float]:
    """Where learning begins, and the loss after each update."""
    learning = [one for one in case.module.parameters() if one.requires_grad]
    optimizer, losses = case.optimizer(learning), []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss = case.loss(case.module(case.batch[0]), case.batch[1])
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        torch.autograd.backward(loss)
        case.between(learning)
        optimizer.step()
    return [min(losses[0], _guess(case)), *losses[1:]]


def _guess(case: Case) -> float:
    targets = case.batch[1]
    if case.loss in (F.cross_entropy, F.nll_loss):
        return float(torch.special.entr(torch.bincount(targets).double() / len(targets)).sum())
    if case.loss is F.mse_loss:
        return float(targets.double().var(correction=0))
    return math.inf


def main() -> None:
    """Trains the faults and prints how many of the faulty and of their twins learned, and which are not as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    found = [
        course
        for fault in (*at_start(), *in_training())
        for seed in given.seeds
        for course in trained(fault, seed, given.steps)
    ]
    if given.csv:
        with given.csv.open("w", newline="") as file:
            csv.writer(file).writerows([[one.name for one in fields(Course)], *map(astuple, found)])
    print("\n".join(told(found)))


def told(found: Sequence[Course]) -> Iterator[str]:
    """What the script prints."""
    for state, expected in (("sick", False), ("cured", True)):
        mine = [one for one in found if one.state == state]
        right = [one for one in mine if (one.learned_at is not None) == expected]
        yield f"{state}: {len(right)} of {len(mine)} {'learned' if expected else 'did not learn'}"
        for name in dict.fromkeys(one.name for one in mine if one not in right):
            here = [one for one in found if one.name == name]
            courses = ", ".join(f"{one.state} at {one.learned_at or 'no'} step" for one in here)
            yield f"    {name}: {courses}"


if __name__ == "__main__":
    main()
