"""TF32: operands of products rounded as written out here, whatever makes the products, and on a card its switch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.data.batches import batches
from gradlab.data.facts import described
from gradlab.engine.cohort import prepare
from gradlab.engine.precision import FORMATS
from gradlab.engine.step import advance
from gradlab.engine.tf32 import OPERANDS, products, rounded
from gradlab.engine.train import train
from gradlab.engine.ways import Own
from gradlab.launch.worker import take
from gradlab.nn.kernels.calls import serves
from gradlab.spec.choices.formats import FORMATS as NAMED
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from tests.card import fake_cards
from tests.engine import networks
from tests.engine.test_precision import SMALL, course, plain
from tests.members import content, measured

CPU = torch.device("cpu")


def by_hand(x: Tensor) -> Tensor:
    """Eleven bits of a number, to the nearest, ties away from zero."""
    digits, exponent = torch.frexp(x.double())
    kept = (digits.abs() * 2**11 + 0.5).floor() * digits.sign()
    return torch.ldexp(kept, exponent - 11).float()


class Linear(torch.autograd.Function):
    """x W' + b there and back, each operand of each product rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(by_hand(x), by_hand(weight))
        return by_hand(x) @ by_hand(weight).T + bias

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        slope = by_hand(slopes[0])
        return slope @ weight, slope.T @ x, slopes[0].sum(0)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (1 + 2**-11, 1 + 2**-10),
        (1 + 2**-11 - 2**-23, 1.0),
        (-1 - 2**-11, -1 - 2**-10),
        (2 - 2**-12, 2.0),
        (2**-130, 2**-130),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (math.nan, math.nan),
        (0.0, 0.0),
    ],
)
def test_a_number_keeps_eleven_bits(given: float, wanted: float) -> None:
    torch.testing.assert_close(rounded(torch.tensor([given])), torch.tensor([wanted]), rtol=0, atol=0, equal_nan=True)


def test_the_format_is_what_is_kept() -> None:
    form, single = NAMED["tf32"], torch.finfo(torch.float32)
    held = torch.tensor([form.largest, 1 + 2.0 ** (1 - form.digits), form.smallest_normal])
    assert torch.equal(rounded(held), held)
    assert rounded(torch.tensor([1 + 2.0**-form.digits])) != 1 + 2.0**-form.digits
    assert rounded(torch.tensor([single.max])) == math.inf
    assert form.smallest_normal == single.smallest_normal


def test_rounding_is_what_is_written_out() -> None:
    x = torch.randn(1000) * 10 ** torch.empty(1000).uniform_(-20, 20)
    assert torch.equal(rounded(x), by_hand(x))


def losses_by_hand(run: RunSpec, layers: list[nn.Linear]) -> list[float]:
    """Of a network of so many linear layers, tanh between them."""
    data = content(run.data)
    mover, losses = torch.optim.SGD(nn.ModuleList(layers).parameters(), lr=run.optim.lr), []
    for rows in batches(run.data, run.facts.train, run.train.steps):
        x = torch.from_numpy(data.train_inputs[rows]).float().flatten(1)
        for layer in layers:
            x = torch.tanh(x) if layer is not layers[0] else x
            x = Linear.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
        loss = F.cross_entropy(x, torch.from_numpy(data.train_targets[rows]))
        mover.zero_grad()
        torch.autograd.backward(loss)
        mover.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_training_is_the_loop_with_its_rounding_written_out() -> None:
    run = build(SMALL | {"train.precision": "tf32"})
    (found,) = measured(SMALL | {"train.precision": "tf32"})
    (single,) = measured(SMALL)
    layers = [part for part in plain(run) if isinstance(part, nn.Linear)]
    assert course(found, "loss") == pytest.approx(losses_by_hand(run, layers), rel=1e-6)
    assert course(found, "loss") != pytest.approx(course(single, "loss"), rel=1e-5)


@pytest.mark.parametrize("stacked", [False, True])
def test_networks_of_one_s_own_are_the_loop_too(*, stacked: bool) -> None:
    own: dict[str, Value] = {"model.name": "module", "model.target": f"{networks.__file__}:Mlp", "optim.lr": 0.1}
    runs = [described({**own, "train.precision": "tf32", "train.steps": 6, "seed": seed}) for seed in (0, 1)]
    record = train(runs, content(runs[0].data), CPU, lambda *_: None, stacked=stacked)
    for run, losses in zip(runs, record.loss[:6].T, strict=True):
        torch.manual_seed(run.seed)
        layers = [layer for layer in networks.Mlp().layers if isinstance(layer, nn.Linear)]
        assert list(losses) == pytest.approx(losses_by_hand(run, layers), rel=1e-6)


def test_a_convolution_and_its_ways_back_are_of_rounded_operands() -> None:
    x, weight = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    slope = torch.randn(2, 4, 4, 4)
    with products(CPU):
        output = F.conv2d(x, weight)
        torch.autograd.backward(output, slope)
    short, by, back = by_hand(x.detach()), by_hand(weight.detach()), by_hand(slope)
    torch.testing.assert_close(output, F.conv2d(short, by), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, conv2d_input(short.shape, by, back), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(weight.grad, conv2d_weight(short, by.shape, back), rtol=1e-6, atol=1e-5)


class Named(TorchDispatchMode):
    """Notes which operators are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


@pytest.mark.parametrize("make", [lambda: nn.LSTM(8, 8, batch_first=True), encoder], ids=["lstm", "attention"])
@pytest.mark.parametrize("train", [True, False])
def test_no_product_hides_in_what_torch_fuses(make: Callable[[], nn.Module], *, train: bool) -> None:
    network, x = make().train(train), torch.randn(2, 3, 8)
    named = Named()
    with products(CPU), named, torch.set_grad_enabled(train):
        found = network(x)
        output = found[0] if isinstance(found, tuple) else found
        if train:
            torch.autograd.backward(output.sum())
    fused = [str(one) for one in named.seen if any(word in str(one) for word in ("rnn", "attention", "encoder"))]
    assert not fused
    assert named.seen & OPERANDS.keys()


def test_on_a_card_the_switches_are_turned_and_turned_back() -> None:
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [one.allow_tf32 for one in switches]
    with products(torch.device("cuda")):
        assert [one.allow_tf32 for one in switches] == [True, True]
    assert [one.allow_tf32 for one in switches] == before


def test_a_processor_is_left_as_it_was() -> None:
    def ways() -> tuple[Any, ...]:
        return torch.backends.mkldnn.enabled, torch.backends.mha.get_fastpath_enabled(), serves(torch.ones(1))

    before = ways()
    with products(CPU):
        assert ways() == (False, False, False)
    assert ways() == before


@pytest.mark.parametrize("precision", ["tf32", "float32"])
def test_only_a_step_of_such_a_piece_is_in_tf32(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    seen, passed = [], Own._passed

    def noting(self: Own, *given: Any) -> Any:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return passed(self, *given)

    monkeypatch.setattr(Own, "_passed", noting)
    run = build(SMALL | {"train.precision": precision})
    with fake_cards():
        take(torch.device("cuda:0"))
        cohort = prepare([run], content(run.data), torch.device("cuda:0"))
        advance(cohort, 0, record=True)
        cohort.way.evaluate(cohort.task)
        assert not torch.backends.cuda.matmul.allow_tf32
    assert set(seen) == {precision == "tf32"}


def test_all_that_is_stored_is_single() -> None:
    form = FORMATS["tf32"]
    assert {form.parameters, form.passes, form.beside} == {torch.float32}
    assert not form.half
