"""The first number that is not finite: in which module, by which operator, at which step and batch it came about.

A loss that is not finite is met before its way back, a gradient before its update: the weights are those that made it.
So the cause is looked for at once: in the inputs, in the weights, then in a second pass through the same inputs with
the same random numbers, operator by operator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import maybe_current_level
from torch.autograd.graph import GradientEdge, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradlab.watching.ears import Hook
from gradlab.watching.graph import graph

MOST_CALLS = 16
"""Calls of a step whose inputs are kept: micro-batches, the halves of a GAN."""


MOST_NAMED = 8
"""Operators of a loss that are named."""


@dataclass(frozen=True)
class Found:
    """Where the first number that is not finite came about.

    ``place`` is "inputs", "targets", "weights", "forward", "loss", "backward" or "gradient" (no more is known than what
    broke).
    """

    step: int
    batch: int
    place: str
    module: str | None
    operator: str | None
    what: str

    @property
    def sentence(self) -> str:
        """In words."""
        return f"step {self.step}, batch {self.batch}: the first number that is not finite: {self.what}"

    def stored(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self) | {"sentence": self.sentence}


@dataclass(frozen=True)
class Made:
    """A call from outside: which part was called with what, under which random numbers, and what it put out."""

    part: nn.Module
    given: tuple[Any, ...]
    named: Mapping[str, Any]
    random: Tensor
    autocast: torch.dtype | None
    outputs: list[tuple[Node, int]] = field(default_factory=list)
    came: dict[int, Tensor] = field(default_factory=dict)


class Calls:
    """The calls of a module since its last step, by hooks on it and on its children: a script may call these."""

    def __init__(self, module: nn.Module) -> None:
        self.made: deque[Made] = deque(maxlen=MOST_CALLS)
        self._hooks = ExitStack()
        self._inside: nn.Module | None = None
        for part in (module, *module.children()):
            if not isinstance(part, torch.jit.ScriptModule):
                before = part.register_forward_pre_hook(Hook(self._enters), with_kwargs=True)
                after = part.register_forward_hook(Hook(self._leaves), always_call=True)
                self._hooks.callback(before.remove)
                self._hooks.callback(after.remove)

    def stop(self) -> None:
        """No hook stays."""
        self._hooks.close()
        self.made.clear()

    def _enters(self, part: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._inside is None and torch.is_grad_enabled() and maybe_current_level() is None:
            self._inside = part
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            self.made.append(Made(part, given, named, torch.get_rng_state(), dtype))

    def _leaves(self, part: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        if part is self._inside:
            self._inside = None
            self.made[-1].outputs.extend(
                (one.grad_fn, one.output_nr)
                for one in tree_leaves(output)
                if isinstance(one, Tensor) and one.grad_fn is not None
            )

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """While it lasts, what comes back to each output is kept."""
        with ExitStack() as hooks:
            for made in self.made:
                for place, (node, slot) in enumerate(made.outputs):
                    hooks.callback(node.register_prehook(partial(_note, made, place, slot)).remove)
            yield


def _note(made: Made, place: int, slot: int, gradients: tuple[Tensor | None, ...]) -> None:
    found = gradients[slot]
    if found is not None:
        made.came[place] = found


def of_loss(loss: Tensor, module: nn.Module, names: Mapping[nn.Module, str], calls: Sequence[Made]) -> Sighting:
    """Why a loss is not finite; its way back has not been gone yet."""
    found = in_inputs(calls) or in_weights(module)
    for made in calls:
        found = found or _forward(made, module, names)
    if found is not None:
        return found
    operator, target = _in_loss(loss, calls)
    if isinstance(target, Tensor) and not _finite(target):
        return Sighting("targets", None, None, f"in the targets: {_counted(target)}")
    return Sighting("loss", None, operator, f"in the loss, made by {operator} outside the module")


def of_gradients(
    loss: Tensor, module: nn.Module, names: Mapping[nn.Module, str], calls: Sequence[Made], broken: Sequence[str]
) -> Sighting:
    """Why a gradient is not finite although its loss is; ``broken`` are the parameters that have such a one."""
    for made in calls:
        for came in made.came.values():
            if not _finite(came):
                chain = _chain(loss, calls)
                return Sighting(
                    "loss", None, chain, f"on the way back through the loss ({chain}), before it reaches the module"
                )
    for made in calls:
        found = _backward(made, module, names)
        if found is not None:
            return found
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return Sighting("gradient", broken[-1], None, f"the gradient of {broken[-1]}{more}")


@dataclass(frozen=True)
class Sighting:
    """What `Found` says but for when."""

    place: str
    module: str | None
    operator: str | None
    what: str

    def at(self, step: int, batch: int) -> Found:
        """With when."""
        return Found(step, batch, self.place, self.module, self.operator, self.what)


def in_inputs(calls: Sequence[Made]) -> Sighting | None:
    """Numbers of the inputs themselves."""
    for made in calls:
        for one in tree_leaves((made.given, dict(made.named))):
            if isinstance(one, Tensor) and not _finite(one):
                return Sighting("inputs", None, None, f"in the inputs: {_counted(one)}")
    return None


def _counted(tensor: Tensor) -> str:
    """How many numbers of a batch are not finite, and where the first of them is."""
    bad = ~torch.isfinite(tensor)
    where = f", first in sample {int(bad.nonzero()[0][0])} of the batch" if tensor.dim() else ""
    return f"{int(bad.sum())} of {tensor.numel()} numbers are {_kind(tensor)}{where}"


def in_weights(module: nn.Module) -> Sighting | None:
    """Weights that an update has spoilt."""
    for name, parameter in module.named_parameters():
        if not _finite(parameter):
            what = f"in the weights: {name} holds {_kind(parameter)} since an update before"
            return Sighting("weights", name, None, what)
    return None


def _finite(one: Tensor) -> bool:
    if not (one.is_floating_point() or one.is_complex()) or one.is_sparse:
        return True
    return bool(torch.isfinite(one.detach()).all())


def _kind(one: Tensor) -> str:
    return "NaN" if bool(torch.isnan(one.detach()).any()) else "infinite"


class _Operators(TorchDispatchMode):
    """Finds the first operator that makes a number that is not finite of finite ones; else the first that makes a NaN.

    What is filled with infinities on purpose, as a mask is, is no such operator.
    """

    def __init__(self, inside: list[nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = inside
        self.found: tuple[str, nn.Module | None, Tensor] | None = None
        self.nan: tuple[str, nn.Module | None, Tensor] | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = tree_leaves((args, kwargs or {}))
        whole = all(_finite(one) for one in given if isinstance(one, Tensor))
        filled = any(isinstance(one, float) and not math.isfinite(one) for one in given)
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if self.found is None and not filled and not name.startswith(("empty", "new_empty")):
            for one in tree_leaves(output):
                if isinstance(one, Tensor) and not _finite(one):
                    seen = name, self.inside[-1] if self.inside else None, one.detach().clone()
                    self.found = seen if whole else None
                    self.nan = self.nan or (seen if bool(one.isnan().any()) else None)
                    break
        return output


@contextmanager
def _again(made: Made, module: nn.Module) -> Iterator[list[nn.Module]]:
    """Inside, a second pass is as the first was, and leaves no trace; gives the stack of modules that are running."""
    inside: list[nn.Module] = []
    autocast = nullcontext() if made.autocast is None else torch.autocast("cpu", dtype=made.autocast)
    with ExitStack() as hooks, torch.random.fork_rng(devices=[]), torch.enable_grad(), autocast:
        torch.set_rng_state(made.random)
        for part in module.modules():
            if not isinstance(part, torch.jit.ScriptModule):
                hooks.callback(part.register_forward_pre_hook(lambda one, _: inside.append(one), prepend=True).remove)
                hooks.callback(part.register_forward_hook(lambda *_: _popped(inside), always_call=True).remove)
        yield inside


def _call(made: Made) -> Any:
    """The call once more, on copies of its buffers: those of the first pass may be wanted on its way back."""
    buffers = {name: buffer.detach().clone() for name, buffer in made.part.named_buffers()}
    return torch.func.functional_call(made.part, buffers, made.given, dict(made.named))


def _popped(inside: list[nn.Module]) -> None:
    inside.pop()


def _named(part: nn.Module | None, names: Mapping[nn.Module, str]) -> str | None:
    return None if part is None else names.get(part) or type(part).__name__


def _forward(made: Made, module: nn.Module, names: Mapping[nn.Module, str]) -> Sighting | None:
    """The operator of the way there that makes it."""
    with _again(made, module) as inside, _Operators(inside) as seen:
        _call(made)
    first = seen.found or seen.nan
    if first is None:
        return None
    operator, part, output = first
    name = _named(part, names)
    return Sighting("forward", name, operator, f"{operator} in {name} makes {_kind(output)}")


def _backward(made: Made, module: nn.Module, names: Mapping[nn.Module, str]) -> Sighting | None:
    """The operator whose way back makes it, of what came back to the outputs."""
    spans: list[tuple[int, int, nn.Module]] = []
    starts: list[int] = []
    with ExitStack() as hooks, _again(made, module):
        for part in module.modules():
            if not isinstance(part, torch.jit.ScriptModule):
                hooks.callback(part.register_forward_pre_hook(lambda *_: starts.append(_now())).remove)
                hooks.callback(
                    part.register_forward_hook(lambda one, *_: spans.append((starts.pop(), _now(), one))).remove
                )
        output = _call(made)
    outputs = [one for one in tree_leaves(output) if isinstance(one, Tensor) and one.grad_fn is not None]
    pairs = [(outputs[place], came) for place, came in made.came.items() if place < len(outputs)]
    wanted = [one for one in module.parameters() if one.requires_grad]
    if not pairs or not wanted:
        return None
    found: list[Node] = []
    nodes = {node for one, _ in pairs if one.grad_fn is not None for node in graph(one.grad_fn).order}
    with ExitStack() as hooks:
        for node in nodes:
            hooks.callback(node.register_hook(partial(_look, found, node)).remove)
        torch.autograd.grad([one for one, _ in pairs], wanted, [came for _, came in pairs], allow_unused=True)
    if not found:
        return None
    (node,) = found
    made_at = node._sequence_nr()
    around = [(end - start, place) for place, (start, end, _) in enumerate(spans) if start <= made_at <= end]
    name = _named(spans[min(around)[1]][2], names) if around else None
    operator = node.name()
    what = f"the way back through {operator} in {name} makes it of finite gradients"
    return Sighting("backward", name, operator, what)


def _all_finite(some: Sequence[Tensor | None]) -> bool:
    return all(one is None or _finite(one) for one in some)


def _now() -> int:
    """How many nodes autograd has made so far in this thread."""
    with torch.enable_grad():
        node = (torch.zeros((), requires_grad=True) * 1).grad_fn
    assert node is not None
    number: int = node._sequence_nr()
    return number


def _in_loss(loss: Tensor, calls: Sequence[Made]) -> tuple[str, Any]:
    """The operator outside the module that made a loss not finite, and its target where autograd keeps one.

    Its derivative is not finite either.
    """
    if loss.grad_fn is None:
        return "what made the loss", None
    edges = [GradientEdge(node, slot) for made in calls for node, slot in made.outputs]
    found: list[Node] = []
    with ExitStack() as hooks:
        for node in _outside(loss.grad_fn, calls):
            hooks.callback(node.register_hook(partial(_look, found, node)).remove)
        if edges:
            torch.autograd.grad(loss.sum(), edges, retain_graph=True, allow_unused=True)
    node = found[0] if found else loss.grad_fn
    return node.name(), getattr(node, "_saved_target", None)


def _look(found: list[Node], node: Node, made: tuple[Tensor | None, ...], came: tuple[Tensor | None, ...]) -> None:
    """Of the nodes of a way back the first that makes what is not finite of what is."""
    if not found and not _all_finite(made) and _all_finite(came):
        found.append(node)


def _outside(start: Node, calls: Sequence[Made]) -> list[Node]:
    """The nodes between a loss and the outputs of the module, from the loss on."""
    ends = {node for made in calls for node, _ in made.outputs}
    seen, stack = {start: None}, [start]
    while stack:
        for below, _ in stack.pop().next_functions:
            if below is not None and below not in seen and below not in ends:
                seen[below] = None
                stack.append(below)
    return list(seen)


def _chain(loss: Tensor, calls: Sequence[Made]) -> str:
    """The operators of a loss, from its end on."""
    nodes = [] if loss.grad_fn is None else _outside(loss.grad_fn, calls)
    return ", ".join(list(dict.fromkeys(node.name() for node in nodes))[:MOST_NAMED])
