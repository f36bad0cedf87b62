"""How many problems that people report in public are rightly named.

    python -m benchmarks.reports [--seeds 0 1 2]

Each is rebuilt in our own words as such reports describe it (a softmax before the cross-entropy, prices that were not
scaled, a detach), and asked at its initialization or after 60 updates.
"""

from __future__ import annotations

import argparse
import warnings

import torch

from benchmarks.faults.__main__ import judged
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
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    every, named, explained = 0, 0, 0
    for report in reports():
        for seed in given.seeds:
            verdict, cause, said = asked(report, seed)
            every, named, explained = every + 1, named + verdict, explained + (verdict and cause)
            if not (verdict and cause):
                print(f"{report.title} (seed {seed}): {said[:250]}")
    print(f"{every} of {len(list(reports()))} reports: verdict right {named}, and cause right {explained}")


if __name__ == "__main__":
    main()
