"""The per-layer table of one step of a training: hooks on every part, from the step before until its update.

The training itself is not touched: the same operators run on the same numbers, and hooks only look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import maybe_current_level
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from gradlab.watching.backward import Heard, hear
from gradlab.watching.calls import Call
from gradlab.watching.course import local, sharded
from gradlab.watching.ears import Hook, Scale, compiles
from gradlab.watching.entries import square
from gradlab.watching.facts import Losses, losses_behind
from gradlab.watching.graph import Graph, behind, graph
from gradlab.watching.merging import added, unscaled
from gradlab.watching.observed import audible
from gradlab.watching.operators import Operators
from gradlab.watching.recurrence import time_rows
from gradlab.watching.rows import Layer, Row, depth_rows, input_row, owned, parameters_of, parts_of, precision
from gradlab.watching.tape import Tape
from gradlab.watching.told import feeders, of_batch, parameters_among, strangers, told


class Eager:
    """Compiled code runs as it was written while somebody records: of several runs until the last has let go."""

    def __init__(self) -> None:
        self._holders: set[int] = set()
        self._stance: Any = None

    def hold(self, recording: Recording) -> None:
        """From here on, if it is not so already."""
        if not self._holders:
            self._stance = torch.compiler.set_stance("force_eager")
        self._holders.add(id(recording))

    def release(self, recording: Recording) -> None:
        """No longer for this one."""
        if id(recording) in self._holders:
            self._holders.discard(id(recording))
            if not self._holders:
                self._stance.__exit__(None, None, None)


_EAGER = Eager()


class Recording:
    """What one step of a training leaves: its rows, once the update is made.

    A step may have several ways back (micro-batches, losses): squares of what came back to a layer add up, and where
    two losses come back to one call, so do the gradients themselves.
    """

    def __init__(self, root: nn.Module, names: Mapping[nn.Module, str]) -> None:
        self.root = root
        self.tape = Tape(names, 0)
        self.input: Row | None = None
        self.told: dict[str, Any] = {}
        self.precision = "float32"
        self.samples = 0
        self._hooks, self._way = ExitStack(), ExitStack()
        self._open: list[nn.Module] = []
        self._mode: Operators | None = None
        self._heard: Heard | None = None
        self._chosen: dict[nn.Module, list[Call]] = {}
        self._scale: Scale = 1.0
        self._again = False
        self._before: dict[Tensor, Tensor] = {}
        self._layers: list[Layer] = []
        self._parts: list[Any] = []
        self._given: list[Node] = []
        self.strangers: list[nn.Parameter] = []
        self.feeders: list[nn.Parameter] = []
        # Those of a network that this one judges while it stands still itself.
        self.judged: list[nn.Parameter] = []
        self._output: Any = None
        self._losses = Losses()
        self.drop()

    def drop(self) -> None:
        """The gradients were set to zero: what was gathered of them counts no more."""
        self._rows: dict[str, Row] = {}
        self._times: list[Row] = []
        self._passes: dict[str, int] = {}
        self._met: set[int] = set()
        self._kept: dict[tuple[Node, int], Tensor] = {}
        self.samples = 0
        self._judged: list[str] = []

    @property
    def ways(self) -> int:
        """How many ways back a loss of this step was made of; 1 where they were of several kinds."""
        return len(self._judged) if len(set(self._judged)) == 1 else 1

    def start(self) -> None:
        """Hooks on every part; what is compiled runs as it was written meanwhile."""
        self._hear(self.tape.names)
        self.as_written()

    def _hear(self, parts: Iterable[nn.Module]) -> None:
        for part in parts:
            if not isinstance(part, torch.jit.ScriptModule):
                hooks = (
                    part.register_forward_pre_hook(Hook(self._enters), prepend=True, with_kwargs=True),
                    part.register_forward_hook(Hook(self._leaves), with_kwargs=True, always_call=True),
                )
                for hook in hooks:
                    self._hooks.callback(hook.remove)

    def _hear_new(self) -> None:
        """A network may have been given other parts since its optimizer was made: a new head."""
        new = {part: name for part, name in audible(self.root).items() if part not in self.tape.names}
        self.tape.names = {**self.tape.names, **new}
        self._hear(new)

    def as_written(self) -> None:
        """Lets compiled code run as it was written: it calls no hooks."""
        if compiles():
            _EAGER.hold(self)

    def stop(self) -> None:
        """No hook stays."""
        self._way.close()
        self._hooks.close()
        self._close()
        _EAGER.release(self)

    def _enters(self, part: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        # What runs during a way back is a checkpoint's second pass; what torch.func transforms holds no numbers.
        if self._heard is not None or maybe_current_level() is not None:
            return
        # Without gradients nothing is trained.
        if not torch.is_grad_enabled():
            # But inside a network it may be a reentrant checkpoint's first pass: the layer has weights, and no signal.
            if self._open and any(one is not None and one.requires_grad for one in part._parameters.values()):
                self.tape.order.setdefault(part, len(self.tape.order))
            return
        if not self._open:
            self._hear_new()
            leaves = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
            parts = [one for one in leaves if one.dim()]
            self.tape.samples = len(parts[0]) if parts else 0
            self._parts = self._parts or [part.detach() for part in parts]
            self._given = [one.grad_fn for one in leaves if one.grad_fn is not None]
            if self._given and not any(one.requires_grad for one in self.root.parameters()):
                self.judged = parameters_among(behind(self._given))
            if self.input is None and parts and parts[0].is_floating_point() and parts[0].numel():
                self.input = input_row(parts[0], None)
            self._mode = Operators(self.tape)
            self._mode.__enter__()
        self._open.append(part)
        self.tape.before(part, given, named)

    def _leaves(self, part: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if not self._open or self._open[-1] is not part:
            return
        self.tape.after(part, given, named, output)
        self._open.pop()
        if not self._open:
            self.tape.over()
            self._close()
            self._output = output

    def _close(self) -> None:
        self._open.clear()
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None

    def before_backward(self, loss: Tensor, scale: Scale, *, again: bool) -> None:
        """Listens to the way back from ``loss``, where it leads to one of the layers."""
        if loss.grad_fn is None or not self.tape.calls:
            return
        ways, severed = graph(loss.grad_fn), behind(node for node, _ in self.tape.cuts)
        chosen = {
            part: [call for call in calls if _within(call, ways, severed)] for part, calls in self.tape.calls.items()
        }
        if not any(chosen.values()):
            return
        self._judged.append(loss.grad_fn.name())
        layers = self._layers = owned(parts_of(self.root), self.tape)
        self._heard = Heard(ways, self.tape, [chosen.get(layer.module, []) if layer.calls else [] for layer in layers])
        self._heard.kept = self._kept if again or self._kept else None
        if not self.told:
            self._losses = losses_behind(loss.grad_fn, float(loss.detach().sum()) / float(scale))
            self.told = {"batch": of_batch(self._parts, self._output, loss.grad_fn)}
            if not sharded(self.root):
                own = parameters_of(parts_of(self.root))
                self.strangers = strangers(own, ways, self._output, self._given)
            self._output = None
        if self._given and not sharded(self.root):
            self.feeders += feeders(parameters_of(parts_of(self.root)), ways, self._given)
        self._given = []
        self._chosen, self._scale, self._again = chosen, scale, again
        self._way.enter_context(hear(self._heard))

    def after_backward(self) -> None:
        """Makes rows of what was heard, and adds them to those of the ways back before."""
        self._way.close()
        heard, self._heard = self._heard, None
        if heard is None:
            return
        # Parameters that were gathered for the way (FSDP) have gone again.
        gathered = any(local(one) is not one for one in self.root.parameters())
        layers = owned(parts_of(self.root), self.tape) if gathered else self._layers
        self.precision = precision(parts_of(self.root), layers)
        gradients: dict[Any, Tensor | None] = {}
        for layer in layers:
            layer.calls = self._chosen.get(layer.module, []) if layer.calls else []
            for parameter in layer.parameters:
                if parameter.requires_grad:
                    gradients[parameter] = None if parameter.grad is None else parameter.grad
        if "batch" in self.told:
            batch = self.told["batch"]
            self.told = told(parameters_of(parts_of(self.root)), layers, heard, gradients, self._losses)
            self._losses.unscale(float(self._scale))
            self.told["facts"] |= batch
        self.samples += self.tape.samples
        here = [_localised(layer, gradients) for layer in layers]
        for layer, row in zip(layers, depth_rows(here, heard, gradients), strict=True):
            again = any(id(call) in self._met for call in layer.calls)
            self._take(unscaled(row, self._scale), again=again)
        self._take_times([unscaled(row, self._scale) for row in time_rows(layers, heard)])
        for calls in self.tape.sequences.values():
            calls[:] = [one for one in calls if not one.came or self._again]
        if self._again:
            self._met.update(id(call) for calls in self._chosen.values() for call in calls)
        else:
            self._spend()
        self._layers = layers

    def _spend(self) -> None:
        """What came back once comes back no more."""
        for part, calls in self._chosen.items():
            spent = set(map(id, calls))
            self.tape.calls[part] = [call for call in self.tape.calls[part] if id(call) not in spent]

    def _take_times(self, times: list[Row]) -> None:
        if len(self._times) == len(times):
            times = [added(old, new, 1) for old, new in zip(self._times, times, strict=True)]
        self._times = times or self._times

    def _take(self, row: Row, *, again: bool) -> None:
        """A row of this way back; ``again``: what came back before has come back once more, added up already."""
        name = row["name"]
        old, passes = self._rows.get(name), self._passes.get(name, 0)
        if old is None or old["calls"] == 0 or (again and row["calls"]):
            self._rows[name] = row
            self._passes[name] = 1
        elif row["calls"] == 0:
            self._rows[name] = old | row | {"calls": old["calls"]}
        else:
            self._rows[name] = added(old, row, passes)
            self._passes[name] = passes + 1

    def before_update(self) -> None:
        """Keeps the weights, to see how far they go."""
        weights = [one for layer in self._layers or owned(parts_of(self.root), self.tape) for one in layer.parameters]
        self._before = {one: local(one).detach().clone() for one in weights if one.dim() > 1}

    def gradients_ready(self, scale: Scale, *, untouched: bool) -> None:
        """The norms of the gradients that the update takes; ``untouched``: they are those that came back."""
        for layer in self._layers:
            row = self._rows[layer.name]
            if untouched:
                row |= {"grad_norm_clipped": row["grad_norm"]} if "grad_norm" in row else {}
                continue
            known = [local(one.grad) for one in layer.parameters if one.grad is not None]
            if known:
                found = math.sqrt(sum(map(square, known)))
                row["grad_norm_clipped"] = found / float(scale)

    def after_update(self) -> None:
        """How far the weights went, of their norm."""
        for layer in self._layers:
            weights = [one for one in layer.parameters if one in self._before]
            norm = self._rows[layer.name].get("weight_norm", 0.0)
            if norm > 0 and weights:
                moved = sum(square(local(one).detach() - self._before[one]) for one in weights)
                self._rows[layer.name]["update_ratio"] = math.sqrt(moved) / norm
        self._before = {}

    def rows(self) -> list[Row]:
        """The rows of the step, layer by layer."""
        depth = sorted(self._rows.values(), key=lambda row: row["layer"])
        return [*([self.input] if self.input is not None and depth else []), *depth, *self._times]


def _within(call: Call, ways: Graph, severed: set[Node]) -> bool:
    """Whether a call lies on the ways back from a loss, or where none comes."""
    signals = [signal for signal in (call.raw, call.normed) if signal is not None]
    return any(one.node is None or one.node in ways.place or one.node in severed for one in signals)


def _localised(layer: Layer, gradients: dict[Any, Tensor | None]) -> Layer:
    """A layer with the parts that lie here in the place of parameters that lie on several processes."""
    here: dict[Any, Any] = {one: local(one) for one in layer.parameters}
    for parameter, part in here.items():
        if part is not parameter and parameter in gradients:
            grad = gradients.pop(parameter)
            gradients[part] = None if grad is None else local(grad)
    return replace(
        layer, parameters=[here[one] for one in layer.parameters], gates=[here.get(one, one) for one in layer.gates]
    )
