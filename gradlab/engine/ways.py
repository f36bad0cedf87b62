"""How the networks of a cohort go there and back, and what the loop asks of it: gradlab's own as one stack.

Networks of the user's own have their way in `lent`. Shapes: M members, B batch, P parameters a member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gradlab.engine.answers import dictated, wholly_right
from gradlab.engine.precision import FORMATS, Format, Scaled, in_its_products, of_cohort
from gradlab.engine.pretraining import UNHEARD, Heard, pretrain
from gradlab.engine.probes import Measurement, measure
from gradlab.engine.task import Task
from gradlab.models import MODELS, Architecture
from gradlab.nn.dropout import dropping
from gradlab.nn.initializers import initial_parameters, initialised
from gradlab.nn.losses import SQUASHES, Loss, stacked
from gradlab.nn.lsuv import Scaling
from gradlab.nn.network import Network, Pass
from gradlab.nn.norms import Mode
from gradlab.nn.parametrization import growing
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.run import RunSpec
from gradlab.store.arrays import Kept
from gradlab.store.columns import PROBE_COLUMNS
from gradlab.store.record import Floats, Pretrained


class Way(Protocol):
    """M networks, on flat tensors, and their way there and back."""

    @property
    def layout(self) -> Layout:
        """How their parameters lie."""

    @property
    def parameters(self) -> Tensor:
        """What is trained, (M, P)."""

    @property
    def gradient(self) -> Tensor:
        """Of the losses by it, (M, P), as the last way back left it."""

    @property
    def moving(self) -> Mapping[str, Tensor]:
        """What else a step changes, by name, (M, ...): running statistics, buffers."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the per-layer table."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Of each network that is not gradlab's own, what was seen of it at the first record."""

    @property
    def pretrained(self) -> tuple[Pretrained, ...]:
        """The losses of what came before the initial weights."""

    @property
    def before(self) -> Kept | None:
        """What is kept of it."""

    @property
    def half(self) -> Scaled | None:
        """What there is beside in half precision."""

    @property
    def rehearsable(self) -> bool:
        """Whether every step does the same to the same memory."""

    def there_and_back(self, task: Task, t: int, *, record: bool, last: bool) -> tuple[Tensor, Measurement | None]:
        """The losses (M,) at step t, and the per-layer table at a recorded one; the gradient is written in place.

        The last row is measured without touching running statistics.
        """

    def evaluate(self, task: Task) -> tuple[Floats, Floats | None]:
        """Loss and accuracy (M,) on the whole held-out part, with running statistics."""


@dataclass(frozen=True)
class Own:
    """Networks of gradlab's own as one stack: members share nothing, and one way back is each one's own."""

    architecture: Architecture
    layout: Layout
    network: Network
    parameters: Tensor
    loss: Loss
    form: Format
    half: Scaled | None = None
    seen: tuple[str, ...] = ()
    pretrained: tuple[Pretrained, ...] = ()
    before: Kept | None = None
    rehearsable: bool = True

    @property
    def gradient(self) -> Tensor:
        """See `Way`; in half precision divided by the loss scale."""
        return self.network.gradient if self.half is None else self.half.gradient

    @property
    def moving(self) -> dict[str, Tensor]:
        """See `Way`."""
        found = {} if self.half is None else {f"loss.{name}": tensor for name, tensor in self.half.moving.items()}
        for layer, running in self.network.running.items():
            found |= {f"{layer}.running_mean": running.mean, f"{layer}.running_var": running.var}
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Way`."""
        return PROBE_COLUMNS

    @in_its_products
    def there_and_back(self, task: Task, t: int, *, record: bool, last: bool) -> tuple[Tensor, Measurement | None]:
        """See `Way`; every step does the same, whatever its number."""
        del t
        inputs, targets = task.batch()
        through, half = Pass(self.network, Mode.MEASURE if last else Mode.TRAIN, keep=record), self.half
        x, output = self._passed(through, inputs)
        losses, slope = self.loss.measure(output.value if half is None else output.value.float(), targets)
        through.backward(output, slope if half is None else half.slope(slope, output.value.dtype))
        if half is not None:
            half.leave(self.network.gradient)
        if not record:
            return losses, None
        scale = None if half is None else half.scale
        return losses, measure(through, x, self.parameters, self.gradient, scale)

    def _passed(self, through: Pass, inputs: Tensor) -> tuple[Node, Node]:
        """The inputs (M, B, *shape) as they enter, and the output behind the activation of the output layer."""
        if self.half is not None:
            self.half.enter(self.parameters)
            inputs = inputs.to(self.network.gradient.dtype) if inputs.is_floating_point() else inputs
        x, squash = through.input(inputs), SQUASHES.get(self.network.model.output or "none")
        output = self.architecture.forward(through, x)
        return x, output if squash is None else through.apply(squash, output)

    @torch.no_grad()
    @in_its_products
    def evaluate(self, task: Task) -> tuple[Floats, Floats | None]:
        """See `Way`. Where answers are dictated, accuracy is of samples that are wholly right by greedy decoding."""
        loss = torch.zeros(len(self.parameters), dtype=torch.float64, device=self.parameters.device)
        right = torch.zeros_like(loss)
        samples = 0
        for inputs, targets in task.heldout():
            through = Pass(self.network, Mode.EVALUATE)
            output = self._passed(through, inputs)[1].value
            output = output if self.half is None else output.float()
            loss += self.loss.measure(output, targets)[0] * inputs.shape[1]
            if self.network.facts.dictated:
                right += wholly_right(dictated(self.architecture, self.network, inputs), targets.classes)
            elif self.loss.correct is not None:
                right += self.loss.correct(output, targets)
            samples += inputs.shape[1]
        accuracy = None if self.loss.correct is None else (right / samples).cpu().numpy()
        return (loss / samples).cpu().numpy(), accuracy


def own(runs: Sequence[RunSpec], task: Task, device: torch.device, heard: Heard = UNHEARD) -> Own:
    """The stack of ``runs`` at its initial weights, which are what a pre-training leaves."""
    first = runs[0]
    architecture = MODELS[first.model.name]
    layout = architecture.layout(first.model, first.facts)
    if any(run.model.parametrization not in (None, "standard") for run in runs):
        wider = replace(first.model, width=2 * first.model.width)
        layout = growing(layout, architecture.layout(wider, first.facts))
    form = FORMATS[first.train.precision]
    parameters = initial_parameters(layout, runs, form.parameters).to(device)
    network, half = of_cohort(runs, layout, parameters)
    with form.products(device):
        _scale_by_data(runs, architecture, network, task)
        pretrained, before = pretrain(runs, layout, parameters, task, heard)
    network = replace(network, drops=dropping(runs, task.done))
    loss = stacked(first.loss, first.model.output, first.facts.loss)
    return Own(
        architecture,
        layout,
        network,
        parameters,
        loss,
        form,
        half,
        pretrained=pretrained,
        before=before,
        # A processor has no kernels of such products.
        rehearsable=not form.rounds or device.type == "cuda",
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
