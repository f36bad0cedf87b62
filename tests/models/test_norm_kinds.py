"""Group, instance and weight norm, and norms behind the activation: networks with them equal torch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from gradlab.data.batches import batches
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured

BASE: dict[str, Value] = {
    "train.precision": "float64",
    "train.steps": 12,
    "probe.every": 6,
    "data.batch_size": 20,
    "model.width": 8,
    "model.depth": 4,
    "model.activation": "elu",
    "model.bias_var": 0.1,
    "optim.lr": 0.1,
    "optim.momentum": 0.9,
}

KINDS: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda width: nn.GroupNorm(2, width),
    "layer": nn.LayerNorm,
    "batch": nn.BatchNorm1d,
}
OF_IMAGES: dict[str, Callable[[int], nn.Module]] = {
    "group": lambda width: nn.GroupNorm(2, width),
    "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
    "batch": nn.BatchNorm2d,
}


class Network(nn.Module):
    """An mlp, with branches or without, or a cnn, of torch's modules and gradlab's initial numbers."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.run, model = run, run.model
        self.images, layout = model.name == "cnn", MODELS[model.name].layout(model, run.facts)
        flat = initial_parameters(layout, [run], torch.float64)[0]
        found = {
            (slot.layer, slot.role): flat[at].view(slot.shape)
            for slot, at in zip(layout.slots, layout.columns, strict=True)
        }
        self.linears, self.norms = nn.ModuleList(), nn.ModuleDict()
        for layer in range(1, len(layout.names) + 1):
            weight, bias = found[layer, Role.WEIGHT], found[layer, Role.BIAS]
            linear: nn.Module = nn.Linear(weight.shape[1], len(weight))
            if self.images and layer < len(layout.names):
                weight = weight.view(len(weight), 3, 3, -1).permute(0, 3, 1, 2)
                linear = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1)
            linear.weight, linear.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            if (layer, Role.GAIN) in found:
                if model.norm == "weight":
                    linear = weight_norm(linear)
                else:
                    self.norms[str(layer)] = (OF_IMAGES if self.images else KINDS)[model.norm or ""](model.width)
            self.linears.append(linear)
        self.double()

    def norm(self, layer: int, x: Tensor) -> Tensor:
        return self.norms[str(layer)](x) if str(layer) in self.norms else x

    def phi(self, layer: int, x: Tensor) -> Tensor:
        if self.run.model.norm_order == "behind":
            return self.norm(layer, F.elu(x))
        return F.elu(self.norm(layer, x))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if self.images else x.flatten(1)
        for layer, linear in enumerate(self.linears, start=1):
            if self.run.model.name == "residual_mlp" and 1 < layer < len(self.linears):
                x = x + linear(self.phi(layer, x))
                continue
            if self.images and layer == len(self.linears):
                x = x.mean((2, 3))
            x = linear(x)
            if layer < len(self.linears) and self.run.model.name != "residual_mlp":
                x = self.phi(layer, x)
        return x


def trained(run: RunSpec) -> tuple[list[float], float]:
    """The losses of each step, and the held-out one."""
    network, data = Network(run), content(run.data)
    mover = torch.optim.SGD(network.parameters(), run.optim.lr, run.optim.momentum)
    inputs, targets = torch.from_numpy(data.train_inputs).double(), torch.from_numpy(data.train_targets)
    losses = []
    for t, chosen in enumerate(batches(run.data, len(inputs), run.train.steps + 1)):
        if t == run.train.steps:
            for norm in network.modules():
                if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                    norm.momentum = 0.0
        loss = F.cross_entropy(network(inputs[chosen]), targets[chosen])
        losses.append(loss.item())
        mover.zero_grad()
        torch.autograd.backward(loss)
        if t < run.train.steps:
            mover.step()
    network.eval()
    output = network(torch.from_numpy(data.heldout_inputs).double())
    return losses, F.cross_entropy(output, torch.from_numpy(data.heldout_targets)).item()


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize(
    "own",
    [
        {"model.norm": "group"},
        {"model.norm": "weight"},
        {"model.norm": "layer", "model.norm_order": "behind"},
        {"model.norm": "batch", "model.norm_order": "behind"},
        {"model.norm": "group", "model.name": "residual_mlp"},
        {"model.norm": "weight", "model.name": "residual_mlp"},
        {"model.norm": "batch", "model.name": "residual_mlp", "model.norm_order": "behind"},
        {"model.norm": "group", "model.name": "cnn", "model.depth": 2},
        {"model.norm": "instance", "model.name": "cnn", "model.depth": 2},
        {"model.norm": "weight", "model.name": "cnn", "model.depth": 2},
        {"model.norm": "group", "model.name": "cnn", "model.depth": 2, "model.norm_order": "behind"},
    ],
    ids=lambda own: "-".join(map(str, own.values())),
)
def test_a_member_equals_a_network_of_torch_s_modules(own: dict[str, Value]) -> None:
    settings = BASE | own | ({"model.groups": 2} if own["model.norm"] == "group" else {})
    other, found = measured(settings | {"seed": 1, "model.gain": 2.0}, settings)
    losses, heldout = trained(build(settings))
    assert [row["loss"] for row in found.steps] == pytest.approx(losses, rel=1e-8)
    assert found.run["loss_heldout"] == pytest.approx(heldout, rel=1e-8)
    assert other.steps[0]["loss"] != found.steps[0]["loss"]
    (alone,) = measured(settings)
    assert list(differences(found, alone, relative=1e-8, absolute=1e-13)) == []


def test_group_norm_in_time_is_torch_s_at_each_step() -> None:
    """Groups of one unit are all shift: an Elman network then says the same of every sample."""
    settings = BASE | {"model.name": "rnn", "model.depth": 1, "model.norm": "group", "model.groups": 1}
    layer, group = measured(settings | {"model.norm": "layer"})[0], measured(settings)[0]
    assert list(differences(group, layer, relative=1e-8, absolute=1e-12)) == []


def test_a_weight_norm_begins_as_the_network_without() -> None:
    plain, normed = ({**BASE, "train.steps": 0, "model.norm": name} for name in ("none", "weight"))
    without, found = measured(plain)[0], measured(normed)[0]
    np_columns = [found.profile(column) for column in ("signal_grad_norm", "weight_norm", "act_std")]
    for mine, column in zip(np_columns, ("signal_grad_norm", "weight_norm", "act_std"), strict=True):
        assert mine == pytest.approx(without.profile(column), rel=1e-12)
    # A matrix has no gradient along itself, which its length has.
    assert (found.profile("weight_grad_norm")[:-1] < without.profile("weight_grad_norm")[:-1]).all()


def test_what_cannot_be_is_refused() -> None:
    wrongs: tuple[tuple[dict[str, Value], str], ...] = (
        ({"model.norm": "group", "model.groups": 5}, "5 does not divide model.width=64"),
        ({"model.norm": "group", "model.groups": 64}, "a group of a single unit has no spread"),
        ({"model.norm": "instance"}, "'mlp' takes: none, batch, layer, rms, group, weight"),
        ({"model.norm": "instance", "model.name": "cnn", "model.pool": "2+3+4"}, "a single pixel has no spread"),
        ({"model.norm": "weight", "model.init": "zeros"}, "needs matrices that begin with a length"),
        ({"model.norm": "weight", "model.gain": 0.0}, "have no direction"),
        ({"model.norm": "weight", "model.parametrization": "mup"}, "no rule is known"),
        ({"model.norm": "group", "model.name": "transformer"}, "'transformer' takes: none, layer, rms"),
        ({"model.name": "resnet", "model.norm_order": "behind"}, "has no key 'model.norm_order'"),
    )
    for wrong, said in wrongs:
        with pytest.raises(SpecError, match=said):
            build(wrong)
