"""The plain peer: one ``torch.nn`` network after the other, each layer's gradient norm read at each step.

Run as ``python -m benchmarks.loop --share 12``. The update is `torch.optim.SGD` with ``foreach``, torch's own choice on
a GPU, or with ``--fused``; nothing is compiled (`benchmarks.compiled` is), and float32 products are not TF32.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.settings import BATCH, SHARES, STEPS, WIDTH, Setting, settings
from gradlab.data.loaders import load
from gradlab.spec.run import build

THRESHOLD = 1.0
"""Of either clip mode."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass(frozen=True)
class Digits:
    """Inputs (N, 64) float32 and classes (N,), to train on and held out."""

    inputs: torch.Tensor
    classes: torch.Tensor
    heldout_inputs: torch.Tensor
    heldout_classes: torch.Tensor


@dataclass(frozen=True)
class Record:
    """What a run leaves: a loss a step, a norm a step and layer, and the held-out accuracy."""

    losses: list[float]
    norms: list[list[float]]
    accuracy: float


def digits(device: str = "cpu") -> Digits:
    """The embedded digits, standardised, on ``device``."""
    data = load(build({}).data)
    return Digits(
        torch.from_numpy(data.train_inputs).float().flatten(1).to(device),
        torch.from_numpy(data.train_targets).to(device),
        torch.from_numpy(data.heldout_inputs).float().flatten(1).to(device),
        torch.from_numpy(data.heldout_targets).to(device),
    )


def network(setting: Setting, width: int = WIDTH) -> nn.Sequential:
    """``depth`` linear layers from 64 pixels to 10 classes, each but the last followed by its norm and activation."""
    widths = [64, *[width] * (setting.depth - 1), 10]
    parts: list[nn.Module] = []
    for layer in range(setting.depth):
        linear = nn.Linear(widths[layer], widths[layer + 1])
        if setting.init == "xavier":
            nn.init.xavier_normal_(linear.weight)
        else:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        parts.append(linear)
        if layer < setting.depth - 1:
            if setting.norm == "batch":
                parts.append(nn.BatchNorm1d(width))
            elif setting.norm == "layer":
                parts.append(nn.LayerNorm(width))
            parts.append(ACTIVATIONS[setting.activation]())
    return nn.Sequential(*parts)


def train(setting: Setting, data: Digits, width: int = WIDTH, steps: int = STEPS, *, fused: bool = False) -> Record:
    """One run of ``steps`` updates, each one kernel for all parameters if ``fused``, else a few for all of them."""
    torch.manual_seed(0)
    net = network(setting, width).to(data.inputs.device)
    parameters = list(net.parameters())
    weights = [part.weight for part in net if isinstance(part, nn.Linear)]
    optimizer = torch.optim.SGD(parameters, lr=setting.lr, foreach=not fused, fused=fused)
    losses: list[float] = []
    norms: list[list[float]] = []
    while len(losses) < steps:
        order = torch.randperm(len(data.inputs)).to(data.inputs.device)
        for first in range(0, len(order) - BATCH + 1, BATCH):
            if len(losses) == steps:
                break
            batch = order[first : first + BATCH]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(data.inputs[batch]), data.classes[batch])
            loss.backward()
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            norms.append(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).tolist())
            clip(setting, parameters)
            optimizer.step()
            losses.append(loss.item())
    return Record(losses, norms, accuracy(net, data))


def accuracy(net: nn.Module, data: Digits) -> float:
    """Of the held-out part."""
    net.eval()
    with torch.inference_mode():
        right = net(data.heldout_inputs).argmax(1) == data.heldout_classes
    return float(right.float().mean())


def clip(setting: Setting, parameters: Sequence[nn.Parameter]) -> None:
    """The gradients, in place."""
    if setting.clip == "norm":
        nn.utils.clip_grad_norm_(parameters, THRESHOLD)
    elif setting.clip == "value":
        nn.utils.clip_grad_value_(parameters, THRESHOLD)


def main() -> None:
    """Trains the grid, or a twelfth of it, and prints one line of JSON: the runs and the seconds that training took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, choices=SHARES, default=12, help="one in this many runs (default 12)")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the hidden layers (default {WIDTH})")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: what it takes by itself)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--fused", action="store_true", help="torch's fused update, in place of foreach")
    arguments = parser.parse_args()
    share = arguments.share
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    data = digits(arguments.device)
    start = time.perf_counter()
    records = [train(setting, data, arguments.width, fused=arguments.fused) for setting in settings(share)]
    work = time.perf_counter() - start
    right = sum(record.accuracy for record in records) / len(records)
    optimizer = f"SGD, {'fused' if arguments.fused else 'foreach'}"
    told = {"runs": len(records), "work_s": work, "scaled_s": work * share, "accuracy": right, "optimizer": optimizer}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
