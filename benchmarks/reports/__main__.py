"""How many problems that people report in public are rightly named.

    python -m benchmarks.reports [--seeds 0 1 2]       the verdicts and their causes
    python -m benchmarks.reports --cure [--into DIR]   what gradlab cure proposes and has trained, in half an hour

Each is rebuilt in our own words as such reports describe it (a softmax before the cross-entropy, prices that were not
scaled, a detach), and asked at its initialization or after 60 updates. Cured are those whose remedy a run can be given,
and not a line of the script (`cured`).
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.faults.__main__ import judged
from benchmarks.reports.cured import SICK, cured
from benchmarks.reports.posts import Report, reports


def asked(report: Report, seed: int) -> tuple[bool, bool, str]:
    """Whether the verdict and the cause are right, and what is said."""
    torch.manual_seed(seed)
    try:
        found = judged(report.case(), report.steps)
    except ValueError as error:
        return report.words == "refused", report.words == "refused", str(error)
    causes = {verdict.cause.name for verdict in found if verdict.cause}
    named = bool({verdict.name for verdict in found} & set(report.words.split()))
    return named, bool(causes & set(report.causes.split())), f"{found[0].told}"


def main() -> None:
    """Asks about each report and prints what is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cure", action="store_true")
    parser.add_argument("--only", nargs="+", default=[""], help="with --cure: titles that begin so")
    parser.add_argument("--into", type=Path, help="with --cure: results in folders here, read again where they are")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.cure:
        with tempfile.TemporaryDirectory() as scratch:
            _cure(given.into or Path(scratch), tuple(given.only))
        return
    every, named, explained = 0, 0, 0
    for report in reports():
        for seed in given.seeds:
            verdict, cause, said = asked(report, seed)
            every, named, explained = every + 1, named + verdict, explained + (verdict and cause)
            if not (verdict and cause):
                print(f"{report.title} (seed {seed}): {said[:250]}")
    print(f"{every} of {len(list(reports()))} reports: verdict right {named}, and cause right {explained}")


def _cure(into: Path, only: tuple[str, ...]) -> None:
    found = []
    for title in SICK:
        if title.startswith(only):
            found.append(cured(title, into / re.sub(r"\W+", "-", title)))
            print("right" if found[-1].right else "MISSED", found[-1], flush=True)
    print(f"{sum(one.right for one in found)} of {len(found)} reports: a remedy that answers name, among the smallest")


if __name__ == "__main__":
    main()
