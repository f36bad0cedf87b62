"""Networks of the user's own trained as one: `torch.func` calls one of them with the parameters of all members.

It is the way of the steps between two records. At a recorded step each member is heard by itself, for what is heard are
modules and operators, and under `torch.vmap` both see all members at once. Shapes: M members, B batch.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlab.data.targets import told
from gradlab.engine.called import Judge
from gradlab.engine.precision import Format, Scaled
from gradlab.models.module import Shelf
from gradlab.watching.observed import called_with

REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What torch, or the user's code, says of tensors that hold all members: they have no single value to look at."""

NO_RULE = re.compile(r"[Bb]atching rule.*?aten::(\w+)", re.DOTALL)
"""What `torch.vmap` says, as a warning or as an error, of an operation that it cannot do for all members at once."""


@dataclass(frozen=True)
class Stack:
    """M networks as one: ``like`` is called, with tensors (M, ...) in the places of its own.

    ``frozen`` (M, ...) are parameters that are not trained. ``form``, ``half``: as the networks have them one by one.
    """

    shelf: Shelf
    like: nn.Module
    frozen: dict[str, Tensor]
    judge: Judge
    form: Format
    half: Scaled | None

    def gradients(self, inputs: Any, targets: Tensor, *, alike: bool) -> tuple[Tensor, Tensor]:
        """The losses (M,) on a batch, and their gradients (M, P); buffers move on in place.

        Inputs and targets are those of every member where they are ``alike``, else (M, B, ...).
        """
        shelf = self.shelf
        members = len(shelf.modules)
        parts = shelf.flat.detach().split(shelf.sizes, 1)
        learned = {}
        for name, part, like in zip(shelf.names, parts, shelf.parameters[0], strict=True):
            # A copy of complex numbers: as a view they would have to begin at an even place.
            shaped = part.reshape(members, *like.shape, 2).clone() if like.is_complex() else part.view(-1, *like.shape)
            learned[name] = (torch.view_as_complex(shaped) if like.is_complex() else shaped).requires_grad_()
        across = None if alike else 0
        with torch.enable_grad():
            with self.form.cast(shelf.flat.device):
                losses, buffers = torch.vmap(self._one, in_dims=(0, 0, across, across))(
                    learned | self.frozen, dict(shelf.buffers), inputs, targets
                )
            begin = torch.ones_like(losses) if self.half is None else self.half.scale.to(losses.dtype)
            found = torch.autograd.grad(losses, list(learned.values()), begin.view_as(losses), allow_unused=True)
        for name, buffer in buffers.items():
            shelf.buffers[name].copy_(buffer.detach())
        gradient = torch.zeros_like(shelf.gradient)
        for column, one in zip(gradient.split(shelf.sizes, 1), found, strict=True):
            if one is not None:
                column.copy_((torch.view_as_real(one) if one.is_complex() else one).reshape(members, -1))
        return losses.detach(), gradient

    def _one(
        self, learned: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        held = learned | buffers
        parts, names = called_with(self.like, inputs)
        given = len(parts) - len(names)
        named = dict(zip(names, parts[given:], strict=True))
        # It puts into ``held`` what the network has put in the place of a buffer.
        output = torch.func.functional_call(self.like, held, tuple(parts[:given]), named)
        return self.judge(output, targets), {name: held[name] for name in buffers}


def stack_of(shelf: Shelf, like: nn.Module, judge: Judge, form: Format, half: Scaled | None) -> Stack:
    """The networks of ``shelf`` as one, called by ``like``, which is one more of them."""
    owned = [dict(module.named_parameters()) for module in shelf.modules]
    frozen = [name for name in owned[0] if name not in shelf.names]
    still = {name: torch.stack([one[name].detach() for one in owned]) for name in frozen}
    return Stack(shelf, like, still, judge, form, half)


def together(batches: Sequence[tuple[Any, Tensor]]) -> tuple[Any, Tensor]:
    """The batches of several members as one: (M, B, ...)."""
    found: tuple[Any, Tensor] = tree_map(lambda *parts: torch.stack(parts), *batches)
    return found


def obstacle(stack: Stack, inputs: Any, targets: Tensor, alone: Callable[[int], tuple[Tensor, Tensor]]) -> str:
    """Why the networks cannot be trained as one, in a few words; empty where they can.

    They must come to what each comes to ``alone`` (its loss and its gradient, (P,)), buffers included. What is random,
    and what a network keeps between its calls elsewhere than in buffers, would be one for all members.
    """
    before = {name: buffer.clone() for name, buffer in stack.shelf.buffers.items()}
    kept, drawn = _kept(stack.like), _drawn()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            losses, gradient = stack.gradients(inputs, targets, alike=True)
        except REFUSALS as error:
            return _refused(error)
    if rule := next(filter(None, (NO_RULE.search(str(one.message)) for one in said)), None):
        return f"torch.func has no rule for {rule[1]}"
    if _drawn() != drawn:
        return "it draws random numbers"
    if not _as_before(kept, _kept(stack.like)):
        return "it keeps something between its calls that is no buffer"
    moved = {name: buffer.clone() for name, buffer in stack.shelf.buffers.items()}
    for name, buffer in before.items():
        stack.shelf.buffers[name].copy_(buffer)
    for member in range(len(stack.shelf.modules)):
        loss, wanted = alone(member)
        pairs = [(losses[member], loss), (gradient[member], wanted)]
        pairs += [(moved[name][member], buffer[member]) for name, buffer in stack.shelf.buffers.items()]
        if not all(_near(one, other, torch.finfo(stack.form.passes).eps) for one, other in pairs):
            return "together it is not what it is alone"
    return ""


def _near(one: Tensor, other: Tensor, eps: float) -> bool:
    """Equal but for rounding at ``eps``, by the largest of the numbers."""
    if not (one.is_floating_point() or one.is_complex()):
        return torch.equal(one, other)
    most = float(other.abs().max()) if other.numel() else 0.0
    return float((one - other).abs().max()) <= eps**0.5 * most if other.numel() else True


def _refused(error: Exception) -> str:
    if rule := NO_RULE.search(str(error)):
        return f"torch.func has no rule for {rule[1]}"
    if "random" in str(error):
        return "it draws random numbers"
    return f"torch.func: {told(error)}"


def _drawn() -> tuple[object, ...]:
    """Where the random generators stand that a network may draw from."""
    state: Any = np.random.get_state()  # noqa: NPY002 - it is the user's network that draws from it
    return random.getstate(), state[1].tobytes(), state[2], torch.get_rng_state().numpy().tobytes()


def _kept(module: nn.Module) -> list[tuple[str, object, int | None]]:
    """What modules hold as plain attributes: which object it is, and how long, or of which version."""
    found: list[tuple[str, object, int | None]] = []
    for part in module.modules():
        for name, value in vars(part).items():
            size = value._version if isinstance(value, Tensor) else len(value) if isinstance(value, Sized) else None
            found.append((name, value, size))
    return found


def _as_before(before: Sequence[tuple[str, object, int | None]], now: Sequence[tuple[str, object, int | None]]) -> bool:
    return len(before) == len(now) and all(
        one[0] == other[0] and one[1] is other[1] and one[2] == other[2] for one, other in zip(before, now, strict=True)
    )
