"""The peer that sweeps with ``hydra --multirun``: the loop's training, a job for each run of the grid.

Run as ``python -m benchmarks.hydra_peer --share 12``, one job after the other in one process, or with
``--launcher joblib``, two processes under Hydra's joblib launcher (the extra `bench`). One key of the sweep holds all
fields of a `Setting`, so that a fixed part of the grid can be swept as well as the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from benchmarks.loop import digits, train
from benchmarks.settings import SHARES, Setting, settings

CLOCK = "clock.json"
LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}


@dataclass(frozen=True)
class Clock:
    """When a job began and ended, in seconds of the machine's clock, and the process that it ran in."""

    process: int
    began: float
    ended: float


def work_seconds(clocks: Iterable[Clock]) -> float:
    """The seconds that the processes spent from job to job: the mean of them, from first beginning to last end.

    What Hydra does between two jobs counts; starting the processes does not. A process that ends before the others
    waits for less than one job, and with twelve times as many jobs would not wait for twelve times as long; hence the
    mean, not the longest.

    >>> work_seconds([Clock(1, 0.0, 1.0), Clock(1, 2.0, 3.0), Clock(2, 1.0, 2.0)])
    2.0
    """
    spans: dict[int, tuple[float, float]] = {}
    for clock in clocks:
        began, ended = spans.get(clock.process, (clock.began, clock.ended))
        spans[clock.process] = min(began, clock.began), max(ended, clock.ended)
    return sum(ended - began for began, ended in spans.values()) / len(spans)


@hydra.main(version_base="1.3", config_path=None)
def job(config: DictConfig) -> float:
    """One run; gives the last loss, as a script that is to be optimized would."""
    began = time.time()
    loss = train(Setting(**config.setting), digits()).losses[-1]
    clock = Clock(os.getpid(), began, time.time())
    Path(HydraConfig.get().runtime.output_dir, CLOCK).write_text(json.dumps(asdict(clock)), encoding="utf-8")
    return loss


def main() -> None:
    """Sweeps the grid, or a twelfth of it, and prints one line of JSON: the runs and the seconds that they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, choices=SHARES, default=12, help="one in this many runs (default 12)")
    parser.add_argument("--launcher", choices=tuple(LAUNCHERS), default="basic", help="Hydra's (default basic)")
    arguments = parser.parse_args()
    chosen = settings(arguments.share)
    with tempfile.TemporaryDirectory(prefix="gradlab-hydra-") as folder:
        swept = "+setting=" + ",".join(setting.override() for setting in chosen)
        sys.argv[1:] = ["--multirun", *LAUNCHERS[arguments.launcher], f"hydra.sweep.dir={folder}", swept]
        job()
        clocks = [Clock(**json.loads(path.read_text(encoding="utf-8"))) for path in Path(folder).glob(f"*/{CLOCK}")]
    if len(clocks) != len(chosen):
        raise SystemExit(f"{len(clocks)} of {len(chosen)} jobs ended")
    print(json.dumps({"runs": len(chosen), "work_s": work_seconds(clocks)}))


if __name__ == "__main__":
    main()
