"""How often a verdict is right on convolutions, gates, attention and Elman networks: sick runs and healthy ones.

    python -m benchmarks.verdicts_architectures [--half tune|held|unseen] [--models lstm gru] [--seeds 50 51] [--every]

The runs stand in verdicts_architectures.yaml, in two halves: rules and thresholds of diagnosis are chosen by `tune`
alone, and `held` has other sizes, data and seeds. `unseen` holds conditions that were thought of after the rules. A
sick run is named where one of its verdicts is among those that its condition accepts, which are written down before it
is run; a healthy one is right where `healthy` is the only one.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from gradlab.data.loaders import load
from gradlab.diagnose import History, Verdict, final_loss, judge
from gradlab.diagnose.tables import histories
from gradlab.engine.train import train
from gradlab.grid.cohorts import cohort_key
from gradlab.grid.compose import compose_any
from gradlab.spec.run import RunSpec
from gradlab.store.record import tidy

FILE = Path(__file__).with_suffix(".yaml")
HALVES, KINDS = ("tune", "held", "unseen"), ("sick", "healthy")


@dataclass(frozen=True)
class Condition:
    """Runs of one architecture: why they are sick or healthy, the verdicts accepted, the overrides of both halves."""

    model: str
    kind: str
    why: str
    accepted: frozenset[str]
    overrides: Mapping[str, str]

    def runs(self, half: str, seeds: Sequence[int] = ()) -> list[RunSpec]:
        """The runs of ``half``, from ``seeds`` if there are any; each records its first step and its last."""
        if half not in self.overrides:
            return []
        given = dict(override.split("=", 1) for override in self.overrides[half].split())
        given |= {"probe.every": given["train.steps"]} | ({"seed": ",".join(map(str, seeds))} if seeds else {})
        return list(compose_any([f"{key}={value}" for key, value in given.items()]).runs)


def conditions(kind: str) -> list[Condition]:
    """Those of the file, "sick" or "healthy"; what `all` runs of an architecture share stands before their own."""
    return [
        Condition(
            model,
            kind,
            entry["why"],
            frozenset(entry.get("accepted", "healthy").split()),
            {half: f"{entries['all']} {entry[half]}" for half in HALVES if half in entry},
        )
        for model, entries in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()
        for entry in entries[kind]
    ]


@dataclass(frozen=True)
class Judged:
    """A run, its condition, its history, and the verdicts that it got."""

    condition: Condition
    run: RunSpec
    history: History
    verdicts: tuple[Verdict, ...]

    @property
    def right(self) -> bool:
        """Whether an accepted verdict was given; of a healthy run, whether `healthy` was."""
        return any(verdict.name in self.condition.accepted for verdict in self.verdicts)


def judged(condition: Condition, half: str, seeds: Sequence[int] = ()) -> list[Judged]:
    """Trains a condition's runs of ``half``, cohort by cohort, and judges each."""
    found = []
    for _, cohort in itertools.groupby(condition.runs(half, seeds), key=cohort_key):
        runs = list(cohort)
        tables = tidy(train(runs, load(runs[0].data), torch.device("cpu"), lambda *_: None))
        for run, history in zip(runs, histories(tables.runs, tables.steps, tables.layers), strict=True):
            found.append(Judged(condition, run, history, judge(history)))
    return found


def lines(results: Sequence[Judged], *, every: bool = False) -> Iterator[str]:
    """What the script prints: of each condition how many are right, and those that are not (or ``every`` run)."""
    for condition, members in itertools.groupby(results, key=lambda result: result.condition):
        mine = list(members)
        yield f"  {sum(one.right for one in mine):3d} of {len(mine):3d} {condition.model}: {condition.why}"
        for one in mine:
            if every or not one.right:
                loss, guess = one.history.loss, one.history.guess
                course = f"{loss[0]:.3g} to {final_loss(loss):.3g}, a guess {guess or loss[0]:.3g}"
                told = "; ".join(verdict.told for verdict in one.verdicts)
                yield f"        {one.run.id} seed={one.run.seed} ({course}): {told}"


def shares(results: Sequence[Judged]) -> Mapping[str, tuple[int, int]]:
    """By architecture, and of all together, how many are right, of how many."""
    found: dict[str, tuple[int, int]] = {}
    for result in results:
        for name in (result.condition.model, "all"):
            right, of = found.get(name, (0, 0))
            found[name] = (right + result.right, of + 1)
    return found


def main() -> None:
    """Prints the rates by architecture, and every run that was judged wrongly with the verdict that it got."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--half", choices=HALVES, default="tune")
    parser.add_argument("--models", nargs="*", default=[], help="only these architectures")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="other seeds of the initial weights")
    parser.add_argument("--every", action="store_true", help="print every run, not only those judged wrongly")
    options = parser.parse_args()
    for kind in KINDS:
        results: list[Judged] = []
        for condition in conditions(kind):
            if not options.models or condition.model in options.models:
                mine = judged(condition, options.half, options.seeds)
                results += mine
                print("\n".join(lines(mine, every=options.every)), flush=True)
        for name, (right, of) in shares(results).items():
            print(f"{kind}, {options.half}, {name}: {right} of {of}, {right / of:.1%}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
