"""Half precision: which numbers are held in it, and how a loss scale keeps gradients inside its range.

In ``float16`` and ``bfloat16`` weights, signals, gradients and what the optimizer remembers are; in the mixed ones the
weights and the optimizer are single, and each pass takes a rounded copy of the weights. The loss and its derivative are
single everywhere, and so is what is inside a norm, as under torch's autocast. In ``tf32`` all numbers are single, and
products are made as `tf32` says. Shapes: M members, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from gradlab.engine import tf32
from gradlab.nn.network import Network, assemble
from gradlab.nn.slots import Layout
from gradlab.spec.choices.formats import FORMATS as NAMED
from gradlab.spec.run import RunSpec
from gradlab.spec.unused import unused

FIRST_SCALE, GROWS_AFTER = 2.0**16, 2000
"""A dynamic loss scale: where it begins, and the good steps after which it is doubled, as torch.amp.GradScaler's."""


@dataclass(frozen=True)
class Format:
    """Dtypes of the parameters and of the ``passes``; all that is neither is of ``beside``, single or double.

    ``rounds``: the operands of products are rounded to TF32.
    """

    parameters: torch.dtype
    passes: torch.dtype
    beside: torch.dtype
    rounds: bool = False

    @property
    def half(self) -> bool:
        """Whether passes are of two bytes a number."""
        return self.passes != self.beside

    def products(self, device: torch.device) -> AbstractContextManager[None]:
        """Inside, products on ``device`` are of this format."""
        return tf32.products(device) if self.rounds else nullcontext()

    def cast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside, a module with weights of another format than the passes' casts as torch's autocast does."""
        mixed = self.parameters != self.passes
        return torch.autocast(device.type, self.passes) if mixed else nullcontext()

    def enter(self, inputs: Any) -> Any:
        """Real inputs, one or several, as a module with such weights takes them."""
        if isinstance(inputs, Mapping):
            return {name: self.enter(part) for name, part in inputs.items()}
        if isinstance(inputs, tuple):
            return tuple(map(self.enter, inputs))
        return inputs.to(self.parameters) if inputs.is_floating_point() else inputs


NUMBERS = {torch.float16: NAMED["float16"], torch.bfloat16: NAMED["bfloat16"]}

FORMATS = {
    "float32": Format(torch.float32, torch.float32, torch.float32),
    "tf32": Format(torch.float32, torch.float32, torch.float32, rounds=True),
    "float64": Format(torch.float64, torch.float64, torch.float64),
    "float16": Format(torch.float16, torch.float16, torch.float32),
    "bfloat16": Format(torch.bfloat16, torch.bfloat16, torch.float32),
    "mixed_float16": Format(torch.float32, torch.float16, torch.float32),
    "mixed_bfloat16": Format(torch.float32, torch.bfloat16, torch.float32),
}


Method = TypeVar("Method", bound=Callable[..., Any])


def in_its_products(method: Method) -> Method:
    """A method of networks on flat ``parameters`` whose products are of their ``form``."""

    @wraps(method)
    def done(networks: Any, *args: Any, **kwargs: Any) -> Any:
        with networks.form.products(networks.parameters.device):
            return method(networks, *args, **kwargs)

    return cast("Method", done)


def rounded(x: Tensor, dtype: torch.dtype, chance: Tensor) -> Tensor:
    """``x`` (M, P), single, in ``dtype``: up where it is 1 - ``chance`` of a step or more above the number below.

    With ``chance`` evenly from [0, 1) the mean of what comes out is x: an update that is too small to count as such
    counts once in so many (Zamirai et al. 2020, arXiv:2010.06192, section 4.1).
    """
    digits, least = NUMBERS[dtype].digits, NUMBERS[dtype].exponent
    exponent = (torch.frexp(x)[1] - 1).clamp(min=least) - digits + 1
    steps = torch.ldexp(x, -exponent)
    below = steps.floor()
    # Compared, not added: 1024 and a chance just below 1 make 1025 in single precision.
    return torch.ldexp(below + (steps - below + chance >= 1), exponent).to(dtype)


def moved(runs: Sequence[RunSpec], parameters: Tensor) -> Tensor:
    """What the optimizer moves: single copies (M, P) where they are rounded by chance, else the parameters."""
    return parameters.float() if is_by_chance(runs) else parameters


def is_by_chance(runs: Sequence[RunSpec]) -> bool:
    """Whether weights in half precision are rounded by chance."""
    return runs[0].train.rounding == "stochastic" and "train.rounding" not in unused(runs[0])


def chances(runs: Sequence[RunSpec], t: int, like: Tensor) -> Tensor:
    """(M, P) of [0, 1), single, beside ``like``: each member's by its own generator, of its seed and the step."""
    drawn = [np.random.default_rng([run.seed, t]).random(like.shape[1], dtype=np.float32) for run in runs]
    return torch.from_numpy(np.stack(drawn)).to(like.device)


@dataclass(frozen=True)
class Scaled:
    """What a cohort has beside in half precision.

    ``gradient`` (M, P) is single, and divided by the ``scale`` (M,); ``good`` (M,) counts the steps since a dynamic
    scale was last changed. ``copies``: the network's parameters are rounded copies of the cohort's.
    """

    gradient: Tensor
    scale: Tensor
    good: Tensor
    dynamic: bool
    copies: Tensor | None

    def enter(self, parameters: Tensor) -> None:
        """Rounds the weights (M, P) for a pass."""
        if self.copies is not None:
            self.copies.copy_(parameters)

    def slope(self, slope: Tensor, dtype: torch.dtype) -> Tensor:
        """The loss's derivative (M, ...), times the scale."""
        return (slope * self.scale.view(-1, *[1] * (slope.dim() - 1))).to(dtype)

    def leave(self, gradient: Tensor) -> None:
        """Takes the gradient (M, P) that came back, and divides it."""
        torch.mul(gradient.float(), (1 / self.scale).float().unsqueeze(1), out=self.gradient)

    def overflown(self, norm: Tensor) -> Tensor | None:
        """Whose gradient of this ``norm`` (M,) is not finite: its update is left out. None where none can be."""
        return ~torch.isfinite(norm) if self.dynamic else None

    def heed(self, overflown: Tensor | None) -> None:
        """Halves the scale of those, and doubles it after many good steps."""
        if overflown is None:
            return
        self.good.copy_(torch.where(overflown, 0.0, self.good + 1))
        grown = self.good >= GROWS_AFTER
        self.good.masked_fill_(grown, 0.0)
        self.scale.mul_(torch.where(overflown, 0.5, torch.where(grown, 2.0, 1.0)))

    @property
    def moving(self) -> dict[str, Tensor]:
        """All that a step changes here, in place."""
        return {"scale": self.scale, "good": self.good} if self.dynamic else {}


def of_cohort(runs: Sequence[RunSpec], layout: Layout, parameters: Tensor) -> tuple[Network, Scaled | None]:
    """The network of ``runs`` whose parameters (M, P) these are, and what half precision has beside."""
    form = FORMATS[runs[0].train.precision]
    mixed = form.half and form.passes != form.parameters
    copies = parameters.to(form.passes) if mixed else None
    network = assemble(runs[0], layout, parameters if copies is None else copies)
    return network, beside(runs, parameters, copies)


def beside(runs: Sequence[RunSpec], parameters: Tensor, copies: Tensor | None = None) -> Scaled | None:
    """What networks with the ``parameters`` (M, P) have beside in half precision, and nothing in any other."""
    train = runs[0].train
    if not FORMATS[train.precision].half:
        return None
    scale = FIRST_SCALE if train.loss_scale == "dynamic" else float(train.loss_scale)
    column = torch.full((len(runs),), scale, dtype=torch.float64, device=parameters.device)
    gradient = torch.zeros_like(parameters, dtype=torch.float32)
    return Scaled(gradient, column, torch.zeros_like(column), train.loss_scale == "dynamic", copies)
