"""A cohort made ready: the stacked network, its data on the device, and each member's own numbers as columns.

Shapes: M members, P parameters a member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradlab.data.dataset import Dataset
from gradlab.engine.lent import lend
from gradlab.engine.optim.clippers import Clipping, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, Rates, State, Step, rates
from gradlab.engine.optim.schedules import Pace, pace
from gradlab.engine.precision import FORMATS, moved
from gradlab.engine.pretraining import UNHEARD, Heard
from gradlab.engine.task import Task, task_of
from gradlab.engine.ways import Own, Way, own
from gradlab.models import Architecture
from gradlab.nn.kernels.calls import serves
from gradlab.nn.losses import Loss
from gradlab.nn.network import Network, assemble
from gradlab.nn.slots import Layout
from gradlab.spec.run import RunSpec


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
        """Whether an update of all parameters is one of each layer's, by a kernel on a CPU."""
        if self.parameters.is_cuda or self.made is not None or self.rates.factors:
            return False
        kernel = OPTIMIZERS[self.runs[0].optim.name].kernel
        return self.layout.is_layers and kernel is not None and serves(self.parameters)

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
