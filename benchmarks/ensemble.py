"""The peer that stacks networks with ``torch.func``: one ensemble of 12 networks for each architecture of the grid.

Run as ``python -m benchmarks.ensemble --share 3``: the ensembles one after the other, with the threads that PyTorch
takes by itself; or with ``--processes 2``: dealt out to two processes of one thread each.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, stack_module_state, vmap

from benchmarks.loop import THRESHOLD, Digits, digits, network
from benchmarks.settings import BATCH, STEPS, Setting, ensembles


@dataclass(frozen=True)
class Ensemble:
    """What the members leave: a loss a step and member, a norm a step, layer and member, a held-out accuracy each."""

    losses: list[list[float]]
    norms: list[list[list[float]]]
    accuracies: list[float]


def train(members: Sequence[Setting], data: Digits, steps: int = STEPS) -> Ensemble:
    """M runs of one architecture, sorted by clip mode, in lock-step on the batches that the loop would give them.

    Batch norm takes the statistics of the batch, on held-out samples too: `vmap` cannot update running ones.
    """
    networks: list[nn.Module] = []
    for setting in members:
        torch.manual_seed(0)
        networks.append(replace_all_batch_norm_modules_(network(setting)))
    device = data.inputs.device
    parameters, buffers = stack_module_state([one.to(device) for one in networks])
    base = copy.deepcopy(networks[0]).to("meta")

    def outputs_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(base, (parameters, buffers), (inputs,))
        return outputs

    def loss_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs_of(parameters, buffers, inputs), classes)

    # The batch is shared, parameters and buffers are not. Members do not depend on each other, so the gradient of the
    # summed losses holds each member's own; it takes a fifth less than `vmap` of `grad` does.
    losses_of = vmap(loss_of, in_dims=(0, 0, None, None))
    stacked = list(parameters.values())
    weights = [index for index, parameter in enumerate(stacked) if parameter.dim() == 3]
    modes = [setting.clip for setting in members]
    by_value = slice(modes.index("value"), len(modes)) if "value" in modes else slice(0)
    by_norm = torch.tensor([mode == "norm" for mode in modes], device=device)
    rates = torch.tensor([setting.lr for setting in members], device=device)
    losses: list[list[float]] = []
    norms: list[list[list[float]]] = []
    while len(losses) < steps:
        order = torch.randperm(len(data.inputs)).to(device)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            if len(losses) == steps:
                break
            batch = order[first : first + BATCH]
            loss = losses_of(parameters, buffers, data.inputs[batch], data.classes[batch])
            gradients = torch.autograd.grad(loss.sum(), stacked)
            with torch.no_grad():
                parts = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
                norms.append(torch.stack([parts[index] for index in weights]).tolist())
                total = torch.linalg.vector_norm(torch.stack(parts), dim=0)
                factors = torch.where(by_norm, (THRESHOLD / (total + 1e-6)).clamp(max=1.0), 1.0) * rates
                for parameter, gradient in zip(stacked, gradients, strict=True):
                    gradient[by_value].clamp_(-THRESHOLD, THRESHOLD)
                    parameter.addcmul_(gradient, factors.view(-1, *[1] * (gradient.dim() - 1)), value=-1)
            losses.append(loss.tolist())
    with torch.inference_mode():
        outputs = vmap(outputs_of, in_dims=(0, 0, None))(parameters, buffers, data.heldout_inputs)
        accuracies = (outputs.argmax(-1) == data.heldout_classes).float().mean(-1)
    return Ensemble(losses, norms, accuracies.tolist())


def seconds_of(members: Sequence[Setting], device: str = "cpu") -> float:
    """Trains one ensemble, and says how long it took."""
    data = digits(device)
    start = time.perf_counter()
    train(members, data)
    return time.perf_counter() - start


def main() -> None:
    """Trains the grid, or a third of it, and prints one line of JSON: the runs and the seconds that training took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, choices=(1, 3), default=3, help="one in this many ensembles (default 3)")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each, where more than one (default 1)")
    parser.add_argument("--threads", type=int, help="of a single process (default: what PyTorch takes by itself)")
    parser.add_argument("--device", default="cpu", help="of a single process: cpu or cuda (default cpu)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    groups = ensembles(arguments.share)
    if arguments.processes == 1:
        durations = [seconds_of(group, arguments.device) for group in groups]
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(arguments.processes, torch.set_num_threads, (1,)) as pool:
            durations = pool.map(seconds_of, groups, chunksize=1)
    # The mean of the processes: that one of them waits at the end would not grow with the grid.
    work = sum(durations) / arguments.processes
    print(json.dumps({"runs": sum(map(len, groups)), "work_s": work, "scaled_s": work * arguments.share}))


if __name__ == "__main__":
    main()
