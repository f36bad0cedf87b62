"""What the runs of a cohort learn from: their data on the device, and the batches that their steps take.

Shapes: M members, B batch, N samples, S steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.data.batches import batches, with_bad_batches
from gradlab.data.dataset import Dataset, channels_last
from gradlab.engine.optim.schedules import row_of
from gradlab.grid.cohorts import HELDOUT_SAMPLES
from gradlab.models.module import COMPLEX
from gradlab.nn.losses import Targets
from gradlab.nn.products import take
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
