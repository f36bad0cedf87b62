"""A cohort made ready: the stacked network, its data on the device, and each member's own numbers as columns.

Shapes: M members, B batch, N samples, S steps, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradlab.data.batches import batches, with_bad_batches
from gradlab.data.dataset import Dataset, channels_last
from gradlab.engine.lent import lend
from gradlab.engine.optim.clippers import Clipping, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, Rates, State, Step, rates
from gradlab.engine.optim.schedules import Pace, pace, row_of
from gradlab.engine.precision import FORMATS, moved
from gradlab.engine.pretraining import UNHEARD, Heard
from gradlab.engine.ways import Own, Way, own
from gradlab.grid.cohorts import HELDOUT_SAMPLES
from gradlab.models import Architecture
from gradlab.models.module import COMPLEX
from gradlab.nn.kernels.program import serves
from gradlab.nn.losses import Loss, Targets
from gradlab.nn.network import Network, assemble
from gradlab.nn.products import take
from gradlab.nn.slots import Layout
from gradlab.spec.run import RunSpec

LEAST_HELDOUT = 32
"""Held-out samples at a time on a GPU, where a batch is smaller than half of it."""


@dataclass(frozen=True)
class Task:
    """Data on the device: inputs (N, *shape), targets (N,) classes or (N, K), and which samples each step takes (S, B).

    Of a user's own data inputs may be several, a tuple of them or a mapping: `of_member` takes those.
    ``input_scale`` and ``target_scale`` are (M,); ``chosen`` (B,) are the samples of the step at hand,
    which comes after ``done`` (1,) others.
    """

    inputs: Any
    targets: Tensor
    heldout_inputs: Any
    heldout_targets: Tensor
    order: Tensor
    chosen: Tensor
    done: Tensor
    input_scale: Tensor
    target_scale: Tensor

    @property
    def turning(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """What `turn_to` sets, and what it sets it to at each step."""
        count = torch.arange(len(self.order), dtype=self.done.dtype, device=self.done.device)
        return ((self.chosen, self.order), (self.done, count.unsqueeze(1)))

    def turn_to(self, t: int | Tensor) -> None:
        """Chooses the samples of step t, as in `row_of`."""
        self.chosen.copy_(row_of(self.order, t))
        if isinstance(t, Tensor):
            self.done.copy_(t)
        else:
            self.done.fill_(t)

    def batch(self) -> tuple[Tensor, Targets]:
        """The chosen samples: inputs (M, B, *shape), scaled for each member, and their targets."""
        targets = Targets(self.targets, self.chosen, self.target_scale)
        return take(self.inputs, self.chosen, self.input_scale), targets

    def of_member(self, member: int, chosen: Tensor | None = None) -> tuple[Any, Tensor]:
        """Inputs (B, *shape), or several of them, and targets of one member: of the step, or those held out."""
        inputs, targets = (self.inputs, self.targets) if chosen is None else (self.heldout_inputs, self.heldout_targets)
        taken = targets[self.chosen if chosen is None else chosen]
        if taken.is_floating_point():
            taken = taken * self.target_scale[member]
        return self._taken(inputs, self.chosen if chosen is None else chosen, member), taken

    def _taken(self, inputs: Any, chosen: Tensor, member: int) -> Any:
        if isinstance(inputs, Mapping):
            return {name: self._taken(part, chosen, member) for name, part in inputs.items()}
        if isinstance(inputs, tuple):
            return tuple(self._taken(part, chosen, member) for part in inputs)
        taken = inputs[chosen]
        whole = not (taken.is_floating_point() or taken.is_complex())
        return taken if whole or self.input_scale[member] == 1 else taken * self.input_scale[member]

    def heldout_parts(self) -> Sequence[Tensor]:
        """The numbers of the held-out samples, in pieces."""
        every = torch.arange(len(self.heldout_targets), device=self.chosen.device)
        # By torch alone a pass takes several times what it does by our kernels, which is what a piece is planned for.
        few = max(LEAST_HELDOUT, 2 * len(self.chosen)) if self.chosen.is_cuda else HELDOUT_SAMPLES
        parts: Sequence[Tensor] = every.split(min(few, HELDOUT_SAMPLES))
        return parts

    def heldout(self) -> Iterator[tuple[Tensor, Targets]]:
        """The held-out part in pieces, as `batch` gives them."""
        for chosen in self.heldout_parts():
            targets = Targets(self.heldout_targets, chosen, self.target_scale)
            yield take(self.heldout_inputs, chosen, self.input_scale), targets


@dataclass(frozen=True)
class Cohort:
    """M runs, the way of their networks there and back, and all that a step needs.

    ``beside``: tensors (M, ...) that the runs' instrument changes from one reading to the next. ``made`` (M, 1) counts
    each member's updates where some may be left out, else it is None.
    """

    runs: tuple[RunSpec, ...]
    way: Way
    task: Task
    clipping: Clipping
    optimize: Step
    rates: Rates
    pace: Pace
    state: State
    beside: dict[str, Tensor] = field(default_factory=dict)
    made: Tensor | None = None

    @property
    def by_layers(self) -> bool:
        """Whether an update of all parameters is one of each layer's, by a kernel."""
        optimizer, plain = OPTIMIZERS[self.runs[0].optim.name], self.made is None and not self.rates.factors
        return plain and self.layout.is_layers and optimizer.kernel is not None and serves(self.parameters)

    @property
    def layout(self) -> Layout:
        """How the parameters lie."""
        return self.way.layout

    @property
    def parameters(self) -> Tensor:
        """What is trained, (M, P)."""
        return self.way.parameters

    @property
    def architecture(self) -> Architecture:
        """Of gradlab's own networks, into which instruments look."""
        return self._own.architecture

    @property
    def network(self) -> Network:
        """Of gradlab's own."""
        return self._own.network

    @property
    def loss(self) -> Loss:
        """Of gradlab's own."""
        return self._own.loss

    @property
    def _own(self) -> Own:
        if not isinstance(self.way, Own):
            raise TypeError(f"{self.runs[0].model.target}: nobody knows the inside of a network of the user's own")
        return self.way

    @property
    def _moving(self) -> dict[str, Tensor]:
        found = {"parameters": self.parameters}
        found |= {f"optimizer.{name}": buffer for name, buffer in self.state.items()} | self.pace.moving
        found |= self.way.moving
        if self.made is not None:
            found["made"] = self.made
        return found | {f"clipping.{name}": tensor for name, tensor in self.clipping.memory.items()}

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """All that a step changes, in place: parameters (M, P), optimizer buffers, plateaus, running statistics."""
        return tuple(self._moving.values())

    @property
    def remembered(self) -> dict[str, Tensor]:
        """By name, (M, ...) each, all that the next step depends on: `moving`, and what is `beside`."""
        return self._moving | {f"instrument.{name}": tensor for name, tensor in self.beside.items()}


def prepare(
    runs: Sequence[RunSpec], data: Dataset, device: torch.device, heard: Heard = UNHEARD, *, stacked: bool = False
) -> Cohort:
    """The cohort of ``runs``, which must share every key but those of `cohorts.WITHIN`, at its initial weights.

    ``heard``: who hears of what may come before those, and keeps it. ``stacked``: networks of the user's own are
    trained as one, as gradlab's own always are.
    """
    first = runs[0]
    dtype = FORMATS[first.train.precision].beside
    task = task_of(runs, data, dtype, device)
    lent = first.model.free
    way: Way = lend(runs, task, device, stacked=stacked) if lent else own(runs, task, device, heard)
    columns = rates(runs, task.input_scale, way.layout)
    optimizer = OPTIMIZERS[first.optim.name]
    return Cohort(
        runs=tuple(runs),
        way=way,
        task=task,
        clipping=clipping(runs, way.parameters, task.done, way.gradient),
        optimize=optimizer.update,
        rates=columns,
        pace=pace(runs, columns.lr),
        state=optimizer.state(moved(runs, way.parameters), columns),
        made=_made(runs, device),
    )


def _made(runs: Sequence[RunSpec], device: torch.device) -> Tensor | None:
    may_skip = runs[0].train.loss_scale == "dynamic" or any(run.clip.mode == "skip" for run in runs)
    return torch.zeros(len(runs), 1, dtype=torch.float64, device=device) if may_skip else None


def twin(cohort: Cohort, parameters: Tensor) -> Cohort:
    """The same runs at their first step, from the weights ``parameters`` (M, P); data and batches are shared."""
    first = cohort.runs[0]
    network = replace(assemble(first, cohort.layout, parameters), drops=cohort.network.drops)
    return replace(
        cohort,
        way=replace(cohort._own, network=network, parameters=parameters),
        pace=cohort.pace.afresh(),
        clipping=clipping(cohort.runs, parameters, cohort.task.done),
        state=OPTIMIZERS[first.optim.name].state(parameters, cohort.rates),
        beside={},
        made=_made(cohort.runs, parameters.device),
    )


def task_of(runs: Sequence[RunSpec], data: Dataset, dtype: torch.dtype, device: torch.device) -> Task:
    """The data of ``runs`` on the device, and the batches that their steps take."""

    def to_device(given: Any) -> Any:
        if isinstance(given, Mapping):
            return {name: to_device(part) for name, part in given.items()}
        if isinstance(given, tuple):
            return tuple(to_device(part) for part in given)
        tensor = torch.from_numpy(given).contiguous()
        kinds = {torch.float64: dtype, torch.complex128: COMPLEX[dtype]}
        return tensor.to(device, kinds.get(tensor.dtype, tensor.dtype))

    first = runs[0]
    data = channels_last(data) if first.facts.turned else data
    data, order = with_bad_batches(
        first.data, data, batches(first.data, len(data.train_targets), first.train.steps + 1)
    )
    rows = to_device(order)
    return Task(
        inputs=to_device(data.train_inputs),
        targets=to_device(data.train_targets),
        heldout_inputs=to_device(data.heldout_inputs),
        heldout_targets=to_device(data.heldout_targets),
        order=rows,
        chosen=torch.empty_like(rows[0]),
        done=torch.zeros(1, dtype=torch.float64, device=device),
        input_scale=torch.tensor([run.data.input_scale for run in runs], dtype=dtype, device=device),
        target_scale=torch.tensor([run.data.target_scale for run in runs], dtype=dtype, device=device),
    )
