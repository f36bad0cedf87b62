"""Every operator of a pass, looked at as it is dispatched: activations, attention, losses, and what is cut off.

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
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.watching.activations import ACTIVATIONS, KEPT, WAVES, first_of, of_operator
from gradlab.watching.attention import Spread, entropy, entropy_of, largest
from gradlab.watching.entries import moments
from gradlab.watching.facts import LOSSES
from gradlab.watching.tape import Tape

_LINEAR = """
t mm addmm bmm baddbmm convolution view _unsafe_view reshape expand transpose permute slice select squeeze unsqueeze cat
stack split add add_ sub mean sum avg_pool2d _adaptive_avg_pool2d embedding detach alias clone native_dropout
"""
LINEAR = frozenset(_LINEAR.split())
"""Operators that leave a network linear in its input: one that has no others is a single layer."""

CUTTING = frozenset({"detach", "argmax", "argmin", "max", "topk", "sort", "multinomial", "gt", "lt", "ge", "le", "eq"})
"""Operators that take a tensor off the way back, or put out places and answers, which no gradient comes through."""

UNBOUNDED = frozenset({"exp", "exp_", "pow", "square", "sinh", "cosh"})
"""Operators whose slope has no bound: as an activation they explode."""

MASKING = frozenset({"native_dropout", "bernoulli_", "div_"})
"""Operators of which dropout is made."""

SOFTMAX, FUSED_ATTENTION = ("_softmax", "_safe_softmax"), "_scaled_dot_product"

WATCHED = frozenset({*CUTTING, *ACTIVATIONS, *WAVES, *UNBOUNDED, *MASKING, *LOSSES, *SOFTMAX})
"""Operators that are more than steps on the way; most of a pass are none, and cost next to nothing."""


class Operators(TorchDispatchMode):
    """Shows every operator that runs inside to a tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    def __enter__(self) -> Operators:
        super().__enter__()  # type: ignore[no-untyped-call]
        self.tape.mode = self
        return self

    def __exit__(self, *error: object) -> None:
        self.tape.resume()
        self.tape.mode = None
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, for seconds, to keep it away from this mode."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named, tape = kwargs or {}, self.tape
        if tape.busy:
            return func(*args, **named)
        name, watched = _known(func)
        if tape.inside and name not in KEPT:
            tape.inside[-1].operators.append(name)
        if tape.detached:
            _note_cut(tape, name, args)
        if tape.judging:
            tape.composed.see(name, args)
        elif tape.linear:
            tape.linear = name in LINEAR
        return _watched(tape, name, func, args, named) if watched else func(*args, **named)


def _watched(tape: Tape, name: str, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Runs an operator that is more than a step; it is looked at before, since it may overwrite what it is given."""
    run = partial(func, *given, **named)
    if name in MASKING:
        _note_dropout(tape, name, given)
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
    if name == "native_dropout":
        tape.dropped = max(tape.dropped, float(given[1]) if given[2] else 0.0)
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
