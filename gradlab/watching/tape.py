"""What is written down while a network runs: the calls of its layers, by hooks, and its activations, by operators.

Layers are modules, so they are heard at modules. Activations are operators: a network may call `torch.relu`, a module
of its own kind, or attention that hides a softmax. So every operator of the pass is looked at as it is dispatched, and
an activation counts with the layer that was called last before it, whatever stands between them (dropout, pooling).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.watching.attention import Spread, entropy, entropy_of, largest
from gradlab.watching.entries import Moments, moments
from gradlab.watching.facts import Losses
from gradlab.watching.slopes import Flats, flats

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
"""Modules that a signal passes before it counts as the pre-activation; another whose name ends alike is one too."""

_ACTIVATIONS = """
relu relu_ leaky_relu leaky_relu_ _prelu_kernel elu elu_ celu celu_ gelu silu silu_ mish mish_ softplus sigmoid sigmoid_
tanh tanh_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ log_sigmoid_forward threshold threshold_
hardshrink softshrink clamp_min clamp_min_
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())
"""Operators that are activations by themselves."""

WAVES = frozenset({"sin", "cos"})
"""Activations that have no flat end; of numbers that do not learn they are an encoding."""

_PIECEWISE = """
abs add add_ sub sub_ rsub mul mul_ div div_ neg pow square sqrt rsqrt exp expm1 log log1p erf reciprocal reciprocal_
sign clamp clamp_ maximum minimum where gt lt ge le clone _to_copy
"""
PIECEWISE = ACTIVATIONS | WAVES | frozenset(_PIECEWISE.split())
"""Operators that work entry by entry: a module without parameters that is made of them alone is one activation."""

KEPT = frozenset({"detach", "alias"})
"""Operators by which autograd keeps a result, and which make nothing."""

_LINEAR = """
t mm addmm bmm baddbmm convolution view _unsafe_view reshape expand transpose permute slice select squeeze unsqueeze cat
stack split add add_ sub mean sum avg_pool2d _adaptive_avg_pool2d embedding detach alias clone native_dropout
"""
LINEAR = frozenset(_LINEAR.split())
"""Operators that leave a network linear in its input: one that has no others is a single layer."""

SOFTMAX, FUSED_ATTENTION = "_softmax", "_scaled_dot_product"

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""


@dataclass
class Signal:
    """A tensor that passed: its place in autograd's graph (None where nothing before it learns), size and moments.

    ``moments`` are taken when the next layer has been called, and not where an activation has taken the signal: its
    are wanted then.
    """

    node: Node | None
    slot: int
    count: int
    dtype: torch.dtype
    moments: Moments | None = None


@dataclass
class Call:
    """One call of a layer: what it put out, what a norm made of that, and what was seen of its activations.

    ``hidden`` are the moments of h where an activation took the signal. ``flat`` and ``of`` count entries, ``resting``
    (units,) whether a unit is at zero slope on every sample; ``unit`` is the dimension of z that counts the units.
    """

    raw: Signal
    unit: int
    normed: Signal | None = None
    hidden: Moments | None = None
    flat: int = 0
    of: int = 0
    resting: list[Tensor] = field(default_factory=list)
    attention: list[Spread] = field(default_factory=list)


@dataclass
class Seen:
    """An activation in the network: what it is called, how often it was met, and whether it could be judged."""

    positions: int = 0
    judged: int = 0


@dataclass
class Tape:
    """What the hooks and the operators write down while the module runs.

    ``order``: each called module's place, by its first call. ``open``: calls whose signal nothing has changed yet, by
    the identity of that tensor. ``judging``: the network has run, and its loss is being computed.
    ``detached`` are tensors that were taken off the way back, ``cuts`` the nodes below those that were used then.
    ``least_normed``: the fewest numbers over which a norm took its statistics.
    """

    names: Mapping[nn.Module, str]
    samples: int
    order: dict[nn.Module, int] = field(default_factory=dict)
    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    sequences: dict[nn.Module, list[tuple[Signal, Signal, int]]] = field(default_factory=dict)
    open: dict[int, tuple[weakref.ref[Tensor], Call]] = field(default_factory=dict)
    activations: dict[str, Seen] = field(default_factory=dict)
    last: Call | None = None
    inside: list[Inside] = field(default_factory=list)
    detached: dict[int, tuple[weakref.ref[Tensor], Node]] = field(default_factory=dict)
    cuts: list[Node] = field(default_factory=list)
    least_normed: int | None = None
    losses: Losses = field(default_factory=Losses)
    judging: bool = False
    opened: int = 0
    entered: dict[nn.Module, int] = field(default_factory=dict)
    pending: tuple[Call, Signal, Tensor] | None = None
    busy: bool = False
    linear: bool = True

    def before(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Notes the call; of a module that may be an activation of its own kind, what it does from here."""
        self.order.setdefault(module, len(self.order))
        self.entered[module] = self.opened
        first = _first(given, named)
        if isinstance(first, Tensor) and _bare(module):
            self.inside.append(Inside(module, first, self._taken(first)))

    def after(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """A layer opens a call, a norm moves its signal on, an activation of its own kind is looked at as one."""
        inside = self.inside.pop() if self.inside and self.inside[-1].module is module else None
        signal, first = signal_of(output), _first(given, named)
        if signal is None:
            return
        with self.quiet():
            call = self._taken(first)
            if weights(module):
                # Channels stand behind the samples, the units of a linear layer last.
                unit = 1 if max(weight.dim() for weight in weights(module)) > 2 else -1
                opened = Call(_noted(signal), unit)
                self.calls.setdefault(module, []).append(opened)
                if self.opened == self.entered.get(module):
                    # What holds other layers puts out what they made: the last of them stays the last.
                    self.settle()
                    self.last, self.opened = opened, self.opened + 1
                    self.pending = opened, opened.raw, signal
                    self._open(signal, opened)
                if isinstance(module, nn.RNNBase) and isinstance(first, Tensor) and first.dim() == 3:
                    steps = 1 if module.batch_first else 0
                    self.sequences.setdefault(module, []).append((_noted(first), opened.raw, steps))
            elif is_norm(module):
                over = _normed_over(module, signal)
                self.least_normed = over if self.least_normed is None else min(over, self.least_normed)
                if call is not None:
                    self.settle()
                    call.normed = _noted(signal)
                    self.pending = call, call.normed, signal
                    self._open(signal, call)
            elif inside is not None and inside.composed(signal):
                self._composed(module, inside, signal)

    def settle(self) -> None:
        """Takes the moments of the signal that waits for them; called where nothing more can take it."""
        if self.pending is not None:
            call, signal, tensor = self.pending
            if call.hidden is None:
                signal.moments = moments(tensor)
            self.pending = None

    def operator(self, func: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """One operator of the pass: looked at before it runs, since it may overwrite what it is given."""
        name, run = func.overloadpacket.__name__, partial(func, *given, **named)
        inside = self.inside[-1] if self.inside else None
        if inside is not None and name not in KEPT:
            inside.operators.append(name)
        self._cut(name, given)
        self.linear &= self.judging or name in LINEAR
        z = given[0] if given else None
        if name == "detach" and isinstance(z, Tensor) and z.grad_fn is not None:
            output = run()
            self.detached[id(output)] = (weakref.ref(output), z.grad_fn)
            return output
        if self.judging or not isinstance(z, Tensor) or not z.is_floating_point():
            return self._lost(name, given, run)
        if name in ACTIVATIONS or (name in WAVES and z.requires_grad):
            found = _flats(name, given[1:], func, named) if name in ACTIVATIONS else Flats(None, None, curved=True)
            call = self._taken(z)
            look = self._look(name, z, found)
            output = run()
            if call is not None:
                call.hidden = moments(_one(output))
            if inside is not None:
                inside.looks.append(look)
            return output
        output = self._lost(name, given, run)
        if self.last is not None and name == SOFTMAX and z.dim() >= 3:
            self.last.attention.append(Spread(entropy(output, given[1]), largest(z)))
        elif self.last is not None and name.startswith(FUSED_ATTENTION):
            causal, mask = any(one is True for one in given[3:]), named.get("attn_mask")
            self.last.attention.append(entropy_of(z, given[1], mask, named.get("scale"), causal=causal))
        return output

    def _lost(self, name: str, given: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        """Runs an operator, and notes it if it is a loss."""
        self.losses.see(name, given)
        output = run()
        self.losses.came_to(name, output)
        return output

    def _cut(self, name: str, given: tuple[Any, ...]) -> None:
        """Notes where what was detached goes on into an operator; what autograd keeps for itself does not."""
        if not self.detached or name == "detach":
            return
        for one in given:
            held, node = self.detached.get(id(one), (None, None))
            if held is not None and held() is one and node is not None:
                self.cuts.append(node)
                del self.detached[id(one)]

    def _look(self, name: str, z: Tensor, found: Flats) -> Look:
        """Counts the entries of ``z`` on the flat parts with the layer that was called last."""
        seen = self.activations.setdefault(name.strip("_"), Seen())
        look = Look(self.last, seen, 0, 0, None)
        if not found.curved or z.dim() < 2:
            return look
        seen.positions += 1
        look.positions = 1
        if self.last is None or (found.saturated is None and found.rest is None):
            return look
        seen.judged += 1
        look.judged = 1
        entries = z.detach()
        if found.saturated is not None:
            look.flat = found.inside(entries, found.saturated)
            self.last.flat += look.flat
            self.last.of += entries.numel()
            look.of = entries.numel()
        if found.rest is not None and self.samples >= LEAST_BATCH_FOR_DEAD:
            unit = self.last.unit % entries.dim() if entries.dim() > 2 else entries.dim() - 1
            look.resting = found.at_rest(entries, unit)
            self.last.resting.append(look.resting)
        return look

    def _composed(self, module: nn.Module, inside: Inside, output: Tensor) -> None:
        """An activation made of several operators takes the place of what these were taken for."""
        for look in inside.looks:
            look.taken_back()
        key = (type(module), module.extra_repr())
        if key not in _KNOWN:
            _KNOWN[key] = flats(module.forward)
        found = _KNOWN[key]
        if found.curved:
            self._look(type(module).__name__, inside.given, found)
            if inside.call is not None:
                inside.call.hidden = moments(output)

    def _open(self, signal: Tensor, call: Call) -> None:
        self.open[id(signal)] = (weakref.ref(signal), call)

    def _taken(self, given: Any) -> Call | None:
        """The open call whose signal is ``given``."""
        held, call = self.open.get(id(given), (None, None))
        return call if held is not None and held() is given else None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Inside, operators are our own."""
        self.busy = True
        try:
            with torch._C.DisableTorchFunction():
                yield
        finally:
            self.busy = False


@dataclass
class Look:
    """What one look at an activation added, so that it can be taken back."""

    call: Call | None
    seen: Seen
    flat: int
    of: int
    resting: Tensor | None
    positions: int = 0
    judged: int = 0

    def taken_back(self) -> None:
        """The activation was a part of another."""
        self.seen.positions -= self.positions
        self.seen.judged -= self.judged
        if self.call is not None:
            self.call.flat -= self.flat
            self.call.of -= self.of
            if self.resting is not None:
                self.call.resting = [found for found in self.call.resting if found is not self.resting]


@dataclass
class Inside:
    """A module without parts and parameters while it runs: what it was given, and the operators that it called."""

    module: nn.Module
    given: Tensor
    call: Call | None
    operators: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def composed(self, output: Tensor) -> bool:
        """Whether it made its output of what it was given entry by entry, in several operators."""
        return (
            len(self.operators) > 1
            and PIECEWISE.issuperset(self.operators)
            and output.shape == self.given.shape
            and self.given.is_floating_point()
        )


class Operators(TorchDispatchMode):
    """Shows every operator that runs inside to a tape."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.tape.busy:
            return func(*args, **(kwargs or {}))
        return self.tape.operator(func, args, kwargs or {})


class AlreadyAsked(TorchFunctionMode):
    """Inside, asking for a gradient that is asked for already is no error: inputs here are copies, and no leaves."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == _ASK and args[1] and args[0].requires_grad:
            return None
        return func(*args, **(kwargs or {}))


_ASK: Any = vars(torch._C.TensorBase)["requires_grad"].__set__
"""What ``x.requires_grad = True`` calls."""

_KNOWN: dict[tuple[Any, ...], Flats] = {}


def _flats(name: str, rest: tuple[Any, ...], func: Any, named: dict[str, Any]) -> Flats:
    """Where an operator with these further arguments is flat, looked at once for each of them."""
    if name == "_prelu_kernel":
        # A slope for every channel: the first stands for all of them, and is flat where it is zero.
        rest = (rest[0].detach().reshape(-1)[:1].double(),)
    key = (name, *(float(one) if isinstance(one, Tensor) else one for one in rest), *sorted(named.items()))
    if key not in _KNOWN:
        _KNOWN[key] = flats(lambda points: _one(func(points, *rest, **named)))
    return _KNOWN[key]


def _one(output: Any) -> Tensor:
    """The tensor that an operator put out, or the first of several."""
    found: Tensor = output[0] if isinstance(output, tuple | list) else output
    return found


def _first(given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    return next(iter((*given, *named.values())), None)


def _bare(module: nn.Module) -> bool:
    """Whether a module has neither parts nor parameters, so that it may be an activation."""
    return not module._modules and not module._parameters


def _noted(signal: Tensor) -> Signal:
    entries = signal.numel() * (2 if signal.is_complex() else 1)
    return Signal(signal.grad_fn, signal.output_nr, entries, signal.dtype)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes what it is given: one of torch's, or one that is called so (`LlamaRMSNorm`)."""
    kind = type(module).__name__
    named = kind.endswith(("Norm", "Norm1d", "Norm2d", "Norm3d")) and not module._modules
    return isinstance(module, NORMS) or named


def _normed_over(module: nn.Module, signal: Tensor) -> int:
    """Over how many numbers a norm takes each of its means and variances."""
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
            return signal.shape[-1]


def signal_of(output: Any) -> Tensor | None:
    """The tensor of floats that a module puts out, or the first of a tuple (of `nn.LSTM`, the output sequence)."""
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) and (first.is_floating_point() or first.is_complex()) else None


def weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that a module holds itself, or that its own weights are made of."""
    held = list(module.parameters(recurse=False))
    if parametrize.is_parametrized(module):
        held += module.get_submodule("parametrizations").parameters()
    return [parameter for parameter in held if parameter.dim() > 1 and not is_norm(module)]


def share(call: Call) -> float:
    """The share of saturated entries over the activations of a call; nan where none was smooth."""
    return call.flat / call.of if call.of else math.nan
