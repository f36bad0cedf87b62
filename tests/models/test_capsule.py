"""Capsules equal a network written out with torch.nn, trained by torch.optim; what they are, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab.engine.cohort import prepare
from gradlab.engine.playing import rehearse
from gradlab.models import MODELS
from gradlab.nn.capsules import columns_by_two
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.kernels import calls, native
from gradlab.nn.kernels import capsules as kernels
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured, on_each_engine
from tests.oracles import Seen, activation, expected

Settings = dict[str, Value]

TINY: Settings = {
    "model.name": "capsule",
    "model.width": 6,
    "model.capsule_width": 3,
    "data.batch_size": 16,
    "train.precision": "float64",
    "train.steps": 20,
    "probe.every": 6,
}

COHORTS: dict[str, Settings] = {
    "relu": {"model.bias_var": 0.1},
    "without eps, one iteration": {"model.squash_eps": 0.0, "model.routing": 1, "model.activation": "tanh"},
    "deeper, prelu": {"model.depth": 5, "model.activation": "prelu", "model.init": "orthogonal"},
    "five iterations, cross-entropy": {"model.routing": 5, "model.squash_eps": 0.01, "train.loss": "cross_entropy"},
}
WITHIN: tuple[Settings, ...] = (
    {"seed": 0},
    {"seed": 1, "optim.lr": 0.3, "clip.mode": "norm", "clip.threshold": 0.05, "data.input_scale": 1.5},
    {"seed": 2, "clip.mode": "layerwise", "clip.threshold": 0.02, "optim.weight_decay": 0.1},
)


class Pairs(nn.Module):
    """Of each primary and each digit capsule a matrix (I, J, D, P)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))

    def forward(self, u: Tensor) -> Tensor:
        return torch.einsum("ijdp,bip->ijdb", self.weight, u)


class Stage(nn.Module):
    """The parameters of one layer; those of the digit capsules are a matrix for each pair."""

    def __init__(self, linear: nn.Conv2d | Pairs, phi: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.phi = linear, phi

    @property
    def matrices(self) -> list[Tensor]:
        return [self.linear.weight]


class Written(nn.Module):
    """One capsule network with gradlab's initial numbers; its routing goes pair by pair, as procedure 1 has it."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.run, self.dtype = run, torch.float64
        model, facts = run.model, run.facts
        assert model.capsule_width is not None
        self.count = 16 * model.width // model.capsule_width
        stages = []
        for layer in range(1, model.depth):
            last = layer == model.depth - 1
            conv = nn.Conv2d(1 if layer == 1 else model.width, model.width, 3, 2 if last else 1, 1)
            stages.append(Stage(conv, None if last else activation(model.activation or "", model.slope or 0.0)))
        pairs = Pairs(self.count, facts.outputs, 2 * model.capsule_width, model.capsule_width)
        self.stages = nn.ModuleList([*stages, Stage(pairs, None)])
        self.double()
        layout = MODELS["capsule"].layout(model, facts)
        flat = initial_parameters(layout, [run], self.dtype)[0]
        for slot, columns in zip(layout.slots, layout.columns, strict=True):
            linear, given = self.layers[slot.layer - 1].linear, flat[columns]
            with torch.no_grad():
                if slot.role is Role.WEIGHT and isinstance(linear, nn.Conv2d):
                    linear.weight.copy_(given.view(model.width, 3, 3, -1).permute(0, 3, 1, 2))
                elif slot.role in (Role.WEIGHT, Role.BIAS):
                    parameter = linear.weight if slot.role is Role.WEIGHT else linear.bias
                    parameter.copy_(given.view(parameter.shape))

    @property
    def layers(self) -> list[Any]:
        return list(self.stages)

    def forget(self) -> None:
        """No running statistics."""

    def squash(self, s: Tensor) -> Tensor:
        square = s.pow(2).sum(-1, keepdim=True)
        return square / (1 + square) * s / (square + (self.run.model.squash_eps or 0.0)).sqrt()

    def forward(self, x: Tensor) -> list[Seen]:
        h, seen = x.unsqueeze(1), []
        *hidden, primary, digits = self.layers
        for stage in hidden:
            z = stage.linear(h).permute(0, 2, 3, 1)
            h = stage.phi(z)
            seen.append(Seen([z], [z], [h]))
            h = h.permute(0, 3, 1, 2)
        z = primary.linear(h).permute(0, 2, 3, 1).reshape(len(x), self.count, -1)
        u = self.squash(z)
        seen.append(Seen([z], None, [u]))
        votes = digits.linear(u)  # (I, J, D, B)
        logits = votes.new_zeros(*votes.shape[:2], len(x))
        s = (torch.softmax(logits, 1).unsqueeze(2) * votes).sum(0).permute(2, 0, 1)
        for _ in range((self.run.model.routing or 0) - 1):
            logits = logits + (votes * self.squash(s).permute(1, 2, 0)).sum(2)
            s = (torch.softmax(logits, 1).unsqueeze(2) * votes).sum(0).permute(2, 0, 1)
        eps = self.run.model.squash_eps or 0.0
        output = (self.squash(s).pow(2).sum(-1) + eps).sqrt()
        return [*seen, Seen([s], None, [output])]


@pytest.mark.parametrize("name", COHORTS)
def test_a_member_equals_one_plain_network(name: str) -> None:
    cohort = [TINY | COHORTS[name] | own for own in WITHIN]
    companies = list(on_each_engine(*cohort))
    for settings, *either in zip(cohort, *companies, strict=True):
        wanted = expected(settings, Written)
        for found in either:
            assert found.run["state"] == "finished"
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-13)) == []
    for company, (alone,) in zip(companies, on_each_engine(cohort[1]), strict=True):
        assert list(differences(alone, company[1], relative=1e-12, absolute=1e-15)) == []


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_a_step_is_written_down_with_and_without_record(loss: str) -> None:
    runs = [build(TINY | {"train.loss": loss, "seed": seed}) for seed in range(2)]
    found = rehearse(prepare(runs, content(runs[0].data), torch.device("cpu"))).values()
    assert [step is None for step in found] == [calls.kernels(torch.float64) is None] * 2


def test_every_second_pixel_of_odd_images_in_colour() -> None:
    x, filters = torch.randn(2, 3, 5, 8, 4), torch.randn(6, 4, 3, 3)
    columns = columns_by_two(x)
    found = columns @ filters.permute(2, 3, 1, 0).flatten(0, 2)
    wanted = nn.functional.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), filters, stride=2, padding=1)
    torch.testing.assert_close(found.flatten(0, 1).permute(0, 3, 1, 2), wanted)
    if native.serves(x):
        assert torch.equal(kernels.columns_by_two(x), columns)
        grad = torch.randn_like(columns)
        (dx,) = torch.autograd.grad(columns_by_two(x.requires_grad_()), x, grad)
        torch.testing.assert_close(kernels.columns_by_two_back(grad, 5, 8), dx)


def test_a_zero_capsule_is_no_number_without_eps_alone() -> None:
    """Raw digits have black corners: what they are convolved to is 0, and so is a capsule."""
    raw: Settings = TINY | {"train.precision": "float32", "data.standardise": False, "data.input_scale": 0.1}
    without, with_eps = (measured(raw | {"model.squash_eps": eps})[0] for eps in (0.0, 1e-8))
    assert (without.run["state"], without.run["diverged_at"]) == ("diverged", 0)
    assert with_eps.run["state"] == "finished"


def test_a_rate_of_capsules_is_not_foretold() -> None:
    (found,) = measured(TINY | {"train.steps": 0})
    assert found.run["rate_theory"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model.capsule_width": 4}, "4 does not divide model.width=6"),
        ({"model.depth": 2}, "needs at least 3 layers"),
        ({"model.norm": "batch"}, "model 'capsule' has no key 'model.norm'"),
        ({"model.pool": "2"}, "model 'capsule' has no key 'model.pool'"),
        ({"model.output": "softmax"}, "model 'capsule' has no key 'model.output'"),
        ({"model.routing": 0}, "expected an integer of at least 1"),
        ({"model.squash_eps": -1.0}, "expected a finite number of at least 0"),
        ({"data.name": "adding"}, "takes an image"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(given: Settings, message: str) -> None:
    with pytest.raises(SpecError) as error:
        build(TINY | given)
    assert message in str(error.value)


def test_it_is_trained_by_its_margins_unless_told_otherwise() -> None:
    assert build(TINY).loss == "margin"
    assert build(TINY | {"train.loss": "cross_entropy"}).loss == "cross_entropy"
    assert build({}).loss == "cross_entropy"
