"""What measuring costs: gradlab's per-layer table, and what others hang on one plain network.

Run as ``python -m benchmarks.probes``. gradlab trains 24 runs of one architecture and records the table at every
step, at every tenth, and at the first and the last alone. The peers train one network of the grid with nothing on it,
with a histogram of each parameter's gradient at each step, as ``wandb.watch`` hooks it in (which leaves out all but
one step in 1,000 unless told otherwise), with each parameter's norm at each step, as Lightning's ``grad_norm`` takes
it for the log, and, given the interpreter of an environment that has it, with Cockpit's economy preset.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import gradlab
from benchmarks.loop import Digits, digits, network
from benchmarks.settings import BATCH, LRS, Setting, listed
from benchmarks.timing import ROOT, Timing, line, median, spread, sweep

STEPS = 2000
COHORT = (
    "model.depth=10",
    "model.activation=tanh",
    f"seed={listed(range(4))}",
    f"optim.lr={listed(LRS)}",
    "clip.mode=none,norm,value",
    f"data.batch_size={BATCH}",
    f"train.steps={STEPS}",
)
PLAIN = Setting(depth=10, activation="tanh", init="xavier")
PLAIN_STEPS = 300


def compare_gradlab(repeats: int, folder: Path) -> None:
    """Prints what the per-layer table costs, as a share of the seconds of training."""
    everies = (STEPS, 10, 1)
    trained: dict[int, list[float]] = {every: [] for every in everies}
    timings: dict[int, list[Timing]] = {every: [] for every in everies}
    for turn in range(repeats):
        for every in everies:
            out = folder / f"probes-{every}-{turn}"
            timings[every].append(sweep((*COHORT, f"probe.every={every}"), out, folder))
            # Start-up is the same for all of them and would hide the difference.
            trained[every].append(core_seconds(out))
    for every in everies:
        cost = statistics.median(trained[every]) / statistics.median(trained[STEPS]) - 1
        whole = median(timings[every]) / median(timings[STEPS]) - 1
        remark = f"training {statistics.median(trained[every]):.2f} s: {cost:+.1%}; whole process {whole:+.1%}"
        line(f"24 runs, probe.every={every}", timings[every], remark)


def core_seconds(folder: Path) -> float:
    """The seconds of all cores that a sweep trained for; a worker alone has all of them."""
    workers = int(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["workers"])
    return float(gradlab.load(folder).runs["duration_s"].sum()) * (os.cpu_count() or 1) / workers


def nothing(net: nn.Module) -> Callable[[], None]:
    """No instrument."""
    del net
    return lambda: None


def watch(net: nn.Module) -> Callable[[], None]:
    """A histogram of 64 bins of each parameter's gradient, from a hook on it."""
    log: dict[str, tuple[list[float], list[float]]] = {}

    def hook(name: str) -> Callable[[Tensor], None]:
        def record(gradient: Tensor) -> None:
            flat = gradient.detach().flatten()
            flat = flat[torch.isfinite(flat)]
            low, high = flat.min().item(), flat.max().item()
            counts = torch.histc(flat, bins=64, min=low, max=high)
            log[name] = counts.tolist(), torch.linspace(low, high, 65).tolist()

        return record

    for name, parameter in net.named_parameters():
        parameter.register_hook(hook(name))
    return log.clear


def grad_norm(net: nn.Module) -> Callable[[], None]:
    """The norm of each parameter's gradient and of all of them, each as a number for the log."""

    def record() -> None:
        norms = {
            name: parameter.grad.norm(2).item()
            for name, parameter in net.named_parameters()
            if parameter.grad is not None
        }
        norms["total"] = torch.tensor(list(norms.values())).norm(2).item()

    return record


INSTRUMENTS = {"nothing": nothing, "wandb.watch-style hooks": watch, "Lightning-style grad_norm": grad_norm}


def train(instrument: Callable[[nn.Module], Callable[[], None]], data: Digits) -> float:
    """The seconds of ``PLAIN_STEPS`` updates of one network with an ``instrument``, called after each gradient."""
    torch.manual_seed(0)
    net = network(PLAIN)
    after = instrument(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=PLAIN.lr, foreach=True)
    batches = torch.randint(len(data.inputs), (PLAIN_STEPS, BATCH))
    start = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.inputs[batch]), data.classes[batch]).backward()
        after()
        optimizer.step()
    return time.perf_counter() - start


def compare_peers(repeats: int, cockpit: Path | None = None) -> None:
    """Prints what the others cost on one network, of its seconds with nothing on it."""
    data = digits()
    train(nothing, data)
    spent: dict[str, list[float]] = {name: [] for name in INSTRUMENTS}
    for _ in range(repeats):
        for name, instrument in INSTRUMENTS.items():
            spent[name].append(train(instrument, data))
    for name, seconds in spent.items():
        row(f"one network, {name}", seconds, spent["nothing"])
    if cockpit is None:
        print("Cockpit was not measured: it needs an environment of its own (--cockpit PYTHON)")
        return
    command = [str(cockpit), "-m", "benchmarks.cockpit_peer", "--repeats", str(repeats)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    for name, label in (("nothing", "nothing"), ("cockpit", "economy preset")):
        row(f"one network, Cockpit's own: {label}", theirs[name], theirs["nothing"])


def row(label: str, seconds: Sequence[float], bare: Sequence[float]) -> None:
    """Prints one row: the median of the seconds, their spread, and what is added to the bare network's."""
    cost = statistics.median(seconds) / statistics.median(bare) - 1
    print(f"{label:<40}{statistics.median(seconds):>7.2f} s  {spread(seconds):<16}{cost:+.0%}", flush=True)


def main() -> None:
    """Runs both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default 3)")
    parser.add_argument("--cockpit", type=Path, metavar="PYTHON", help="an interpreter that has cockpit-for-pytorch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gradlab-probes-") as name:
        compare_gradlab(arguments.repeats, Path(name))
    compare_peers(arguments.repeats, arguments.cockpit)


if __name__ == "__main__":
    main()
