"""A cohort made ready: the stacked network, its data on the device, and each member's own numbers as columns.

Shapes: M members, B batch, N samples, S steps, P parameters a member.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradlab.data.batches import batches
from gradlab.data.dataset import Dataset
from gradlab.engine.lent import Lent, lend
from gradlab.engine.optim.clippers import Clipping, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, Rates, State, Step, rates
from gradlab.engine.optim.schedules import Pace, pace
from gradlab.engine.precision import FORMATS, Scaled, of_cohort
from gradlab.grid.cohorts import HELDOUT_SAMPLES
from gradlab.models import MODELS, Architecture
from gradlab.models.module import COMPLEX
from gradlab.nn.initializers import initial_parameters, initialised
from gradlab.nn.losses import Loss, Targets
from gradlab.nn.losses import stacked as of_stack
from gradlab.nn.lsuv import Scaling
from gradlab.nn.network import Network, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.products import take
from gradlab.nn.slots import Layout
from gradlab.spec.choices import MODELS as NAMED_MODELS
from gradlab.spec.run import RunSpec
from gradlab.store.record import MEASURED_COLUMNS, PROBE_COLUMNS


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

    def turn_to(self, t: int) -> None:
        """Chooses the samples of step t."""
        self.chosen.copy_(self.order[t])
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
        parts: Sequence[Tensor] = every.split(HELDOUT_SAMPLES)
        return parts

    def heldout(self) -> Iterator[tuple[Tensor, Targets]]:
        """The held-out part in pieces, as `batch` gives them."""
        for chosen in self.heldout_parts():
            targets = Targets(self.heldout_targets, chosen, self.target_scale)
            yield take(self.heldout_inputs, chosen, self.input_scale), targets


@dataclass(frozen=True)
class Cohort:
    """M runs as one stacked network, and all that a step needs.

    ``beside``: tensors (M, ...) that the runs' instrument changes from one reading to the next. ``lent``: the networks,
    where they are the user's own; ``network`` then has no parts. ``half``: what there is beside in half precision.
    ``made`` (M, 1) counts each member's updates where some may be left out, else it is None.
    """

    runs: tuple[RunSpec, ...]
    architecture: Architecture
    layout: Layout
    network: Network
    parameters: Tensor
    task: Task
    loss: Loss
    clipping: Clipping
    optimize: Step
    rates: Rates
    pace: Pace
    state: State
    beside: dict[str, Tensor] = field(default_factory=dict)
    lent: Lent | None = None
    half: Scaled | None = None
    made: Tensor | None = None

    @property
    def gradient(self) -> Tensor:
        """(M, P), as it is clipped and measured."""
        return self.network.gradient if self.half is None else self.half.gradient

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the per-layer table."""
        return (*PROBE_COLUMNS, *(self.architecture.columns if self.lent is None else MEASURED_COLUMNS))

    @property
    def _moving(self) -> dict[str, Tensor]:
        found = {"parameters": self.parameters}
        found |= {f"optimizer.{name}": buffer for name, buffer in self.state.items()} | self.pace.moving
        for layer, running in self.network.running.items():
            found |= {f"{layer}.running_mean": running.mean, f"{layer}.running_var": running.var}
        found |= {f"clipping.{name}": tensor for name, tensor in self.clipping.memory.items()}
        if self.half is not None:
            found |= {f"loss.{name}": tensor for name, tensor in self.half.moving.items()}
        if self.made is not None:
            found["made"] = self.made
        if self.lent is not None:
            found |= {f"buffer.{name}": buffer for name, buffer in self.lent.shelf.buffers.items()}
        return found

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """All that a step changes, in place: parameters (M, P), optimizer buffers, plateaus, running statistics."""
        return tuple(self._moving.values())

    @property
    def remembered(self) -> dict[str, Tensor]:
        """By name, (M, ...) each, all that the next step depends on: `moving`, and what is `beside`."""
        return self._moving | {f"instrument.{name}": tensor for name, tensor in self.beside.items()}


def prepare(runs: Sequence[RunSpec], data: Dataset, device: torch.device, *, stacked: bool = False) -> Cohort:
    """The cohort of ``runs``, which must share every key but those of `cohorts.WITHIN`, at its initial weights.

    ``stacked``: networks of the user's own are trained as one, as gradlab's own always are.
    """
    first = runs[0]
    form, half = FORMATS[first.train.precision], None
    dtype = form.beside
    architecture, task = MODELS[first.model.name], task_of(runs, data, dtype, device)
    lent = lend(runs, task, dtype, device, stacked=stacked) if NAMED_MODELS[first.model.name].free else None
    if lent is not None:
        layout, parameters = lent.layout, lent.shelf.flat
        network = Network(first.model, first.facts, layout, {}, lent.shelf.gradient, {}, {})
    else:
        layout = architecture.layout(first.model, first.facts)
        parameters = initial_parameters(layout, runs, form.parameters).to(device)
        network, half = of_cohort(runs, layout, parameters)
    columns = rates(runs, task.input_scale, layout)
    optimizer = OPTIMIZERS[first.optim.name]
    if lent is None:
        _scale_by_data(runs, architecture, network, task)
    return Cohort(
        runs=tuple(runs),
        architecture=architecture,
        layout=layout,
        network=network,
        parameters=parameters,
        task=task,
        # A network of the user's own is judged by itself (`lent`), perhaps by a loss of the user's own.
        loss=of_stack(first.facts.loss if lent else first.loss, first.model.output, first.facts.loss),
        clipping=clipping(runs, parameters, task.done, None if half is None else half.gradient),
        optimize=optimizer.update,
        rates=columns,
        pace=pace(runs, columns.lr),
        state=optimizer.state(parameters, columns),
        lent=lent,
        half=half,
        made=_made(runs, device),
    )


def _made(runs: Sequence[RunSpec], device: torch.device) -> Tensor | None:
    may_skip = runs[0].train.loss_scale == "dynamic" or any(run.clip.mode == "skip" for run in runs)
    return torch.zeros(len(runs), 1, dtype=torch.float64, device=device) if may_skip else None


@torch.no_grad()
def _scale_by_data(runs: Sequence[RunSpec], architecture: Architecture, network: Network, task: Task) -> None:
    """What `lsuv` does to the weights of those ``runs`` that begin so, on the first batch."""
    gains = [abs(run.model.gain) if initialised(run.model) == "lsuv" else math.nan for run in runs]
    if all(map(math.isnan, gains)):
        return
    task.turn_to(0)
    wanted = torch.tensor(gains, dtype=torch.float64, device=task.chosen.device)
    through = Scaling(network, Mode.MEASURE, wanted=wanted)
    architecture.forward(through, through.input(task.batch()[0]))


def twin(cohort: Cohort, parameters: Tensor) -> Cohort:
    """The same runs at their first step, from the weights ``parameters`` (M, P); data and batches are shared."""
    first = cohort.runs[0]
    return replace(
        cohort,
        network=assemble(first, cohort.layout, parameters),
        parameters=parameters,
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
    order = to_device(batches(first.data, len(data.train_targets), first.train.steps + 1))
    return Task(
        inputs=to_device(data.train_inputs),
        targets=to_device(data.train_targets),
        heldout_inputs=to_device(data.heldout_inputs),
        heldout_targets=to_device(data.heldout_targets),
        order=order,
        chosen=torch.empty_like(order[0]),
        done=torch.zeros(1, dtype=torch.float64, device=device),
        input_scale=torch.tensor([run.data.input_scale for run in runs], dtype=dtype, device=device),
        target_scale=torch.tensor([run.data.target_scale for run in runs], dtype=dtype, device=device),
    )
