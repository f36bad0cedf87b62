"""How many faulty networks `gradlab.verdict` finds, names and explains, and how many repaired twins it leaves alone.

    python -m benchmarks.faults [--half tune|held|blind|unseen|practice|afterwards] [--seeds 0 1 2 3 4]
                                [--only NAME ...] [--csv FILE]

Faults are rebuilt after the published taxonomies. Kinds of faults are split in two halves by a digest of their names:
thresholds may be chosen on one (tune), and are reported on the other (held).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch

import gradlab
from benchmarks.faults.afterwards import afterwards
from benchmarks.faults.blind import blind
from benchmarks.faults.cases import Case, Fault
from benchmarks.faults.further import further
from benchmarks.faults.practice import practice
from benchmarks.faults.start import at_start
from benchmarks.faults.trained import in_training
from benchmarks.faults.unseen import unseen
from gradlab.diagnose import Verdict

HALVES = ("tune", "held", "blind", "unseen", "practice", "afterwards")


@dataclass(frozen=True)
class Result:
    """One network, sick or cured, of one seed: what is said, and whether its verdict and its cause are right."""

    name: str
    kind: str
    half: str
    seed: int
    state: str
    verdicts: str
    cause: str
    verdict_right: bool
    cause_right: bool
    sentence: str

    @property
    def alarm(self) -> bool:
        """Whether anything is said to be wrong."""
        return self.verdicts != "healthy"


def judged(case: Case, steps: int) -> tuple[Verdict, ...]:
    """The verdicts on a network after ``steps`` updates: the one place that knows how gradlab is asked."""
    optimizer, losses = case.optimizer([one for one in case.module.parameters() if one.requires_grad]), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = case.loss(case.module(case.batch[0]), case.batch[1])
        torch.autograd.backward(loss)
        case.between(case.module.parameters())
        optimizer.step()
        losses.append(loss.item())
    frame = gradlab.measure(case.module, case.loss, case.batch)
    return gradlab.verdict(frame, losses=[*losses, frame.attrs["loss"]] if steps else None, optimizer=optimizer)


def tried(fault: Fault, seed: int) -> Iterator[Result]:
    """The faulty network and its twin with one seed."""
    for state, make in (("sick", fault.sick), ("cured", fault.cured)):
        torch.manual_seed(seed)
        found = judged(make(), fault.steps)
        names = {verdict.name for verdict in found}
        causes = {verdict.cause.name for verdict in found if verdict.cause}
        yield Result(
            name=fault.name,
            kind=fault.kind,
            half=fault.half,
            seed=seed,
            state=state,
            verdicts="+".join(verdict.name for verdict in found),
            cause="+".join(sorted(causes)),
            verdict_right=bool(names & (fault.words if state == "sick" else {"healthy"})),
            cause_right=bool(causes & fault.causes) if state == "sick" else not causes,
            sentence=found[0].sentence,
        )


def told(results: Sequence[Result]) -> Iterator[str]:
    """What the script prints of some results."""
    sick, cured = ([one for one in results if one.state == state] for state in ("sick", "cured"))
    for name, count in (
        ("found", sum(one.alarm for one in sick)),
        ("right verdict", sum(one.verdict_right for one in sick)),
        ("right cause", sum(one.cause_right for one in sick)),
    ):
        yield f"{name}: {count} of {len(sick)} ({count / len(sick):.1%})"
    alarms = sum(one.alarm for one in cured)
    yield f"false alarms on twins: {alarms} of {len(cured)} ({alarms / len(cured):.1%})"


def misses(results: Sequence[Result]) -> Iterator[str]:
    """A line for each fault whose verdict, cause or twin is wrong with any seed."""
    for name in dict.fromkeys(one.name for one in results):
        mine = [one for one in results if one.name == name]
        wrong = [one for one in mine if not (one.verdict_right and one.cause_right)]
        for state in dict.fromkeys(one.state for one in wrong):
            first = next(one for one in wrong if one.state == state)
            count, total = (sum(one.state == state for one in some) for some in (wrong, mine))
            said = f"{first.verdicts}, cause {first.cause or 'none'}"
            yield f"    {first.half} {name} ({state}, {count} of {total}): {said}"


def main() -> None:
    """Judges the faults and prints the scores of each half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    listed = (*at_start(), *in_training(), *further(), *blind(), *unseen(), *practice(), *afterwards())
    every = [one for one in listed if given.half in (None, one.half)]
    faults = [one for one in every if one.name.startswith(tuple(given.only))]
    if not faults:
        parser.error(f"no fault of this half begins with any of {given.only}")
    results = [result for one in faults for seed in given.seeds for result in tried(one, seed)]
    if given.csv:
        with given.csv.open("w", newline="") as file:
            csv.writer(file).writerows([[one.name for one in fields(Result)], *map(astuple, results)])
    print(f"{len(faults)} faults of {len({one.kind for one in faults})} kinds, {len(given.seeds)} seeds each")
    for half in HALVES:
        if mine := [one for one in results if one.half == half]:
            print(f"{half}:", *told(mine), sep="\n  ")
    print("wrong in some seed:", *misses(results), sep="\n")


if __name__ == "__main__":
    main()
