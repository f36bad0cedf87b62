"""The plain peer, compiled: `benchmarks.loop` with `torch.compile`, which on a GPU launches CUDA graphs.

Run as ``python -m benchmarks.compiled``. The way there and back is one compiled function, and norms, clipping and
update another (two, since torch ends a graph where its optimizer begins), all in the mode "reduce-overhead"; norms and
losses stay on the device until the run is over, so that no step waits for the host. Compilation is counted apart: a
step is as if it had been there before. Three networks of the grid, which have each depth, norm and clip mode once, are
trained in turn by the eager loop, by it with the fused optimizer, and compiled; all are scaled to the 432 runs, of
whose 36 architectures each must be compiled for each clip mode.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._dynamo.utils import counters

from benchmarks import loop
from benchmarks.loop import Digits, Record, accuracy, clip, digits, network
from benchmarks.settings import BATCH, CLIPS, STEPS, Setting, ensembles, settings

WARM = 5
"""Steps in which all is compiled: one that runs, one that is captured, and some to see that no more is compiled."""

SHARE = 144


@dataclass(frozen=True)
class Compiled:
    """What a run leaves, the seconds of its first `WARM` steps, and those of a step behind them.

    ``graphs``: how many a step is, there and back one; ``refused``: how many of them no CUDA graph was made of.
    """

    record: Record
    compile_s: float
    step_s: float
    graphs: int
    refused: int


def train(setting: Setting, data: Digits, steps: int = STEPS, backend: str = "inductor") -> Compiled:
    """`loop.train`, compiled by ``backend``."""
    torch.compiler.reset()
    counters.clear()
    torch.manual_seed(0)
    device = data.inputs.device
    net = network(setting).to(device)
    parameters = list(net.parameters())
    weights = [part.weight for part in net if isinstance(part, nn.Linear)]
    optimizer = torch.optim.SGD(parameters, lr=setting.lr, foreach=True)

    def loss_of(inputs: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(net(inputs), classes)

    def update() -> Tensor:
        norms = torch.stack([torch.linalg.vector_norm(weight.grad) for weight in weights if weight.grad is not None])
        clip(setting, parameters)
        optimizer.step()
        return norms

    how: dict[str, Any] = {"mode": "reduce-overhead"} if backend == "inductor" else {}
    forth: Callable[..., Tensor] = torch.compile(loss_of, backend=backend, **how)
    onward: Callable[..., Tensor] = torch.compile(update, backend=backend, **how)
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    began = warmed = time.perf_counter()
    while len(losses) < steps:
        order = torch.randperm(len(data.inputs)).to(device)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            if len(losses) == steps:
                break
            if len(losses) == WARM:
                wait(device)
                warmed = time.perf_counter()
            batch = order[first : first + BATCH]
            torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad()
            loss = forth(data.inputs[batch], data.classes[batch])
            torch.autograd.backward(loss)
            # The next step overwrites what a graph gives.
            norms.append(onward().clone())
            losses.append(loss.detach().clone())
    found = torch.stack(losses).tolist(), torch.stack(norms).tolist()
    ended = time.perf_counter()
    record = Record(*found, accuracy(net, data))
    graphs = counters["stats"]["unique_graphs"], counters["inductor"]["cudagraph_skips"]
    return Compiled(record, warmed - began, (ended - warmed) / max(1, steps - WARM), *graphs)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Trains three runs of the grid in three ways: a line of JSON for each, and one of seconds, scaled to all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: what it takes by itself)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default inductor)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each run (default {STEPS})")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch._inductor.config.force_disable_caches = True  # what another process has compiled is no part of a figure
    data, chosen, steps = digits(arguments.device), settings(SHARE), arguments.steps
    # Torch's own start on the device is nobody's.
    loop.train(chosen[0], data, steps=WARM)
    rows = []
    for setting in chosen:
        rows.append(row(setting, data, steps, arguments.backend))
        print(json.dumps(rows[-1]), flush=True)
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    told = {
        "runs": len(rows),
        **{f"{name}_s": SHARE * total[f"{name}_ms"] * steps / 1e3 for name in ("eager", "fused", "compiled")},
        "compilation_s": len(ensembles(1)) * len(CLIPS) * total["compile_s"] / len(rows),
        "graphs": total["graphs"],
        "refused": total["refused"],
        "apart": max(row["apart"] for row in rows),
    }
    print(json.dumps(told))


def row(setting: Setting, data: Digits, steps: int, backend: str) -> dict[str, Any]:
    """Milliseconds a step each way, what compiling took, and how far its losses are from the eager loop's at first."""
    spent: dict[str, Any] = {"depth": setting.depth}
    for name, fused in (("eager_ms", False), ("fused_ms", True)):
        began = time.perf_counter()
        record = loop.train(setting, data, steps=steps, fused=fused)
        spent[name] = 1e3 * (time.perf_counter() - began) / steps
    found = train(setting, data, steps, backend)
    pairs = zip(found.record.losses[:WARM], record.losses[:WARM], strict=True)
    return {
        **spent,
        "compiled_ms": 1e3 * found.step_s,
        "compile_s": found.compile_s,
        "graphs": found.graphs,
        "refused": found.refused,
        "apart": max(abs(ours - theirs) / theirs for ours, theirs in pairs),
    }


if __name__ == "__main__":
    main()
