"""The per-layer table of any `torch.nn.Module` after one way there and back, taken by hooks that leave no trace.

A *layer* here is a module that holds a weight, a parameter of two or more dimensions, and was called; layers are
numbered by their first call. Its signal z is what it puts out, or what a norm makes of it that takes just that as its
input, as in the tables of a run; h is what a known activation module makes of z, else z itself. Every parameter counts
once: that of a module without a weight (a norm, PReLU) with the layer called before it, that of a module which is never
called itself (the projection inside `torch.nn.MultiheadAttention`) with the called module around it. What
`torch.nn.utils.parametrize` makes a weight of (weight norm, spectral norm) counts as the weight.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrize

from gradlab.store.record import PROBE_COLUMNS

LossFunction = Callable[[Any, Any], Tensor]
"""From the module's output and the targets to a scalar."""

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
"""Modules that a signal passes before it counts as the pre-activation."""

STEEPEST: Mapping[type[nn.Module], float] = {
    nn.Sigmoid: 0.25,
    nn.Tanh: 1.0,
    nn.Softplus: 1.0,
    nn.ELU: 1.0,
    nn.SELU: 1.7580993408473766,
    nn.GELU: 1.1289041,
    nn.SiLU: 1.0998393,
}
"""The largest slope of each smooth activation, by which saturation is measured; of SELU its scale times its alpha."""

RELU_FAMILY = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)
"""Activations whose units can be dead."""

ACTIVATIONS = (*STEEPEST, *RELU_FAMILY, nn.Hardtanh)

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What may end a gradient, the coarsest first."""

SATURATED_BELOW = 0.05
"""Of the largest slope, as in the tables of a run."""

LEAST_BATCH_FOR_DEAD = 16
"""With fewer samples a unit that is merely quiet would count as dead."""


@dataclass
class Call:
    """One call of a layer: the tensor z, the squared norm of ∂loss/∂z once it is known, and what was seen of h.

    ``moments`` are the count of h's entries, their mean and the sum of their squares about it; ``flat`` the number of
    saturated entries; ``resting`` (units,) whether a unit is at zero slope on every sample; ``unit`` the dimension of z
    that counts the units.
    """

    z: Tensor
    squares: list[float]
    moments: tuple[int, float, float]
    unit: int
    flat: int | None = None
    resting: Tensor | None = None


@dataclass
class Layer:
    """A called module with a weight: its name, its calls, and the parameters that count with it."""

    name: str
    calls: list[Call] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


@dataclass
class Tape:
    """What the hooks write down while the module runs.

    ``order``: each called module's place, by its first call. ``open``: calls whose z nothing has changed yet, by the
    identity of that tensor, which the call keeps alive.
    """

    names: Mapping[nn.Module, str]
    samples: int
    order: dict[nn.Module, int] = field(default_factory=dict)
    calls: dict[nn.Module, list[Call]] = field(default_factory=dict)
    open: dict[int, Call] = field(default_factory=dict)

    def before(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Notes the call; of an activation it looks at z now, since it may be overwritten in place."""
        self.order.setdefault(module, len(self.order))
        call = self._taken(given, named)
        if call is not None and type(module) in ACTIVATIONS and not call.z.is_complex():
            self._look(module, call)

    def after(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """A layer opens a call, a norm moves its z on, an activation gives its h and closes it."""
        signal = _signal(output)
        if signal is None:
            return
        call = self._taken(given, named)
        if _weights(module):
            # Channels stand behind the samples, the units of a linear layer last.
            unit = 1 if max(weight.dim() for weight in _weights(module)) > 2 else -1
            self.open[id(signal)] = opened = Call(signal, _watched(signal), _moments(signal), unit)
            self.calls.setdefault(module, []).append(opened)
        elif call is not None and type(module) in NORMS:
            del self.open[id(call.z)]
            call.z, call.squares, call.moments = signal, _watched(signal), _moments(signal)
            self.open[id(signal)] = call
        elif call is not None and type(module) in ACTIVATIONS:
            del self.open[id(call.z)]
            call.moments = _moments(signal)

    def _taken(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> Call | None:
        """The open call whose z is what a module is given first."""
        return self.open.get(id(next(iter((*given, *named.values())), None)))

    def _look(self, activation: nn.Module, call: Call) -> None:
        # Hooks of its own: what is saved here is no business of a checkpoint around the activation.
        with torch.enable_grad(), saved_tensors_hooks(_itself, _itself):
            start = call.z.detach().clone().requires_grad_()
            # Called past its hooks, on a copy that may be overwritten.
            (slope,) = torch.autograd.grad(activation.forward(start.clone()).sum(), start)
        if (steepest := STEEPEST.get(type(activation))) is not None:
            call.flat = int((slope.abs() < SATURATED_BELOW * steepest).sum())
        elif type(activation) in RELU_FAMILY and self.samples >= LEAST_BATCH_FOR_DEAD:
            call.resting = (slope == 0).movedim(call.unit, 0).flatten(1).all(1)


def measure(module: nn.Module, loss_fn: LossFunction, batch: tuple[Any, Any]) -> pd.DataFrame:
    """The `layers` frame of ``module`` at its present weights, after one pass there and back in training mode.

    Args:
        module: any network; it is called as ``module(inputs)``, or ``module(*inputs)`` where the inputs are a tuple.
        loss_fn: from its output and the targets to a scalar, the mean over the batch as everywhere in gradlab.
        batch: inputs and targets, samples first; a tensor of floats as input gives layer 0.

    Returns:
        The columns of a result's `layers` table but for run_id, with ``step`` 0 and ``axis`` "depth", and ``calls``,
        how often a layer was called: its `signal_grad_norm` is then over all calls. NaN where a column makes no sense:
        what an update gives, `saturated` and `dead` without a known activation module behind the layer,
        `signal_grad_norm` where nothing before the layer learns. A fused recurrent module is one layer, z its output
        sequence. ``attrs`` has the "loss" and the "precision", the coarsest dtype of a parameter or signal.

    Raises `ValueError` where the batch is no pair, the loss is no scalar with a gradient, and where no layer was
    called. Gradients, buffers, training modes, hooks and random generators are left as they were, also after an error.
    """
    inputs, targets = _pair(batch)
    parts = inputs if type(inputs) is tuple else (inputs,)
    leaves = [_leaf(part) for part in parts]
    inside = _inside_parametrizations(module)
    tape = Tape({part: name for name, part in module.named_modules() if part not in inside}, _samples(parts))
    with torch.enable_grad(), _as_written(), _left_alone(module):
        with _listening(tape):
            # A copy, so that a network may overwrite its input in place.
            output = module(
                *(leaf.clone() if leaf is not part else part for leaf, part in zip(leaves, parts, strict=True))
            )
        loss = _scalar(loss_fn(output, targets))
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        wanted = [*parameters, *(leaf for leaf, part in zip(leaves, parts, strict=True) if leaf is not part)]
        if not loss.requires_grad or not wanted:
            raise ValueError("the loss depends on no parameter that requires a gradient; expected at least one")
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
    gradients = dict(zip(parameters, found, strict=False))
    layers = _layers(module, tape)
    if not layers:
        raise ValueError("no module with a weight matrix was called; expected at least one")
    rows = [_row(number, layer, gradients) for number, layer in enumerate(layers, start=1)]
    if len(parts) == 1 and leaves[0] is not parts[0]:
        rows.insert(0, _input_row(parts[0], found[-1]))
    frame = pd.DataFrame(rows, columns=["step", "axis", "layer", "name", *PROBE_COLUMNS, "calls"])
    frame.attrs |= {"loss": float(loss.detach()), "precision": _precision(module, layers)}
    return frame


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise ValueError(f"the batch is {given}; expected a pair, inputs and targets")
    return batch[0], batch[1]


def _as_written() -> AbstractContextManager[Any]:
    """Inside, what `torch.compile` has made is run as it was written: compiled code calls no hooks."""
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def _inside_parametrizations(module: nn.Module) -> set[nn.Module]:
    """Modules that make a weight out of its parameters; what they put out is no signal."""
    return {
        inner
        for part in module.modules()
        if parametrize.is_parametrized(part)
        for inner in part.get_submodule("parametrizations").modules()
    }


@contextmanager
def _left_alone(module: nn.Module) -> Iterator[None]:
    """Training mode inside; modes, buffers (running statistics) and random generators as they were afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = {
        part: {name: (buffer, buffer.detach().clone()) for name, buffer in part.named_buffers(recurse=False)}
        for part in module.modules()
    }
    cuda = sorted({parameter.device.index for parameter in module.parameters() if parameter.is_cuda})
    with torch.random.fork_rng(devices=cuda):
        try:
            module.train()
            yield
        finally:
            for part, training in modes:
                part.training = training
            for part, before in buffers.items():
                _give_back(part, before)


def _give_back(part: nn.Module, before: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """The buffers that ``part`` had, with their values; another tensor may have taken their place, or filled a None."""
    for name, _ in list(part.named_buffers(recurse=False)):
        setattr(part, name, before[name][0] if name in before else None)
    with torch.no_grad():
        for buffer, value in before.values():
            buffer.copy_(value)


@contextmanager
def _listening(tape: Tape) -> Iterator[None]:
    with ExitStack() as hooks:
        for part in tape.names:
            hooks.callback(part.register_forward_pre_hook(tape.before, prepend=True, with_kwargs=True).remove)
            hooks.callback(part.register_forward_hook(tape.after, with_kwargs=True).remove)
        yield


def _leaf(part: Any) -> Any:
    """A tensor of floats as a leaf of its own, whose gradient can be asked for; anything else as it is."""
    floating = isinstance(part, Tensor) and part.is_floating_point()
    return part.detach().clone().requires_grad_() if floating else part


def _samples(parts: Sequence[Any]) -> int:
    first = parts[0]
    return len(first) if isinstance(first, Tensor) and first.dim() else 0


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"the loss is {given}; expected a scalar tensor, the mean over the batch")
    return loss.reshape(())


def _signal(output: Any) -> Tensor | None:
    """The tensor of floats that a module puts out, or the first of a tuple (of `nn.LSTM`, the output sequence)."""
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) and (first.is_floating_point() or first.is_complex()) else None


def _weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that a module holds itself, or that its own weights are made of."""
    held = list(module.parameters(recurse=False))
    if parametrize.is_parametrized(module):
        held += module.get_submodule("parametrizations").parameters()
    return [parameter for parameter in held if parameter.dim() > 1]


def _watched(signal: Tensor) -> list[float]:
    """A list that takes the squared norm of the signal's gradient, if one comes back."""
    squares: list[float] = []
    if signal.requires_grad:
        # On the tensor as it is now: what overwrites it in place later does not change what is heard.
        signal.register_hook(lambda gradient: squares.append(_square(gradient)))
    return squares


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _real(tensor: Tensor) -> Tensor:
    """The entries in float64; of complex ones the real and imaginary parts."""
    entries = tensor.detach()
    return (torch.view_as_real(entries.resolve_conj()) if entries.is_complex() else entries).double()


def _square(tensor: Tensor) -> float:
    return float(_real(tensor).square().sum())


def _moments(h: Tensor) -> tuple[int, float, float]:
    values = _real(h)
    mean = values.mean()
    return values.numel(), float(mean), float((values - mean).square().sum())


def _precision(module: nn.Module, layers: Sequence[Layer]) -> str:
    """The coarsest dtype in which a gradient is held: of a parameter, or, under autocast, of a signal."""
    tensors = [*module.parameters(), *(call.z for layer in layers for call in layer.calls)]
    found = {tensor.dtype.to_real() if tensor.is_complex() else tensor.dtype for tensor in tensors}
    return str(next((dtype for dtype in PRECISIONS if dtype in found), torch.float32)).removeprefix("torch.")


def _layers(module: nn.Module, tape: Tape) -> list[Layer]:
    """The called modules with weights in the order of their first call, every parameter given to one of them."""
    called = sorted(tape.order, key=tape.order.__getitem__)
    layers = {part: Layer(tape.names[part] or type(part).__name__) for part in called if _weights(part)}
    for part, layer in layers.items():
        # What holds other layers puts out what they made: it has parameters, and no signal of its own.
        if not any(other is not part and other in layers for other in part.modules()):
            layer.calls = tape.calls.get(part, [])
    seen: set[nn.Parameter] = set()
    for part in (*called, *(part for part in module.modules() if part not in tape.order)):
        owner = _owner(part, called, layers, tape)
        mine = [parameter for parameter in part.parameters(recurse=False) if parameter not in seen]
        seen.update(mine)
        if owner is not None:
            owner.parameters += mine
    return list(layers.values())


def _owner(part: nn.Module, called: Sequence[nn.Module], layers: Mapping[nn.Module, Layer], tape: Tape) -> Layer | None:
    """The layer that the parameters of ``part`` count with; None where no layer was called at all."""
    if part not in tape.order:
        around = [other for other in called if part in set(other.modules())]
        part = max(around, key=lambda other: len(tape.names[other]))
    if part in layers:
        return layers[part]
    before = [layer for other, layer in layers.items() if tape.order[other] < tape.order[part]]
    return before[-1] if before else next(iter(layers.values()), None)


def _row(number: int, layer: Layer, gradients: Mapping[nn.Parameter, Tensor | None]) -> dict[str, Any]:
    """The columns of a layer; what it has no parameters or no signal for is left out."""
    row: dict[str, Any] = {"step": 0, "axis": "depth", "layer": number, "name": layer.name, "calls": len(layer.calls)}
    if layer.parameters:
        known = [(parameter, gradients[parameter]) for parameter in layer.parameters if parameter in gradients]
        grads = [(parameter, torch.zeros_like(parameter) if grad is None else grad) for parameter, grad in known]
        row["weight_norm"] = math.sqrt(sum(_square(weight) for weight in layer.parameters if weight.dim() > 1))
        if grads:
            row |= {
                "grad_norm": math.sqrt(sum(_square(grad) for _, grad in grads)),
                "weight_grad_norm": math.sqrt(sum(_square(grad) for parameter, grad in grads if parameter.dim() > 1)),
                "grad_zero": sum(int((grad == 0).sum()) for _, grad in grads) / sum(grad.numel() for _, grad in grads),
            }
    if layer.calls:
        if any(call.z.requires_grad for call in layer.calls):
            # Zero where nothing came back, as after a detach.
            row["signal_grad_norm"] = math.sqrt(sum(square for call in layer.calls for square in call.squares))
        row |= _spread([call.moments for call in layer.calls])
        flat = [call.flat for call in layer.calls if call.flat is not None]
        if len(flat) == len(layer.calls):
            row["saturated"] = sum(flat) / sum(call.z.numel() for call in layer.calls)
        resting = [call.resting for call in layer.calls if call.resting is not None]
        if len(resting) == len(layer.calls):
            row["dead"] = float(torch.stack(resting).all(0).double().mean())
    return row


def _input_row(inputs: Tensor, gradient: Tensor | None) -> dict[str, Any]:
    row = {"step": 0, "axis": "depth", "layer": 0, "name": "input", **_spread([_moments(inputs)])}
    return row if gradient is None else row | {"signal_grad_norm": math.sqrt(_square(gradient))}


def _spread(moments: Sequence[tuple[int, float, float]]) -> dict[str, float]:
    """Mean and standard deviation over all entries of all calls."""
    count = sum(size for size, _, _ in moments)
    mean = sum(size * middle for size, middle, _ in moments) / count
    squares = sum(about + size * (middle - mean) ** 2 for size, middle, about in moments)
    return {"act_mean": mean, "act_std": math.sqrt(squares / count)}
