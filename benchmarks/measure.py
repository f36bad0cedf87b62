"""What `gradlab.measure` costs beside a plain way there and back: time and memory, on some networks of the zoo.

    python -m benchmarks.measure [--only NAME ...] [--repeats 5] [--device cuda:0]

Seconds are those of the process on one thread, both by turns, so that other work on the machine counts for little; of
several turns the least. Memory is the peak above what the network and its batch take, each in a process of its own that
has measured a small network before: what is imported and mapped at the first call is no cost of a network. On a GPU
seconds are those of the clock, the card waited for, and memory the peak of torch's there. Needs the extra `zoo` for
networks of torchvision, timm and transformers; the names of ``--only`` that are of none of them do without.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.utils._pytree import tree_map_only

import gradlab
from benchmarks.zoo.__main__ import called, zoo
from benchmarks.zoo.cases import Batch, Stock

SOME = """
mlp.4.relu mlp.6.gelu mlp.batch lenet cnn.batch resnet.preact unet vae lstm gru.cells gpt encoder.post mixer
torchvision.resnet18 torchvision.vgg11 torchvision.mobilenet_v3_small torchvision.densenet121 torchvision.convnext_tiny
timm.resnet26d timm.regnety_002 timm.vit_tiny_patch16_224 timm.swin_tiny_patch4_window7_224
transformers.GPT2 transformers.Bert transformers.Llama
"""

LEAST_SECONDS = 0.5
"""For so long both are tried by turns at least: a small network needs more turns than a large one."""

LEAST_MEMORY = 20.0
"""Megabytes of a plain pass below which the peak of a process says nothing."""


@dataclass(frozen=True)
class Cost:
    """Seconds and peak megabytes of a plain pass and of a measurement."""

    name: str
    plain_s: float
    measure_s: float
    plain_mb: float
    measure_mb: float

    @property
    def time(self) -> float:
        """How many times as long."""
        return self.measure_s / self.plain_s

    @property
    def memory(self) -> float | None:
        """How many times as much, where that can be known."""
        return self.measure_mb / self.plain_mb if self.plain_mb > LEAST_MEMORY else None

    def __str__(self) -> str:
        memory = "-" if self.memory is None else f"{self.memory:.2f}"
        return f"{self.name:38} {self.plain_s * 1e3:9.2f} {self.measure_s * 1e3:9.2f} {self.time:7.2f} {memory:>7}"


def cost(stock: Stock, repeats: int, device: str) -> Cost:
    """The seconds of both by turns; the memory of each in a process of its own, which has not grown yet.

    Of a card all is seen in this process: torch counts there what each pass takes.
    """
    look = _alone if device == "cpu" else _here
    plain_s, measure_s = look(_seconds, stock, device, repeats)
    (plain_mb,), (measure_mb,) = (look(_memory, stock, device, way) for way in WAYS)
    return Cost(stock.name, plain_s, measure_s, plain_mb, measure_mb)


def _here(look: Callable[..., tuple[float, ...]], *given: object) -> tuple[float, ...]:
    return look(*given)


def _alone(look: Callable[..., tuple[float, ...]], *given: object) -> tuple[float, ...]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(look(*given)))
    process.start()
    theirs.close()
    found: tuple[float, ...] = ours.recv()
    process.join()
    return found


def _made(stock: Stock, device: str) -> tuple[Stock, torch.nn.Module, Batch]:
    _first_call(device)
    torch.manual_seed(0)
    network, batch = stock.make(), stock.batch()
    network.to(device).train()
    inputs, targets = tree_map_only(torch.Tensor, lambda one: one.to(device), batch)
    return stock, network, (inputs, targets)


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _seconds(stock: Stock, device: str, repeats: int) -> tuple[float, ...]:
    made, turns = _made(stock, device), 0
    least, began = [math.inf] * len(WAYS), _now(device)
    while turns <= repeats or _now(device) - began < LEAST_SECONDS:
        for place, way in enumerate(WAYS):
            start = _now(device)
            way(*made)
            took = _now(device) - start
            least[place] = min(least[place], took) if turns else math.inf
        turns += 1
    return tuple(least)


def _memory(stock: Stock, device: str, way: Way) -> tuple[float, ...]:
    made = _made(stock, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    before = _peak(device)
    way(*made)
    return (_peak(device) - before,)


def _first_call(device: str) -> None:
    """Imports what a measurement needs, and maps its code into this process, 20 MB of it."""
    small = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).to(device)
    batch = torch.randn(4, 4, device=device), torch.arange(4, device=device) % 2
    gradlab.measure(small, torch.nn.functional.cross_entropy, batch)


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _plain(stock: Stock, network: torch.nn.Module, batch: Batch) -> None:
    inputs, targets = batch
    loss = stock.loss(called(network, inputs), targets)
    torch.autograd.grad(loss, [one for one in network.parameters() if one.requires_grad], allow_unused=True)


def _measured(stock: Stock, network: torch.nn.Module, batch: Batch) -> None:
    gradlab.measure(network, stock.loss, batch)


Way = Callable[[Stock, torch.nn.Module, Batch], None]

WAYS: tuple[Way, ...] = (_plain, _measured)


def told(costs: list[Cost]) -> Iterator[str]:
    """What they come to."""
    for least in (0.0, 0.02):
        some = [one.time for one in costs if one.plain_s >= least]
        if some:
            spread = f"median {statistics.median(some):.2f}, worst {max(some):.2f}"
            yield f"time, plain passes of {least * 1e3:g} ms and more ({len(some)}): {spread}"
    memories = [one.memory for one in costs if one.memory is not None]
    if memories:
        yield f"memory ({len(memories)}): median {statistics.median(memories):.2f}, worst {max(memories):.2f}"


def main() -> None:
    """Measures the measuring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=SOME.split())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default cpu)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    stocks = [stock for stock in zoo(None, given.only) if stock.name in given.only]
    print(f"{'network':38} {'plain ms':>9} {'measure':>9} {'time':>7} {'memory':>7}")
    _first_call(given.device)
    costs: list[Cost] = []
    for stock in stocks:
        costs.append(cost(stock, given.repeats, given.device))
        print(costs[-1], flush=True)
    print(*told(costs), sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
