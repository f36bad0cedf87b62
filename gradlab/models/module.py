"""A `torch.nn.Module` of the user's own, lent to the engine: M of them, their parameters in one flat tensor.

Each stays a module of its own, whose parameters and buffers are views: what the engine does to the flat tensors it does
to all of them, and what a module does to its buffers is kept with the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from gradlab.data.dataset import DataError
from gradlab.data.function import plain
from gradlab.data.targets import called, imported
from gradlab.nn.initializers import INITS
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, ModelSpec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "linear": nn.Identity,
}
"""Torch's module of every activation of `choices.ACTIVATIONS`."""

REPLACED = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid),
    *(nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold),
)
"""Modules whose place `model.activation` takes."""

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """Not known before the module is called: `engine.tried` finds it. Raises `TypeError`."""
    raise TypeError(f"{model.target}: a network of the user's own is lent, not laid out for {facts.inputs} inputs")


def forward(through: Pass, x: Node) -> Node:
    """Not an operation of the pass. Raises `TypeError`."""
    raise TypeError(
        f"{through.network.model.target}: a network of the user's own is lent; its input was {x.value.shape}"
    )


def made(model: ModelSpec, seed: int, dtype: torch.dtype) -> nn.Module:
    """The network of ``model`` as it begins: drawn by itself after `torch.manual_seed`, or anew where it says so.

    Global random numbers are left as they were. Raises `DataError` where the target returns no module, and where there
    is nothing to replace or to draw anew.
    """
    assert model.target is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(there := imported(model.target), nn.Module):
            wrong = (
                f"is a {type(there).__name__} that was made already; expected the class, or a function that makes one"
            )
            raise DataError(f"model.target={model.target}: {wrong} for each run")
        module = called(model.target, plain(model.args))
    if not isinstance(module, nn.Module):
        raise DataError(f"model.target={model.target}: returned a {type(module).__name__}; expected a torch.nn.Module")
    if model.activation not in (None, "own"):
        _replace_activations(module, model)
    if model.norm not in (None, "none"):
        _put_norms(module, model)
    return (module if is_lazy(module) else converted(module, dtype)).train()


def drawn(module: nn.Module, model: ModelSpec, seed: int) -> None:
    """Draws every weight matrix anew as `model.init` says, in the module's order, and applies `model.gain`."""
    matrices = [(part, weight) for part in module.modules() for weight in _matrices(part)]
    if model.init not in (None, "own"):
        if not matrices:
            raise DataError(f"model.init={model.init}: {model.target} has no weight matrix to draw anew")
        generator, rule = torch.Generator().manual_seed(seed), INITS[str(model.init)]
        for part, weight in matrices:
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
            slot = Slot(1, Role.WEIGHT, tuple(weight.shape), Start.DRAWN, fan_in, fan_out, fan_in)
            draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            entries = rule.shape(draw.flatten(1), slot).view(weight.shape)
            with torch.no_grad():
                weight.copy_(rule.std(slot) * entries)
                for bias in (one for one in part.parameters(recurse=False) if one.dim() == 1):
                    bias.zero_()
    if model.gain != 1:
        with torch.no_grad():
            for _, weight in matrices:
                weight.mul_(model.gain)


def _matrices(part: nn.Module) -> list[nn.Parameter]:
    """Real weights of a module itself that a signal is multiplied with: not a table of words, not a norm's."""
    if isinstance(part, (nn.Embedding, nn.EmbeddingBag)):
        return []
    return [one for one in part.parameters(recurse=False) if one.dim() > 1 and one.is_floating_point()]


def _replace_activations(module: nn.Module, model: ModelSpec) -> None:
    new = ACTIVATIONS.get(str(model.activation))
    if new is None:
        raise DataError(f"model.activation={model.activation}: is no module of torch.nn, and can replace none")
    found = [
        (part, name) for part in module.modules() for name, one in part.named_children() if isinstance(one, REPLACED)
    ]
    if not found:
        raise DataError(
            f"model.activation={model.activation}: {model.target} has no activation that is a module of torch.nn; "
            "functions such as F.relu cannot be replaced"
        )
    for part, name in found:
        setattr(part, name, new())


Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def _put_norms(module: nn.Module, model: ModelSpec) -> None:
    """A norm behind every linear layer and convolution but the last: a part of it, so that it keeps its name."""
    found = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))][:-1]
    if not found:
        raise DataError(f"model.norm={model.norm}: {model.target} has no linear layer or convolution before its last")
    for part in found:
        part.add_module("norm", _norm_behind(part, model))
        part.register_forward_hook(lambda part, _, output: part.norm(output))


def _norm_behind(part: Weighted, model: ModelSpec) -> nn.Module:
    """Torch's own: over the units of a linear layer; of a convolution over its channels, or all of a sample."""
    if isinstance(part, nn.Linear):
        units = part.out_features
        kinds: dict[str, Callable[[int], nn.Module]] = {
            "batch": nn.BatchNorm1d,
            "layer": nn.LayerNorm,
            "rms": nn.RMSNorm,
            "group": partial(_groups, model),
        }
        if model.norm not in kinds:
            raise DataError(f"model.norm={model.norm}: is over pixels; {model.target} has linear layers")
        return kinds[model.norm](units)
    if model.norm == "rms":
        raise DataError(f"model.norm=rms: is over the units of a linear layer; {model.target} has convolutions")
    if model.norm == "layer":
        return nn.GroupNorm(1, part.out_channels)
    if model.norm == "group":
        return _groups(model, part.out_channels)
    if model.norm == "instance":
        instance = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[part.weight.dim()]
        return instance(part.out_channels, affine=True)
    kind = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[part.weight.dim()]
    return kind(part.out_channels)


def _groups(model: ModelSpec, units: int) -> nn.Module:
    if units % (model.groups or 1):
        raise DataError(f"model.groups={model.groups}: does not divide the {units} units of a layer of {model.target}")
    return nn.GroupNorm(model.groups or 1, units)


def is_lazy(module: nn.Module) -> bool:
    """Whether some parameters have no shape before the first batch has passed."""
    return any(isinstance(one, UninitializedParameter) for one in module.parameters())


def converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with real numbers of ``dtype``, complex ones of the same precision; whole numbers stay.

    Raises `DataError` for complex numbers of half precision, which there are not.
    """

    def convert(tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        if tensor.is_complex() and dtype not in COMPLEX:
            raise DataError(
                f"{str(dtype).removeprefix('torch.')}: the network has complex numbers, which are not of half "
                "precision; expected float32, float64 or one of the mixed"
            )
        return tensor.to(COMPLEX[dtype] if tensor.is_complex() else dtype)

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.data = convert(parameter.data)
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                part._buffers[name] = convert(buffer)
    return module


@dataclass(frozen=True)
class Held:
    """A buffer of one member, and the view (of a stacked tensor) that it must be after every step."""

    part: nn.Module
    name: str
    view: Tensor


@dataclass(frozen=True)
class Shelf:
    """M modules of one kind on flat tensors.

    ``flat`` (M, P) has what is trained, in the order of ``names``; ``gradient`` (M, P) is another. ``parameters[m]``
    are the member's own tensors and ``gradients[m]`` of their shapes, views of them; of complex numbers, which as views
    would have to begin at even places, ``gradients[m]`` are real and `take_up` copies. ``buffers`` are (M, ...) by
    name.
    """

    modules: tuple[nn.Module, ...]
    names: tuple[str, ...]
    flat: Tensor
    gradient: Tensor
    parameters: tuple[tuple[nn.Parameter, ...], ...]
    gradients: tuple[tuple[Tensor, ...], ...]
    buffers: Mapping[str, Tensor]
    held: tuple[tuple[Held, ...], ...]

    def take_up(self, member: int) -> None:
        """Gives a module's complex parameters the numbers that the flat tensor has."""
        for parameter, part in zip(self.parameters[member], self.flat[member].split(self.sizes), strict=True):
            if parameter.is_complex():
                torch.view_as_real(parameter.data).copy_(part.view(*parameter.shape, 2))

    def write(self, member: int, found: Sequence[Tensor | None]) -> None:
        """Puts the gradients of a member's parameters, zero where there is none, into its part of ``gradient``."""
        for view, gradient in zip(self.gradients[member], found, strict=True):
            if gradient is None:
                view.zero_()
            else:
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                view.copy_(torch.view_as_real(dense) if dense.is_complex() else dense)

    @cached_property
    def sizes(self) -> list[int]:
        """Real numbers of each parameter."""
        return [entries(one) for one in self.parameters[0]]

    def put_back(self, member: int) -> None:
        """Takes over the buffers that a module has replaced instead of changing them in place."""
        for one in self.held[member]:
            now = one.part._buffers.get(one.name)
            if now is not one.view and now is not None:
                one.view.copy_(now)
                one.part._buffers[one.name] = one.view


def shelved(modules: Sequence[nn.Module], names: Sequence[str], device: torch.device) -> Shelf:
    """Moves the parameters called ``names``, and all buffers, of ``modules`` into flat tensors on ``device``."""
    first = dict(modules[0].named_parameters())
    sizes = [entries(first[name]) for name in names]
    real = max((one.dtype.to_real() for one in first.values()), key=lambda dtype: torch.finfo(dtype).bits)
    flat = torch.empty(len(modules), sum(sizes), dtype=real, device=device)
    gradient = torch.zeros_like(flat)
    parameters: list[tuple[nn.Parameter, ...]] = []
    gradients: list[tuple[Tensor, ...]] = []
    for member, module in enumerate(modules):
        module.to(device)
        own = dict(module.named_parameters())
        theirs = tuple(own[name] for name in names)
        for parameter, part in zip(theirs, flat[member].split(sizes), strict=True):
            view = part.view(_real(parameter))
            view.copy_(torch.view_as_real(parameter.data) if parameter.is_complex() else parameter.data)
            if not parameter.is_complex():
                parameter.data = view
        cut = zip(theirs, gradient[member].split(sizes), strict=True)
        gradients.append(tuple(part.view(_real(parameter)) for parameter, part in cut))
        parameters.append(theirs)
    buffers, held = _shelved_buffers(modules)
    return Shelf(tuple(modules), tuple(names), flat, gradient, tuple(parameters), tuple(gradients), buffers, held)


def entries(parameter: Tensor) -> int:
    """Real numbers of a parameter."""
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def _real(parameter: Tensor) -> tuple[int, ...]:
    """The shape of a parameter's real numbers."""
    return (*parameter.shape, 2) if parameter.is_complex() else tuple(parameter.shape)


def _shelved_buffers(modules: Sequence[nn.Module]) -> tuple[dict[str, Tensor], tuple[tuple[Held, ...], ...]]:
    found: dict[str, Tensor] = {}
    held: list[list[Held]] = [[] for _ in modules]
    parts = [dict(module.named_modules()) for module in modules]
    for path, first in parts[0].items():
        for name, _ in first.named_buffers(recurse=False):
            label = f"{path}.{name}" if path else name
            stacked = torch.stack([members[path]._buffers[name] for members in parts])
            found[label] = stacked
            for member, members in enumerate(parts):
                members[path]._buffers[name] = stacked[member]
                held[member].append(Held(members[path], name, stacked[member]))
    return found, tuple(tuple(one) for one in held)


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of one unit of a weight."""
    return nn.init._calculate_fan_in_and_fan_out(weight) if weight.dim() > 1 else (0, math.prod(weight.shape))
