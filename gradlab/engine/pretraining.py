"""What hidden layers learn from inputs alone, before the first step of a training; see `choices.PRETRAINING`.

A network is pre-trained as a network of the same architecture that answers something else: its own inputs, or the next
step of its sequence. Its hidden layers are the run's; its read-out is drawn for this, and forgotten when it is over. By
Adam, each member by itself: alone it learns what it learns in company. Steps here are no steps of the run: step 0 is
measured at the weights that come out.

Shapes: m members that are pre-trained alike, B batch, T time, K outputs, P parameters a member of this network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradlab.data.batches import batches
from gradlab.engine.keeper import NOBODY, Keeper, plain
from gradlab.engine.optim.optimizers import OPTIMIZERS, State, rates
from gradlab.engine.task import Task
from gradlab.grid.cohorts import steps_before
from gradlab.models import MODELS, Architecture
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.network import Network, Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.products import take
from gradlab.nn.slots import Layout
from gradlab.nn.tape import Node
from gradlab.spec.run import Facts, PretrainSpec, RunSpec
from gradlab.store.arrays import Kept
from gradlab.store.record import Floats, Pretrained

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


@dataclass(frozen=True)
class Heard:
    """Who keeps a pre-training, and who is told how far it is, in steps of the training, of all its members together.

    Both as of a training: the one is asked after every step, the other told every `OFTEN`.
    """

    keeper: Keeper = NOBODY
    tell: Callable[[float], None] = lambda _done: None


UNHEARD = Heard()

OFTEN = 50

TOLD = "pretraining"
"""What is kept of one: the fact of this name, and the arrays whose names begin so."""


def pretrain(
    runs: Sequence[RunSpec], layout: Layout, parameters: Tensor, task: Task, heard: Heard = UNHEARD
) -> tuple[tuple[Pretrained, ...], Kept | None]:
    """Moves the ``parameters`` (M, P) of those ``runs`` that are pre-trained.

    Gives the losses on the way, and what is kept of it beside the training: one that is taken up again is not
    pre-trained again, and a pre-training that was broken off goes on, to the same numbers.
    """
    alike: dict[PretrainSpec, list[int]] = {}
    for member, run in enumerate(runs):
        if run.pretrain.mode != "none":
            alike.setdefault(run.pretrain, []).append(member)
    if not alike:
        return (), None
    course = _Course([_Group([runs[one] for one in who], who) for who in alike.values()], layout, parameters, task)
    course.go_on(heard.keeper.load())
    course.go_through(heard)
    kept = course.packed()
    return course.pretrained, Kept({TOLD: kept.facts[TOLD]}, {name: one.copy() for name, one in kept.arrays.items()})


@dataclass
class _Group:
    """Members that are pre-trained alike, as one stack; ``index`` and ``losses`` ((m,) each) of the recorded steps."""

    runs: Sequence[RunSpec]
    members: list[int]
    index: list[int] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Its steps, of all stages."""
        return len(stages(self.runs[0])) * self.runs[0].pretrain.steps

    def numbers(self) -> Floats:
        """The losses (m, recorded steps)."""
        found: Floats = torch.stack(self.losses, dim=1).cpu().numpy()
        return found


class _Course:
    """A pre-training, and how far it is: before a step of a stage of a group.

    ``flats`` are what the group's stages have learned, (m, P) each, and that at hand among them once it has begun, with
    Adam's ``state`` and what it draws from.
    """

    def __init__(self, groups: Sequence[_Group], layout: Layout, parameters: Tensor, task: Task) -> None:
        self._groups, self._layout, self._parameters, self._task = groups, layout, parameters, task
        self._group = self._stage = self._step = 0
        self._flats: list[Tensor] = []
        self._state: State = {}
        self._draws: list[torch.Generator] = []
        self._began = time.perf_counter()

    @property
    def pretrained(self) -> tuple[Pretrained, ...]:
        """What was lost on the way."""
        return tuple(Pretrained(tuple(one.members), tuple(one.index), one.numbers()) for one in self._groups)

    @torch.no_grad()
    def go_through(self, heard: Heard) -> None:
        """All that is left of it."""
        lengths = [group.length for group in self._groups]
        efforts = [sum(map(steps_before, group.runs)) for group in self._groups]
        while self._group < len(self._groups):
            group = self._groups[self._group]
            for _ in self._through(group, stages(group.runs[0])):
                here = self._stage * group.runs[0].pretrain.steps + self._step
                share = here / lengths[self._group] if self._group < len(lengths) else 0.0
                if self._step % OFTEN == 0:
                    heard.tell(sum(efforts[: self._group]) + share * sum(efforts[self._group : self._group + 1]))
                if heard.keeper.wanted(here - 1 - sum(lengths[self._group :])):
                    heard.keeper.save(self.packed())

    def _through(self, group: _Group, every: Sequence[Stage]) -> Iterator[None]:
        """Trains the stage at hand to its end, and comes back after each step."""
        runs, number, stage = group.runs, self._stage, every[self._stage]
        told, scale = runs[0].pretrain, self._task.input_scale[group.members]
        order = torch.from_numpy(batches(runs[0].data, len(self._task.inputs), told.steps))
        order = order.to(self._parameters.device)
        if len(self._flats) == number:
            own = self._parameters[group.members].to(scale.dtype)
            self._flats.append(begun(stage, number, runs, self._layout, own))
        *below, network = [assemble(one.like, one.layout, flat) for one, flat in zip(every, self._flats, strict=False)]
        source, flat = _Source(runs, number, self._task, scale, below), self._flats[number]
        columns = rates([_by_adam(run) for run in runs], scale, stage.layout)
        adam, done = OPTIMIZERS["adam"], torch.zeros(1, dtype=torch.float64, device=flat.device)
        self._state = self._state or adam.state(flat, columns)
        self._draws = self._draws or [torch.Generator().manual_seed(_seed(run.seed, number)) for run in runs]
        state, draw = self._state, _Drawing(self._draws, told.corruption)
        for step in range(self._step, told.steps):
            shown, judge = _asked(told.mode, source.given(order[step]), draw)
            through = Pass(network, Mode.TRAIN)
            output = stage.architecture.forward(through, through.input(shown))
            loss, slope = judge(output.value)
            if step % runs[0].probe.every == 0 or step == told.steps - 1:
                group.index.append(number * told.steps + step)
                group.losses.append(loss.double())
            adam.update(flat, through.backward(output, slope), state, columns, done.fill_(step))
            self._step = step + 1
            if self._step == told.steps:
                self._end(group, every)
            yield

    def _end(self, group: _Group, every: Sequence[Stage]) -> None:
        """Hands what the stage has learned to the runs, and turns to the next one."""
        stage, flat = every[self._stage], self._flats[self._stage]
        for (layer, role), columns in _places(self._layout).items():
            if 0 <= layer - stage.first < stage.number:
                found = flat[:, _places(stage.layout)[layer - stage.first + 1, role]]
                self._parameters[group.members, columns] = found.to(self._parameters.dtype)
        self._step, self._state, self._draws, self._stage = 0, {}, [], self._stage + 1
        if self._stage == len(every):
            self._stage, self._flats, self._group = 0, [], self._group + 1

    def packed(self) -> Kept:
        """All that it is between two steps."""
        facts = {
            "members": [group.members for group in self._groups],
            "index": [group.index for group in self._groups],
            "place": [self._group, self._stage, self._step],
        }
        tensors = {"parameters": self._parameters}
        tensors |= {f"losses.{at}": torch.stack(one.losses) for at, one in enumerate(self._groups) if one.losses}
        tensors |= {f"flat.{number}": flat for number, flat in enumerate(self._flats)}
        tensors |= {f"adam.{name}": buffer for name, buffer in self._state.items()}
        if self._draws:
            tensors["draws"] = torch.stack([own.get_state() for own in self._draws]).view(torch.int64)
        arrays = {f"{TOLD}.{name}": plain(tensor).cpu().numpy() for name, tensor in tensors.items()}
        return Kept({TOLD: facts, "seconds": time.perf_counter() - self._began}, arrays)

    def go_on(self, kept: Kept | None) -> None:
        """Puts one that has not begun to where ``kept`` was taken; of another one nothing is taken."""
        told = {} if kept is None else kept.facts.get(TOLD, {})
        if kept is None or told.get("members") != [group.members for group in self._groups]:
            return
        device, prefix = self._parameters.device, f"{TOLD}."
        found = {
            name.removeprefix(prefix): torch.tensor(array, device=device)
            for name, array in kept.arrays.items()
            if name.startswith(prefix)
        }
        self._parameters.copy_(found["parameters"])
        self._group, self._stage, self._step = told["place"]
        for number, (group, index) in enumerate(zip(self._groups, told["index"], strict=True)):
            group.index, group.losses = list(index), list(found.get(f"losses.{number}", ()))
        self._flats = [found[f"flat.{number}"] for number in range(sum(name.startswith("flat.") for name in found))]
        self._state = {name.removeprefix("adam."): one for name, one in found.items() if name.startswith("adam.")}
        self._draws = [torch.Generator() for _ in found.get("draws", ())]
        for own, state in zip(self._draws, found.get("draws", ()), strict=True):
            # It reads from the beginning of the storage, whatever the row.
            own.set_state(state.cpu().view(torch.uint8).clone())
        if "step" not in kept.facts:
            self._began -= kept.facts["seconds"]


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
