"""What a batch, an output and a loss look like: the facts that name a cause, beside what the layers show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import Node

from gradlab.watching.entries import PIECE, PLAIN, moments_of, numbers, real, square

Facts = dict[str, Any]
"""Plain numbers and words by name, as they stand in ``frame.attrs["facts"]``."""

LOSSES = {
    "nll_loss_forward": "negative_log_likelihood",
    "nll_loss2d_forward": "negative_log_likelihood",
    "binary_cross_entropy": "binary_cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "mse_loss": "mean_squared_error",
    "l1_loss": "mean_absolute_error",
    "huber_loss": "huber",
    "smooth_l1_loss": "huber",
}
"""The operators of the losses that are known, by the names of the key `train.loss` where it has one."""

REDUCED_AT = {"nll_loss_forward": 3, "nll_loss2d_forward": 3, "binary_cross_entropy": 3} | {
    "binary_cross_entropy_with_logits": 4
}
"""At which place an operator is told to take a mean or a sum, where that is not the third."""

SUM = 2
"""What a sum over the batch is to torch's operators."""

IGNORED = -100
"""The class that torch leaves out of a loss."""

SQUASHING = {
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "SigmoidBackward0": "sigmoid",
    "ReluBackward0": "relu",
    "TanhBackward0": "tanh",
}
"""What may stand at the end of a network, by the names of autograd's nodes."""

FEW = 64
"""Samples by which it is known how far the classes lie apart."""

MOST_SIZES = 1 << 14
"""Numbers by which it is known how large they are."""

LEAST_SIDE, POWERS, EDGE = 8, 30, 1.2
"""Smaller matrices have no edge; so many powers find what lies beyond it by a fifth."""

SCALED_LABEL = 0.05
"""Labels of 0 and 1 that were divided by the 255 of pixels, or by some such number, stay below it."""

_PASSING = """
View UnsafeView Squeeze Unsqueeze Reshape Transpose Permute Select Slice Expand Alias Clone T ToCopy ReshapeAlias
"""
PASSING = frozenset(f"{name}Backward{number}" for name in _PASSING.split() for number in range(3))
"""Nodes that change no number."""


@dataclass
class Losses:
    """The losses that were computed: the last of each kind, with what it was given."""

    seen: dict[str, Facts] = field(default_factory=dict)

    def see(self, operator: str, given: tuple[Any, ...]) -> None:
        """Notes an operator if it is a loss."""
        name = LOSSES.get(operator)
        if name is None:
            return
        guess, target = given[0].detach(), given[1].detach()
        facts: Facts = {"entries": target.numel()}
        place = REDUCED_AT.get(operator, 2)
        facts["summed"] = len(given) > place and given[place] == SUM
        if name == "negative_log_likelihood":
            classes = guess.shape[1 if guess.dim() > 1 else 0]
            labels = target.cpu().numpy().ravel()
            known = (labels >= 0) & (labels < classes)
            facts |= {"classes": classes, "present": int(np.count_nonzero(np.bincount(labels[known])))}
            facts["places"] = guess.dim() > 2
            facts["only"] = int(labels[known][0]) if facts["present"] == 1 and target.dim() == 1 else None
            outside = labels[~known & (labels != IGNORED)]
            if outside.size:
                raise ValueError(
                    f"the targets hold the class {int(outside[0])}; expected 0 to {classes - 1}, for the network puts "
                    f"out {classes} classes"
                )
            # Log-probabilities add up to 1 when their logarithm is taken away.
            of_each = -guess.gather(1, target.clamp(0, classes - 1).unsqueeze(1)) if guess.dim() > 1 else -guess[:1]
            facts["error"] = float(of_each.double().std() / math.sqrt(of_each.numel())) if of_each.numel() > 1 else 0.0
            fine = guess if guess.dtype in PLAIN else guess.float()
            apart = fine.logsumexp(1 if guess.dim() > 1 else 0).abs()
            facts["lead"] = _lead(guess)
            facts["normalised"] = not bool(((apart >= 1e-2) & (apart < math.inf)).any())
        else:
            facts |= spread("target", target) | {"outside": int(((target < 0) | (target > 1)).sum())}
            facts["distinct"] = len(torch.unique(target)) if 0 < facts["target_largest"] < SCALED_LABEL else None
            facts["below"] = int((target < 0).sum()) / max(1, target.numel())
            facts["broadcast"] = bool(_repeated(guess) - _repeated(target) and _repeated(target) - _repeated(guess))
        self.seen[name] = facts

    def weigh(self, operator: str, gradients: list[Tensor]) -> None:
        """Notes the derivative of the whole loss by the mean of this one, where it was computed once: how it counts."""
        name = LOSSES[operator]
        if name in self.seen and len(gradients) == 1 and gradients[0].numel() == 1:
            facts = self.seen[name]
            facts["weight"] = float(gradients[0]) * (facts["entries"] if facts["summed"] else 1)

    def unscale(self, scale: float) -> None:
        """Takes a loss scale out of how much each counts."""
        for seen in self.seen.values():
            seen |= {"weight": seen["weight"] / scale} if "weight" in seen else {}

    def came_to(self, operator: str, output: Any) -> None:
        """Notes what a loss came to in the mean, before anything scales it."""
        value = output[0] if isinstance(output, tuple) else output
        if operator in LOSSES and isinstance(value, Tensor) and value.numel() == 1:
            facts = self.seen[LOSSES[operator]]
            facts["value"] = float(value) / (max(1, facts["entries"]) if facts["summed"] else 1)


KEPT_BY = {
    "NllLossBackward0": "nll_loss_forward",
    "NllLoss2DBackward0": "nll_loss2d_forward",
    "BinaryCrossEntropyBackward0": "binary_cross_entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary_cross_entropy_with_logits",
    "MseLossBackward0": "mse_loss",
    "L1LossBackward0": "l1_loss",
    "HuberLossBackward0": "huber_loss",
    "SmoothL1LossBackward0": "smooth_l1_loss",
}
"""The operators of losses by the nodes that keep what they were given for the way back."""

NEAR = 24
"""Nodes behind a loss among which the losses that it is made of are looked for."""


def losses_behind(loss: Node, value: float) -> Losses:
    """The losses that a scalar of ``value`` is made of, from what autograd keeps of them."""
    found, waiting, met = Losses(), [loss], set[Node]()
    while waiting and len(met) < NEAR:
        node = waiting.pop(0)
        met.add(node)
        operator = KEPT_BY.get(node.name())
        if operator is None:
            waiting += [below for below, _ in node.next_functions if below is not None and below not in met]
            continue
        kept: Any = node
        reduction: tuple[Any, ...] = (None,) * (REDUCED_AT.get(operator, 2) - 2) + (kept._saved_reduction,)
        found.see(operator, (kept._saved_self, kept._saved_target, *reduction))
        if node is loss:
            facts = found.seen[LOSSES[operator]]
            facts["value"] = value / (max(1, facts["entries"]) if facts["summed"] else 1)
    return found


def _lead(guess: Tensor) -> float:
    """How far the likeliest class is before the next, (B, C, ...) log-probabilities; the median of a few samples."""
    rows = guess.movedim(1, -1).reshape(-1, guess.shape[1])[:FEW] if guess.dim() > 1 else guess[None]
    first = rows.topk(min(2, rows.shape[1]), 1).values.double()
    leads = first[:, 0] - first[:, -1]
    known = leads[torch.isfinite(leads)]
    return float(known.median()) if known.numel() else 0.0


def _repeated(tensor: Tensor) -> set[int]:
    """The dimensions along which a tensor was made larger by repeating itself."""
    sizes = enumerate(zip(tensor.stride(), tensor.shape, strict=True))
    return {dim for dim, (step, size) in sizes if step == 0 and size > 1}


def spread(name: str, tensor: Tensor) -> Facts:
    """Mean, standard deviation and largest size of a tensor's finite numbers, and how many are not finite."""
    entries = finite = numbers(tensor)
    if not isinstance(entries, Tensor) or entries.is_floating_point():
        known = (np if isinstance(entries, np.ndarray) else torch).isfinite(entries)
        finite = entries if known.all() else entries[known]
    count, mean, squares = moments_of(finite)
    return {
        f"{name}_mean": mean,
        f"{name}_std": math.sqrt(squares / count) if count else math.nan,
        f"{name}_largest": float(abs(finite).max()) if count else math.nan,
        f"{name}_not_finite": len(entries) - count,
    }


def as_drawn(weight: Tensor) -> bool:
    """Whether a matrix looks like independent draws: its largest singular value is within the edge of a random one.

    What has learned has some beyond it (Martin & Mahoney 2021, arXiv:1810.01075).
    """
    matrix = weight.detach().float().flatten(1)
    if min(matrix.shape) < LEAST_SIDE:
        return False
    edge = float(matrix.std()) * sum(math.sqrt(side) for side in matrix.shape)
    at = torch.ones(matrix.shape[1], device=matrix.device) + matrix[0] / edge
    for _ in range(POWERS):
        at = matrix.T @ (matrix @ (at / at.norm()))
    return 0 < math.sqrt(float(at.norm())) < EDGE * edge


def inputs(parts: Iterable[Any]) -> Facts:
    """The first tensor of floats among the inputs; nothing where there is none (words, classes)."""
    tensor = next((part for part in parts if isinstance(part, Tensor) and part.is_floating_point()), None)
    return {} if tensor is None else spread("input", tensor) | {"input_usual": _usual(tensor)}


def _usual(tensor: Tensor) -> float:
    """The median size of what is not zero in some of a tensor; 0 where all is."""
    entries = numbers(tensor)
    some = entries[:: max(1, len(entries) // MOST_SIZES)]
    sizes = abs(some if isinstance(some, np.ndarray) else some.float().cpu().numpy())
    sizes = sizes[(sizes > 0) & np.isfinite(sizes)]
    middle = (len(sizes) - 1) // 2
    return float(np.partition(sizes, middle)[middle]) if len(sizes) else 0.0


def output(tensor: Tensor | None, loss: Node) -> Facts:
    """The network's output: its units, whether it differs between samples, and what squashes it before the loss."""
    if tensor is None or tensor.dim() < 1:
        return {"into_loss": _squashed(loss)}
    facts: Facts = {"units": tensor.shape[-1] if tensor.dim() > 1 else 1, "into_loss": _squashed(loss)}
    facts["viewed_from"] = _viewed(loss)
    facts |= spread("output", tensor) | {"output_entries": tensor.numel()}
    if len(tensor) > 1:
        facts["output_between"] = _between(real(tensor))
    return facts


def _between(values: Tensor) -> float:
    """The root mean square by which samples differ from their mean, some of them at a time."""
    mean = values.mean(0, dtype=torch.float64)
    some = values.split(max(1, PIECE // max(1, mean.numel())))
    return math.sqrt(sum(square(part - mean) for part in some) / values.numel()) if values.numel() else math.nan


def _viewed(loss: Node) -> list[int]:
    """The shape that logits had before they were reshaped for their loss; empty where they were not."""
    node: Node | None = loss
    while node is not None and node.name() != "LogSoftmaxBackward0":
        below = [one for one, _ in node.next_functions if one is not None]
        node = below[0] if len(below) == 1 else None
    given = None if node is None else node.next_functions[0][0]
    return (
        [int(size) for size in getattr(given, "_saved_self_sym_sizes", ())] if given and "View" in given.name() else []
    )


def _squashed(loss: Node) -> list[str]:
    """The activations through which the output came into the loss, the last first: the chain below the loss's node."""
    found: list[str] = []
    node: Node | None = loss
    while node is not None:
        name = node.name()
        if name in SQUASHING:
            found.append(SQUASHING[name])
        elif found and name not in PASSING:
            break
        below = [one for one, _ in node.next_functions if one is not None]
        # Once at the output only its own chain counts; above it a loss may have any form of one input.
        node = below[0] if len(below) == 1 or (below and name in ("NllLossBackward0", "MulBackward0")) else None
    return found
