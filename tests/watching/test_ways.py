"""What a measurement hears and sees: the trunk of the graph, time, operators, and the problem as it was posed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.watching.attention import entropy, entropy_of
from gradlab.watching.entries import moments, square, squares_and_zeros
from gradlab.watching.slopes import flats
from tests.watching.test_networks import CLASSES, WIDTH, Net, batch, chain, names, row

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)


def residual(blocks: int) -> Net:
    """A stem, pre-norm branches on a stream, and a head."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net["stem"](x)
        for place in range(blocks):
            x = x + net[f"b{place}"](F.relu(net[f"a{place}"](net[f"n{place}"](x))))
        out: Tensor = net["head"](x)
        return out

    parts: dict[str, nn.Module] = {"stem": nn.Linear(WIDTH, WIDTH), "head": nn.Linear(WIDTH, CLASSES)}
    for place in range(blocks):
        parts |= {f"n{place}": nn.LayerNorm(WIDTH), f"a{place}": nn.Linear(WIDTH, WIDTH)}
        parts[f"b{place}"] = nn.Linear(WIDTH, WIDTH)
    return Net(forward, **parts)


def test_the_trunk_of_a_residual_network_is_its_stream() -> None:
    network, (inputs, targets) = residual(3), batch()
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets))
    stream, x = [], network["stem"](inputs)
    x.retain_grad()
    stream.append(x)
    for place in range(3):
        x = x + network[f"b{place}"](F.relu(network[f"a{place}"](network[f"n{place}"](x))))
        x.retain_grad()
        stream.append(x)
    F.cross_entropy(network["head"](x), targets).backward()
    trunk = frame[frame["stage"].notna()].sort_values("stage")
    assert list(trunk["name"]) == ["stem", "b0", "b1", "b2", "head"]
    wanted = [float(one.grad.square().mean().sqrt()) for one in stream if one.grad is not None]
    assert list(trunk["trunk_grad_rms"][:-1]) == pytest.approx(wanted, rel=1e-5)
    # The stem's signal enters a branch through a norm, and the stream beside it: it stays itself.
    assert row(frame, "stem")["signal_grad_rms"] == pytest.approx(wanted[0], rel=1e-5)
    assert row(frame, "stem")["normalised"] == 1.0


def test_a_gradient_that_the_loss_takes_itself_is_not_heard() -> None:
    network, (inputs, _) = chain(3, nn.Tanh), batch()

    def penalty(output: Tensor, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return slope.square().sum()

    kept: list[Tensor] = []

    class Both(nn.Module):
        """The output, and what it is a function of."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            """Both of them."""
            return self.network(x), x

    frame = gradlab.measure(Both(), lambda output, _: penalty(*output), (inputs, None))
    handles = [network[place].register_forward_hook(lambda *args: kept.append(args[2])) for place in (0, 2, 4)]
    x = inputs.clone().requires_grad_()
    output = network(x)
    loss = penalty(output, x)
    grads = torch.autograd.grad(loss, kept)
    for handle in handles:
        handle.remove()
    heard = frame[frame["layer"] > 0]["signal_grad_norm"]
    # What the output is does not matter to its slope.
    assert list(heard) == pytest.approx([*(float(grad.norm()) for grad in grads), 0.0], rel=1e-5)


def test_a_network_may_ask_for_its_input_s_gradient() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x.requires_grad = True
        out: Tensor = net["0"](x)
        return out

    assert names(gradlab.measure(Net(forward, **{"0": chain(2)}), F.cross_entropy, batch())) == ["healthy"]


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_whether_the_loss_reads_every_step(every: bool, fused: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taken, self.kept, self.out = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
            self.fused = nn.GRU(3, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h, states = torch.zeros(len(x), 8), []
            for one in x.unbind(1):
                h = torch.tanh(self.taken(one) + self.kept(h))
                states.append(h)
            seen = self.fused(x)[0] if fused else torch.stack(states, 1)
            read: Tensor = self.out(seen if every else seen[:, -1]).flatten(0, -2)
            return read

    samples = 20 * (6 if every else 1)
    frame = gradlab.measure(
        Recurrent(), F.cross_entropy, (torch.randn(20, 6, 3), torch.randint(0, CLASSES, (samples,)))
    )
    assert set(frame[frame["axis"] == "time"]["reads"]) == {float(every)}


def test_a_cell_in_a_loop_has_rows_along_time() -> None:
    cell, out = nn.GRUCell(3, 8), nn.Linear(8, CLASSES)
    inputs, targets = torch.randn(20, 6, 3), torch.randint(0, CLASSES, (20,))

    def forward(net: Net, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 8)
        for one in x.unbind(1):
            h = net["cell"](one, h)
        result: Tensor = net["out"](h)
        return result

    frame = gradlab.measure(Net(forward, cell=cell, out=out), F.cross_entropy, (inputs, targets))
    h, states = torch.zeros(20, 8), []
    for one in inputs.unbind(1):
        h = cell(one, h)
        h.retain_grad()
        states.append(h)
    F.cross_entropy(out(h), targets).backward()
    along = frame[frame["axis"] == "time"]
    assert list(along["signal_grad_norm"]) == pytest.approx(
        [float(state.grad.norm()) for state in states if state.grad is not None], rel=1e-5
    )
    assert set(along["reads"]) == {0.0}


@pytest.mark.parametrize(
    "inputs",
    [
        {"tokens": torch.randint(0, 30, (20, 4))},
        [torch.randint(0, 30, (20, 4)), torch.ones(20, 4)],
        (torch.randint(0, 30, (20, 4)), torch.ones(20, 4)),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_batches_as_people_have_them(inputs: Any, sparse: bool) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.out = nn.Embedding(30, 8, sparse=sparse), nn.Linear(8, 5)

        def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
            found = self.embedding(tokens)
            out: Tensor = self.out((found if mask is None else found * mask[..., None]).mean(1))
            return out

    frame = gradlab.measure(Words(), F.cross_entropy, (inputs, torch.randint(0, 5, (20,))))
    assert list(frame["name"]) == ["embedding", "out"]
    assert row(frame, "embedding")["grad_norm"] > 0


class Swish(nn.Module):
    """An activation that nobody knows."""

    def __init__(self, steep: float = 1.7) -> None:
        super().__init__()
        self.steep = steep

    def forward(self, x: Tensor) -> Tensor:
        """Another x sigmoid(ax)."""
        return x * torch.sigmoid(self.steep * x)


class Steep(Swish):
    """One that has two flat ends."""

    def forward(self, x: Tensor) -> Tensor:
        """tanh(ax), in two operators."""
        return torch.tanh(self.steep * x)


@pytest.mark.parametrize(
    ("does", "column", "flat"),
    [
        (torch.relu, "dead", lambda z: (z <= 0).all(0).double().mean()),
        (F.relu6, "dead", lambda z: ((z <= 0) | (z >= 6)).all(0).double().mean()),
        (torch.tanh, "saturated", lambda z: (z.abs() > math.atanh(math.sqrt(0.95))).double().mean()),
        (lambda z: F.dropout(z, 0.0).sigmoid(), "saturated", lambda z: (z.abs() > 4.356544420601757).double().mean()),
    ],
)
def test_activations_are_seen_whatever_calls_them(
    does: Callable[[Tensor], Tensor], column: str, flat: Callable[[Tensor], Tensor]
) -> None:
    layers = {"a": nn.Linear(WIDTH, WIDTH), "b": nn.Linear(WIDTH, CLASSES)}
    nn.init.normal_(layers["a"].weight)
    inputs, targets = batch()
    frame = gradlab.measure(
        Net(lambda net, x: net["b"](does(net["a"](x))), **layers), F.cross_entropy, (inputs, targets)
    )
    assert row(frame, "a")[column] == pytest.approx(float(flat(layers["a"](inputs).detach())))
    assert math.isnan(row(frame, "b")[column])
    assert all(judged == positions for positions, judged in frame.attrs["activations"].values())


def test_an_activation_of_several_operators_is_one() -> None:
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), Swish(), nn.Linear(WIDTH, CLASSES))
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert frame.attrs["activations"] == {"sigmoid": (0, 0), "Swish": (1, 1)}


def test_two_activations_of_one_kind_are_two() -> None:
    layers = [nn.Linear(WIDTH, WIDTH), Steep(0.01), nn.Linear(WIDTH, WIDTH), Steep(100.0), nn.Linear(WIDTH, CLASSES)]
    frame = gradlab.measure(nn.Sequential(*layers), F.cross_entropy, batch())
    assert row(frame, "0")["saturated"] == 0
    assert row(frame, "2")["saturated"] > 0.4


def test_where_functions_are_flat() -> None:
    tanh, relu, gelu = flats(torch.tanh), flats(F.relu), flats(F.gelu)
    edge = math.atanh(math.sqrt(0.95))
    assert [end for interval in tanh.saturated or () for end in interval] == pytest.approx(
        [-math.inf, -edge, edge, math.inf]
    )
    assert relu.saturated is None
    assert relu.rest == ((-math.inf, 0.0),)
    assert gelu.saturated is not None
    assert len(gelu.saturated) == 2
    assert flats(F.hardtanh).saturated == ((-math.inf, -1.0), (1.0, math.inf))
    assert flats(torch.exp).saturated is flats(torch.sin).saturated is None
    assert not flats(lambda z: 2 * z).curved


def test_sums_in_pieces_are_those_of_the_whole() -> None:
    tensor = torch.randn(300, 700) * 1e-25 + 3e-25
    exact = tensor.double()
    assert square(tensor) == pytest.approx(float(exact.square().sum()), rel=1e-12)
    count, mean, about = moments(tensor)
    assert count == 210_000
    assert mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert about == pytest.approx(float((exact - exact.mean()).square().sum()), rel=1e-9)
    kinds = (torch.eye(3), torch.eye(3).to_sparse(), torch.eye(3, dtype=torch.complex64), torch.eye(3).half())
    broken = torch.tensor([math.inf, -math.inf, math.nan, 1e200], dtype=torch.float64)
    for entries in (broken, broken[:2], broken.repeat(4000).float()):
        assert not math.isfinite(square(entries))
        assert math.isnan(moments(entries)[2])
    assert squares_and_zeros([broken[3:]]) == [(math.inf, 0)]
    large = torch.cat([torch.eye(100), torch.full((100, 900), 1e-3)], 1)
    assert squares_and_zeros([*kinds, torch.zeros(0), kinds[0].T, large]) == [
        *[(3.0, 6)] * 4,
        *[(0.0, 0), (3.0, 6)],
        (pytest.approx(100.09, rel=1e-6), 9_900),
    ]


def test_fused_attention_spreads_as_its_own_weights_do() -> None:
    q, k = torch.randn(2, 3, 16, 8), torch.randn(2, 3, 16, 8)
    for causal in (False, True):
        logits = q.double() @ k.double().transpose(2, 3) / math.sqrt(8)
        if causal:
            logits = logits.masked_fill(torch.ones(16, 16).triu(1).bool(), -math.inf)
        fused = entropy_of(q[:1], k[:1], None, None, causal=causal)
        assert fused.entropy == pytest.approx(entropy(logits[:1].softmax(-1), -1))
    assert entropy(torch.full((4, 5), 0.2), -1) == pytest.approx(1.0)
    assert entropy(torch.eye(5), -1) != entropy(torch.eye(5), -1)  # one choice: nothing to spread over


def frozen_norm() -> nn.Sequential:
    network = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))
    network.train()
    network[1].eval()
    return network


def test_a_batch_norm_that_was_frozen_is_measured_so() -> None:
    network, (inputs, targets) = frozen_norm(), batch()
    frame = gradlab.measure(network, F.cross_entropy, (inputs, targets))
    z = network[1](network[0](inputs))
    h = F.relu(z)
    assert row(frame, "0")["act_std"] == pytest.approx(float(h.detach().std(correction=0)), rel=1e-5)


def posed() -> Iterator[tuple[nn.Module, Callable[..., Tensor], str, str]]:
    """Networks with a wrong problem, and what must be said of each."""
    yield nn.Sequential(*chain(2), nn.Softmax(1)), F.cross_entropy, "misspecified", "softmax_twice"
    yield nn.Sequential(*chain(2), nn.ReLU()), F.cross_entropy, "misspecified", "activation_on_logits"
    yield nn.Sequential(*chain(2), nn.Softmax(1)), F.nll_loss, "misspecified", "log_probabilities"
    yield chain(3, nn.Identity), F.cross_entropy, "misspecified", "missing_activation"
    yield chain(2), lambda out, _: F.relu(-50 - out).mean(), "no_gradient", "activation_on_logits"
    yield chain(2), lambda out, y: F.mse_loss(out[:, 0], 1e4 * y.float()), "ill_scaled", "target_scale"
    equal = chain(3)
    nn.init.constant_(equal[2].get_parameter("weight"), 0.1)
    yield equal, F.cross_entropy, "collapsed", "equal_weights"
    broken = chain(8)
    with torch.no_grad():
        broken[8].get_parameter("weight").mul_(1e-6)
    yield broken, F.cross_entropy, "vanishing", "broken_layer"


@pytest.mark.parametrize("place", range(8))
def test_the_problem_as_it_was_posed_is_judged(place: int) -> None:
    network, loss, verdict, cause = list(posed())[place]
    found = gradlab.verdict(gradlab.measure(network, loss, batch()))
    assert cause in [one.cause.name for one in found if one.name == verdict and one.cause is not None]


@pytest.mark.parametrize("loss", [F.cross_entropy, lambda out, y: F.nll_loss(out.log_softmax(1), y)])
def test_a_problem_that_is_well_posed_is_healthy(loss: Callable[..., Tensor]) -> None:
    assert names(gradlab.measure(chain(3), loss, batch())) == ["healthy"]


def test_a_class_out_of_range_is_refused() -> None:
    inputs, targets = batch()
    targets[3] = 255
    with pytest.raises(ValueError, match="the targets hold the class 255; expected 0 to 9"):
        gradlab.measure(chain(2), F.cross_entropy, (inputs, targets))


def test_the_course_and_the_optimizer_belong_to_the_verdict() -> None:
    layers = [part for _ in range(6) for part in (nn.Linear(WIDTH, WIDTH), nn.GELU())]
    frame: pd.DataFrame = gradlab.measure(nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)), F.cross_entropy, batch())
    assert gradlab.verdict(frame)[0].name == "healthy"
    assert gradlab.verdict(frame)[0].grade == "risk"
    assert gradlab.verdict(frame, optimizer="sgd")[0].name == "vanishing"
    assert gradlab.verdict(frame, optimizer=torch.optim.SGD([torch.zeros(1)], lr=0.1))[0].grade == "risk"
    falling = [2.3 * 0.95**step for step in range(60)]
    assert gradlab.verdict(frame, losses=falling, optimizer="sgd")[0].name == "healthy"
    still = [2.3 + 0.01 * (-1) ** step for step in range(60)]
    (verdict,) = gradlab.verdict(frame, losses=still, optimizer="sgd")
    assert (verdict.name, verdict.grade) == ("vanishing", "sick")
