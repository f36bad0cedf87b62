"""Networks of the user's own as the engine trains them: each by itself or all as one, heard at recorded steps.

What is heard is what `gradlab.measure` hears. Shapes: M members, B batch, P trained parameters a member, L layers,
R rows and C columns of the per-layer table.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.dataset import DataError
from gradlab.data.targets import imported, told
from gradlab.engine.precision import FORMATS, Format, Scaled, beside, in_its_products
from gradlab.engine.probes import Measurement
from gradlab.engine.stacking import Judge, Stack, obstacle, stack_of, together
from gradlab.models.module import Shelf, converted, drawn, entries, fans, is_lazy, made, shelved
from gradlab.nn.losses import SQUASHES, Objective, objective, right
from gradlab.nn.slots import Layout, Role, Slot, Start
from gradlab.spec.choices import LOSSES
from gradlab.spec.run import Extent, RunSpec
from gradlab.store.arrays import Kept
from gradlab.store.record import MEASURED_COLUMNS, PROBE_COLUMNS, Bools, Floats, Pretrained, Row
from gradlab.watching.facts import IGNORED
from gradlab.watching.observed import Observed, called_with, observe
from gradlab.watching.tape import signal_of

if TYPE_CHECKING:
    from gradlab.engine.cohort import Task

COLUMNS = (*PROBE_COLUMNS, *MEASURED_COLUMNS)


ONE_OF_CLASSES = ("cross_entropy", "negative_log_likelihood", "hinge")
"""Losses that want an output for each class."""


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


def begun(run: RunSpec, inputs: Any, device: torch.device) -> nn.Module:
    """A run's network at its initial weights; parameters without a shape get one from the inputs."""
    dtype = FORMATS[run.train.precision].parameters
    module = made(run.model, run.seed, dtype).to(device)
    if is_lazy(module):
        # Torch draws what has no shape yet in single precision, from inputs of it.
        sow(run.seed, 0)
        try:
            with torch.no_grad():
                answer(module, FORMATS["float32"].enter(inputs))
        except Exception as error:
            # As in `looked_at`: it is the user's network.
            wrong = f"fails on a batch with inputs of {shapes(inputs)}: {told(error)}"
            raise DataError(f"model.target={run.model.target}: {wrong}") from error
        module = converted(module, dtype)
    drawn(module, run.model, run.seed)
    return module


def looked_at(
    run: RunSpec, module: nn.Module, inputs: Any, targets: Tensor, judge: Judge
) -> tuple[Observed, dict[nn.Parameter, str]]:
    """What is seen of a network on one batch, and the names of its parameters. Raises `DataError` for what fails."""
    if not any(one.requires_grad for one in module.parameters()):
        raise DataError(
            f"model.target={run.model.target}: has no parameter that requires a gradient; nothing can learn"
        )
    form = FORMATS[run.train.precision]
    inputs = form.enter(inputs)
    there = form.cast(targets.device)
    outputs: list[Any] = []

    def heard(output: Any, targets: Tensor) -> Tensor:
        outputs[:] = [output]
        if run.loss in ONE_OF_CLASSES and targets.dim() == 1 and not targets.is_floating_point():
            if (least := int(targets.min())) < 0 and least != IGNORED:
                raise DataError(f"the targets hold the class {least}; expected 0 or more")
            able = tensor_of(output).shape[-1:].numel()
            if able < run.facts.outputs:
                wrong = f"puts out {able} numbers a sample, and the data have {run.facts.outputs} classes"
                raise DataError(f"model.target={run.model.target}: {wrong}; expected one for each")
        return judge(output, targets)

    def failed(error: Exception) -> DataError:
        kind = "numbers" if targets.is_floating_point() or targets.is_complex() else f"{run.facts.outputs} classes"
        given = f"inputs of {shapes(inputs)}, targets of {shapes(targets)}, {kind}"
        found = [shapes(one) for one in outputs if isinstance(one, Tensor)]
        given += f", outputs of {found[0]}" if found else ""
        return DataError(f"model.target={run.model.target}: fails on a batch with {given}: {told(error)}")

    sow(run.seed, 0)
    try:
        _there_and_back(module, inputs, targets, heard, there)
    except DataError:
        raise
    except Exception as error:
        # Nothing of gradlab's listens here: it is the user's network, and whatever it raises is told in a line.
        raise failed(error) from error
    sow(run.seed, 0)
    try:
        seen = observe(module, inputs, lambda output: judge(output, targets), there=there)
    except ValueError as error:
        raise failed(error) from error
    return seen, {parameter: name for name, parameter in module.named_parameters()}


def _there_and_back(
    module: nn.Module, inputs: Any, targets: Tensor, judge: Judge, there: AbstractContextManager[Any]
) -> None:
    with torch.enable_grad():
        with there:
            loss: Any = judge(answer(module, inputs), targets)
        learned = [one for one in module.parameters() if one.requires_grad]
        # What is no scalar with a gradient is told by who listens.
        if isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1:
            torch.autograd.grad(loss.reshape(()), learned, allow_unused=True)


def shapes(given: Any) -> str:
    """The shape of a tensor, or of several."""
    if isinstance(given, Mapping):
        return ", ".join(f"{name} {tuple(part.shape)}" for name, part in given.items())
    parts = given if isinstance(given, tuple) else (given,)
    return " and ".join(str(tuple(part.shape)) for part in parts)


def judging(run: RunSpec) -> Judge:
    """How the outputs of a run's network are judged: the activation of its output layer, then its loss.

    A loss that gradlab knows is of single numbers where the network's are of half precision.
    """
    squash = SQUASHES.get(run.model.output or "none")
    known = run.loss in LOSSES
    loss: Objective = objective(run.loss, run.model.output) if known else imported(run.loss)
    form = FORMATS[run.train.precision]

    def judge(output: Any, targets: Tensor) -> Tensor:
        found = tensor_of(output) if known or squash is not None else output
        if known and form.half:
            found = found.to(form.beside)
        return loss(found if squash is None else squash(found), targets)

    return judge


def tensor_of(output: Any) -> Tensor:
    """The tensor that an output is judged by: itself, what is called logits, or the first of floats."""
    found = output if isinstance(output, Tensor) else signal_of(output)
    if found is None:
        raise TypeError(
            f"the network puts out a {type(output).__name__}; expected a tensor, or a tuple or a mapping that has one"
        )
    return found


def answer(module: nn.Module, inputs: Any) -> Any:
    """What a module puts out, called as its inputs are given."""
    parts, names = called_with(module, inputs)
    positional, named = parts[: len(parts) - len(names)], parts[len(parts) - len(names) :]
    return module(*positional, **dict(zip(names, named, strict=True)))


def sow(seed: int, t: int) -> None:
    """Random numbers that a network draws itself at step t (dropout) come from its seed and the step alone."""
    number = int.from_bytes(hashlib.blake2b(f"{seed}:{t}".encode(), digest_size=7).digest(), "big")
    # Not torch.manual_seed, which takes a thousand times as long: it notes its callers for devices to come.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - it is the user's network that draws from it


def _as_text(seen: Observed | None) -> str:
    return json.dumps(
        {} if seen is None else {name: seen.told[name] for name in ("facts", "activations")}, default=float
    )


def extent(run: RunSpec, task: Task) -> Extent:
    """How large a network is; nothing but it and one batch is made. Raises `DataError` as `lend` does."""
    task.turn_to(0)
    inputs, targets = task.of_member(0)
    seen, names = looked_at(run, begun(run, inputs, torch.device("cpu")), inputs, targets, judging(run))
    signals, work = 0, 0.0
    for layer in seen.layers:
        put_out = sum(call.raw.count for call in layer.calls)
        weights = [one for one in layer.parameters if one.dim() > 1]
        # Each number that a layer puts out is a product over one unit's weights: there, and back twice.
        work += 6.0 * put_out * sum(one.numel() / one.shape[0] for one in weights)
        signals += put_out
    return Extent(
        parameters=sum(entries(one) for one in names if one.requires_grad),
        signals=signals // max(1, len(targets)),
        layers=len(seen.layers),
        work=work,
        calls=sum(len(layer.calls) for layer in seen.layers),
    )
