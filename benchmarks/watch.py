"""What watching a training costs, in one run beside what others hang on the same loop.

Run as ``python -m benchmarks.watch``. A CNN and a small transformer train on random batches of one thread: with nothing
on them, under ``gradlab.watch`` with a record of every layer each 50th and each 10th step, with ``wandb.watch`` where
it is installed (a histogram of every gradient, each 50th step and each step; offline), with torchmortem and torch-audit
where these are (at their defaults; audited each 50th step), with the norm of every parameter's gradient at each step as
Lightning's ``grad_norm`` logs it, and with a logger written by hand (norm of the gradient at each step, mean and spread
of each layer's output and gradient each 50th). Cockpit wants to be called around each way back and a loss for each
sample: `benchmarks.probes` has it.

Two networks train in turns, step by step: one with the contender on it, one bare. Processor seconds are counted, and
each step stands beside the bare one next to it, so that a machine whose speed drifts does not matter. The median over
the steps between two records and that over the recorded ones make the cost of a cycle; ``nothing`` beside nothing says
what such a median is worth. Memory is the peak of a process of its own for each (Linux), the median of three: while it
trains, and when all is written.

``--device cuda:0`` trains on a GPU, on batches that are there. What is counted then are seconds, the card waited for
before and after each step, and the peak of torch's memory on the card.
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
"""Between two looks at the layers of those that take no other number."""

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


CONTENDERS: dict[str, tuple[int, Any]] = {
    "nothing": (1, nothing),
    "gradlab.watch every=50": (50, watched(50)),
    "gradlab.watch every=10": (10, watched(10)),
    "Lightning-style grad_norm": (1, grad_norm),
    "by hand, layers each 50th": (STEPS, by_hand),
}
"""By name: at every how many steps a record is due, and what hangs on the loop."""

if importlib.util.find_spec("wandb") is not None:
    CONTENDERS |= {"wandb.watch log_freq=50": (50, of_wandb(50)), "wandb.watch log_freq=1": (1, of_wandb(1))}
if importlib.util.find_spec("torchmortem") is not None:
    CONTENDERS["torchmortem"] = (1, mortem)
if importlib.util.find_spec("torch_audit") is not None:
    CONTENDERS["torch-audit each 50th step"] = (STEPS, audited)


class Loop:
    """A network of a task and its update."""

    def __init__(self, task: Task, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.net = task.network().to(device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3)
        self.inputs, self.targets = (one.to(device) for one in task.batch())

    def now(self) -> float:
        """Processor seconds of this process or, where a GPU works, those of the clock."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self, after: After) -> float:
        """The seconds of one update."""
        start = self.now()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(self.inputs), self.targets)
        loss.backward()
        self.optimizer.step()
        after(loss.detach())
        return self.now() - start


@dataclass(frozen=True)
class Cost:
    """Shares of a bare step: what a step between two records costs more, and a recorded one."""

    every: int
    between: float
    recorded: float

    @property
    def cycle(self) -> float:
        """What training costs more in all."""
        return ((self.every - 1) * self.between + self.recorded) / self.every


def cost(task: Task, every: int, contender: Any, steps: int, device: str = "cpu") -> tuple[Cost, float]:
    """What a contender costs, of so many steps in pairs after one to get warm, and the seconds of a bare step."""
    observed, bare = Loop(task, device), Loop(task, device)
    ratios: dict[bool, list[float]] = {False: [], True: []}
    seconds = []
    with contender(observed.net, observed.optimizer) as after:
        observed.step(after), bare.step(_ignored)
        for step in range(1, steps + 1):
            # Each as often first as second.
            spent = observed.step(after) if step % 2 else 0.0
            without = bare.step(_ignored)
            spent = spent or observed.step(after)
            seconds.append(without)
            ratios[step % every == 0].append(spent / without - 1)
    recorded = statistics.median(ratios[True])
    return Cost(every, statistics.median(ratios[False] or [recorded]), recorded), statistics.median(seconds)


def _ignored(_: Tensor) -> None:
    """A bare loop's after."""


def highest(device: torch.device) -> float:
    """The peak memory of this process in MiB, on a GPU that of its tensors there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Not ru_maxrss: a process inherits that of the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line[:6] == "VmHWM:")
    return int(line.split()[1]) / 2**10


def peak(task: str, name: str, device: str) -> tuple[float, float]:
    """The peak memory in MiB of a process that takes one turn: while it trains, and to its end."""
    command = [sys.executable, "-m", "benchmarks.watch", "--device", device, "--one", task, name]
    turns = []
    for _ in range(3 if device == "cpu" else 1):  # what torch counts on a card is the same each time
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        turns.append([float(one) for one in done.stdout.split()[-2:]])
    training, ended = zip(*turns, strict=True)
    return statistics.median(training), statistics.median(ended)


def alone(task: Task, contender: Any, device: str, steps: int = 20) -> tuple[float, float]:
    """The peak memory of this process in MiB: when so many steps are done and nothing is written yet, and after."""
    loop = Loop(task, device)
    with contender(loop.net, loop.optimizer) as after:
        for _ in range(steps):
            loop.step(after)
        training = highest(loop.device)
    return training, highest(loop.device)


def main() -> None:
    """Prints a row for each contender on each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="of each contender (default 250)")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="networks (default all)")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, help="(default all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default cpu)")
    parser.add_argument("--no-memory", action="store_true", help="seconds alone: no process for each peak of memory")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    if arguments.one:
        print(*alone(TASKS[arguments.one[0]], CONTENDERS[arguments.one[1]][1], arguments.device))
        return
    for task in arguments.tasks:
        base = None if arguments.no_memory else peak(task, "nothing", arguments.device)
        for name in arguments.only:
            found, seconds = cost(TASKS[task], *CONTENDERS[name], arguments.steps, arguments.device)
            memory = ""
            if base is not None:
                peaks = zip(peak(task, name, arguments.device), base, strict=True)
                memory = "; memory {:+.1%}, at the end {:+.1%}".format(*(one / bare - 1 for one, bare in peaks))
            print(
                f"{task:<12}{seconds * 1e3:6.1f} ms a step  {name:<28}{found.cycle:+7.1%}  "
                f"between {found.between:+6.1%}, recorded {found.recorded:+6.1%}{memory}",
                flush=True,
            )


if __name__ == "__main__":
    main()
