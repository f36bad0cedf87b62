"""Runs every named experiment that expects something, and writes what came out: docs/reproductions.md.

    python -m benchmarks.reproduce                       all of them, one after another, into docs/reproductions.md
    python -m benchmarks.reproduce he-vs-xavier ...      these alone, onto the screen
    python -m benchmarks.reproduce --data-root DIR       with IDX files at hand for experiments on downloaded images
    python -m benchmarks.reproduce --seeds 1000 2000     and on as many seeds from 1000 on, and from 2000 on, each in a
                                                         column of its own: draws that no expectation was written by

Each is `gradlab sweep -e NAME` in a process of its own, as a user would start it; seconds are of processors, which
others on the same machine do not lengthen much. Exit status 1 where an expectation failed or an experiment could not be
run.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.timing import GRADLAB, ROOT
from gradlab.grid.compose import compose_grid, experiments
from gradlab.grid.experiment import Experiment
from gradlab.spec.named import SpecError, nearest
from gradlab.store.documents import read_expectations

PAGE = ROOT / "docs" / "reproductions.md"

MOST_SECONDS = 300
"""On the clock: an experiment that takes longer is ended. All of them together are meant to take fifteen minutes."""


@dataclass(frozen=True)
class Reproduction:
    """One experiment that was run, in ``seconds`` of one core: its outcomes, or why there are none."""

    experiment: Experiment
    runs: int
    outcomes: Sequence[dict[str, Any]]
    seconds: float
    trouble: str = ""

    @property
    def met(self) -> int:
        """How many expectations are met."""
        return sum(outcome["result"] == "pass" for outcome in self.outcomes)

    @property
    def reproduced(self) -> bool:
        """Whether it ran, and showed all that was expected."""
        return not self.trouble and self.met == len(self.outcomes)


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, or all that expect something. Raises `SpecError` for an unknown name."""
    able = {found.name: found for found in experiments() if found.expectations}
    for name in names:
        if name not in able:
            raise SpecError(f"no experiment {name!r} with expectations{nearest(name, able) or ';'} {', '.join(able)}")
    return [able[name] for name in names or able]


def reproduce(experiment: Experiment, folder: Path, data_root: str | None, first: int | None = None) -> Reproduction:
    """Runs one experiment in a new ``folder``; with as many seeds as it has from ``first`` on, where that is given."""
    grid = compose_grid([], experiment=experiment.name)
    images = any(run.data.name in ("fashion_mnist", "mnist") for run in grid.runs)
    given = [f"data.root='{data_root}'"] if data_root and images else []
    if first is not None:
        seeds = len({run.seed for run in grid.runs})
        given.append(f"seed=range({first},{first + seeds})" if seeds > 1 else f"seed={first}")
    command = [GRADLAB, "sweep", "-e", experiment.name, "-o", str(folder), "--no-report", "-q", *given]
    start = _spent()
    try:
        # Ended by force, it takes its workers with it: they watch over their parent.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS)
        said = done.stderr.strip().removeprefix("gradlab: error: ")
    except subprocess.TimeoutExpired:
        said = f"took more than {MOST_SECONDS} s"
    seconds = _spent() - start
    told = read_expectations(folder)
    if told is None:
        return Reproduction(experiment, len(grid.runs), (), seconds, " ".join(said.split()) or "left no expectations")
    return Reproduction(experiment, len(grid.runs), told["outcomes"], seconds)


def _spent() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


Others = Mapping[int, Sequence[Reproduction]]
"""By their first seed, the same experiments on other seeds."""


def page(found: Sequence[Reproduction], others: Others = MappingProxyType({})) -> str:
    """The reproductions as a page of Markdown: how many came out, then every expectation of each experiment."""
    right, total = sum(one.reproduced for one in found), sum(one.seconds for one in found)
    met, outcomes = sum(one.met for one in found), sum(len(one.outcomes) for one in found)
    versions = f"Python {platform.python_version()}, PyTorch {metadata.version('torch')}"
    spent = f"{total:,.0f} s of one core, {total / 2:,.0f} s of two ({versions})"
    seeds = f' SEEDS="{" ".join(map(str, others))}"' if others else ""
    lines = [
        "# Reproductions",
        "",
        "What named experiments must show by their sources, and what they show here. Made by",
        f"`make reproduce{seeds}`; each is one `gradlab sweep -e NAME`, whose",
        "file in `configs/experiment/` holds the settings and the expectations.",
        "",
        f"**{right} of {len(found)} experiments reproduced, {met} of {outcomes} expectations met**, in {spent}.",
        "",
        *_words_on(others),
        f"| experiment | runs | met |{''.join(f' from {first} |' for first in others)} core seconds | source |",
        f"| --- | ---: | ---: |{' ---: |' * len(others)} ---: | --- |",
        *(_row(one, [some[place] for some in others.values()]) for place, one in enumerate(found)),
    ]
    for place, one in enumerate(found):
        lines += ["", f"## {one.experiment.name}", "", one.experiment.question, "", f"Source: {one.experiment.source}."]
        if one.trouble:
            lines += ["", f"**Not run:** {_cell(one.trouble)}"]
            continue
        again = [some[place] for some in others.values()]
        lines += ["", f"| expectation | expected | measured | result |{' on other seeds |' if again else ''}"]
        lines += [f"| --- | --- | --- | --- |{' --- |' if again else ''}"]
        for number, told in enumerate(one.outcomes):
            what = told["what"] + (f" ({told['source']})" if told["source"] else "")
            result = told["result"] if told["result"] == "pass" else f"**{told['result']}**"
            cells = [what, told["expected"], told["measured"], result]
            if again:
                cells.append("; ".join(_measured(other, number) for other in again))
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _words_on(others: Others) -> list[str]:
    if not others:
        return []
    sets = [f"{sum(one.reproduced for one in some)} of {len(some)} from {first}" for first, some in others.items()]
    return [f"On other seeds, as many from another first one on: {', '.join(sets)}.", ""]


def _measured(one: Reproduction, number: int) -> str:
    if one.trouble:
        return "not run"
    told = one.outcomes[number]
    return str(told["measured"]) if told["result"] == "pass" else f"**{told['measured']}**"


def _met(one: Reproduction) -> str:
    return "not run" if one.trouble else f"{one.met} of {len(one.outcomes)}"


def _row(one: Reproduction, again: Sequence[Reproduction]) -> str:
    name = f"[{one.experiment.name}](#{one.experiment.name})"
    met = " | ".join(map(_met, (one, *again)))
    return f"| {name} | {one.runs} | {met} | {one.seconds:.1f} | {_cell(one.experiment.source)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def tell(one: Reproduction, which: str) -> None:
    """One line of a reproduction, and one of each expectation that was not met."""
    met = f"{one.met:2} of {len(one.outcomes):2}"
    print(f"{one.seconds:6.1f} s  {met}  {one.experiment.name}{which}  {one.trouble}".rstrip(), flush=True)
    for told in one.outcomes:
        if told["result"] != "pass":
            print(f"          {told['what']}: expected {told['expected']}, measured {told['measured']}")


def main() -> None:
    """Runs them, tells of each as it ends, and writes the page where all were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; by default all that expect something")
    parser.add_argument("--data-root", metavar="DIR", help="IDX files to read instead of a download")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[], metavar="FIRST", help="other seeds too, from each of these on"
    )
    asked = parser.parse_args()
    try:
        wanted = chosen(asked.names)
    except SpecError as error:
        parser.error(str(error))
    found: dict[int | None, list[Reproduction]] = {}
    with tempfile.TemporaryDirectory() as place:
        for first in (None, *asked.seeds):
            for experiment in wanted:
                one = reproduce(experiment, Path(place) / f"{experiment.name}-{first}", asked.data_root, first)
                found.setdefault(first, []).append(one)
                tell(one, "" if first is None else f" from seed {first}")
    if not asked.names:
        PAGE.write_text(page(found[None], {first: found[first] for first in asked.seeds}), encoding="utf-8")
        print(PAGE.relative_to(ROOT))
    sys.exit(0 if all(one.reproduced for some in found.values() for one in some) else 1)


if __name__ == "__main__":
    main()
