"""The peer that sweeps with ``hydra --multirun``: the loop's training, one job after the other in one process.

Run as ``python -m benchmarks.hydra_peer --multirun '+setting={depth:5,norm:batch},{depth:10,norm:layer}'``: one key
holds all fields of a `Setting`, so that a fixed part of the grid can be swept as well as the whole.
"""

from __future__ import annotations

import json
import time

import hydra
from omegaconf import DictConfig

from benchmarks.loop import digits, train
from benchmarks.settings import Setting


@hydra.main(version_base="1.3", config_path=None)
def main(config: DictConfig) -> float:
    """One job; gives the last loss, as a script that is to be optimized would."""
    return train(Setting(**config.setting), digits()).losses[-1]


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(json.dumps({"work_s": time.perf_counter() - start}))
