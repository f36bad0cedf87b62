"""What a process does with gradients, told to all who listen: ways back, loss scales, updates.

PyTorch calls hooks for an optimizer's step and a module's forward, and none for `backward` or a loss scaler: these are
taken in the middle while somebody listens, and given back with the last who does.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

Scale = float | Tensor
"""By what a loss is multiplied before its way back: a number, or a tensor on a device that is not waited for."""


class Listener(Protocol):
    """Who is told."""

    def before_backward(self, losses: Sequence[Tensor], scale: Scale, *, again: bool) -> None:
        """The way back from ``losses`` begins; ``again``: their graph is kept for another."""

    def after_backward(self) -> None:
        """It has come to its end, or broke off."""

    def before_update(self, optimizer: Optimizer) -> None:
        """An optimizer's step begins; where it has a closure, ways back come inside it."""

    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Its gradients are those that it takes."""

    def after_update(self, optimizer: Optimizer) -> None:
        """The step is made."""

    def after_scaler(self, optimizer: Optimizer, scale: Scale) -> None:
        """A loss scaler is through with an optimizer: where no update came meanwhile, it was skipped."""

    def compiled(self) -> None:
        """Something was compiled."""


class Ears:
    """Those who listen in this process, and what was taken in the middle for them."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.taken = ExitStack()
        self.inside = False
        self.scaled: tuple[weakref.ref[Tensor], Scale] | None = None

    def add(self, listener: Listener) -> None:
        """The first one opens them."""
        if not self.listeners:
            self._open()
        self.listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """The last one closes them."""
        self.listeners.remove(listener)
        if not self.listeners:
            self.taken.close()

    def _open(self) -> None:
        self._take(torch.autograd, "backward", self._backward)
        self._take(torch.amp.GradScaler, "scale", self._scale)
        self._take(torch.amp.GradScaler, "step", self._step)
        self._take(torch, "compile", self._compile)
        self.taken.callback(register_optimizer_step_pre_hook(self._before_update).remove)
        self.taken.callback(register_optimizer_step_post_hook(self._after_update).remove)

    def _take(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        there = getattr(owner, name)
        setattr(owner, name, wraps(there)(make(there)))
        self.taken.callback(setattr, owner, name, there)

    def _backward(self, there: Callable[..., None]) -> Callable[..., None]:
        def backward(tensors: Any, *given: Any, **named: Any) -> None:
            # A way back inside another is that of a checkpoint.
            if self.inside:
                return there(tensors, *given, **named)
            losses = [tensors] if isinstance(tensors, Tensor) else [one for one in tensors if isinstance(one, Tensor)]
            keep = given[1] if len(given) > 1 else named.get("retain_graph")
            again = bool(keep if keep is not None else named.get("create_graph", False))
            scale = self._scale_of(losses)
            self.inside = True
            listeners = list(self.listeners)
            try:
                for listener in listeners:
                    listener.before_backward(losses, scale, again=again)
                there(tensors, *given, **named)
            finally:
                self.inside = False
                for listener in listeners:
                    listener.after_backward()
            return None

        return backward

    def _scale_of(self, losses: Sequence[Tensor]) -> Scale:
        if self.scaled is None:
            return 1.0
        held, scale = self.scaled
        return scale if any(one is held() for one in losses) else 1.0

    def _scale(self, there: Callable[..., Any]) -> Callable[..., Any]:
        def scale(scaler: Any, outputs: Any) -> Any:
            made = there(scaler, outputs)
            if isinstance(made, Tensor) and scaler.is_enabled():
                self.scaled = weakref.ref(made), scale_of(scaler)
            return made

        return scale

    def _step(self, there: Callable[..., Any]) -> Callable[..., Any]:
        def step(scaler: Any, optimizer: Any, *given: Any, **named: Any) -> Any:
            scale = scale_of(scaler)
            made = there(scaler, optimizer, *given, **named)
            if scaler.is_enabled():
                for listener in list(self.listeners):
                    listener.after_scaler(bare(optimizer), scale)
            return made

        return step

    def _compile(self, there: Callable[..., Any]) -> Callable[..., Any]:
        def compile_(*given: Any, **named: Any) -> Any:
            made = there(*given, **named)
            for listener in list(self.listeners):
                listener.compiled()
            return made

        return compile_

    def _before_update(self, optimizer: Optimizer, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        for listener in list(self.listeners):
            listener.before_update(optimizer)

        def ready() -> None:
            for listener in list(self.listeners):
                listener.gradients_ready(optimizer)

        closure = named.get("closure") or next((one for one in given[1:] if callable(one)), None)
        if closure is None:
            ready()
            return None

        def closed() -> Any:
            # The gradients that a step takes are those that its closure leaves.
            with torch.enable_grad():
                found = closure()
            ready()
            return found

        return tuple(closed if one is closure else one for one in given), {
            name: closed if one is closure else one for name, one in named.items()
        }

    def _after_update(self, optimizer: Optimizer, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        for listener in list(self.listeners):
            listener.after_update(optimizer)


@dataclass(frozen=True)
class Hook:
    """What is hung on a module of somebody else's: a copy or a pickle of the module takes along one that does nothing.

    A script may save its whole network, or keep the best one, at any time; the pickle is read where gradlab is not.
    """

    hear: Callable[..., None]

    def __call__(self, *given: Any) -> None:
        """As the hook."""
        self.hear(*given)

    def __reduce__(self) -> tuple[Any, ...]:
        """A function of Python's own that takes anything, and returns nothing."""
        return getattr, (nullcontext(), "__exit__")


EARS = Ears()
"""Of this process: `backward` and the optimizers' hooks are its own, too."""


def scale_of(scaler: Any) -> Scale:
    """The present scale of a loss scaler; on a GPU as a tensor, so that nothing waits for it."""
    held = getattr(scaler, "_scale", None)
    if isinstance(held, Tensor) and held.is_cuda:
        return held.detach().clone()
    return float(scaler.get_scale())


def bare(optimizer: Any) -> Any:
    """The optimizer of torch inside those that frameworks wrap around it."""
    inner = getattr(optimizer, "optimizer", None) or getattr(optimizer, "_optimizer", None)
    return bare(inner) if isinstance(inner, Optimizer) else optimizer


def compiles() -> bool:
    """Whether anything here may have been compiled."""
    return "torch._dynamo" in sys.modules
