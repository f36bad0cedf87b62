"""One way there and back through any `torch.nn.Module`, heard at every layer: what the tables have, and the gradients.

A *layer* here is a module that holds a weight, a parameter of two or more dimensions, and was called; layers are
numbered by their first call. Its signal z is what it puts out, or what a norm makes of it that takes just that as its
input, as in the tables of a run, unless something else takes it too (a stem whose output enters residual branches);
h is what an activation makes of z, else z itself. Every parameter counts once: that of a module without a weight (a
norm, PReLU) with the layer called before it, that of a module which is never called itself (the projection inside
`torch.nn.MultiheadAttention`) with the called module around it. What `torch.nn.utils.parametrize` makes a weight of
(weight norm, spectral norm) counts as the weight.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from gradlab.watching.backward import Heard, hear
from gradlab.watching.graph import graph
from gradlab.watching.merging import unscaled
from gradlab.watching.operators import Operators, already_asked
from gradlab.watching.recurrence import time_rows
from gradlab.watching.rows import Layer, Row, depth_rows, input_row, owned, parameters_of, parts_of, precision
from gradlab.watching.tape import Tape
from gradlab.watching.told import counted, of_batch, strangers, told


@dataclass(frozen=True)
class Observed:
    """What was heard on one way there and back.

    ``rows`` of the per-layer table, the input first, then the layers, then time steps; ``loss`` a scalar; ``gradients``
    by parameter, None where nothing of the loss comes back; ``told`` is what `gradlab.measure` puts beside its frame.
    """

    rows: list[Row]
    layers: list[Layer]
    loss: Tensor
    gradients: dict[nn.Parameter, Tensor | None]
    told: dict[str, Any]


def observe(
    module: nn.Module,
    inputs: Any,
    judge: Callable[[Any], Tensor],
    *,
    scale: float = 1.0,
    there: AbstractContextManager[Any] | None = None,
    asking: bool = True,
) -> Observed:
    """Calls ``module`` on ``inputs`` as `called_with` says, and goes back from what ``judge`` makes of its output.

    The way back begins at ``scale`` instead of 1, and the gradients are of a loss so scaled; no row is. The way
    ``there``, the loss with it, is taken inside a context (autocast).
    ``asking``: it may ask for the gradient of its inputs, which are no leaves; to know that it does not is faster.
    The network is left as a step of training leaves it: modes are untouched, buffers (running statistics) move on.
    Raises `ValueError` where the loss is no scalar with a gradient, and where no layer was called.
    """
    parts, names = called_with(module, inputs)
    leaves = [_leaf(part) for part in parts]
    tape = Tape(audible(module), _samples(parts))
    with torch.enable_grad(), _as_written(), ExitStack() as outward:
        outward.enter_context(there or nullcontext())
        # A copy, so that a network may overwrite its input in place.
        given = [leaf.clone() if leaf is not part else part for leaf, part in zip(leaves, parts, strict=True)]
        positional, named = given[: len(given) - len(names)], given[len(given) - len(names) :]
        with Operators(tape):
            with _listening(tape), already_asked() if asking else nullcontext():
                output = module(*positional, **dict(zip(names, named, strict=True)))
            with tape.quiet():
                tape.settle()
            tape.judging = True
            loss = _scalar(judge(output))
        outward.close()
        # What a lazy module is made of is there only now.
        held = parts_of(module)
        parameters = [parameter for parameter in parameters_of(held) if parameter.requires_grad]
        wanted = [*parameters, *(leaf for leaf, part in zip(leaves, parts, strict=True) if leaf is not part)]
        if not loss.requires_grad or not wanted:
            raise ValueError("the loss depends on no parameter that requires a gradient; expected at least one")
        assert loss.grad_fn is not None
        layers = owned(held, tape)
        if not layers:
            raise ValueError("no module with a weight matrix was called; expected at least one")
        fed = {get_gradient_edge(leaf).node for leaf, part in zip(leaves, parts, strict=True) if leaf is not part}
        heard = Heard(graph(loss.grad_fn), tape, [layer.calls for layer in layers], fed)
        with hear(heard):
            found = torch.autograd.grad(loss, wanted, torch.full_like(loss, scale), allow_unused=True)
    gradients: dict[nn.Parameter, Tensor | None] = dict(zip(parameters, found, strict=False))
    rows = depth_rows(layers, heard, gradients)
    if len(parts) == 1 and leaves[0] is not parts[0]:
        rows.insert(0, input_row(parts[0], found[-1]))
    rows = [unscaled(row, scale) for row in (*rows, *time_rows(layers, heard))]
    seen = told(held, layers, heard, gradients, tape.losses)
    tape.losses.unscale(scale)
    foreign = strangers(parameters_of(held), heard.graph, output)
    seen["facts"] |= of_batch(parts, output, loss.grad_fn) | counted([one.numel() for one in foreign])
    seen |= {"loss": float(loss.detach()), "precision": precision(held, layers)}
    return Observed(rows, layers, loss.detach(), gradients, seen)


def called_with(module: nn.Module, inputs: Any) -> tuple[list[Any], list[str]]:
    """What the module is called with, and the names of the last of them; how, its forward's own parameters say."""
    if isinstance(inputs, tuple):
        return list(inputs), []
    if not isinstance(inputs, Mapping | list):
        return [inputs], []
    parameters = inspect.signature(module.forward).parameters.values()
    if isinstance(inputs, Mapping):
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        named = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL}
        by_name = named.issuperset(inputs) or (free and named & set(inputs))
        return (list(inputs.values()), list(inputs)) if by_name else ([inputs], [])
    places = [parameter for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    spread = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    # One that says it takes a list (of pictures of different size) is given the list.
    listed = bool(places) and "list" in str(places[0].annotation).lower()
    several = spread or (1 < len(inputs) <= len(places) and not listed)
    return (list(inputs), []) if several else ([inputs], [])


def _as_written() -> AbstractContextManager[Any]:
    """Inside, what `torch.compile` has made is run as it was written: compiled code calls no hooks."""
    compiles = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def audible(module: nn.Module) -> dict[nn.Module, str]:
    """The parts of a module that put out signals, by their names."""
    parts = parts_of(module)
    inside = inside_parametrizations(parts)
    return {part: name for part, name in parts.items() if part not in inside}


def inside_parametrizations(parts: Iterable[nn.Module]) -> set[nn.Module]:
    """Modules that make a weight out of its parameters; what they put out is no signal."""
    return {
        inner
        for part in parts
        if "parametrizations" in part._modules and parametrize.is_parametrized(part)
        for inner in part.get_submodule("parametrizations").modules()
    }


@contextmanager
def _listening(tape: Tape) -> Iterator[None]:
    hooks: list[RemovableHandle] = []
    try:
        for part in tape.names:
            hooks.append(part.register_forward_pre_hook(tape.before, prepend=True, with_kwargs=True))
            hooks.append(part.register_forward_hook(tape.after, with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _leaf(part: Any) -> Any:
    """A tensor of floats as a leaf of its own, whose gradient can be asked for; anything else as it is."""
    floating = isinstance(part, Tensor) and part.is_floating_point()
    return part.detach().requires_grad_() if floating else part


def _samples(parts: list[Any]) -> int:
    return next((len(part) for part in tree_leaves(parts) if isinstance(part, Tensor) and part.dim()), 0)


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"the loss is {given}; expected a scalar tensor, the mean over the batch")
    return loss.reshape(())


@contextmanager
def buffers_kept(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Buffers (running statistics) afterwards as they were before."""
    held = {part: dict(part._buffers) for part in parts}
    values = [(one, one.detach().clone()) for buffers in held.values() for one in buffers.values() if one is not None]
    try:
        yield
    finally:
        for part, buffers in held.items():
            # Another tensor may have taken a buffer's place, or filled a None.
            for name in [name for name, one in part._buffers.items() if one is not buffers.get(name)]:
                setattr(part, name, buffers.get(name))
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)
