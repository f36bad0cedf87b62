"""Dropout: its masks are even, counted and a member's own; networks with it equal torch's with the same masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab.data.batches import batches
from gradlab.models import MODELS
from gradlab.nn.dropout import Drops, dropping
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.kernels import calls
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured
from tests.models.test_convolutions import PlainImages
from tests.oracles import Plain, expected

BASE: dict[str, Value] = {
    "model.dropout": 0.3,
    "train.precision": "float64",
    "train.steps": 12,
    "probe.every": 5,
    "data.batch_size": 20,
    "model.width": 8,
    "model.depth": 4,
    "optim.lr": 0.1,
}
OF_H = ("act_mean", "act_std", "act_correlation", "saturated", "dead")
"""Columns of activations, which are measured before they drop."""


def drops(run: RunSpec) -> Drops:
    found = dropping([run], torch.zeros(1, dtype=torch.float64))
    assert found is not None
    return found


class Masked(nn.Module):
    """Multiplies by a site's factors in training; the steps are counted by its owner."""

    def __init__(self, drops: Drops, site: int) -> None:
        super().__init__()
        self.drops, self.site = drops, site

    def forward(self, h: Tensor) -> Tensor:
        return h * self.drops.factors(h.unsqueeze(0), self.site)[0] if self.training else h


def counting(make: type[Plain]) -> Callable[[RunSpec], Plain]:
    """A plain network whose activations drop, and count the steps."""

    def made(run: RunSpec) -> Plain:
        network, own = make(run), drops(run)
        every = [number for number, stage in enumerate(network.layers, start=1) if stage.phi is not None]
        if run.model.name == "resnet":
            seconds = run.model.block in ("preact", "rezero")
            every = [number for number in every if 1 < number < run.model.depth and number % 2 == int(seconds)]
        for number in every:
            stage: Any = network.layers[number - 1]
            stage.phi = nn.Sequential(stage.phi, Masked(own, number))

        def count(network: nn.Module, _: object) -> None:
            own.done.add_(int(network.training))

        network.register_forward_pre_hook(count)
        own.done.sub_(1)
        return network

    return made


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize(
    ("own", "make"),
    [
        ({}, Plain),
        ({"model.norm": "layer", "optim.name": "adam", "optim.lr": 0.01}, Plain),
        ({"model.name": "residual_mlp", "model.activation": "tanh"}, Plain),
        ({"model.name": "cnn", "model.pool": "2"}, PlainImages),
        ({"model.name": "resnet"}, PlainImages),
        ({"model.name": "resnet", "model.block": "postact"}, PlainImages),
    ],
)
def test_members_equal_plain_networks_with_their_masks(own: dict[str, Value], make: type[Plain]) -> None:
    members = [BASE | own, BASE | own | {"seed": 1, "model.dropout": 0.6}, BASE | own | {"model.dropout": 0.0}]
    found = measured(*members)
    for member, settings in zip(found[:2], members, strict=False):
        wanted = expected(settings, counting(make))
        assert list(differences(member, wanted, relative=1e-8, absolute=1e-13, skip=(*OF_H, "grad_zero"))) == []
    (alone,), (without,) = measured(members[1]), measured(members[2])
    assert list(differences(found[1], alone, relative=1e-8, absolute=1e-13)) == []
    assert list(differences(found[2], without, relative=1e-8, absolute=1e-13)) == []


def parameters(run: RunSpec) -> dict[tuple[int, Role], nn.Parameter]:
    layout = MODELS[run.model.name].layout(run.model, run.facts)
    flat = initial_parameters(layout, [run], torch.float64)[0]
    found = zip(layout.slots, layout.columns, strict=True)
    return {(slot.layer, slot.role): nn.Parameter(flat[at].view(slot.shape).clone()) for slot, at in found}


def trained(run: RunSpec, own: Drops, every: list[nn.Parameter], output: Callable[[Tensor], Tensor]) -> list[float]:
    """The losses of plain descent."""
    data = content(run.data)
    inputs, targets = torch.from_numpy(data.train_inputs).double(), torch.from_numpy(data.train_targets)
    losses = []
    for t, chosen in enumerate(batches(run.data, len(inputs), run.train.steps + 1)):
        own.done.fill_(t)
        loss = F.cross_entropy(output(inputs[chosen]), targets[chosen])
        losses.append(loss.item())
        for parameter, gradient in zip(every, torch.autograd.grad(loss, every), strict=True):
            parameter.data.sub_(run.optim.lr * gradient)
    return losses


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_recurrences_drop_between_layers(name: str) -> None:
    settings = BASE | {"model.name": name, "model.depth": 2, **({} if name == "lstm" else {"model.activation": "tanh"})}
    run = build(settings)
    own, weights = drops(run), parameters(run)
    kind = {"lstm": nn.LSTM, "rnn": nn.RNN}[name]
    cells = [kind(8, 8, batch_first=True).double() for _ in range(2)]
    for layer, cell in enumerate(cells, start=1):
        roles = {"weight_ih_l0": Role.WEIGHT, "weight_hh_l0": Role.RECURRENT, "bias_ih_l0": Role.BIAS}
        for label, role in roles.items():
            setattr(cell, label, weights[layer, role])
        cell.bias_hh_l0 = nn.Parameter(torch.zeros_like(cell.bias_hh_l0), requires_grad=False)

    def output(x: Tensor) -> Tensor:
        h = cells[0](x)[0]
        if name == "lstm":
            h = h * own.factors(h.transpose(0, 1).unsqueeze(0), 1)[0].transpose(0, 1)
        else:
            h = h * torch.stack([own.factors(h[None, :, 0], 1 + (t << 32))[0] for t in range(8)], 1)
        return F.linear(cells[1](h)[0][:, -1], weights[3, Role.WEIGHT], weights[3, Role.BIAS])

    (found,) = measured(settings)
    assert [row["loss"] for row in found.steps] == pytest.approx(
        trained(run, own, list(weights.values()), output), rel=1e-8
    )


@pytest.mark.usefixtures("either_engine")
def test_a_transformer_drops_where_torch_s_layer_does() -> None:
    settings = BASE | {"model.name": "transformer", "model.depth": 1, "model.heads": 2, "data.name": "digits"}
    run = build(settings)
    own, weights = drops(run), parameters(run)
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True).double()
    layer.dropout1, layer.dropout = Masked(own, 2 + (1 << 32)), Masked(own, 3)  # type: ignore[assignment]
    layer.dropout2 = Masked(own, 3 + (1 << 32))  # type: ignore[assignment]
    attention = layer.self_attn
    places = (
        ((2, Role.WEIGHT), attention, "in_proj_weight"),
        ((2, Role.BIAS), attention, "in_proj_bias"),
        ((2, Role.SECOND), attention.out_proj, "weight"),
        ((2, Role.SECOND_BIAS), attention.out_proj, "bias"),
        ((2, Role.GAIN), layer.norm1, "weight"),
        ((2, Role.SHIFT), layer.norm1, "bias"),
        ((3, Role.WEIGHT), layer.linear1, "weight"),
        ((3, Role.BIAS), layer.linear1, "bias"),
        ((3, Role.SECOND), layer.linear2, "weight"),
        ((3, Role.SECOND_BIAS), layer.linear2, "bias"),
        ((3, Role.GAIN), layer.norm2, "weight"),
        ((3, Role.SHIFT), layer.norm2, "bias"),
    )
    for key, part, label in places:
        setattr(part, label, weights[key])

    def output(x: Tensor) -> Tensor:
        z = layer(F.linear(x, weights[1, Role.WEIGHT], weights[1, Role.BIAS]) + weights[1, Role.PLACES])
        z = F.layer_norm(z, (8,), weights[4, Role.GAIN], weights[4, Role.SHIFT])
        return F.linear(z.mean(1), weights[4, Role.WEIGHT], weights[4, Role.BIAS])

    (found,) = measured(settings)
    assert [row["loss"] for row in found.steps] == pytest.approx(
        trained(run, own, list(weights.values()), output), rel=1e-8
    )


def test_masks_are_even_and_independent() -> None:
    runs = [build({"seed": seed, "model.dropout": share}) for seed, share in ((0, 0.3), (1, 0.3), (0, 0.3), (5, 0.0))]
    own = dropping(runs, torch.tensor([3.0], dtype=torch.float64))
    assert own is not None
    ones = torch.ones(4, 50, 1000, dtype=torch.float64)
    first, other, later = own.factors(ones, 1), own.factors(ones, 2), own.of(slice(None), 4).factors(ones, 1)
    assert first[3].unique().tolist() == [1.0]
    assert first[0].unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(first[0], first[2])
    gone = [(one == 0).double() for one in (first[0], first[1], other[0], later[0])]
    for mask in gone:
        assert float(mask.mean()) == pytest.approx(0.3, abs=0.01)
        assert abs(float(torch.corrcoef(torch.stack([mask[:, :-1].flatten(), mask[:, 1:].flatten()]))[0, 1])) < 0.02
    apart = torch.corrcoef(torch.stack([mask.flatten() for mask in gone])) - torch.eye(4).double()
    assert float(apart.abs().max()) < 0.02


@pytest.mark.skipif(calls.kernels(torch.float64) is None, reason="there is no compiler here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_s_numbers_are_torch_s(dtype: torch.dtype) -> None:
    own = dropping([build({"seed": 2**40 + seed, "model.dropout": 0.5}) for seed in range(3)], torch.ones(1).double())
    assert own is not None
    x = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(own.drop(x, 5 + (3 << 32)), x * own.factors(x, 5 + (3 << 32)))


def test_it_is_refused_where_it_has_no_place() -> None:
    wrongs: tuple[tuple[dict[str, Value], str], ...] = (
        ({"model.dropout": 1.0}, "model.dropout=1.0: expected a finite number of at least 0 and below 1"),
        ({"model.dropout": 0.5, "model.name": "gru"}, "model.depth=1: acts between recurrent layers"),
        ({"model.dropout": 0.5, "model.name": "linear_chain"}, "has no key 'model.dropout'"),
    )
    for wrong, said in wrongs:
        with pytest.raises(SpecError, match=said):
            build(wrong)
