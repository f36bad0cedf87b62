"""What can be known of a network of the user's own before anything passes through it: its weights as they are drawn."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gradlab.models.module import ACTIVATIONS, drawn, is_lazy, made
from gradlab.spec.run import RunSpec
from gradlab.theory.activations import ACTIVATIONS as KNOWN
from gradlab.theory.activations import Phi
from gradlab.theory.setting import TANGIBLE, Setting

APART = 1.25
"""Hidden layers whose variances lie further apart by this factor are not drawn alike."""

NAMES = {type(make()): name for name, make in ACTIVATIONS.items() if name in KNOWN}
"""What gradlab calls the modules of torch whose mean field is known."""

PASSED = (nn.Flatten, nn.Unflatten, nn.Identity)
"""Modules that move numbers and change none."""


@dataclass(frozen=True)
class Weight:
    """A weight of so many ``units`` as drawn: ``sw2`` = fan_in Var W; ``sb2`` the mean square of its bias, if any."""

    name: str
    fan_in: int
    units: int
    sw2: float
    sb2: float | None


@dataclass(frozen=True)
class Drawn:
    """A network's weights in the order of its modules, and what the mean field sees of it, or why it sees nothing."""

    weights: tuple[Weight, ...]
    seen: Setting | None
    why_not: str = ""


def drawn_of(run: RunSpec) -> Drawn:
    """The network of a run is made, and never called. Raises `DataError` where it cannot be made."""
    module = made(run.model, run.seed, torch.float64)
    if is_lazy(module):
        return Drawn((), None, "some of its layers have no shape before a batch has passed")
    drawn(module, run.model, run.seed)
    weights = tuple(
        _weight(name or label, part, weight)
        for name, part in module.named_modules()
        if not isinstance(part, nn.Embedding | nn.EmbeddingBag)
        for label, weight in part.named_parameters(recurse=False)
        if weight.dim() > 1 and "bias" not in label
    )
    stack = _stack(module)
    if isinstance(stack, str):
        return Drawn(weights, None, stack)
    phi, layers = stack
    hidden = [_weight("", part, part.weight) for part in layers]
    between = hidden[1:-1] or hidden[:1]
    if max(one.sw2 for one in between) > APART * min(one.sw2 for one in between):
        return Drawn(weights, None, "its hidden layers are drawn with different variances")
    return Drawn(
        weights,
        Setting(
            architecture="mlp",
            phi=phi,
            norm="none",
            depth=len(layers),
            steps=0,
            width=round(statistics.harmonic_mean([one.units for one in hidden[:-1]])),
            inputs=hidden[0].fan_in,
            sw2=statistics.mean(one.sw2 for one in between),
            sb2=statistics.mean(one.sb2 or 0.0 for one in hidden[:-1]),
            sw2_first=hidden[0].sw2,
            q0=run.data.input_scale * run.data.input_scale,
            batch=None,
            eps=0.0,
            branch=0.0,
            orthogonal=run.model.init == "orthogonal",
        ),
    )


Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def _weight(name: str, part: nn.Module, weight: Tensor) -> Weight:
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(weight)
    bias = getattr(part, "bias", None)
    mean_square = float(bias.detach().abs().square().mean()) if isinstance(bias, Tensor) else None
    return Weight(name, fan_in, len(weight), fan_in * float(weight.detach().abs().square().mean()), mean_square)


def _stack(module: nn.Module) -> tuple[Phi, list[Weighted]] | str:
    """The activation and the layers of a plain stack, or why it is none."""
    parts = _flat(module)
    if parts is None:
        return "what its forward does is not known: a rate is said of an nn.Sequential"
    layers = [part for part in parts if isinstance(part, Weighted)]
    others = [part for part in parts if not isinstance(part, Weighted)]
    found = {_phi(part) for part in others}
    if len(layers) < 2 or not others or None in found or len(found) > 1:
        return "it is no plain stack of linear layers or convolutions with one activation between them"
    if any(isinstance(one, Weighted) == isinstance(other, Weighted) for one, other in pairwise(parts)):
        return "it is no plain stack: not every layer is followed by one activation"
    if any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not _plain(part) for part in layers):
        return "it has convolutions of strides or groups, of which theory here knows nothing"
    (phi,) = found
    assert phi is not None
    return phi, layers


def _flat(module: nn.Module) -> list[nn.Module] | None:
    """The parts of sequences within sequences, in the order of their calls, but for those that change no number."""
    if not isinstance(module, nn.Sequential):
        return None
    found: list[nn.Module] = []
    for part in module:
        inner = _flat(part) if isinstance(part, nn.Sequential) else [part]
        found += inner or []
    return [part for part in found if not isinstance(part, PASSED)]


def _phi(part: nn.Module) -> Phi | None:
    name = NAMES.get(type(part))
    if name is None or (isinstance(part, nn.ELU) and part.alpha != 1) or part._forward_hooks:
        return None
    if name not in TANGIBLE:
        return Phi(name)
    return Phi(name, part.negative_slope if isinstance(part, nn.LeakyReLU) else float(next(part.parameters()).mean()))


def _plain(part: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    return set(part.stride) == {1} and part.groups == 1
