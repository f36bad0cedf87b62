"""`gradlab.measure` and `gradlab.verdict`: on networks of torch.nn, and against the tables of a cohort."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.data.batches import batches
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.columns import PROBE_COLUMNS
from tests.members import content, measured
from tests.oracles import Plain

torch.set_num_threads(1)

AFTER_AN_UPDATE = ("grad_norm_clipped", "update_ratio")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)


def images(samples: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 1, 8, 8), torch.randint(0, 10, (samples,))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64, 10),
    )


class Recurrent(nn.Module):
    """Two stacked LSTM layers and a read-out of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 16, num_layers=2, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.lstm(x)
        read: Tensor = self.out(output[:, -1])
        return read


class Shared(nn.Module):
    """One matrix used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.idle = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = self.again(torch.tanh(x))
        return x


def cell(frame: pd.DataFrame, at: int | str, column: str) -> float:
    """A number of the frame by its index."""
    return float(frame[column].to_numpy(dtype=float)[list(frame.index).index(at)])


def mean_square(output: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(output, targets)


COHORTS: list[dict[str, Value]] = [
    {"model.activation": "relu"},
    {"model.activation": "tanh", "model.init": "xavier", "model.bias_var": 0.1},
    {"model.activation": "gelu", "model.weight_var": 4.0},
    {"model.activation": "prelu", "model.norm": "layer"},
    {"model.activation": "relu", "model.norm": "batch"},
    {"model.activation": "sigmoid", "model.norm": "rms", "model.weight_var": 30.0},
    {"model.activation": "selu", "data.name": "linear_teacher"},
]


@pytest.mark.parametrize("values", COHORTS, ids=lambda values: "-".join(map(str, values.values())))
def test_the_numbers_are_those_of_a_cohort(values: dict[str, Value]) -> None:
    common: dict[str, Value] = {"model.depth": 6, "model.width": 24, "train.steps": 1, "train.precision": "float64"}
    run = build(common | values)
    (member,) = measured(common | values)
    data = content(run.data)
    chosen = batches(run.data, len(data.train_inputs), 1)[0]
    targets = torch.from_numpy(data.train_targets[chosen])
    loss = F.cross_entropy if run.facts.loss == "cross_entropy" else F.mse_loss
    inputs = torch.from_numpy(data.train_inputs[chosen])
    frame = gradlab.measure(Plain(run), lambda seen, y: loss(seen[-1].h[0], y), (inputs, targets))
    assert list(frame["layer"]) == list(range(run.layers + 1))
    assert frame.attrs["precision"] == "float64"
    for layer, row in enumerate(frame.to_dict("records")):
        wanted = member.at(0, layer)
        for column in [one for one in PROBE_COLUMNS if one != "act_correlation"]:
            if column == "grad_zero" and run.model.norm == "batch":
                continue  # a bias before a batch norm has a gradient of rounding errors, zero or not
            if column in AFTER_AN_UPDATE or wanted[column] is None:
                assert math.isnan(row[column]), (layer, column)
            else:
                slack = 1e-9 if column == "act_mean" else 0.0
                assert row[column] == pytest.approx(wanted[column], rel=1e-8, abs=slack), (layer, column)


def test_a_convolutional_network() -> None:
    network = convolutional()
    inputs, targets = images()
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets))
    assert list(frame["name"]) == ["input", "0", "3", "8"]
    # The same by hand, without dropout's draws.
    network[7] = nn.Identity()
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets)).set_index("layer")
    by_hand = copy.deepcopy(network).train()
    by_hand[2] = nn.ReLU()
    x = inputs.clone().requires_grad_()
    signals = [by_hand[1](by_hand[0](x))]
    hidden = [F.relu(signals[0])]
    signals.append(by_hand[3](hidden[0]))
    hidden.append(torch.tanh(signals[1]))
    signals.append(by_hand[8](F.max_pool2d(hidden[1], 2).flatten(1)))
    for signal in signals:
        signal.retain_grad()
    F.cross_entropy(signals[-1], targets).backward()
    for layer, (signal, parts) in enumerate(zip(signals, ([0, 1], [3], [8]), strict=True), start=1):
        assert signal.grad is not None
        grads = [parameter.grad for part in parts for parameter in by_hand[part].parameters()]
        total = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads if grad is not None))
        assert cell(frame, layer, "signal_grad_norm") == pytest.approx(float(signal.grad.norm()), rel=1e-5)
        assert cell(frame, layer, "grad_norm") == pytest.approx(total, rel=1e-5)
        weight = by_hand[parts[0]].get_parameter("weight")
        assert weight.grad is not None
        assert cell(frame, layer, "weight_norm") == pytest.approx(float(weight.detach().norm()), rel=1e-6)
        assert cell(frame, layer, "weight_grad_norm") == pytest.approx(float(weight.grad.norm()), rel=1e-5)
    assert x.grad is not None
    assert cell(frame, 0, "signal_grad_norm") == pytest.approx(float(x.grad.norm()), rel=1e-5)
    assert cell(frame, 1, "act_std") == pytest.approx(float(hidden[0].detach().std(correction=0)), rel=1e-5)
    assert cell(frame, 2, "saturated") == pytest.approx(float((1 - hidden[1] ** 2 < 0.05).double().mean()))
    assert cell(frame, 1, "dead") == pytest.approx(float((hidden[0] == 0).all(dim=(0, 2, 3)).double().mean()))
    assert math.isnan(cell(frame, 3, "dead"))


def test_an_lstm_is_one_layer_whose_signal_is_its_output() -> None:
    network, x, y = Recurrent(), torch.randn(24, 7, 5), torch.randint(0, 3, (24,))
    whole = gradlab.measure(network, F.cross_entropy, (x, y))
    frame = whole[whole["axis"] == "depth"].set_index("name")
    assert list(frame.index) == ["input", "lstm", "out"]
    output, _ = network.lstm(x)
    output.retain_grad()
    F.cross_entropy(network.out(output[:, -1]), y).backward()
    assert output.grad is not None
    along = whole[whole["axis"] == "time"]
    assert list(along["layer"]) == list(range(1, 8))
    assert list(along["reads"]) == [0.0] * 7
    assert cell(frame, "lstm", "signal_grad_norm") == pytest.approx(float(output.grad.norm()), rel=1e-5)
    weights = [parameter.grad for parameter in network.lstm.parameters() if parameter.dim() > 1]
    total = math.sqrt(sum(float(grad.double().square().sum()) for grad in weights if grad is not None))
    assert cell(frame, "lstm", "weight_grad_norm") == pytest.approx(total, rel=1e-5)
    assert [str(verdict.name) for verdict in gradlab.verdict(whole)] == ["healthy"]


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_transformer_counts_every_parameter_once(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0, norm_first=norm_first)
    network = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    batch = torch.randn(20, 6, 16), torch.randn(20, 6, 16)
    frame = gradlab.measure(network, mean_square, batch)
    kinds = ("self_attn", "linear1", "linear2")
    assert list(frame["name"]) == ["input", *(f"layers.{at}.{kind}" for at in range(3) for kind in kinds)]
    assert frame["signal_grad_norm"].notna().all()
    F.mse_loss(network(batch[0]), batch[1]).backward()
    grads = [parameter.grad for parameter in network.parameters()]
    total = sum(float(grad.double().square().sum()) for grad in grads if grad is not None)
    assert (frame["grad_norm"][1:] ** 2).sum() == pytest.approx(total, rel=1e-5)
    sizes = sum(float(p.detach().double().square().sum()) for p in network.parameters() if p.dim() > 1)
    assert (frame["weight_norm"][1:] ** 2).sum() == pytest.approx(sizes, rel=1e-6)
    assert [verdict.name for verdict in gradlab.verdict(frame)] == ["healthy"]


def test_a_module_called_several_times_is_one_layer_over_all_calls() -> None:
    network, x, y = Shared(), torch.randn(20, 6), torch.randn(20, 6)
    frame = gradlab.measure(network, mean_square, (x, y)).set_index("name")
    assert list(frame.index) == ["input", "first", "again"]
    assert list(frame["calls"][1:]) == [1, 3]
    signals, h = [], network.first(x)
    for _ in range(3):
        h = network.again(torch.tanh(h))
        h.retain_grad()
        signals.append(h)
    F.mse_loss(h, y).backward()
    total = math.sqrt(sum(float(signal.grad.square().sum()) for signal in signals if signal.grad is not None))
    assert cell(frame, "again", "signal_grad_norm") == pytest.approx(total, rel=1e-5)
    hidden = torch.cat([torch.tanh(signals[0]), torch.tanh(signals[1]), signals[2]])
    assert cell(frame, "again", "act_std") == pytest.approx(float(hidden.detach().std(correction=0)), rel=1e-5)


def test_integers_have_no_layer_0_and_an_embedding_is_a_layer() -> None:
    network = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(32, 5))
    frame = gradlab.measure(network, F.cross_entropy, (torch.randint(0, 30, (20, 4)), torch.randint(0, 5, (20,))))
    assert list(frame["layer"]) == [1, 2]
    assert list(frame["name"]) == ["0", "2"]


def test_several_inputs_are_a_tuple() -> None:
    network = nn.Bilinear(4, 3, 2)
    frame = gradlab.measure(network, mean_square, ((torch.randn(9, 4), torch.randn(9, 3)), torch.randn(9, 2)))
    assert list(frame["name"]) == ["Bilinear"]


def traces(network: nn.Module) -> Iterator[object]:
    """What a measurement must leave as it was."""
    for part in network.modules():
        yield part.training
        yield len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)
    yield [None if parameter.grad is None else parameter.grad.tolist() for parameter in network.parameters()]
    yield [(tensor.tolist(), tensor.requires_grad) for tensor in network.state_dict(keep_vars=True).values()]
    yield torch.get_rng_state().tolist()
    yield torch.is_grad_enabled()


def fails(*_: Tensor) -> Tensor:
    raise ArithmeticError("on purpose")


@pytest.mark.parametrize("loss", [F.cross_entropy, fails])
@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_left_behind(loss: Callable[..., Tensor], enabled: bool) -> None:
    network = convolutional().eval()
    network[1].train()
    inputs, targets = images()
    F.cross_entropy(network(inputs), targets).backward()
    network[0].bias.grad = None
    before, given = list(traces(network)), inputs.clone()
    with torch.set_grad_enabled(enabled):
        if loss is fails:
            with pytest.raises(ArithmeticError, match="on purpose"):
                gradlab.measure(network, loss, (inputs, targets))
        else:
            gradlab.measure(network, loss, (inputs, targets))
    assert list(traces(network)) == before
    assert torch.equal(inputs, given)
    assert not inputs.requires_grad


def test_an_error_inside_the_network_leaves_no_hook() -> None:
    network, batch = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3)).eval(), (torch.randn(5, 4), torch.randn(5, 3))
    before = list(traces(network))
    with pytest.raises(RuntimeError):
        gradlab.measure(network, mean_square, batch)
    assert list(traces(network)) == before


@pytest.mark.parametrize(
    ("network", "loss", "said"),
    [
        (nn.Linear(4, 4), torch.sub, r"of shape \(20, 4\); expected a scalar"),
        (nn.Linear(4, 4), lambda *_: 1.0, "a float; expected a scalar"),
        (nn.Linear(4, 4), lambda output, targets: (output - targets).detach().mean(), "no parameter"),
        (nn.LayerNorm(4), mean_square, "no module with a weight matrix"),
    ],
)
def test_what_cannot_be_measured_is_said(network: nn.Module, loss: Callable[..., Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gradlab.measure(network, loss, (torch.randn(20, 4), torch.randn(20, 4)))


def test_a_frozen_layer_has_a_signal_and_no_gradient() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    network[0].requires_grad_(False)
    frame = gradlab.measure(network, mean_square, (torch.randn(20, 4), torch.randn(20, 4))).set_index("layer")
    assert cell(frame, 1, "signal_grad_norm") > 0
    assert math.isnan(cell(frame, 1, "grad_norm"))
    assert cell(frame, 1, "weight_norm") > 0


def stack(depth: int, activation: type[nn.Module], scale: float, bias: float = 0.0) -> nn.Sequential:
    """Linear layers of width 48 whose weights have the variance scale/fan_in."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(48, 48)
        nn.init.normal_(linear.weight, std=math.sqrt(scale / 48))
        nn.init.constant_(linear.bias, bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(48, 48))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: stack(20, nn.Sigmoid, 1.0), ["vanishing"]),
        (lambda: stack(20, nn.ReLU, 8.0), ["exploding"]),
        (lambda: stack(10, nn.ReLU, 2.0), ["healthy"]),
        (lambda: stack(3, nn.ReLU, 2.0, bias=-20.0), ["dead"]),
        (lambda: stack(4, nn.Tanh, 100.0), ["saturated"]),
        (lambda: stack(120, nn.Sigmoid, 1.0), ["vanishing", "underflow"]),
    ],
)
def test_verdicts_of_plain_networks(network: Callable[[], nn.Module], expected: list[str]) -> None:
    frame = gradlab.measure(network(), mean_square, (torch.randn(64, 48), torch.randn(64, 48)))
    found = [verdict.name for verdict in gradlab.verdict(frame)]
    assert found[: len(expected)] == expected


def test_a_verdict_from_a_frame_takes_thresholds_and_one_run_alone() -> None:
    frame = gradlab.measure(stack(8, nn.ReLU, 1.0), mean_square, (torch.randn(64, 48), torch.randn(64, 48)))
    ratio = frame["signal_grad_norm"][1] / frame["signal_grad_norm"][8]
    assert gradlab.verdict(frame, {"vanishing_ratio": 2 * ratio})[0].name == "vanishing"
    assert gradlab.verdict(frame, {"vanishing_ratio": ratio / 2})[0].name == "healthy"
    with pytest.raises(ValueError, match="unknown threshold 'vanishing'"):
        gradlab.verdict(frame, {"vanishing": 0.1})
    with pytest.raises(ValueError, match="lacks dead"):
        gradlab.verdict(frame.drop(columns="dead"))
    two = pd.concat([frame.assign(run_id="a"), frame.assign(run_id="b")])
    with pytest.raises(ValueError, match="of 2 runs"):
        gradlab.verdict(two)
    with pytest.raises(TypeError, match="of type dict; expected the frame of a layers table"):
        gradlab.verdict({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"of type Tensor; expected a torch\.nn\.Module"):
        gradlab.measure(torch.randn(3), mean_square, (torch.randn(2, 3), torch.randn(2, 3)))  # type: ignore[arg-type]
    assert gradlab.verdict(two[two["run_id"] == "a"])[0].name == gradlab.verdict(frame)[0].name


def test_bfloat16_is_measured_in_its_own_precision() -> None:
    network = stack(3, nn.Tanh, 1.0).to(torch.bfloat16)
    batch = torch.randn(32, 48, dtype=torch.bfloat16), torch.randn(32, 48, dtype=torch.bfloat16)
    frame = gradlab.measure(network, mean_square, batch)
    assert frame.attrs["precision"] == "bfloat16"
    assert np.isfinite(frame["signal_grad_norm"]).all()
    assert gradlab.verdict(frame)[0].name == "healthy"
