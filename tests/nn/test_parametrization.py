"""Parametrizations equal plain torch networks with multipliers and parameter groups, written from their tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab.data.batches import batches
from gradlab.data.facts import described
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.parametrization import growing, rate_factor
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, measured

SMALL: dict[str, Value] = {
    "model.depth": 4,
    "model.width": 12,
    "model.activation": "tanh",
    "model.bias_var": 0.1,
    "train.steps": 20,
    "train.precision": "float64",
    "probe.every": 20,
    "data.batch_size": 16,
}
SGD: dict[str, Value] = {"optim.name": "sgd", "optim.lr": 0.05, "optim.momentum": 0.8}
ADAM: dict[str, Value] = {"optim.name": "adam", "optim.lr": 0.01, "optim.eps": 1e-3}


class Scaled(nn.Module):
    """Layers s W h + b, where W is trained and s a number."""

    def __init__(self, run: RunSpec, weights: Sequence[Tensor], biases: Sequence[Tensor], scales: Sequence[float]):
        super().__init__()
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)
        self.scales, self.residual = scales, run.model.name == "residual_mlp"
        self.beta = math.sqrt(((run.model.base_depth or run.model.depth) - 2) / (run.model.depth - 2))

    def layer(self, at: int, h: Tensor) -> Tensor:
        z: Tensor = self.scales[at] * (h @ self.weights[at].T) + self.biases[at]
        return z

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.scales) - 1
        z = self.layer(0, x.flatten(1))
        for at in range(1, last):
            z = z + self.beta * self.layer(at, torch.tanh(z)) if self.residual else self.layer(at, torch.tanh(z))
        return self.layer(last, z if self.residual else torch.tanh(z))


def normals(run: RunSpec) -> tuple[list[Tensor], list[Tensor]]:
    """The standard normals of the weights, and the initial biases, by layer."""
    plain = build({key: value for key, value in run.flat().items() if key in SMALL} | {"seed": run.seed})
    layout = MODELS["mlp"].layout(plain.model, plain.facts)
    flat = initial_parameters(layout, [plain], torch.float64)[0]
    found: dict[Role, list[Tensor]] = {Role.WEIGHT: [], Role.BIAS: []}
    for slot, columns in zip(layout.slots, layout.columns, strict=True):
        own = flat[columns].view(slot.shape)
        found[slot.role].append(own / math.sqrt(2 / slot.fan_in) if slot.role is Role.WEIGHT else own.clone())
    return found[Role.WEIGHT], found[Role.BIAS]


def losses(run: RunSpec) -> list[float]:
    """Of a training as the parametrization's table has it: `mup` with a multiplier of the output, table 8."""
    mup, adam = run.model.parametrization == "mup", run.optim.name == "adam"
    weights, biases = normals(run)
    fans, last = [weight.shape[1] for weight in weights], len(weights) - 1
    ratio = run.model.width / (run.model.base_width or 1)
    if mup:
        scales = [1 / ratio if at == last else 1.0 for at in range(last + 1)]
        spread = [2 / (run.model.base_width or 1) if at == last else 2 / fan for at, fan in enumerate(fans)]
    else:
        scales, spread = [fan**-0.5 for fan in fans], [2.0] * len(fans)
    network = Scaled(run, [w * math.sqrt(v) for w, v in zip(weights, spread, strict=True)], biases, scales)
    groups = []
    for at in range(last + 1):
        hidden = 0 < at < last
        factor = 1.0 if not mup else (1 / ratio if hidden else 1.0) if adam else (1.0 if hidden else ratio)
        deep = network.beta if hidden and adam else 1.0
        groups.append({"params": [network.weights[at]], "lr": run.optim.lr * factor * deep})
        groups.append({"params": [network.biases[at]], "lr": run.optim.lr * deep})
        if mup and not adam and at < last:
            groups[-1]["lr"] = run.optim.lr * ratio
        if adam:
            # Of gradients s times as large; gradlab's eps stands beside those of what acts.
            groups[-2]["eps"] = run.optim.eps * scales[at]
    mover = (
        torch.optim.Adam(groups, lr=run.optim.lr, eps=run.optim.eps)
        if adam
        else torch.optim.SGD(groups, lr=run.optim.lr, momentum=run.optim.momentum)
    )
    data = content(run.data)
    inputs, targets = torch.from_numpy(data.train_inputs).double(), torch.from_numpy(data.train_targets)
    found = []
    for chosen in batches(run.data, len(inputs), run.train.steps + 1):
        loss = F.cross_entropy(network(inputs[chosen]), targets[chosen])
        mover.zero_grad()
        torch.autograd.backward(loss)
        mover.step()
        found.append(loss.item())
    return found


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("name", ["mlp", "residual_mlp"])
def test_twenty_steps_equal_a_plain_network_s(name: str, optimizer: dict[str, Value]) -> None:
    own = {**SMALL, **optimizer, "model.name": name}
    members: list[dict[str, Value]] = [
        own,
        own | {"model.parametrization": "mup", "model.base_width": 4},
        own | {"model.parametrization": "mup", "model.base_width": 48},
        own | {"model.parametrization": "ntk", "optim.lr": 1.0 if optimizer is SGD else 0.05},
    ]
    if name == "residual_mlp":
        members.append(own | {"model.parametrization": "mup", "model.base_width": 4, "model.base_depth": 3})
    # A base of the depth is another sum, and so another cohort.
    _, *found = [*measured(*members[:4]), *(one for given in members[4:] for one in measured(given))]
    for settings, member in zip(members[1:], found, strict=True):
        wanted = losses(described(settings))
        assert [row["loss"] for row in member.steps] == pytest.approx(wanted, rel=1e-8)
        assert wanted[-1] < wanted[0]


def test_at_the_base_width_mup_is_the_standard_parametrization() -> None:
    for name in ("mlp", "transformer"):
        own: dict[str, Value] = {"model.name": name, "model.depth": 2, "train.steps": 3, "data.batch_size": 4}
        own |= {"model.width": 16, "train.precision": "float64"}
        (standard,) = measured(own)
        (mup,) = measured(own | {"model.parametrization": "mup", "model.base_width": 16})
        assert [row["loss"] for row in mup.steps] == pytest.approx([row["loss"] for row in standard.steps], rel=1e-12)


@pytest.mark.parametrize("parametrization", ["mup", "ntk"])
def test_the_first_step_of_rectified_adam_is_one_of_descent(parametrization: str) -> None:
    own: dict[str, Value] = {"model.depth": 3, "model.width": 16, "data.batch_size": 4, "train.precision": "float64"}
    own |= {"model.parametrization": parametrization, "optim.lr": 0.01, "train.steps": 1}
    own |= {"model.base_width": 4} if parametrization == "mup" else {}
    found = [measured(own | {"optim.name": name})[0] for name in ("sgd", "radam", "adam")]
    descent, rectified, adaptive = ([row["loss"] for row in one.steps] for one in found)
    assert rectified == pytest.approx(descent, rel=1e-12)
    assert abs(adaptive[1] / descent[1] - 1) > 1e-4


@pytest.mark.parametrize(
    ("name", "first", "inside", "last"),
    [
        ("cnn", "1.weight", "2.weight", "3.weight"),
        ("resnet", "1.weight", "3.weight", "4.weight"),
        ("rnn", "1.weight", "1.recurrent", "3.weight"),
        ("lstm", "1.weight", "2.weight", "3.weight"),
        ("transformer", "1.weight", "2.second", "6.weight"),
        ("transformer", "1.places", "3.weight", "6.weight"),
    ],
)
def test_other_architectures_have_inputs_hidden_matrices_and_outputs(
    name: str, first: str, inside: str, last: str
) -> None:
    own: dict[str, Value] = {"model.name": name, "model.depth": 4 if name == "resnet" else 2, "model.width": 16}
    run = build(own | {"model.parametrization": "mup", "model.base_width": 4})
    twice = build(own | {"model.width": 32})
    layout = growing(*(MODELS[name].layout(one.model, one.facts) for one in (run, twice)))
    factors = {
        slot.label: [rate_factor(slot, run.model, adaptive=adaptive) for adaptive in (False, True)]
        for slot in layout.slots
    }
    assert [factors[label] for label in (first, inside, last)] == [[4, 1], [1, 0.25], [0.25, 0.25]]


def test_what_has_no_rule_is_refused() -> None:
    refused: tuple[tuple[dict[str, Value], str], ...] = (
        ({"model.init": "orthogonal"}, "model.init=orthogonal with model.parametrization=mup"),
        ({"optim.name": "lamb"}, "optim.name=lamb: its steps"),
        ({"model.name": "linear_chain"}, "'linear_chain' has no key 'model.parametrization'"),
        (
            {"model.name": "transformer", "model.norm_place": "post", "model.base_depth": 2},
            "norm_place=post: it is",
        ),
        ({"model.name": "resnet", "model.block": "rezero", "model.base_depth": 4}, "expected model.block=preact"),
        ({"model.name": "residual_mlp", "model.base_depth": 2}, "base_depth=2 with .* of that depth has no branches"),
    )
    for wrong, said in refused:
        with pytest.raises(SpecError, match=said):
            build({"model.parametrization": "mup", **wrong})
