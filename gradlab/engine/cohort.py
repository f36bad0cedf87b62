"""A cohort made ready: the stacked network, its data on the device, and each member's own numbers as columns.

Shapes: M members, B batch, N samples, S steps, P parameters a member.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.batches import batches
from gradlab.data.dataset import Dataset
from gradlab.engine.optim.clippers import Clipping, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, Rates, State, Step, rates
from gradlab.engine.optim.schedules import Pace, pace
from gradlab.grid.cohorts import HELDOUT_SAMPLES
from gradlab.models import MODELS, Architecture
from gradlab.nn.initializers import initial_parameters, initialised
from gradlab.nn.losses import LOSSES, Loss, Targets
from gradlab.nn.lsuv import Scaling
from gradlab.nn.network import Network, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.products import take
from gradlab.nn.slots import Layout
from gradlab.spec.run import RunSpec

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Task:
    """Data on the device: inputs (N, *shape), targets (N,) classes or (N, K), and which samples each step takes (S, B).

    ``input_scale`` and ``target_scale`` are (M,); ``chosen`` (B,) are the samples of the step at hand,
    which comes after ``done`` (1,) others.
    """

    inputs: Tensor
    targets: Tensor
    heldout_inputs: Tensor
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

    def heldout(self) -> Iterator[tuple[Tensor, Targets]]:
        """The held-out part in pieces, as `batch` gives them."""
        for chosen in torch.arange(len(self.heldout_inputs), device=self.chosen.device).split(HELDOUT_SAMPLES):
            targets = Targets(self.heldout_targets, chosen, self.target_scale)
            yield take(self.heldout_inputs, chosen, self.input_scale), targets


@dataclass(frozen=True)
class Cohort:
    """M runs as one stacked network, and all that a step needs.

    ``beside``: tensors (M, ...) that the runs' instrument changes from one reading to the next.
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

    @property
    def _moving(self) -> dict[str, Tensor]:
        found = {"parameters": self.parameters}
        found |= {f"optimizer.{name}": buffer for name, buffer in self.state.items()} | self.pace.moving
        for layer, running in self.network.running.items():
            found |= {f"{layer}.running_mean": running.mean, f"{layer}.running_var": running.var}
        return found

    @property
    def moving(self) -> tuple[Tensor, ...]:
        """All that a step changes, in place: parameters (M, P), optimizer buffers, plateaus, running statistics."""
        return tuple(self._moving.values())

    @property
    def remembered(self) -> dict[str, Tensor]:
        """By name, (M, ...) each, all that the next step depends on: `moving`, and what is `beside`."""
        return self._moving | {f"instrument.{name}": tensor for name, tensor in self.beside.items()}


def prepare(runs: Sequence[RunSpec], data: Dataset, device: torch.device) -> Cohort:
    """The cohort of ``runs``, which must share every key but those of `cohorts.WITHIN`, at its initial weights."""
    first = runs[0]
    dtype = DTYPES[first.train.precision]
    architecture = MODELS[first.model.name]
    layout = architecture.layout(first.model, first.facts)
    parameters = initial_parameters(layout, runs, dtype).to(device)
    columns = rates(runs, parameters)
    optimizer = OPTIMIZERS[first.optim.name]
    network, task = assemble(first.model, layout, parameters), _task(runs, data, dtype, device)
    _scale_by_data(runs, architecture, network, task)
    return Cohort(
        runs=tuple(runs),
        architecture=architecture,
        layout=layout,
        network=network,
        parameters=parameters,
        task=task,
        loss=LOSSES[first.facts.loss],
        clipping=clipping(runs, parameters),
        optimize=optimizer.update,
        rates=columns,
        pace=pace(runs, columns.lr),
        state=optimizer.state(parameters, columns),
    )


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
        network=assemble(first.model, cohort.layout, parameters),
        parameters=parameters,
        pace=cohort.pace.afresh(),
        state=OPTIMIZERS[first.optim.name].state(parameters, cohort.rates),
        beside={},
    )


def _task(runs: Sequence[RunSpec], data: Dataset, dtype: torch.dtype, device: torch.device) -> Task:
    def to_device(array: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array).contiguous()
        return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    first = runs[0]
    order = to_device(batches(first.data, len(data.train_inputs), first.train.steps + 1))
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
