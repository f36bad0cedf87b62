"""Operators of a pass, looked at as they are dispatched: activations, attention, losses, and what is cut off.

An activation is an operator: a network may call `torch.relu`, a module of its own kind, or attention that hides a
softmax. It counts with the layer that was called last before it, whatever stands between (dropout, pooling).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._C import (
    _get_dispatch_stack_at,
    _len_torch_dispatch_stack,
    _pop_torch_dispatch_stack,
    _push_on_torch_dispatch_stack,
)
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.watching.activations import ACTIVATIONS, KEPT, WAVES, first_of, of_operator
from gradlab.watching.attention import Spread, entropy, entropy_of, largest
from gradlab.watching.entries import moments
from gradlab.watching.facts import LOSSES
from gradlab.watching.shown import Listener, detaching, inside_another, show_to, shows, switch, transformed
from gradlab.watching.tape import Tape

CUTTING = frozenset({"detach", "argmax", "argmin", "max", "topk", "sort", "multinomial", "gt", "lt", "ge", "le", "eq"})
"""Operators that take a tensor off the way back, or put out places and answers, which no gradient comes through."""

UNBOUNDED = frozenset({"exp", "exp_", "pow", "square", "sinh", "cosh"})
"""Operators whose slope has no bound: as an activation they explode."""

DROPOUT = frozenset({"dropout", "dropout_", "feature_dropout", "feature_dropout_", "native_dropout"})

MASKING = frozenset({*DROPOUT, "bernoulli_", "div_"})
"""Operators that are dropout, or of which it is made."""

SOFTMAX, FUSED_ATTENTION = ("_softmax", "_safe_softmax"), "_scaled_dot_product"

WATCHED = frozenset({*CUTTING, *ACTIVATIONS, *WAVES, *UNBOUNDED, *MASKING, *LOSSES, *SOFTMAX})
"""Operators that are more than steps on the way; most of a pass are none."""


class Operators(TorchDispatchMode):
    """Shows operators that run inside to a tape: those that are more than a step, or every one where that is asked.

    Every one while it is `on_stack`, where torch asks its modes, or has `left` that for as long as it does not listen;
    else it is there for single operators alone. A torch without the key of `shown` shows every one always.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape
        self.key = shows(WATCHED - {"detach"}, FUSED_ATTENTION, DROPOUT)
        self.listening = self.on_stack = self.left = False
        self.around: Listener | None = None

    def __enter__(self) -> Operators:
        # As of any mode, so that nothing inside is compiled; then it leaves the stack until it is wanted there.
        super().__enter__()  # type: ignore[no-untyped-call]
        self.tape.mode, self.on_stack = self, True
        if self.key is not None:
            self.around = show_to(self)
            detaching(self.key).start()
        self.listen(True)
        return self

    def __exit__(self, *error: object) -> None:
        self.listen(False)
        if self.key is not None:
            detaching(self.key).stop()
            show_to(self.around)
            switch(self.key, on=self.around is not None and self.around.listening)
        if not self.on_stack:
            _push_on_torch_dispatch_stack(self)
        self.tape.mode, self.on_stack = None, False
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, for seconds, to keep it away from this mode."""
        return False

    def listen(self, wanted: bool) -> bool:
        """From here on operators are shown, or none is; whether it was otherwise before."""
        if wanted == self.listening:
            return False
        self.listening = wanted
        if self.key is not None:
            switch(self.key, on=wanted)
        if self.on_stack or self.left:
            self.left = self.on_stack
            self.attend()
        return True

    def attend(self) -> None:
        """Looks at every operator from here on if the tape wants that, or only at some."""
        wanted = self.listening and (self.key is None or self.tape.wants_all())
        if wanted and not self.on_stack:
            _push_on_torch_dispatch_stack(self)
            self.on_stack = True
        elif self.on_stack and not wanted and self._on_top():
            _pop_torch_dispatch_stack(None)
            self.on_stack = False

    def _on_top(self) -> bool:
        top = _len_torch_dispatch_stack() - 1
        return top >= 0 and _get_dispatch_stack_at(top) is self

    def show(self, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """One operator, from above autograd; what torch does inside another is none of the network's."""
        switch(self.key, on=False)
        try:
            if inside_another():
                return func(*given, **named)
            if self.on_stack or transformed():
                return self._dispatched(func, given, named)
            with torch._C.DisableTorchFunction():
                return _watched(self.tape, _known(func)[0], func, given, named)
        finally:
            switch(self.key, on=True)

    def _dispatched(self, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Shows it as it is dispatched, below autograd and whatever takes it apart."""
        alone = not self.on_stack
        if alone:
            _push_on_torch_dispatch_stack(self)
        try:
            return func(*given, **named)
        finally:
            if alone:
                _pop_torch_dispatch_stack(None)

    def detached(self, tensor: Tensor, output: Tensor) -> None:
        """Notes what comes of a tensor without a gradient, to see from here on where it is used."""
        if tensor.grad_fn is not None:
            self.tape.detached[id(output)] = (weakref.ref(output), tensor.grad_fn)
            self.attend()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named, tape = kwargs or {}, self.tape
        if not self.listening:
            return func(*args, **named)
        name, watched = _known(func)
        if tape.inside and name not in KEPT:
            tape.inside[-1].operators.append(name)
        if tape.detached:
            _note_cut(tape, name, args)
        if tape.judging:
            tape.composed.see(name, args)
        # What autograd keeps for itself it detaches, too: where it can be told apart that is nobody's.
        if not watched or (name == "detach" and self.key is not None):
            return func(*args, **named)
        return _watched(tape, name, func, args, named)


def _watched(tape: Tape, name: str, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Runs an operator that is more than a step; it is looked at before, since it may overwrite what it is given."""
    run = partial(func, *given, **named)
    if name in MASKING:
        _note_dropout(tape, name, given)
        return run()
    z = given[0] if given else None
    if name in CUTTING and isinstance(z, Tensor) and z.grad_fn is not None:
        return _cut(tape, name, z.grad_fn, run())
    if tape.judging or not isinstance(z, Tensor) or not z.is_floating_point():
        return _lost(tape, name, given, run)
    if name in ACTIVATIONS or (name in WAVES and z.requires_grad):
        return _activated(tape, name, func, given, named)
    if name in UNBOUNDED and tape.taken(z) is not None:
        tape.unbounded.append(name)
    output = _lost(tape, name, given, run)
    if z.dim() >= 2:
        _attended(tape, name, given, named, output)
    return output


def _cut(tape: Tape, name: str, node: Node, output: Any) -> Any:
    """Notes what comes of a tensor without a gradient: where it is used, or, of a choice, at once."""
    if name == "detach":
        tape.detached[id(output)] = (weakref.ref(output), node)
    elif not tape.judging:
        tape.cuts.append((node, tape.opened))
    return output


def _attended(tape: Tape, name: str, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
    """Notes how far attention spreads, and a row of it that may look at nothing; of other choices how many are made."""
    z = given[0]
    if z.dim() == 2:
        if name in SOFTMAX and z.shape[1] > 1 and z.shape[0]:
            tape.certain.append((tape.opened, float((output.detach().amax(given[1]) == 1).double().mean())))
    elif name in SOFTMAX:
        first, masked = output.detach().select(given[1], 0), z.detach().select(given[1], 0)
        tape.all_masked |= bool((torch.isnan(first) & ~torch.isnan(masked)).any())
        if tape.last is not None:
            tape.last.attention.append(Spread(entropy(output, given[1]), largest(z)))
    elif tape.last is not None and name.startswith(FUSED_ATTENTION):
        causal, mask = any(one is True for one in given[3:]), named.get("attn_mask")
        tape.last.attention.append(entropy_of(z, given[1], mask, named.get("scale"), causal=causal))


@cache
def _known(func: Any) -> tuple[str, bool]:
    """What an operator is called, whatever it takes, and whether more than its name is looked at."""
    name = str(func.overloadpacket.__name__)
    return name, name in WATCHED or name.startswith(FUSED_ATTENTION)


def _activated(tape: Tape, name: str, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    z = given[0]
    call, look = tape.taken(z), tape.look(name, z, of_operator(name, given[1:], func, named))
    output = func(*given, **named)
    if call is not None:
        call.hidden = moments(first_of(output))
    if tape.inside:
        tape.inside[-1].looks.append(look)
    return output


def _lost(tape: Tape, name: str, given: tuple[Any, ...], run: Callable[[], Any]) -> Any:
    """Runs an operator, and notes it if it is a loss."""
    if name not in LOSSES:
        return run()
    tape.losses.see(name, given)
    output = run()
    tape.losses.came_to(name, output)
    return output


def _note_cut(tape: Tape, name: str, given: tuple[Any, ...]) -> None:
    """Notes where what was detached goes on into an operator; what autograd keeps for itself does not."""
    if name == "detach":
        return
    for one in given:
        held, node = tape.detached.get(id(one), (None, None))
        if held is not None and held() is one and node is not None:
            tape.cuts.append((node, tape.opened))
            del tape.detached[id(one)]


def _note_dropout(tape: Tape, name: str, given: tuple[Any, ...]) -> None:
    """Dropout keeps a share by a mask that is drawn, and divides the mask by it."""
    if "dropout" in name:
        share = float(given[1]) if given[2] else 0.0
        tape.dropped = max(tape.dropped, 1 - (1 - share) if share < 1 else 0.0)
    elif name == "bernoulli_" and len(given) > 1 and isinstance(given[1], float):
        tape.mask = weakref.ref(given[0]), given[1]
    elif name == "div_" and tape.mask is not None and tape.mask[0]() is given[0]:
        kept, by = tape.mask[1], given[1]
        if math.isclose(kept, float(by) if not isinstance(by, Tensor) or by.numel() == 1 else math.nan, rel_tol=1e-6):
            tape.dropped, tape.mask = max(tape.dropped, 1 - kept), None


@contextmanager
def already_asked() -> Iterator[None]:
    """Inside, asking for a gradient that is asked for already is no error: inputs here are copies, and no leaves.

    Taken at the class, which is slow for a while afterwards; a mode that looks at every function would be slower.
    """
    asked: Any = vars(torch._C.TensorBase)["requires_grad"]

    def ask(tensor: Tensor, wanted: bool) -> None:
        if not wanted or not asked.__get__(tensor):
            asked.__set__(tensor, wanted)

    setattr(Tensor, "requires_grad", property(asked.__get__, ask))  # noqa: B010
    try:
        yield
    finally:
        del Tensor.requires_grad
