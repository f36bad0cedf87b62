"""What is written down while a network runs: the calls of its layers, by hooks, and what operators add to them.

Layers are modules, so they are heard at modules; activations are operators, and are seen by `operators`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils import parametrize

from gradlab.watching.activations import Inside, Look, look_at, of_module
from gradlab.watching.calls import Call, Seen, Signal, noted
from gradlab.watching.composed import Composed
from gradlab.watching.entries import moments
from gradlab.watching.facts import Losses
from gradlab.watching.shown import transformed
from gradlab.watching.slopes import Flats
from gradlab.watching.unrolled import Sequence, draws, sequence

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
"""Modules that a signal passes before it counts as the pre-activation; another whose name ends alike is one too."""

MADE_OF_SEVERAL = (nn.Softsign, nn.Tanhshrink)
"""Activations of torch that are no operator by themselves."""


class Ears(Protocol):
    """Who shows a tape the operators that run, every one while it is `on_stack`."""

    on_stack: bool

    def listen(self, wanted: bool) -> bool:
        """From here on they are shown, or none is; whether it was otherwise before."""

    def attend(self) -> None:
        """Shows every one from here on if the tape wants that."""


@dataclass
class Tape:
    """What the hooks and the operators write down while the module runs.

    ``order``: each called module's place, by its first call. ``open``: calls whose signal nothing has changed yet, by
    the identity of that tensor. ``judging``: the network has run, and its loss is being computed; ``composed`` is what
    that is made of. ``detached`` are tensors that were taken off the way back, ``cuts`` the nodes below those that were
    used then, and after how many calls. ``least_normed``: the fewest numbers over which a norm took its statistics.
    ``unbounded``: operators without a largest slope that a layer's signal went into. ``all_masked``: a row of attention
    had nothing to look at. ``certain``: after how many calls a choice was made, and in which share of the samples for
    certain. ``dropped``: the largest share of numbers that dropout takes; ``mask``: the last one drawn,
    and what it keeps. ``mode`` shows the operators. ``upto``: autograd's number of what comes after the network.
    """

    names: Mapping[nn.Module, str]
    samples: int
    order: dict[nn.Module, int] = field(default_factory=dict)
    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    sequences: dict[nn.Module, list[Sequence]] = field(default_factory=dict)
    random: dict[nn.Module, Tensor] = field(default_factory=dict)
    open: dict[int, tuple[weakref.ref[Tensor], Call]] = field(default_factory=dict)
    activations: dict[str, Seen] = field(default_factory=dict)
    last: Call | None = None
    inside: list[Inside] = field(default_factory=list)
    detached: dict[int, tuple[weakref.ref[Tensor], Node]] = field(default_factory=dict)
    cuts: list[tuple[Node, int]] = field(default_factory=list)
    least_normed: int | None = None
    losses: Losses = field(default_factory=Losses)
    judging: bool = False
    composed: Composed = field(default_factory=Composed)
    opened: int = 0
    entered: dict[nn.Module, int] = field(default_factory=dict)
    pending: tuple[Call, Signal, Tensor] | None = None
    mode: Ears | None = None
    upto: int = 0
    unbounded: list[str] = field(default_factory=list)
    all_masked: bool = False
    certain: list[tuple[int, float]] = field(default_factory=list)
    dropped: float = 0.0
    mask: tuple[weakref.ref[Tensor], float] | None = None

    def before(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Notes the call; of a module that may be an activation of its own kind, what it does from here."""
        self.order.setdefault(module, len(self.order))
        self.entered[module] = self.opened
        if isinstance(module, nn.RNNBase) and draws(module):
            self.random[module] = torch.get_rng_state()
        if _bare(module) and isinstance(first := _first(given, named), Tensor):
            self.inside.append(Inside(module, first, self.taken(first)))
        self._attend()

    def after(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """A layer opens a call, a norm moves its signal on, an activation of its own kind is looked at as one."""
        inside = self.inside.pop() if self.inside and self.inside[-1].module is module else None
        self._attend()
        self.order.setdefault(module, len(self.order))
        held = weights(module)
        # What only holds others, or was taken for what it is by its operators, says nothing more.
        if not held and not is_norm(module) and (inside is None or len(inside.operators) < 2):
            return
        signal, first = signal_of(output), _first(given, named)
        if signal is None:
            return
        with self.quiet():
            call = self.taken(first)
            if held:
                # Channels stand behind the samples, the units of a linear layer last.
                unit = 1 if max(weight.dim() for weight in held) > 2 else -1
                opened = Call(noted(signal), unit, self.opened)
                self.calls.setdefault(module, []).append(opened)
                if self.opened == self.entered.get(module, self.opened):
                    # What holds other layers puts out what they made: the last of them stays the last.
                    self.settle()
                    self.last, self.opened = opened, self.opened + 1
                    self.pending = opened, opened.raw, signal
                    self._open(signal, opened)
                if (
                    isinstance(module, nn.RNNBase)
                    and (found := sequence(module, given, output, self.random.get(module))) is not None
                ):
                    self.sequences.setdefault(module, []).append(found)
            elif is_norm(module):
                over = _normed_over(module, first, signal)
                self.least_normed = min((one for one in (self.least_normed, over) if one is not None), default=None)
                if call is not None:
                    if self.pending is not None and self.pending[1] is call.raw:
                        call.raw.kept, self.pending = self.pending[2].detach(), None
                    self.settle()
                    call.normed = noted(signal)
                    self.pending = call, call.normed, signal
                    self._open(signal, call)
            elif inside is not None and inside.composed(signal):
                self._composed(module, inside, signal)

    def wants_all(self) -> bool:
        """Whether every operator is to be shown, for it cannot be known which will tell something.

        In the loss, inside a module that may be an activation, while what was detached may be used, and under the
        transforms of torch.func, which take operators apart where they cannot be seen from above.
        """
        if self.detached:
            self.detached = {place: held for place, held in self.detached.items() if held[0]() is not None}
        return bool(self.inside or self.judging or self.detached or transformed())

    def _attend(self) -> None:
        if self.mode is not None and (self.mode.on_stack or self.wants_all()):
            self.mode.attend()

    def look(self, name: str, z: Tensor, found: Flats) -> Look:
        """An activation on ``z``, with the layer that was called last before it."""
        return look_at(name, z, found, self.last, self.activations, self.samples)

    def _composed(self, module: nn.Module, inside: Inside, output: Tensor) -> None:
        """An activation made of several operators takes the place of what these were taken for."""
        for look in inside.looks:
            look.taken_back()
        found = of_module(module)
        if found.curved:
            self.look(type(module).__name__, inside.given, found)
            if inside.call is not None:
                inside.call.hidden = moments(output)

    def settle(self) -> None:
        """Takes the moments of the signal that waits for them; called where nothing more can take it."""
        if self.pending is not None:
            call, signal, tensor = self.pending
            if call.hidden is None:
                signal.moments = moments(tensor)
            self.pending = None

    def over(self) -> None:
        """The network has run: what comes now is made of what it put out."""
        with self.quiet():
            self.settle()
        self.upto = torch._C._autograd._get_sequence_nr()

    def _open(self, signal: Tensor, call: Call) -> None:
        self.open[id(signal)] = (weakref.ref(signal), call)

    def taken(self, given: Any) -> Call | None:
        """The open call whose signal is ``given``."""
        held, call = self.open.get(id(given), (None, None))
        return call if held is not None and held() is given else None

    def quiet(self) -> Quiet:
        """Inside, operators are our own."""
        return Quiet(self)


class Quiet:
    """Inside, what runs is not written on a tape."""

    __slots__ = ("_functions", "_heard", "mode")

    def __init__(self, tape: Tape) -> None:
        self.mode = tape.mode

    def __enter__(self) -> None:
        self._heard = self.mode is not None and self.mode.listen(False)
        self._functions = torch._C.DisableTorchFunction()
        self._functions.__enter__()

    def __exit__(self, *_: object) -> None:
        self._functions.__exit__(None, None, None)
        if self._heard and self.mode is not None:
            self.mode.listen(True)


def _first(given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    return next(iter((*given, *named.values())), None)


def _bare(module: nn.Module) -> bool:
    """Whether a module has neither parts nor parameters, so that it may be an activation."""
    return not module._modules and not module._parameters


def hooked(module: nn.Module) -> tuple[bool, bool]:
    """Whether a call of a module tells something before it, and after it.

    Where others may lie inside, the order of their calls, and its own results at the end where it holds parameters. An
    activation of torch that is one operator tells nothing but that, nor does dropout or a view.
    """
    if _bare(module):
        own = type(module).__module__.startswith("torch.nn.modules.") and "forward" not in module.__dict__
        tells = not own or isinstance(module, MADE_OF_SEVERAL)
        return tells, tells
    tells = bool(module._parameters) or is_norm(module) or "parametrizations" in module._modules
    return bool(module._modules) or isinstance(module, nn.RNNBase), tells


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes what it is given: one of torch's, or one that is called so (`LlamaRMSNorm`)."""
    named = type(module).__name__.endswith(("Norm", "Norm1d", "Norm2d", "Norm3d")) and not module._modules
    return named or isinstance(module, NORMS)


def _normed_over(module: nn.Module, given: Any, signal: Tensor) -> int | None:
    """Over how many numbers a norm takes each of its means and variances; None where that cannot be known.

    Of a norm of somebody's own it is one where samples that differ come out alike.
    """
    match module:
        case nn.LayerNorm() | nn.RMSNorm():
            return math.prod(module.normalized_shape)
        case nn.GroupNorm():
            return signal.numel() // (signal.shape[0] * module.num_groups)
        case nn.InstanceNorm1d() | nn.InstanceNorm2d() | nn.InstanceNorm3d():
            return signal.numel() // (signal.shape[0] * signal.shape[1])
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d() | nn.SyncBatchNorm():
            return signal.numel() // signal.shape[1]
        case _:
            return 1 if _differ(given) and not _differ(signal) else None


def _differ(signal: Any) -> bool:
    """Whether any sample of a batch differs from the first."""
    return isinstance(signal, Tensor) and bool((signal[1:] != signal[:1]).any())


def signal_of(output: Any) -> Tensor | None:
    """The tensor of floats that a module puts out, or the first of a tuple (of `nn.LSTM`, the output sequence).

    Of a mapping, or an object, what is called logits; else the first of a mapping that is no single number.
    """
    first = output[0] if isinstance(output, tuple) and output else output
    if isinstance(first, Mapping):
        several = (one for one in first.values() if isinstance(one, Tensor) and one.dim() and _counts(one))
        first = first.get("logits", next(several, None))
    elif not isinstance(first, Tensor):
        first = getattr(first, "logits", None)
    return first if isinstance(first, Tensor) and _counts(first) else None


def _counts(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that a module holds itself, or that its own weights are made of."""
    held = [one for one in module._parameters.values() if one is not None and one.dim() > 1]
    if "parametrizations" in module._modules and parametrize.is_parametrized(module):
        held += [one for one in module.get_submodule("parametrizations").parameters() if one.dim() > 1]
    return held if held and not is_norm(module) else []
