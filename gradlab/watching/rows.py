"""From what was heard to the rows of the frame: each layer's parameters, signals and activations as columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.watching.backward import Felt, Heard
from gradlab.watching.calls import Call
from gradlab.watching.entries import (
    Moments,
    alike,
    flat,
    moments,
    real,
    square,
    squares_and_zeros,
    squares_of,
    together,
)
from gradlab.watching.facts import as_drawn
from gradlab.watching.tape import Tape, weights

Row = dict[str, Any]

MOST_LOOKED_AT = 4
"""Frozen matrices by which it is judged whether they ever learned."""

SMALL_GAIN = 0.1
"""A learned gain that starts below it keeps a branch small on purpose (Touvron et al. 2021: 1e-6 to 0.1)."""

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What may end a gradient, the coarsest first."""


@dataclass
class Layer:
    """A called module with a weight: its name, its calls, and the parameters that count with it.

    ``gates`` are those of them that multiply what a layer makes: its weights, a norm's gain, the scale of a branch.
    """

    name: str
    module: nn.Module
    calls: list[Call] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    gates: list[nn.Parameter] = field(default_factory=list)


def parts_of(module: nn.Module) -> dict[nn.Module, str]:
    """A module and everything inside it, each once with its first name, as `named_modules` has them.

    That goes through every module above one for each one.
    """
    found: dict[nn.Module, str] = {}
    waiting = [("", module)]
    while waiting:
        name, part = waiting.pop()
        if part not in found:
            found[part] = name
            around = f"{name}." if name else ""
            inner = [(around + own, one) for own, one in part._modules.items() if one is not None]
            waiting += inner[::-1]
    return found


def parameters_of(parts: Mapping[nn.Module, str]) -> dict[nn.Parameter, str]:
    """Their parameters, each once with its first name."""
    found: dict[nn.Parameter, str] = {}
    for part, name in parts.items():
        for own, parameter in part._parameters.items():
            if parameter is not None and parameter not in found:
                found[parameter] = f"{name}.{own}" if name else own
    return found


def owned(parts: Mapping[nn.Module, str], tape: Tape) -> list[Layer]:
    """The called modules with weights in the order of their first call, every parameter given to one of them."""
    called = sorted(tape.order, key=tape.order.__getitem__)
    layers = {part: Layer(tape.names[part] or type(part).__name__, part) for part in called if weights(part)}
    holders = {above for part in layers for above in _around(tape.names[part])}
    for part, layer in layers.items():
        # What holds other layers puts out what they made: it has parameters, and no signal of its own.
        if tape.names[part] not in holders:
            layer.calls = tape.calls.get(part, [])
    named = {tape.names[part]: part for part in called}
    before = _before(called, layers)
    seen: set[nn.Parameter] = set()
    for part in (*called, *(part for part in parts if part not in tape.order)):
        if not part._parameters:
            continue
        mine = {name: one for name, one in part._parameters.items() if one is not None and one not in seen}
        seen.update(mine.values())
        place = part if part in tape.order else _called(part, parts, named, tape)
        owner = None if place is None else layers.get(place) or before.get(place)
        if owner is not None:
            owner.parameters += mine.values()
            owner.gates += [one for name, one in mine.items() if "bias" not in name]
    return list(layers.values())


def _around(name: str) -> list[str]:
    """The names of what a module lies in: of "a.b.c" those of "a.b", "a" and the whole."""
    parts = name.split(".") if name else []
    return [".".join(parts[:end]) for end in range(len(parts) - 1, -1, -1)] if parts else []


def _called(
    part: nn.Module, parts: Mapping[nn.Module, str], named: Mapping[str, nn.Module], tape: Tape
) -> nn.Module | None:
    """The innermost called module around one that is not called itself."""
    name = tape.names.get(part) or parts[part]
    return next((named[above] for above in _around(name) if above in named), next(iter(parts), None))


def _before(called: Sequence[nn.Module], layers: Mapping[nn.Module, Layer]) -> dict[nn.Module, Layer]:
    """Of each called module the layer called last before it, or else the first there is."""
    last = next(iter(layers.values()), None)
    found: dict[nn.Module, Layer] = {}
    for part in called:
        last = layers.get(part, last)
        if last is not None:
            found[part] = last
    return found


def depth_rows(layers: Sequence[Layer], heard: Heard, gradients: Mapping[nn.Parameter, Tensor | None]) -> list[Row]:
    """A row for each layer, and where it stands on the trunk."""
    found = Sums.of(layers, gradients)
    rows = [_row(number, layer, heard, found) for number, layer in enumerate(layers, start=1)]
    number_of = {heard.signal(call).node: place for place, layer in enumerate(layers) for call in layer.calls[::-1]}
    # The output's activation is the loss's business: neither saturated nor dead.
    last = next((place for place, layer in enumerate(layers) if heard.tape.last in layer.calls), -1)
    if heard.stages and number_of.get(heard.stages[-1].layers[-1]) == last:
        rows[last].pop("saturated", None)
        rows[last].pop("dead", None)
    # Of a layer that is called again and again the last call stands for it: the others are time steps.
    felt_at: dict[Any, list[Felt]] = {}
    for (node, _), one in heard.felt.items():
        felt_at.setdefault(node, []).append(one)
    for stage, at in reversed(list(enumerate(heard.stages, start=1))):
        row, felt = rows[number_of[at.layers[-1]]], felt_at.get(at.point, [])
        squares, entries = sum(one.squares for one in felt), sum(one.entries for one in felt)
        if "stage" not in row:
            row |= {
                "stage": float(stage),
                "trunk_grad_norm": math.sqrt(squares),
                "trunk_grad_rms": math.sqrt(squares / max(1, entries)),
            }
    return rows


def _row(number: int, layer: Layer, heard: Heard, found: Sums) -> Row:
    """The columns of a layer; what it has no parameters or no signal for is left out."""
    row: Row = {"step": 0, "axis": "depth", "layer": number, "name": layer.name, "calls": len(layer.calls)}
    if layer.parameters:
        row |= _of_parameters(layer, found)
    if layer.calls:
        signals = [heard.signal(call) for call in layer.calls]
        if any(signal.node is not None for signal in signals):
            # Zero where nothing came back, as after a detach.
            felt = [heard.of(signal) for signal in signals]
            squares, entries = sum(one.squares for one in felt), sum(one.entries for one in felt)
            row |= {
                "signal_grad_norm": math.sqrt(squares),
                "signal_grad_rms": math.sqrt(squares / max(1, entries)),
            }
        row["cut"] = float(bool(signals) and all(heard.cut_off(signal, layer.parameters) for signal in signals))
        silent = all(heard.silent(signal) for signal in signals) and row.get("grad_norm") == 0
        row["idle"] = float(silent and not any(heard.passed_over(signal) for signal in signals))
        row["normalised"] = float(all(call.normed is not None for call in layer.calls))
        row |= _of_activations(layer.calls, heard)
    return row


@dataclass(frozen=True)
class Sums:
    """Sums of squares, of matrices and of gradients, and how many entries of a gradient are zero; all where None is.

    By the parameters' identity: to hash a tensor takes longer.
    """

    matrices: Mapping[int, float]
    gradients: Mapping[int, tuple[float, int]]

    @classmethod
    def of(cls, layers: Sequence[Layer], gradients: Mapping[nn.Parameter, Tensor | None]) -> Sums:
        """Of all layers at once."""
        held = [parameter for layer in layers for parameter in layer.parameters]
        matrices = [one for one in held if one.dim() > 1]
        by_id = {id(one): gradient for one, gradient in gradients.items()}
        found = {id(one): (0.0, one.numel()) for one in held if id(one) in by_id}
        came = {place: gradient for place in found if (gradient := by_id[place]) is not None}
        found |= dict(zip(came, squares_and_zeros(list(came.values())), strict=True))
        return cls(dict(zip(map(id, matrices), squares_of(matrices), strict=True)), found)


def _of_parameters(layer: Layer, found: Sums) -> Row:
    total = of_matrices = norm = 0.0
    size = zeros = 0
    equal = False
    for one in layer.parameters:
        squares, zero = found.gradients.get(id(one), (None, 0))
        if one.dim() > 1:
            norm += found.matrices[id(one)]
            equal = equal or _equal(one, squares)
            of_matrices += squares or 0.0
        if squares is not None:
            total, zeros, size = total + squares, zeros + zero, size + one.numel()
    row: Row = {"weight_norm": math.sqrt(norm), "equal_weights": float(equal)}
    if not size:
        return row
    learned = [gate for gate in layer.gates if found.gradients.get(id(gate), (0.0, 0))[0] > 0]
    return row | {
        "grad_norm": math.sqrt(total),
        "grad_rms": math.sqrt(total / size),
        "weight_grad_norm": math.sqrt(of_matrices),
        "grad_zero": zeros / size,
        "starts_at_zero": float(any(entries[0] == 0 and alike(entries) for entries in map(flat, learned))),
        "gain": min((gain for gate in learned if (gain := _gain(gate))), default=math.nan),
    }


def _gain(gate: Tensor) -> float:
    """The one small number that all entries of a scale per channel are, 0 where it is no such thing."""
    if gate.numel() != max(gate.shape, default=1):
        return 0.0  # a matrix
    entries = flat(gate)
    first = float(abs(entries[0]))  # perhaps a complex number
    return first if first < SMALL_GAIN and alike(entries) else 0.0


def _equal(weight: Tensor, squares: float | None) -> bool:
    """Whether all entries of a matrix are one number: units that start alike stay alike.

    ``squares`` are those of its gradient, None where it has none: what is zero and has a gradient starts there on
    purpose.
    """
    if sum(size > 1 for size in weight.shape) < 2 or not weight.numel():
        return False  # a scale for each channel, or one unit
    entries = flat(weight)
    return bool(entries[0] != 0 or squares == 0) and alike(entries)


def _of_activations(calls: Sequence[Call], heard: Heard) -> Row:
    parts = [moments for call in calls if (moments := _hidden(call, heard)) is not None]
    _, mean, squares = together(parts)
    row: Row = {"act_mean": mean, "act_std": math.sqrt(squares / max(1, sum(size for size, _, _ in parts)))}
    if of := sum(call.of for call in calls):
        row["saturated"] = sum(call.flat for call in calls) / of
    resting = [found for call in calls for found in call.resting]
    if resting and len({found.shape for found in resting}) == 1:
        always = resting[0] if len(resting) == 1 else torch.stack(resting).all(0)
        row["dead"] = int(torch.count_nonzero(always)) / len(always)
        row["units"] = float(len(always))
    attention = [one for call in calls for one in call.attention]
    if attention:
        entropies = [one.entropy for one in attention if not math.isnan(one.entropy)]
        row["attention_entropy"] = sum(entropies) / len(entropies) if entropies else math.nan
        row["attention_logit_max"] = max(one.largest for one in attention)
    return row


def _hidden(call: Call, heard: Heard) -> Moments | None:
    """The moments of h: of what an activation made of the signal, or of the signal itself.

    Where something beside the norm takes what the layer put out, that is h, too.
    """
    signal = heard.signal(call)
    taken = call.hidden is not None and (call.normed is None or signal is call.normed)
    if not taken and signal.moments is None and signal.kept is not None:
        signal.moments = moments(signal.kept)
    return call.hidden if taken else signal.moments


def input_row(inputs: Tensor, gradient: Tensor | None) -> Row:
    """Layer 0: the input itself."""
    count, mean, squares = moments(inputs)
    row: Row = {"step": 0, "axis": "depth", "layer": 0, "name": "input", "act_mean": mean}
    row["act_std"] = math.sqrt(squares / count)
    if gradient is None:
        return row
    found = square(gradient)
    return row | {"signal_grad_norm": math.sqrt(found), "signal_grad_rms": math.sqrt(found / real(gradient).numel())}


def narrow(layers: Sequence[Layer], heard: Heard, samples: int) -> str | None:
    """The layer before the last by whose one number a sample everything passes, where there is one."""
    names = {heard.signal(call).node: (layer.name, call) for layer in layers for call in layer.calls}
    for stage in heard.stages[:-1]:
        name, call = names[stage.layers[-1]]
        if stage.own and samples > 1 and heard.signal(call).count == samples:
            return name
    return None


def frozen_as_drawn(layers: Sequence[Layer], heard: Heard) -> list[str]:
    """The names of the first layers that are frozen, where they are what they were drawn as and the loss rests on them.

    What is frozen beside something that learns (adapters) is left out, and so is what has learned before.
    """
    first = list(itertools.takewhile(lambda layer: not any(one.requires_grad for one in layer.parameters), layers))
    matrices = [one for layer in first for one in layer.parameters if one.dim() > 1]
    felt = any(heard.of(heard.signal(call)).squares > 0 for layer in first for call in layer.calls)
    drawn = felt and len(first) < len(layers) and any(map(as_drawn, matrices[-MOST_LOOKED_AT:]))
    return [layer.name for layer in first] if drawn else []


def precision(parts: Mapping[nn.Module, str], layers: Sequence[Layer]) -> str:
    """The coarsest dtype in which a gradient is held: of a parameter, or, under autocast, of a signal."""
    held = {one.dtype for part in parts for one in part._parameters.values() if one is not None}
    held |= {signal.dtype for layer in layers for call in layer.calls for signal in (call.raw, call.normed) if signal}
    return coarsest(held)


def coarsest(held: Iterable[torch.dtype]) -> str:
    """The name of the coarsest of some formats; float32 where none is known."""
    found = {dtype.to_real() if dtype.is_complex else dtype for dtype in held}
    return str(next((dtype for dtype in PRECISIONS if dtype in found), torch.float32)).removeprefix("torch.")
