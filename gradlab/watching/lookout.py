"""The lookout for the first number that is not finite while a module is trained: says at once where it was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from gradlab.watching.course import Norms
from gradlab.watching.ears import Scale
from gradlab.watching.notfinite import Calls, Found, Sighting, of_gradients, of_loss

Say = Callable[[str], None]


class Lookout:
    """Looks at every loss before its way back and at every gradient after it, until something is found.

    On a GPU nothing is waited for, and compiled code has no hooks in it: there nobody looks, and what broke shows in
    the tables.
    """

    def __init__(self, module: nn.Module, names: Mapping[nn.Module, str], say: Say) -> None:
        self.found: Found | None = None
        self._module, self._names, self._say = module, names, say
        self._hearing = ExitStack()
        fast = any(part._compiled_call_impl is not None or _wraps(part) for part in module.modules())
        able = not fast and all(one.device.type == "cpu" for one in module.parameters())
        self._calls = Calls(module) if able else None

    def before_backward(self, loss: Tensor, step: int, batch: int) -> None:
        """A loss that is not finite; else the gradient is listened to where it enters the module."""
        if self._calls is None:
            return
        if bool(torch.isfinite(loss.detach()).all()):
            self._hearing.enter_context(self._calls.hearing())
        else:
            calls = list(self._calls.made)
            self._look(partial(of_loss, loss, self._module, self._names, calls), "the loss", step, batch)

    def heard(self) -> None:
        """The way back is over."""
        self._hearing.close()

    def after_backward(
        self, loss: Tensor, norms: Norms, having: Sequence[nn.Parameter], scale: Scale, step: int, batch: int
    ) -> None:
        """A gradient of a finite loss; under a loss scaler one that is not finite is no news, and is skipped."""
        if self._calls is None or math.isfinite(float(norms.total)) or not (isinstance(scale, float) and scale == 1.0):
            return
        names = {id(one): name for name, one in self._module.named_parameters()}
        broken = [
            names.get(id(one), "a parameter")
            for one, norm in zip(having, norms.each, strict=True)
            if not math.isfinite(float(norm))
        ]
        calls = list(self._calls.made)
        look = partial(of_gradients, loss, self._module, self._names, calls, broken)
        self._look(look, f"the gradient of {broken[-1]}", step, batch)

    def next_step(self) -> None:
        """What was called before belongs to a step that is over."""
        if self._calls is not None:
            self._calls.made.clear()

    def stop(self) -> None:
        """Looks no further."""
        self._hearing.close()
        if self._calls is not None:
            self._calls.stop()
            self._calls = None

    def _look(self, look: Callable[[], Sighting], what: str, step: int, batch: int) -> None:
        """Finds where it was made; a network that bears no second pass must not break the training for it."""
        try:
            found = look()
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            found = Sighting("gradient", None, None, f"{what}; a second pass to find where it was made broke: {error}")
        self._find(found, step, batch)

    def _find(self, sighting: Sighting, step: int, batch: int) -> None:
        """The first is told at once; what follows from it is not looked for."""
        self.found = sighting.at(step, batch)
        self.stop()
        self._say(self.found.sentence)


def _wraps(part: nn.Module) -> bool:
    """Whether a module is what `torch.compile` puts around one."""
    return "_orig_mod" in part._modules
