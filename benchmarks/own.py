"""Networks of one's own (`model=module`) trained by gradlab, beside the plain loop: the same losses, in what time.

Run as ``python -m benchmarks.own``. Digits, batches of 64, SGD with momentum; the networks are those of
`benchmarks.stacking`. gradlab trains the members one after the other and as one, with the per-layer table each tenth
step, the loop a few of them with nothing measured, scaled.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import stacking
from gradlab.data import function
from gradlab.data.batches import batches
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.train import train
from gradlab.launch.worker import take
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec

NAMES = ("MLP, 10 layers of 64", "CNN with batch norm, 32 channels", "attention, width 32")
MEMBERS, STEPS, LOOP_MEMBERS = 24, 100, 2

EARLY = 10
"""Steps after which losses may have grown apart as trainings do."""


def runs_of(name: str, members: int, steps: int) -> list[RunSpec]:
    """So many trainings of a network, which differ in their seeds."""
    target, arguments = stacking.NETWORKS[name]
    values: dict[str, Value] = {
        "model.name": "module",
        "model.target": f"{stacking.__file__}:{target}",
        **{f"model.args.{key}": value for key, value in arguments.items()},
        "optim.lr": 0.02,
        "optim.momentum": 0.9,
        "train.steps": steps,
    }
    return [described({**values, "seed": seed}) for seed in range(members)]


def plain(run: RunSpec, data: Any, device: torch.device) -> list[float]:
    """The losses of the same training as anybody writes it."""
    torch.manual_seed(run.seed)
    target, arguments = str(run.model.target).rpartition(":")[2], dict(run.model.args)
    net = getattr(stacking, target)(**arguments).to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), run.optim.lr, run.optim.momentum)
    inputs = torch.from_numpy(data.train_inputs).float().to(device)
    targets = torch.from_numpy(data.train_targets).to(device)
    order = torch.from_numpy(batches(run.data, len(targets), run.train.steps + 1)).to(device)
    losses = []
    for batch in order:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs[batch]), targets[batch])
        torch.autograd.backward(loss)
        losses.append(loss.detach())
        optimizer.step()
    return torch.stack(losses).tolist()


def compared(name: str, device: torch.device, members: int, steps: int) -> dict[str, Any]:
    """Seconds of all members each way, and the largest relative difference of a loss in the first steps."""
    runs = runs_of(name, members, steps)
    data = load(runs[0].data)
    plain(runs[0], data, device)  # torch's own start is nobody's
    began = time.perf_counter()
    losses = np.array([plain(run, data, device) for run in runs[:LOOP_MEMBERS]]).T
    loop_s = (time.perf_counter() - began) / LOOP_MEMBERS * members
    told: dict[str, Any] = {"network": name, "members": members, "steps": steps, "loop_s": loop_s}
    for way, stacked in (("apart", False), ("together", True)):
        began = time.perf_counter()
        record = train(runs, data, device, lambda *_: None, stacked=stacked)
        told[f"{way}_s"] = time.perf_counter() - began
        found = record.loss[:EARLY, : losses.shape[1]]
        told[f"{way}_differs"] = float(np.abs(found / losses[:EARLY] - 1).max())
    return told


def main() -> None:
    """Prints a line of JSON for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default cpu)")
    parser.add_argument("--networks", nargs="+", choices=stacking.NETWORKS, default=NAMES, metavar="NAME")
    parser.add_argument("--members", type=int, default=MEMBERS, help=f"of each (default {MEMBERS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each (default {STEPS})")
    arguments = parser.parse_args()
    function.allow()
    sys.path.insert(0, str(Path(__file__).parent))
    device = torch.device(arguments.device)
    take(device)
    for name in arguments.networks:
        print(json.dumps(compared(name, device, arguments.members, arguments.steps)), flush=True)


if __name__ == "__main__":
    main()
