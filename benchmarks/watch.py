"""What watching a training costs, in one run beside what others hang on the same loop.

Run as ``python -m benchmarks.watch``. A CNN and a small transformer train on random batches of one thread: with nothing
on them, under ``gradlab.watch`` with a record of every layer each 50th and each 10th step, with ``wandb.watch`` where
it is installed (a histogram of every gradient, each 50th step and each step; offline), with torchmortem and torch-audit
where these are (at their defaults; audited each 50th step), with the norm of every parameter's gradient at each step as
Lightning's ``grad_norm`` logs it, and with a logger written by hand (norm of the gradient at each step, mean and spread
of each layer's output and gradient each 50th). Cockpit wants to be called around each way back and a loss for each
sample: `benchmarks.probes` has it.

Turns of 50 steps are taken one after the other, each beside one with nothing on it, and processor seconds are counted:
the cost is the median over the turns of a turn's seconds over those of the bare one. Memory is the peak of a process of
its own for each (Linux), the median of three: while it trains, and when all is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from benchmarks.timing import ROOT

STEPS = 50
"""Of a turn: one record of every=50, five of every=10."""

After = Callable[[Tensor], None]
"""What a contender does after each update, with the loss."""


class Cnn(nn.Module):
    """Seven convolutions with batch norm on 32x32 images."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64, 128, 128, 128)
        blocks: list[nn.Module] = []
        for place, (enter, leave) in enumerate(pairwise(widths)):
            blocks += [nn.Conv2d(enter, leave, 3, padding=1, bias=False), nn.BatchNorm2d(leave), nn.ReLU()]
            blocks += [nn.MaxPool2d(2)] if place in (1, 3, 5) else []
        self.blocks, self.out = nn.Sequential(*blocks), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 10)."""
        out: Tensor = self.out(self.blocks(x).mean((2, 3)))
        return out


class Transformer(nn.Module):
    """Four blocks of width 128 over 128 tokens, causal, with a read-out of 256 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(256, 128), nn.Parameter(torch.randn(128, 128) * 0.02)
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.out = nn.Linear(128, 256)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(128))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 128) -> (B 128, 256)."""
        out: Tensor = self.out(self.blocks(self.embedding(x) + self.places, mask=self.mask, is_causal=True))
        return out.flatten(0, 1)


@dataclass(frozen=True)
class Task:
    """A network and where its batches come from."""

    network: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]


TASKS = {
    "cnn": Task(Cnn, lambda: (torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,)))),
    "transformer": Task(Transformer, lambda: (torch.randint(0, 256, (16, 128)), torch.randint(0, 256, (2048,)))),
}


@contextmanager
def nothing(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
    """No instrument."""
    del net, optimizer
    yield lambda _: None


def watched(every: int) -> Any:
    """`gradlab.watch`."""

    @contextmanager
    def contender(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
        with (
            tempfile.TemporaryDirectory(prefix="gradlab-watch-") as folder,
            gradlab.watch(net, optimizer, every=every, out=Path(folder, "out"), quiet=True, report=False) as seen,
        ):
            yield seen.step

    return contender


def of_wandb(every: int) -> Any:
    """`wandb.watch`, which takes its histograms when the loop logs."""

    @contextmanager
    def contender(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
        del optimizer
        import wandb

        with tempfile.TemporaryDirectory(prefix="gradlab-watch-") as folder:
            run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
            wandb.watch(net, log="gradients", log_freq=every)
            yield lambda loss: run.log({"loss": loss.item()})
            wandb.unwatch(net)
            run.finish()

    return contender


@contextmanager
def grad_norm(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
    """The norm of each parameter's gradient and of all, each as a number for the log."""
    log: list[dict[str, float]] = []

    def record(*_: object) -> None:
        named = ((name, parameter.grad) for name, parameter in net.named_parameters())
        norms = {name: grad.norm(2).item() for name, grad in named if grad is not None}
        log.append(norms | {"total": torch.tensor(list(norms.values())).norm(2).item()})

    hook = optimizer.register_step_pre_hook(record)
    yield lambda _: None
    hook.remove()


@contextmanager
def by_hand(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
    """Hooks as one writes them in an afternoon: no verdicts, no clipping, no trunk."""
    log: list[Any] = []
    count = 0

    def there(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if count % STEPS == 0 and isinstance(output, Tensor):
                log.append((name, output.mean().item(), output.std().item()))
                if output.requires_grad:
                    output.register_hook(lambda grad: log.append((name, grad.norm().item())))

        return look

    def norm(*_: object) -> None:
        nonlocal count
        count += 1
        log.append(torch.cat([one.grad.flatten() for one in net.parameters() if one.grad is not None]).norm().item())

    hooks = [part.register_forward_hook(there(name)) for name, part in net.named_modules() if not list(part.children())]
    hooks.append(optimizer.register_step_pre_hook(norm))
    yield lambda _: None
    for hook in hooks:
        hook.remove()


@contextmanager
def mortem(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
    """The `Autopsy` of torchmortem, at its defaults and without its report."""
    from torchmortem import Autopsy

    with Autopsy(net, optimizer=optimizer) as autopsy:
        yield lambda loss: autopsy.step(loss=loss.item())


@contextmanager
def audited(net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[After]:
    """The `autopatch` of torch-audit, each 50th step."""
    from torch_audit import autopatch

    auditor = autopatch(net, optimizer=optimizer, every_n_steps=STEPS, reporters=[], run_static=True, run_init=True)
    yield lambda _: None
    auditor.finish(report=False)
    auditor.unpatch()


CONTENDERS: dict[str, Any] = {
    "nothing": nothing,
    "gradlab.watch every=50": watched(50),
    "gradlab.watch every=10": watched(10),
    "Lightning-style grad_norm": grad_norm,
    "by hand, layers each 50th": by_hand,
}
if importlib.util.find_spec("wandb") is not None:
    CONTENDERS |= {"wandb.watch log_freq=50": of_wandb(50), "wandb.watch log_freq=1": of_wandb(1)}

if importlib.util.find_spec("torchmortem") is not None:
    CONTENDERS["torchmortem"] = mortem
if importlib.util.find_spec("torch_audit") is not None:
    CONTENDERS["torch-audit each 50th step"] = audited


def turn(task: Task, contender: Any, steps: int = STEPS) -> float:
    """The processor seconds of so many updates, after one to get warm."""
    torch.manual_seed(0)
    net = task.network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    inputs, targets = task.batch()
    with contender(net, optimizer) as after:
        start = 0.0
        for step in range(steps + 1):
            if step == 1:
                start = time.process_time()
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            after(loss.detach())
        spent, HIGHEST[0] = time.process_time() - start, highest()
    return spent


HIGHEST = [0.0]
"""The peak memory of this process when the last turn's training was over, and nothing was written yet."""


def highest() -> float:
    """The peak memory of this process in MiB."""
    # Not ru_maxrss: a process inherits that of the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line[:6] == "VmHWM:")
    return int(line.split()[1]) / 2**10


def peak(task: str, name: str) -> tuple[float, float]:
    """The peak memory in MiB of a process that takes one turn: while it trains, and to its end."""
    command = [sys.executable, "-m", "benchmarks.watch", "--one", task, name]
    turns = []
    for _ in range(3):
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        turns.append([float(one) for one in done.stdout.split()[-2:]])
    training, ended = zip(*turns, strict=True)
    return statistics.median(training), statistics.median(ended)


def main() -> None:
    """Prints a row for each contender on each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="networks (default all)")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    if arguments.one:
        turn(TASKS[arguments.one[0]], CONTENDERS[arguments.one[1]], steps=20)
        print(HIGHEST[0], highest())
        return
    for task in arguments.tasks:
        made = TASKS[task]
        turn(made, nothing, steps=5)
        bare: list[float] = []
        costs: dict[str, list[float]] = {name: [] for name in CONTENDERS if name != "nothing"}
        for repeat in range(arguments.repeats):
            for name, found in costs.items():
                # Side by side, and each as often first as second: a machine's speed drifts.
                first, second = (nothing, CONTENDERS[name]) if repeat % 2 else (CONTENDERS[name], nothing)
                one, other = turn(made, first), turn(made, second)
                spent, without = (other, one) if repeat % 2 else (one, other)
                bare.append(without)
                found.append(spent / without - 1)
        base = peak(task, "nothing")
        print(f"{task}: {statistics.median(bare) / STEPS * 1e3:.1f} ms a step")
        for name, found in costs.items():
            memory, ended = (one / bare_one - 1 for one, bare_one in zip(peak(task, name), base, strict=True))
            extent = f"({min(found):+.1%}..{max(found):+.1%})"
            said = f"memory {memory:+.1%}, at the end {ended:+.1%}"
            print(f"  {name:<28}{statistics.median(found):>+7.1%}  {extent:<20}{said}", flush=True)


if __name__ == "__main__":
    main()
