"""Networks of the user's own as the engine trains them: each by itself or all as one, heard at recorded steps.

What is heard is what `gradlab.measure` hears. Shapes: M members, B batch, P trained parameters a member, L layers,
R rows and C columns of the per-layer table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.engine.called import Judge, answer, judging, sow, tensor_of
from gradlab.engine.precision import FORMATS, Format, Scaled, beside, in_its_products
from gradlab.engine.probes import Measurement
from gradlab.engine.stacking import Stack, obstacle, stack_of, together
from gradlab.engine.task import Task
from gradlab.engine.tried import begun, looked_at
from gradlab.models.module import Shelf, fans, shelved
from gradlab.nn.losses import right
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.spec.choices import LOSSES
from gradlab.spec.run import RunSpec
from gradlab.store.arrays import Kept
from gradlab.store.columns import MEASURED_COLUMNS, PROBE_COLUMNS
from gradlab.store.record import Bools, Floats, Pretrained, Row
from gradlab.watching.observed import Observed, observe

COLUMNS = (*PROBE_COLUMNS, *MEASURED_COLUMNS)


@dataclass
class Lent:
    """M networks, how their parameters lie, which rows the per-layer table has, and how an output is judged.

    ``trained`` (L,): which layers have parameters that are. ``seen`` (M) is what was seen at the first recorded step;
    ``ended`` (M,) the step from which on a member is not trained any more, since something was not finite at it.
    ``form`` is that of the weights and the passes, and ``half`` what half precision has beside. ``stack``: the networks
    as one, where they are trained so between records.
    """

    shelf: Shelf
    layout: Layout
    rows: tuple[Row, ...]
    trained: Bools
    seeds: tuple[int, ...]
    judge: Judge
    classes: bool
    form: Format
    half: Scaled | None = None
    stack: Stack | None = None
    seen: tuple[str, ...] = ()
    pretrained: tuple[Pretrained, ...] = ()
    before: Kept | None = None
    rehearsable: bool = False
    ended: dict[int, int] = field(default_factory=dict)

    @property
    def parameters(self) -> Tensor:
        """See `ways.Way`."""
        return self.shelf.flat

    @property
    def gradient(self) -> Tensor:
        """See `ways.Way`; in half precision divided by the loss scale."""
        return self.shelf.gradient if self.half is None else self.half.gradient

    @property
    def moving(self) -> dict[str, Tensor]:
        """See `ways.Way`."""
        found = {} if self.half is None else {f"loss.{name}": tensor for name, tensor in self.half.moving.items()}
        return found | {f"buffer.{name}": buffer for name, buffer in self.shelf.buffers.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """See `ways.Way`."""
        return COLUMNS

    @in_its_products
    def there_and_back(self, task: Task, t: int, *, record: bool, last: bool) -> tuple[Tensor, Measurement | None]:
        """The losses (M,) at step t, and the per-layer table at a recorded one; the gradient is written in place.

        The last row is measured without touching buffers (running statistics).
        """
        if not record and self.stack is not None:
            losses = self._together(self.stack, task, t)
            self._leave()
            return losses, None
        losses = torch.full((len(self.seeds),), math.nan, dtype=torch.float64, device=self.shelf.flat.device)
        heard: list[Observed | None] = []
        kept = {name: buffer.clone() for name, buffer in self.shelf.buffers.items()} if last else {}
        for member, module in enumerate(self.shelf.modules):
            if t > self.ended.get(member, t):
                heard.append(None)
                continue
            inputs, targets = self._given(task, member)
            self.shelf.take_up(member)
            sow(self.seeds[member], t)
            if record:
                judged, there = partial(self._judged, targets), self.form.cast(self.shelf.flat.device)
                seen = observe(module, inputs, judged, scale=self._scale(member), there=there)
                heard.append(seen)
                loss = seen.loss
                found: Sequence[Tensor | None] = [seen.gradients[one] for one in self.shelf.parameters[member]]
            else:
                loss, found = self._quietly(member, inputs, targets)
            self.shelf.put_back(member)
            self.shelf.write(member, found)
            losses[member] = loss
            sound = self._may_overflow or bool(torch.isfinite(self.shelf.gradient[member]).all())
            if not math.isfinite(float(loss)) or not sound:
                self.ended[member] = t
        self._leave()
        for name, buffer in kept.items():
            self.shelf.buffers[name].copy_(buffer)
        if not record:
            return losses, None
        if not self.seen:
            self.seen = tuple(_as_text(one) for one in heard)
        return losses, self._table(heard)

    def _together(self, stack: Stack, task: Task, t: int) -> Tensor:
        """The losses (M,) of all members at once; the gradient of one that has ended stays as it was."""
        members = range(len(self.seeds))
        alike = all(bool((scale == scale[0]).all()) for scale in (task.input_scale, task.target_scale))
        given = [self._given(task, member) for member in (members if not alike else range(1))]
        inputs, targets = given[0] if alike else together(given)
        losses, gradient = stack.gradients(inputs, targets, alike=alike)
        losses = losses.double()
        sound = losses.isfinite() & (gradient.isfinite().all(1) | self._may_overflow)
        over = [member for member in members if t > self.ended.get(member, t)]
        gradient[over], losses[over] = self.shelf.gradient[over], math.nan
        self.shelf.gradient.copy_(gradient)
        self.ended |= {member: t for member, well in enumerate(sound.tolist()) if not well and member not in over}
        return losses

    def _given(self, task: Task, member: int, chosen: Tensor | None = None) -> tuple[Any, Tensor]:
        inputs, targets = task.of_member(member, chosen)
        return self.form.enter(inputs), targets

    def _scale(self, member: int) -> float:
        """Of a member's loss on its way back."""
        return 1.0 if self.half is None else float(self.half.scale[member])

    @property
    def _may_overflow(self) -> bool:
        """Whether a gradient that is not finite is only left out."""
        return self.half is not None and self.half.dynamic

    def _leave(self) -> None:
        if self.half is not None:
            self.half.leave(self.shelf.gradient)

    def _judged(self, targets: Tensor, output: Any) -> Tensor:
        return self.judge(output, targets)

    def _quietly(self, member: int, inputs: Any, targets: Tensor) -> tuple[Tensor, Sequence[Tensor | None]]:
        with torch.enable_grad():
            with self.form.cast(self.shelf.flat.device):
                loss = self.judge(answer(self.shelf.modules[member], inputs), targets)
            begin = torch.full_like(loss, self._scale(member))
            found = torch.autograd.grad(loss, self.shelf.parameters[member], begin, allow_unused=True)
        return loss.detach(), found

    def _table(self, heard: Sequence[Observed | None]) -> Measurement:
        """What was heard of every member as columns; NaN where one has nothing that another has."""
        place = {(row.axis, row.layer if row.axis == "time" else row.name): at for at, row in enumerate(self.rows)}
        first = next(at for at, row in enumerate(self.rows) if row.layer > 0)
        members, layers = len(heard), len(self.layout.names)
        values = np.full((members, len(COLUMNS), len(self.rows)), np.nan)
        held = np.zeros(values.shape[1:], dtype=np.bool_)
        sound = np.full((members, layers), np.nan)
        for member, seen in enumerate(heard):
            if seen is None:
                continue
            for row in seen.rows:
                at = place.get((row["axis"], row["layer"] if row["axis"] == "time" else row["name"]))
                if at is None:
                    continue
                for number, column in enumerate(COLUMNS):
                    if row.get(column) is not None:
                        values[member, number, at] = row[column]
                        held[number, at] = True
            for number, layer in enumerate(seen.layers):
                known = [one for call in layer.calls for one in (call.raw.moments, call.hidden) if one is not None]
                if number < layers and all(math.isfinite(squares) for _, _, squares in known):
                    sound[member, number] = 0.0
        device = self.shelf.flat.device
        return Measurement(
            self.rows,
            torch.from_numpy(values).to(device),
            held,
            torch.from_numpy(sound).to(device),
            COLUMNS,
            first,
            self.trained,
        )

    @torch.no_grad()
    @in_its_products
    def evaluate(self, task: Task) -> tuple[Floats, Floats | None]:
        """Loss and, of classes, accuracy (M,) on the whole held-out part, in evaluation mode."""
        loss, correct = np.zeros(len(self.seeds)), np.zeros(len(self.seeds))
        samples = len(task.heldout_targets)
        for member, module in enumerate(self.shelf.modules):
            self.shelf.take_up(member)
            module.eval()
            for chosen in task.heldout_parts():
                inputs, targets = self._given(task, member, chosen)
                with self.form.cast(self.shelf.flat.device):
                    output = answer(module, inputs)
                    loss[member] += float(self.judge(output, targets)) * len(chosen)
                correct[member] += float(right(tensor_of(output), targets)) if self.classes else 0.0
            module.train()
        return loss / samples, correct / samples if self.classes else None


def lend(runs: Sequence[RunSpec], task: Task, device: torch.device, *, stacked: bool = False) -> Lent:
    """The networks of ``runs`` at their beginning. What a layer is, one more of the first tells on the first batch.

    ``stacked``: between records they are trained as one, which `obstacle_of` has tried.

    Raises `DataError` where a network cannot be made, called on the data or differentiated.
    """
    first = runs[0]
    task.turn_to(0)
    inputs, targets = task.of_member(0)
    judge = judging(first)
    like = begun(first, inputs, device)
    seen, names = looked_at(first, like, inputs, targets, judge)
    modules = [begun(run, inputs, device) for run in runs]
    slots, trained = [], []
    for number, layer in enumerate(seen.layers, start=1):
        own = [one for one in layer.parameters if one.requires_grad]
        own.sort(key=lambda one: one.dim() <= 1)
        trained.append(bool(own))
        for one in own:
            role = Role.WEIGHT if one.dim() > 1 else Role.BIAS
            shape = (*one.shape, 2) if one.is_complex() else tuple(one.shape)
            slots.append(Slot(number, role, shape, Start.DRAWN, *fans(one), name=names[one]))
    shelf, form = shelved(modules, [str(slot.name) for slot in slots], device), FORMATS[first.train.precision]
    half = beside(runs, shelf.flat)
    return Lent(
        shelf=shelf,
        layout=Layout(tuple(slots), tuple(layer.name for layer in seen.layers)),
        rows=tuple(Row(row["axis"], row["layer"], row["name"]) for row in seen.rows),
        trained=np.array(trained),
        seeds=tuple(run.seed for run in runs),
        judge=judge,
        # A loss of the user's own may want outputs of which none is an answer.
        classes=first.loss in LOSSES and not targets.is_floating_point(),
        form=form,
        half=half,
        stack=stack_of(shelf, like, judge, form, half) if stacked and len(runs) > 1 else None,
    )


def obstacle_of(pair: Sequence[RunSpec], task: Task) -> str:
    """Why networks as those of two runs cannot be trained as one; empty where they can. Tried on the first batch."""
    lent = lend(pair, task, torch.device("cpu"), stacked=True)
    assert lent.stack is not None
    inputs, targets = lent._given(task, 0)

    def alone(member: int) -> tuple[Tensor, Tensor]:
        sow(lent.seeds[member], 0)
        loss, found = lent._quietly(member, inputs, targets)
        lent.shelf.put_back(member)
        lent.shelf.write(member, found)
        return loss, lent.shelf.gradient[member]

    return obstacle(lent.stack, inputs, targets, alone)


def _as_text(seen: Observed | None) -> str:
    return json.dumps(
        {} if seen is None else {name: seen.told[name] for name in ("facts", "activations")}, default=float
    )
