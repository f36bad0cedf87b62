"""What hidden layers learn from inputs alone, before the first step of a training; see `choices.PRETRAINING`.

A network is pre-trained as a network of the same architecture that answers something else: its own inputs, or the next
step of its sequence. Its hidden layers are the run's; its read-out is drawn for this, and forgotten when it is over. By
Adam, each member by itself: alone it learns what it learns in company. Steps here are no steps of the run: step 0 is
measured at the weights that come out.

Shapes: m members that are pre-trained alike, B batch, T time, K outputs, P parameters a member of this network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradlab.data.batches import batches
from gradlab.engine.optim.optimizers import OPTIMIZERS, rates
from gradlab.models import MODELS, Architecture
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.network import Network, Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.products import take
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, PretrainSpec, RunSpec
from gradlab.store.record import Pretrained

if TYPE_CHECKING:
    from gradlab.engine.cohort import Task

Asked = tuple[Tensor, Tensor]
"""The loss (m,) of what was put out, and its derivative."""


@dataclass(frozen=True)
class Stage:
    """A network ``like`` a run's, whose layers 1, 2, ... are the run's from ``first`` on: ``number`` of them."""

    like: RunSpec
    first: int
    number: int

    @property
    def architecture(self) -> Architecture:
        """How a signal passes through it."""
        return MODELS[self.like.model.name]

    @property
    def layout(self) -> Layout:
        """How its parameters lie."""
        return self.architecture.layout(self.like.model, self.like.facts)


def stages(run: RunSpec) -> tuple[Stage, ...]:
    """What is trained, one after the other."""
    layers, model, facts = run.layers, run.model, run.facts
    if run.pretrain.mode == "generative":
        asked = replace(facts, outputs=facts.features, positions=facts.steps, dictated=False)
        return (Stage(replace(run, facts=asked), 1, layers - 1),)
    if run.pretrain.mode != "layerwise":
        return (Stage(replace(run, facts=_answering(facts, facts.inputs)), 1, layers - 1),)
    shallow = replace(model, depth=2)
    widths = [facts.inputs, *[model.width] * (layers - 2)]
    return tuple(
        Stage(replace(run, model=shallow, facts=_answering(facts, width)), first, 1)
        for first, width in enumerate(widths, start=1)
    )


def _answering(facts: Facts, inputs: int) -> Facts:
    """Facts of data whose answers are their inputs."""
    return replace(facts, shape=(inputs,), outputs=inputs, positions=0, dictated=False, image=False)


def pretrain(runs: Sequence[RunSpec], layout: Layout, parameters: Tensor, task: Task) -> tuple[Pretrained, ...]:
    """Moves the ``parameters`` (M, P) of those ``runs`` that are pre-trained, and gives the losses on the way."""
    groups: dict[PretrainSpec, list[int]] = {}
    for member, run in enumerate(runs):
        if run.pretrain.mode != "none":
            groups.setdefault(run.pretrain, []).append(member)
    return tuple(_together([runs[one] for one in who], who, layout, parameters, task) for who in groups.values())


@torch.no_grad()
def _together(
    runs: Sequence[RunSpec], members: Sequence[int], layout: Layout, parameters: Tensor, task: Task
) -> Pretrained:
    """The members that are pre-trained alike, as one stack."""
    first, dtype = runs[0], task.input_scale.dtype
    order = torch.from_numpy(batches(first.data, len(task.inputs), first.pretrain.steps)).to(parameters.device)
    below: list[Network] = []
    indices: list[int] = []
    losses: list[Tensor] = []
    for number, stage in enumerate(stages(first)):
        flat = begun(stage, number, runs, layout, parameters[list(members)].to(dtype))
        network = assemble(stage.like, stage.layout, flat)
        source = _Source(runs, number, task, task.input_scale[list(members)], below)
        for step, loss in _trained(stage, network, flat, runs, source, order):
            indices.append(number * first.pretrain.steps + step)
            losses.append(loss)
        for (layer, role), columns in _places(layout).items():
            if 0 <= layer - stage.first < stage.number:
                found = flat[:, _places(stage.layout)[layer - stage.first + 1, role]]
                parameters[list(members), columns] = found.to(parameters.dtype)
        below.append(network)
    return Pretrained(tuple(members), tuple(indices), torch.stack(losses, dim=1).double().cpu().numpy())


def _places(layout: Layout) -> dict[tuple[int, object], slice]:
    return {(slot.layer, slot.role): columns for slot, columns in zip(layout.slots, layout.columns, strict=True)}


def begun(stage: Stage, number: int, runs: Sequence[RunSpec], layout: Layout, own: Tensor) -> Tensor:
    """The parameters (m, P) that a stage begins with: the runs' ``own``, and a read-out drawn for it by their rule."""
    drawn = [replace(run, seed=_seed(run.seed, number), model=stage.like.model, facts=stage.like.facts) for run in runs]
    flat = initial_parameters(stage.layout, drawn, own.dtype).to(own.device)
    for (layer, role), columns in _places(stage.layout).items():
        if layer <= stage.number:
            flat[:, columns] = own[:, _places(layout)[layer + stage.first - 1, role]]
    return flat


def _seed(seed: int, number: int) -> int:
    """Of what is drawn in a stage: another than the run's own, and than that of any other stage."""
    return (seed * 1_000_003 + number + 1) % 2**63


@dataclass(frozen=True)
class _Source:
    """What a stage is given and asked for: the inputs, or what the pre-trained layers ``below`` make of them."""

    runs: Sequence[RunSpec]
    number: int
    task: Task
    scale: Tensor
    below: Sequence[Network]

    def given(self, chosen: Tensor) -> Tensor:
        """(m, B, ...) of the samples ``chosen`` (B,)."""
        x = take(self.task.inputs, chosen, self.scale)
        for network in self.below:
            through = Pass(network, Mode.MEASURE)
            node = through.linear(1, through.flatten(Node(x, None)))
            x = through.normed(1, node)[1].value
        return x


def _trained(
    stage: Stage, network: Network, flat: Tensor, runs: Sequence[RunSpec], source: _Source, order: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Trains a stage in place; the recorded steps, and the losses (m,) at them."""
    told, every = runs[0].pretrain, runs[0].probe.every
    alike = [_by_adam(run) for run in runs]
    columns = rates(alike, source.scale, stage.layout)
    adam = OPTIMIZERS["adam"]
    state = adam.state(flat, columns)
    draw = _Drawing([torch.Generator().manual_seed(_seed(run.seed, source.number)) for run in runs], told.corruption)
    done = torch.zeros(1, dtype=torch.float64, device=flat.device)
    for step, chosen in enumerate(order):
        x = source.given(chosen)
        shown, judge = _asked(told.mode, x, draw)
        through = Pass(network, Mode.TRAIN)
        output = stage.architecture.forward(through, through.input(shown))
        loss, slope = judge(output.value)
        if step % every == 0 or step == len(order) - 1:
            yield step, loss
        adam.update(flat, through.backward(output, slope), state, columns, done.fill_(step))


def _by_adam(run: RunSpec) -> RunSpec:
    """The run as one by Adam as torch has it, at the rate of its pre-training, in all parameters and at any width."""
    plain = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "l1": 0.0}
    optim = replace(run.optim, lr=run.pretrain.lr, amsgrad=False, maximize=False, **plain)  # type: ignore[arg-type]
    return replace(run, optim=optim, model=replace(run.model, parametrization="standard"))


@dataclass(frozen=True)
class _Drawing:
    """What corrupts the inputs of each member, from its own ``generators``; ``much`` as `pretrain.corruption`."""

    generators: Sequence[torch.Generator]
    much: float

    def noise(self, like: Tensor) -> Tensor:
        """(m, B, ...) of this deviation."""
        drawn = [torch.randn(like.shape[1:], generator=own, dtype=torch.float64) for own in self.generators]
        return (self.much * torch.stack(drawn)).to(like)

    def hidden(self, like: Tensor) -> Tensor:
        """(m, B, ...): 1 where an input is hidden, else 0."""
        drawn = [torch.rand(like.shape[1:], generator=own, dtype=torch.float64) for own in self.generators]
        return (torch.stack(drawn) < self.much).to(like)


def _asked(mode: str, x: Tensor, draw: _Drawing) -> tuple[Tensor, Callable[[Tensor], Asked]]:
    """What the network is shown of ``x`` (m, B, ...), and how its output is judged."""
    if mode == "generative":
        if not x.is_floating_point():
            return x, lambda output: _next_token(output, x)
        follow = x.flatten(3).roll(-1, 2)
        asked = torch.ones_like(follow)
        asked[:, :, -1] = 0
        return x, lambda output: _squared(output, follow, asked)
    flat = x.flatten(2)
    if mode == "masked":
        hidden = draw.hidden(x)
        return x * (1 - hidden), lambda output: _squared(output, flat, hidden.flatten(2))
    return x + draw.noise(x) if mode == "denoising" else x, lambda output: _squared(output, flat)


def _squared(output: Tensor, target: Tensor, asked: Tensor | None = None) -> Asked:
    """The mean squared error, over those entries alone that are ``asked`` for (1, else 0)."""
    error = output - target
    if asked is None:
        return error.square().flatten(1).mean(1), error * (2 / error[0].numel())
    count = asked.flatten(1).sum(1).clamp(min=1)
    error = error * asked
    return error.square().flatten(1).sum(1) / count, error * (2 / count).view(-1, *[1] * (error.dim() - 1))


def _next_token(output: Tensor, tokens: Tensor) -> Asked:
    """Cross-entropy of outputs (m, B, T, K) at the places 1..T-1 with the tokens (m, B, T) that follow them."""
    logs = torch.log_softmax(output[:, :, :-1], -1)
    follow = tokens[:, :, 1:].unsqueeze(-1)
    loss = -logs.gather(-1, follow).flatten(1).mean(1)
    slope = torch.zeros_like(output)
    slope[:, :, :-1] = logs.exp().scatter_add(-1, follow, torch.full_like(follow, -1, dtype=logs.dtype))
    return loss, slope / follow[0].numel()
