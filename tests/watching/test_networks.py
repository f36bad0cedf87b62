"""`gradlab.measure` and `gradlab.verdict` on networks as people write them: frozen, cut, wrapped, broken.

Each is held to the derivatives that autograd gives by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import gradlab
from gradlab.diagnose.tables import of_frame

ACTIVATIONS = (
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Hardtanh,
)

torch.set_num_threads(1)

WIDTH, CLASSES = 16, 10


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)


def batch(samples: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, WIDTH), torch.randint(0, CLASSES, (samples,))


def chain(depth: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers = [part for _ in range(depth) for part in (nn.Linear(WIDTH, WIDTH), activation())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def row(frame: pd.DataFrame, name: str) -> dict[str, float]:
    (found,) = [one for one in frame.to_dict("records") if one["name"] == name]
    return {str(key): value for key, value in found.items()}


def assert_measured_alike(one: nn.Module, other: nn.Module) -> None:
    given = batch()
    frames = [gradlab.measure(network, F.cross_entropy, given) for network in (one, other)]
    pd.testing.assert_frame_equal(frames[0], frames[1])


def names(frame: pd.DataFrame) -> list[str]:
    return [verdict.name for verdict in gradlab.verdict(frame)]


class Net(nn.Module):
    """A network of named parts, and what it does with them."""

    def __init__(self, does: Callable[[Net, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.does = does
        for name, part in parts.items():
            self.add_module(name, part)

    def __getitem__(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def test_frozen_layers_before_the_first_that_learns_are_not_on_the_way() -> None:
    embedding = nn.Embedding(20, WIDTH)
    embedding.weight.requires_grad_(False)
    network = nn.Sequential(embedding, *chain(20, nn.Sigmoid))
    frame = gradlab.measure(network, F.cross_entropy, (torch.randint(0, 20, (32,)), batch()[1]))
    assert math.isnan(row(frame, "0")["signal_grad_norm"])
    (verdict,) = gradlab.verdict(frame)
    assert verdict.name == "vanishing"
    deltas = frame["signal_grad_norm"].to_numpy()
    assert verdict.evidence["ratio"] == pytest.approx(deltas[1] / deltas[-2])
    assert (verdict.evidence["first"], verdict.evidence["last"]) == (6, 21)
    assert "layer 2 (1) " in verdict.sentence
    assert "layer 21 (39) " in verdict.sentence


def test_layers_below_a_cut_have_a_signal_gradient_of_zero() -> None:
    network = Net(
        lambda net, x: net["head"](torch.tanh(net["neck"](net["body"](x).detach()))),
        body=chain(3),
        neck=nn.Linear(CLASSES, CLASSES),
        head=nn.Linear(CLASSES, CLASSES),
    )
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert list(frame["signal_grad_norm"][1:5]) == [0.0] * 4
    assert list(frame["grad_norm"][1:5]) == [0.0] * 4
    (verdict,) = gradlab.verdict(frame)
    assert verdict.name == "vanishing"
    assert verdict.evidence["zero_up_to"] == 4
    assert "exactly zero up to layer 4 (body.6)" in verdict.sentence


def test_a_head_that_the_loss_does_not_use_is_not_on_the_way() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net["body"](x)
        net["aside"](h)
        out: Tensor = net["head"](h)
        return out

    network = Net(forward, body=chain(2, nn.Tanh), aside=nn.Linear(CLASSES, 3), head=nn.Linear(CLASSES, CLASSES))
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert row(frame, "aside")["signal_grad_norm"] == 0
    deltas = frame["signal_grad_rms"].to_numpy()
    (verdict,) = gradlab.verdict(frame)
    assert verdict.evidence["depth_ratio"] == pytest.approx(deltas[1] / deltas[3])


class Positioned(nn.Module):
    """A parameter of its own beside the layers that it holds, as a vision transformer has."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, WIDTH))
        self.layers = chain(20, nn.Sigmoid)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x + self.position)
        return out


def test_what_only_holds_layers_has_parameters_and_is_not_on_the_way() -> None:
    frame = gradlab.measure(Positioned(), F.cross_entropy, batch())
    holder = row(frame, "Positioned")
    assert (holder["layer"], holder["calls"]) == (1, 0)
    assert math.isnan(holder["signal_grad_norm"])
    (verdict,) = gradlab.verdict(frame)
    assert verdict.name == "vanishing"
    assert "layer 2 (layers.0) " in verdict.sentence


@pytest.mark.parametrize("kind", [weight_norm, spectral_norm])
def test_a_weight_that_is_made_of_others_is_its_layers_own(kind: Callable[[nn.Module], nn.Module]) -> None:
    network = nn.Sequential(kind(nn.Linear(WIDTH, WIDTH)), nn.ReLU(), kind(nn.Linear(WIDTH, CLASSES)))
    inputs, targets = batch()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert list(frame["name"]) == ["input", "0", "2"]
    z = network[0](inputs)
    z.retain_grad()
    F.cross_entropy(network[2](network[1](z)), targets).backward()
    assert z.grad is not None
    # Spectral norm takes one more step of its power iteration each time.
    slack = 1e-5 if kind is weight_norm else 0.2
    assert row(frame, "0")["signal_grad_norm"] == pytest.approx(float(z.grad.norm()), rel=slack)
    assert row(frame, "0")["dead"] == pytest.approx(float((z <= 0).all(0).double().mean()))
    sizes = sum(float(p.detach().double().square().sum()) for p in network[0].parameters() if p.dim() > 1)
    assert row(frame, "0")["weight_norm"] == pytest.approx(math.sqrt(sizes))


def test_modules_called_with_names_are_seen_alike() -> None:
    layers = {"a": nn.Linear(WIDTH, WIDTH), "norm": nn.LayerNorm(WIDTH), "relu": nn.ReLU(), "b": nn.Linear(WIDTH, 10)}
    plain = Net(lambda net, x: net["b"](net["relu"](net["norm"](net["a"](x)))), **layers)
    named = Net(lambda net, x: net["b"](input=net["relu"](input=net["norm"](input=net["a"](input=x)))), **layers)
    assert_measured_alike(plain, named)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_inside_a_checkpoint_the_numbers_are_the_same(kind: type[nn.Module]) -> None:
    network = nn.Sequential(chain(2, kind), nn.Linear(CLASSES, CLASSES))

    def again(net: Net, x: Tensor) -> Tensor:
        out: Tensor = net["1"](checkpoint(net["0"], x, use_reentrant=False))
        return out

    wrapped = Net(again, **{"0": network[0], "1": network[1]})
    assert_measured_alike(network, wrapped)


def test_what_is_compiled_is_measured_as_it_was_written() -> None:
    network = Net(lambda net, x: net["0"](x), **{"0": chain(3)})
    compiled = Net(lambda net, x: net["0"](x), **{"0": chain(3)})
    compiled.load_state_dict(network.state_dict())
    compiled["0"].compile(backend="eager")
    assert_measured_alike(network, compiled)
    whole: Any = torch.compile(chain(1), backend="eager")
    frame = gradlab.measure(whole, F.cross_entropy, batch())
    assert list(frame["name"]) == ["input", "_orig_mod.0", "_orig_mod.2"]


class Averaging(nn.Module):
    """Puts other tensors into the place of its buffers."""

    mean: Tensor
    seen: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("seen", None)
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.seen = x.detach()
        out: Tensor = self.out(x)
        return out


def test_buffers_that_are_replaced_come_back() -> None:
    network = Averaging()
    mean = network.mean
    gradlab.measure(network, F.cross_entropy, batch())
    assert network.mean is mean
    assert torch.equal(mean, torch.zeros(WIDTH))
    assert network.seen is None


def test_complex_signals_count_with_both_parts() -> None:
    layers = {name: nn.Linear(WIDTH, size, dtype=torch.complex64) for name, size in (("a", WIDTH), ("b", CLASSES))}
    network = Net(lambda net, x: net["b"](net["a"](x.to(torch.complex64))).abs(), **layers)
    inputs, targets = batch()
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets))
    z = network["a"](inputs.to(torch.complex64))
    z.retain_grad()
    F.cross_entropy(network["b"](z).abs(), targets).backward()
    assert z.grad is not None
    assert row(frame, "a")["signal_grad_norm"] == pytest.approx(float(torch.view_as_real(z.grad).norm()), rel=1e-5)
    assert row(frame, "a")["act_std"] == pytest.approx(
        float(torch.view_as_real(z.detach()).std(correction=0)), rel=1e-5
    )
    assert frame.attrs["precision"] == "float32"
    assert names(frame) == ["healthy"]


def test_under_autocast_the_coarser_precision_ends_the_gradient() -> None:
    network, given = chain(14, nn.Sigmoid), batch()
    assert names(gradlab.measure(network, F.cross_entropy, given)) == ["vanishing"]
    with torch.autocast("cpu", dtype=torch.float16):
        frame = gradlab.measure(network, F.cross_entropy, given)
    assert frame.attrs["precision"] == "float16"
    assert names(frame) == ["vanishing", "underflow"]


def test_a_whole_number_parameter_is_no_precision() -> None:
    network = chain(2)
    network.register_parameter("scale", nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False))
    assert gradlab.measure(network, F.cross_entropy, batch()).attrs["precision"] == "float32"


def root_of_nothing(output: Tensor, targets: Tensor) -> Tensor:
    """A loss that is finite, and whose gradient is 0 times infinity."""
    return F.cross_entropy(output, targets) + 0 * torch.sqrt(0 * output[0, 0])


def broken_networks() -> Iterator[tuple[nn.Module, Callable[..., Tensor], str]]:
    yield chain(3), root_of_nothing, "the gradient of layer 4 (6) is"
    yield chain(3), lambda output, targets: F.cross_entropy(output, targets) / 0, "the loss is"
    overflowing = chain(3)
    with torch.no_grad():
        overflowing[2].get_parameter("weight").mul_(1e38).mul_(1e3)
    yield overflowing, F.cross_entropy, "the weights of layer 2 (2) are"
    large = chain(3)
    with torch.no_grad():
        large[0].get_parameter("weight").mul_(1e30)
        large[2].get_parameter("weight").mul_(1e30)
    yield large, F.cross_entropy, "the signal of layer 2 (2) is"
    yield Net(lambda net, x: net["0"](torch.log(-x.abs())), **{"0": chain(2)}), F.cross_entropy, "layer 1 (0.0) is"


@pytest.mark.parametrize("place", range(5))
def test_numbers_that_are_not_finite_are_a_verdict(place: int) -> None:
    network, loss, said = list(broken_networks())[place]
    verdict = gradlab.verdict(gradlab.measure(network, loss, batch()))[0]
    assert verdict.name == "diverged"
    assert said in verdict.sentence
    assert verdict.evidence["step"] == 0


def test_a_frame_of_an_unknown_precision_is_refused() -> None:
    frame = gradlab.measure(chain(2), F.cross_entropy, batch())
    frame.attrs["precision"] = "float12"
    with pytest.raises(ValueError, match="unknown precision 'float12'; expected one of float64, float32"):
        gradlab.verdict(frame)


def test_a_frame_that_has_lost_its_attributes_is_judged() -> None:
    frame = gradlab.measure(chain(2), F.cross_entropy, batch())
    assert frame.attrs["loss"] == pytest.approx(2.3, abs=0.3)
    frame.attrs.clear()
    assert of_frame(frame).precision == "float32"
    assert names(frame) == ["healthy"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.randn(2, WIDTH), "the batch is a Tensor; expected a pair"),
        ({"inputs": 1, "targets": 2}, "the batch is a dict; expected a pair"),
        ((1, 2, 3), "the batch is 3 parts; expected a pair"),
    ],
)
def test_a_batch_is_a_pair(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gradlab.measure(chain(2), F.cross_entropy, given)
