"""Which operators and modules are activations, and how many of their entries lie where they are flat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradlab.watching.calls import Call, Seen
from gradlab.watching.slopes import Flats, flats

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

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""


@dataclass
class Look:
    """What one look at an activation added, so that it can be taken back."""

    call: Call | None
    seen: Seen
    flat: int = 0
    of: int = 0
    resting: Tensor | None = None
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


def look_at(name: str, z: Tensor, found: Flats, call: Call | None, seen: dict[str, Seen], samples: int) -> Look:
    """Counts the entries of ``z`` on the flat parts of an activation with the layer that was called last before it."""
    kind = seen.setdefault(name.strip("_"), Seen())
    look = Look(call, kind)
    if not found.curved or z.dim() < 2:
        return look
    kind.positions += 1
    look.positions = 1
    if call is None or (found.saturated is None and found.rest is None):
        return look
    kind.judged += 1
    look.judged = 1
    entries = z.detach()
    if found.saturated is not None:
        look.flat, look.of = found.inside(entries, found.saturated), entries.numel()
        call.flat += look.flat
        call.of += look.of
    if found.rest is not None and samples >= LEAST_BATCH_FOR_DEAD:
        unit = call.unit % entries.dim() if entries.dim() > 2 else entries.dim() - 1
        resting = found.at_rest(entries, unit)
        # Where nothing comes, behind a layer that starts at zero, nothing is at rest.
        if not bool(resting.all()) or bool(entries.any()):
            look.resting = resting
            call.resting.append(look.resting)
    return look


def of_operator(name: str, rest: tuple[Any, ...], func: Any, named: dict[str, Any]) -> Flats:
    """Where an operator with these further arguments is flat; nowhere that is known of a wave."""
    if name in WAVES:
        return Flats(None, None, curved=True)
    if name == "_prelu_kernel":
        # A slope for every channel: the first stands for all of them, and is flat where it is zero.
        rest = (rest[0].detach().reshape(-1)[:1].double().cpu(),)
    key: tuple[Any, ...] = (name,)
    if rest or named:
        key += (*(float(one) if isinstance(one, Tensor) else one for one in rest), *sorted(named.items()))
    return _known(key, lambda points: first_of(func(points, *rest, **named)))


def of_module(module: nn.Module) -> Flats:
    """Where a module that is one activation is flat: by its kind and the numbers that it holds."""
    held = (item for item in vars(module).items() if isinstance(item[1], (int, float, str)))
    return _known((type(module), *sorted(held)), module.forward)


_KNOWN: dict[tuple[Any, ...], Flats] = {}
"""What has been looked at: a network has one activation in many places, and is measured many times."""


def _known(key: tuple[Any, ...], function: Callable[[Tensor], Tensor]) -> Flats:
    if key not in _KNOWN:
        _KNOWN[key] = flats(function)
    return _KNOWN[key]


def first_of(output: Any) -> Tensor:
    """The tensor that an operator put out, or the first of several."""
    found: Tensor = output[0] if isinstance(output, tuple | list) else output
    return found
