"""The few operators that are looked at, shown without a look at all others.

A `TorchDispatchMode` is asked about every operator of a pass, which costs some ten microseconds each. So the operators
that tell something have kernels in Python under a dispatch key of torch that nothing else uses, above autograd; all
others fall through it. The key is switched on for the thread that is listened to, and off everywhere else. `detach`
and `data` are taken at the class: autograd calls the operator for itself, and torch makes parameters by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from threading import Lock, local
from typing import Any, Protocol

import torch
from torch import Tensor

KEY = "TESTING_ONLY_GenericMode"
AUTOGRAD = torch._C.DispatchKey.AutogradOther


class Listener(Protocol):
    """Who is shown the operators of a thread, while it is listening."""

    listening: bool

    def show(self, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Runs an operator, and looks at it."""

    def detached(self, tensor: Tensor, output: Tensor) -> None:
        """A tensor was taken off the way back."""


class _Listening(local):
    to: Listener | None = None


_LISTENING = _Listening()
_HELD: list[torch.library.Library] = []
"""Kernels go when what registered them does."""


@cache
def detaching(key: Any) -> Detaching:
    """The one for a key."""
    return Detaching(key)


@cache
def shows(names: frozenset[str], beginning: str, whole: frozenset[str]) -> Any | None:
    """The key under which the operators of these names are shown, and those that begin so; None of a torch without one.

    Of those that torch makes of others, these others are shown, but for what is shown ``whole``.
    """
    try:
        key = torch._C._dispatch_key_parse(KEY)
    except RuntimeError:
        return None
    every = torch.library.Library("_", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, KEY)
    some = torch.library.Library("aten", "IMPL")
    for operator in _operators(names, beginning):
        made = torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")
        if not made or operator.overloadpacket.__name__ in whole:
            some.impl(operator, _kernel(operator, key), KEY)
    _HELD.extend((every, some))
    return key


def _operators(names: frozenset[str], beginning: str) -> Iterable[Any]:
    for full in torch._C._dispatch_get_all_op_names():
        space, _, rest = full.partition("::")
        name, _, overload = rest.partition(".")
        if space == "aten" and (name in names or (name.startswith(beginning) and not name.endswith("backward"))):
            yield getattr(getattr(torch.ops.aten, name), overload or "default")


def _kernel(operator: Any, key: Any) -> Callable[..., Any]:
    def shown(*given: Any, **named: Any) -> Any:
        to = _LISTENING.to
        if to is not None:
            return to.show(operator, given, named)
        # A thread of torch's own, which takes over what is switched on where it was begun.
        switch(key, on=False)
        try:
            return operator(*given, **named)
        finally:
            switch(key, on=True)

    return shown


def transformed() -> bool:
    """Whether operators run under a transform of `torch.func`, and tensors are wrapped."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def show_to(listener: Listener | None) -> Listener | None:
    """Whom the operators of this thread are shown to from here on; who it was."""
    before, _LISTENING.to = _LISTENING.to, listener
    return before


def switch(key: Any, *, on: bool) -> None:
    """From here on the operators of this thread are shown, or nothing is."""
    torch._C._dispatch_tls_set_dispatch_key_included(key, on)


def inside_another() -> bool:
    """Whether an operator was called by torch, to make another: autograd has been there."""
    excluded: bool = torch._C._dispatch_tls_is_dispatch_key_excluded(AUTOGRAD)
    return excluded and not torch.is_inference_mode_enabled()


class Detaching:
    """Tells who listens what is detached, while anybody does in any thread."""

    def __init__(self, key: Any) -> None:
        self.key, self.count, self.lock = key, 0, Lock()
        self.method, self.function = Tensor.detach, torch.detach
        self.data: Any = vars(torch._C.TensorBase)["data"]

    def start(self) -> None:
        """From here on it is told."""
        with self.lock:
            self.count += 1
            if self.count == 1:
                self._put(self._telling(self.method), self._telling(self.function))
                setattr(Tensor, "data", property(self._telling(self.data.__get__), self.data.__set__))  # noqa: B010

    def stop(self) -> None:
        """Torch's own again, unless another thread listens."""
        with self.lock:
            self.count -= 1
            if self.count == 0:
                self._put(self.method, self.function)
                delattr(Tensor, "data")

    @staticmethod
    def _put(method: Callable[[Tensor], Tensor], function: Callable[[Tensor], Tensor]) -> None:
        setattr(Tensor, "detach", method)  # noqa: B010
        setattr(torch, "detach", function)  # noqa: B010

    def _telling(self, own: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def taken(tensor: Tensor) -> Tensor:
            output = own(tensor)
            to = _LISTENING.to
            if to is not None and torch._C._dispatch_tls_is_dispatch_key_included(self.key):
                to.detached(tensor, output)
            return output

        return taken
