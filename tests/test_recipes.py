"""The recipes hold: a new activation is one entry, a new architecture one file; all else serves them as it is."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from gradlab import models
from gradlab.nn import activations
from gradlab.nn.network import Pass
from gradlab.nn.slots import Layout, Slot, linear_slots, norm_slots, slope_slots
from gradlab.nn.tape import Node
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import Facts, ModelSpec
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
