"""The recipes of docs/house.md hold: a new choice is an entry and a function; all else serves it as it is."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab import models
from gradlab.data import loaders
from gradlab.data.dataset import Dataset
from gradlab.engine.optim import clippers, optimizers
from gradlab.engine.optim.clippers import Clipped, Limits
from gradlab.engine.optim.optimizers import Rates, State
from gradlab.nn import activations
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, Facts, ModelSpec
from tests.members import Member, measured

EVERY_STEP: dict[str, Value] = {"train.steps": 2, "probe.every": 1, "model.depth": 3, "model.width": 8}


@pytest.fixture
def _softsign(monkeypatch: pytest.MonkeyPatch) -> None:
    """An activation: its line in the named choices, and its function, slope and steepest slope."""
    named = choices.Activation("softsign", "z/(1+|z|)", "Bergstra et al. 2009")
    monkeypatch.setitem(choices.ACTIVATIONS, "softsign", named)
    entry = activations.Activation(
        lambda z, _: F.softsign(z),
        lambda dh, z, _: dh * (1 + z.abs()) ** -2,
        derivative=lambda z, _: (1 + z.abs()) ** -2,
    )
    monkeypatch.setitem(activations.ACTIVATIONS, "softsign", entry)


# An architecture: two chains of layers side by side, whose last signals are added before the read-out.


def layout(model: ModelSpec, facts: Facts) -> Layout:
    """Layers 1..L-1 hold both chains' matrices, one upon the other: the first chain's units come first."""
    widths = (facts.inputs, *[model.width] * (model.depth - 1))
    slots: list[Slot] = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        slots += linear_slots(layer, fan_in, 2 * fan_out)
        slots += norm_slots(layer, model.norm, 2 * fan_out) + slope_slots(layer, model.activation)
    slots += linear_slots(model.depth, widths[-1], facts.outputs)
    return Layout(tuple(slots), (*(f"pair_{layer}" for layer in range(1, model.depth)), "output"))


def forward(through: Pass, x: Node) -> Node:
    """``x`` (M, B, *shape) -> output (M, B, K)."""
    h = through.flatten(x)
    for layer in range(1, through.network.model.depth):
        z = through.norm(layer, through.linear(layer, h))
        both = through.activate(layer, z)
        h = through.apply(lambda pair: torch.stack(pair.chunk(2, dim=-1)).sum(0), both)
        through.observe([z], [z], [both])
    output = through.linear(through.network.model.depth, h)
    through.observe([output], None, [output])
    return output


def matrices(depth: int, width: int, shape: tuple[int, ...], outputs: int) -> list[tuple[int, int, int]]:
    """What `--plan` counts."""
    inputs = [shape[0] if len(shape) == 1 else shape[0] * shape[1], *[width] * (depth - 1)]
    return [(fan_in, fan_out, 1) for fan_in, fan_out in zip(inputs, [2 * width] * (depth - 1) + [outputs], strict=True)]


@pytest.fixture
def _pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the architecture in the named choices, and its two functions."""
    keys = dict(choices.MODELS["mlp"].keys)
    named = choices.Model("pair", "two chains side by side", "a recipe", keys, matrices=matrices)
    monkeypatch.setitem(choices.MODELS, "pair", named)
    monkeypatch.setitem(models.MODELS, "pair", models.Architecture(layout, forward))


# A clipper and an optimizer without kernels of their own.


def clip_softly(gradient: Tensor, norm: Tensor, limits: Limits, layout: Layout) -> Clipped:
    """G c/(c + |g|): never longer than c, and never cut off."""
    del layout
    scale = limits.all / (limits.all + norm)
    gradient.mul_(scale.to(gradient.dtype).unsqueeze(1))
    return Clipped(norm * scale, norm * (1 - scale))


@pytest.fixture
def _softly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clipper: its line in the named choices, and its function."""
    monkeypatch.setitem(choices.CLIPS, "softly", choices.Clip("softly", "g c/(c+|g|)", "a recipe", ("threshold",)))
    monkeypatch.setitem(clippers.CLIPPERS, "softly", clip_softly)


def follow_the_sign(parameters: Tensor, gradient: Tensor, state: State, rate: Rates, t: Tensor) -> None:
    """W <- w - lr sign(g) (Riedmiller & Braun 1993 without their adaptation)."""
    del state, t
    parameters.addcmul_(gradient.sign(), rate.lr, value=-1)


@pytest.fixture
def _sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer: its line in the named choices, with the keys that act, and its function."""
    named = choices.Optimizer("sign", "the sign of the gradient", "a recipe", ("lr",))
    monkeypatch.setitem(choices.OPTIMIZERS, "sign", named)
    monkeypatch.setitem(optimizers.OPTIMIZERS, "sign", optimizers.Optimizer(follow_the_sign))


def rings(spec: DataSpec) -> Dataset:
    """Two rings in the plane, one a class."""
    del spec
    angle = np.linspace(0, 40 * math.pi, 640, endpoint=False)
    label = np.arange(640) % 2
    inputs = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1.0 + label)[:, None]
    return Dataset(inputs[:512], label[:512], inputs[512:], label[512:])


@pytest.fixture
def _rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set: its line in the named choices with its shapes and sizes, and the function that makes it."""
    named = choices.Data("rings", "two rings", "a recipe", shape=(2,), outputs=2, train=512, heldout=128)
    monkeypatch.setitem(choices.DATA, "rings", named)
    monkeypatch.setitem(loaders.LOADERS, "rings", rings)


def check(found: Member) -> None:
    """Every row is there, every number finite, and the weights have moved."""
    assert (found.run["state"], found.run["steps"]) == ("finished", 2)
    assert found.recorded == [0, 1, 2]
    for step in (0, 1, 2):
        for column in ("grad_norm", "signal_grad_norm", "weight_norm", "act_std", "grad_zero"):
            assert torch.isfinite(torch.from_numpy(found.profile(column, step))).all()
    assert (found.profile("update_ratio", 0) > 0).all()
    assert found.run["loss_last"] != found.run["loss_first"]


@pytest.mark.usefixtures("_softsign")
@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "rnn"])
def test_a_new_activation_trains_in_every_architecture(model: str) -> None:
    (found,) = measured(EVERY_STEP | {"model.name": model, "model.activation": "softsign"})
    check(found)
    assert found.at(0, 2)["saturated"] is not None
    assert found.at(0, 2)["dead"] is None


@pytest.mark.usefixtures("_pair", "_softsign")
@pytest.mark.parametrize("optimizer", choices.OPTIMIZERS)
def test_a_new_architecture_meets_every_optimizer_and_every_clipper_in_one_cohort(optimizer: str) -> None:
    settings: dict[str, Value] = EVERY_STEP | {"model.name": "pair", "optim.name": optimizer, "optim.lr": 0.01}
    modes = [settings | {"clip.mode": mode, "clip.threshold": 0.1} for mode in choices.CLIPS]
    for member in measured(*modes):
        check(member)
        assert [row["name"] for row in member.layers[:4]] == ["input", "pair_1", "pair_2", "output"]
        assert member.steps[0]["clipped"] is (member.run["clip.mode"] != "none")


@pytest.mark.usefixtures("_pair", "_softsign")
@pytest.mark.parametrize("norm", choices.NORMS)
@pytest.mark.parametrize("activation", ["relu", "prelu", "softsign"])
def test_a_new_architecture_meets_every_norm_and_a_new_activation(norm: str, activation: str) -> None:
    (found,) = measured(EVERY_STEP | {"model.name": "pair", "model.norm": norm, "model.activation": activation})
    check(found)
    assert (found.at(0, 1)["dead"] is None) == (activation == "softsign")


@pytest.mark.usefixtures("_softly", "either_engine")
def test_a_new_clipper_clips_beside_all_others_in_one_cohort() -> None:
    modes = [EVERY_STEP | {"clip.mode": mode, "clip.threshold": 0.1} for mode in choices.CLIPS]
    *_, soft = measured(*modes)
    check(soft)
    for row in soft.steps[:2]:
        assert row["grad_norm_clipped"] == pytest.approx(row["grad_norm"] * 0.1 / (0.1 + row["grad_norm"]), rel=1e-5)
        assert row["clipped"] is True
    assert soft.at(0, 1)["grad_norm_clipped"] < soft.at(0, 1)["grad_norm"]


@pytest.mark.usefixtures("_sign", "either_engine")
def test_a_new_optimizer_takes_its_own_steps() -> None:
    (found,) = measured(EVERY_STEP | {"optim.name": "sign", "optim.lr": 1e-3, "model.activation": "tanh"})
    check(found)
    for layer, entries in ((1, 64 * 8), (2, 8 * 8), (3, 8 * 10)):
        moved = found.at(0, layer)["update_ratio"] * found.at(0, layer)["weight_norm"]
        assert moved == pytest.approx(1e-3 * math.sqrt(entries), rel=1e-4)


@pytest.mark.usefixtures("_rings", "_pair")
@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "pair"])
def test_a_new_data_set_is_learned_by_every_architecture(model: str) -> None:
    settings: dict[str, Value] = EVERY_STEP | {"data.name": "rings", "train.steps": 150, "optim.lr": 0.3}
    (found,) = measured(settings | {"model.name": model, "probe.every": 150, "model.width": 16})
    assert found.run["accuracy"] > 0.95
