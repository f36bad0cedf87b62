"""Twenty-six faulty networks, written before the rules for signs, penalties and dropout were, and asked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam

from benchmarks.faults.cases import (
    Case,
    Composed,
    Fault,
    Loss,
    classes,
    drawn,
    images,
    linears,
    mlp,
    regression,
    untouched,
)
from benchmarks.faults.networks import healthy, lenet, recurrent
from benchmarks.faults.trained import STEPS


def pixels(factor: float, offset: float) -> Callable[[], Case]:
    """LeNet on pictures of some range."""

    def case() -> Case:
        x, y = images(channels=1)
        return Case(lenet(0)().module, (x * factor + offset, y))

    return case


def fitted(loss: Loss, lr: float = 0.02) -> Callable[[], Case]:
    """A regression with a loss of its own."""
    return lambda: Case(mlp(2, outs=1), regression(), loss, partial(SGD, lr=lr))


def dropped_maps(share: float) -> Callable[[], Case]:
    """Convolutions whose maps are dropped."""

    def case() -> Case:
        parts = [part for _ in range(3) for part in (nn.LazyConv2d(32, 3, padding=1), nn.ReLU(), nn.Dropout2d(share))]
        network = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(10))
        batch = images()
        network(batch[0])
        return Case(network, batch)

    return case


def penalised(factor: float) -> Callable[[], Case]:
    """A classifier whose loss has a share of its squared weights."""

    def case() -> Case:
        network = mlp(3)
        penalty: Callable[[], Any] = lambda: sum(one.weight.square().sum() for one in linears(network))  # noqa: E731
        return Case(
            network, classes(), lambda out, y: F.cross_entropy(out, y) + factor * penalty(), partial(SGD, lr=0.01)
        )

    return case


def on_activations(factor: float) -> Callable[[], Case]:
    """An autoencoder whose code is asked to be sparse."""

    def way(parts: Any, x: Tensor) -> Tensor:
        code = parts["encoder"](x).relu()
        return torch.cat((parts["decoder"](code), code), 1)

    def loss(out: Tensor, x: Tensor) -> Tensor:
        return F.mse_loss(out[:, :20], x) + factor * out[:, 20:].abs().sum(1).mean()

    def case() -> Case:
        x, _ = classes()
        return Case(Composed(way, encoder=mlp(1, outs=32), decoder=mlp(1, ins=32, outs=20)), (x, x), loss)

    return case


class Without(SGD):
    """Descent that is given the first parameters' gradients, and leaves them where they are."""

    def __init__(self, parameters: Iterable[nn.Parameter], last: int, lr: float) -> None:
        super().__init__(list(parameters)[-last:], lr=lr)


class Paced(SGD):
    """Descent whose learning rate is multiplied by a factor at each step."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, factor: float) -> None:
        super().__init__(parameters, lr=lr)
        self.factor = factor

    def step(self, closure: Any = None) -> Any:
        """A step, and one of another size to come."""
        found = super().step(closure)
        for group in self.param_groups:
            group["lr"] *= self.factor
        return found


def with_optimizer(optimizer: Callable[..., Any], between: Callable[..., object] = untouched) -> Callable[[], Case]:
    """A classifier of five layers."""
    return lambda: Case(mlp(4), classes(), F.cross_entropy, optimizer, between)


def forgetting(parameters: Iterable[nn.Parameter]) -> None:
    """Sets the gradients to zero between the way back and the step."""
    for one in parameters:
        if one.grad is not None:
            one.grad.zero_()


def of_words(std: float) -> Callable[[], Case]:
    """A GRU on words whose table is drawn with some deviation."""

    def way(parts: Any, ids: Tensor) -> Tensor:
        out: Tensor = parts["head"](parts["cell"](parts["table"](ids))[0][:, -1])
        return out

    def case() -> Case:
        network = Composed(
            way, table=nn.Embedding(50, 32), cell=nn.GRU(32, 32, batch_first=True), head=nn.Linear(32, 10)
        )
        nn.init.normal_(network.parts["table"].get_parameter("weight"), std=std)
        return Case(network, (torch.randint(50, (16, 20)), torch.randint(10, (16,))))

    return case


def keeping(bias: float) -> Callable[[nn.RNNBase], object]:
    """Sets the bias of a GRU's update gates: from 20 on it keeps its state, and writes nothing."""
    return lambda cell: cell.get_parameter("bias_hh_l0")[32:64].fill_(bias)


def placed(factor: float) -> Callable[[], Case]:
    """Attention over tokens to which places are added, times a factor."""
    places = torch.stack([torch.sin(torch.arange(12.0)[:, None] / 10 ** (torch.arange(32) / 16))])

    def way(parts: Any, ids: Tensor) -> Tensor:
        x = parts["table"](ids) + factor * places
        for index in range(2):
            x = parts[f"block{index}"](x)
        out: Tensor = parts["head"](x).flatten(0, 1)
        return out

    def case() -> Case:
        blocks = {f"block{index}": nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True) for index in range(2)}
        ids = torch.randint(32, (8, 12))
        return Case(Composed(way, table=nn.Embedding(32, 32), **blocks, head=nn.Linear(32, 32)), (ids, ids.flatten()))

    return case


def gated_by_itself(*, multiplied: bool) -> Callable[[], Case]:
    """A stack whose branches are multiplied with the stream instead of added to it."""

    def way(parts: Any, x: Tensor) -> Tensor:
        x = parts["stem"](x)
        for index in range(20):
            branch = parts[f"branch{index}"](x)
            x = x * branch if multiplied else x + 0.2 * branch
        out: Tensor = parts["head"](x)
        return out

    def case() -> Case:
        parts = {f"branch{index}": mlp(1, ins=64, outs=64) for index in range(20)}
        return Case(Composed(way, stem=nn.Linear(20, 64), **parts, head=nn.Linear(64, 10)), classes())

    return case


def bottleneck(bias: float) -> Callable[[], Case]:
    """An autoencoder whose code goes through a ReLU."""

    def case() -> Case:
        encoder, decoder = mlp(1, outs=8), mlp(1, ins=8, outs=20)
        nn.init.constant_(linears(encoder)[-1].bias, bias)
        x, _ = classes()
        return Case(nn.Sequential(encoder, nn.ReLU(), decoder), (x, x), F.mse_loss)

    return case


def convolutions(depth: int, *, he: bool) -> Callable[[], Case]:
    """Convolutions as torch draws them, or by He."""

    def case() -> Case:
        layers = [part for at in range(depth) for part in (nn.Conv2d(16 if at else 1, 16, 3, padding=1), nn.ReLU())]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10))
        if he:
            drawn(network, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))
        return Case(network, images(), optimizer=partial(SGD, lr=0.05))

    return case


def one_number() -> Case:
    """A regression whose targets are all the same."""
    x, y = regression()
    return Case(mlp(2, outs=1), (x, torch.full_like(y, float(y.mean()))), F.mse_loss)


def leaning(bias: float) -> Callable[[], Case]:
    """A classifier whose output leans to one class."""

    def case() -> Case:
        network = mlp(3)
        with torch.no_grad():
            linears(network)[-1].bias[0] = bias
        return Case(network, classes())

    return case


def contrasted(temperature: float) -> Callable[[], Case]:
    """Embeddings that are told apart by their cosines over a temperature."""

    def loss(out: Tensor, _: Tensor) -> Tensor:
        one, other = F.normalize(out[::2], dim=1), F.normalize(out[1::2], dim=1)
        return F.cross_entropy(one @ other.T / temperature, torch.arange(len(one)))

    def case() -> Case:
        x, y = classes()
        x = x[::2].repeat_interleave(2, 0) + 0.3 * torch.randn_like(x)
        return Case(mlp(2, outs=16), (x, y), loss)

    return case


def positive(network: nn.Module, top: float) -> nn.Module:
    """A network with weights from 0 on."""
    return drawn(network, lambda weight: nn.init.uniform_(weight, 0.0, top))


def of_logarithm(way: Callable[[Tensor], Tensor]) -> Loss:
    """The negative logarithm of what a network puts out for the right class."""
    return lambda out, y: -way(out).gather(1, y[:, None]).log().mean()


def columns(change: Callable[[Tensor], Tensor]) -> Callable[[], Case]:
    """A table one of whose columns is changed."""

    def case() -> Case:
        x, y = classes()
        return Case(mlp(3), (torch.cat((change(x[:, :1]), x[:, 1:]), 1), y))

    return case


def stepwise(*, detached: bool) -> Callable[[], Case]:
    """A cell in a loop that is told the class in the first step."""

    def way(parts: Any, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            state = parts["cell"](step, state.detach() if detached else state)
        out: Tensor = parts["head"](state)
        return out

    def case() -> Case:
        cell = nn.RNNCell(8, 32)
        nn.init.orthogonal_(cell.weight_hh)
        y = torch.arange(16) % 10
        x = torch.randn(16, 12, 8) * 0.1
        x[:, 0] += torch.randn(10, 8)[y]
        return Case(Composed(way, cell=cell, head=nn.Linear(32, 10)), (x, y))

    return case


def pictured(top: float) -> Callable[[], Case]:
    """An autoencoder of pictures that ends in a sigmoid."""

    def case() -> Case:
        x = torch.rand(32, 64)
        return Case(nn.Sequential(*mlp(2, ins=64, outs=64), nn.Sigmoid()), (x, x * top), F.mse_loss)

    return case


class Shares(nn.Softmax):
    """A softmax between layers."""


def unseen() -> Iterator[Fault]:
    """All of them."""
    minus: Loss = lambda out, y: -F.mse_loss(out, y)  # noqa: E731
    summed: Loss = lambda out, y: F.mse_loss(out, y, reduction="sum")  # noqa: E731
    softly, hardly = partial(Adam, lr=1e-3), partial(Adam, lr=1e-3, eps=10.0)
    gru = lambda: nn.GRU(8, 32, batch_first=True)  # noqa: E731
    constant = columns(lambda x: (x - x) / (x - x).std())
    every: tuple[tuple[str, Callable[[], Case], Callable[[], Case], str, str, int], ...] = (
        ("pictures of bytes", pixels(60.0, 128.0), pixels(1.0, 0.0), "ill_scaled", "input_scale input_offset", 0),
        ("squared error, upside down", fitted(minus), fitted(F.mse_loss), "misspecified diverged oscillating", "sign",
         STEPS),
        ("maps dropped, 97 %", dropped_maps(0.97), dropped_maps(0.1), "misspecified stalled collapsed exploding dead",
         "dropout", STEPS),
        ("squared weights, times 30", penalised(30.0), penalised(1e-4),
         "ill_scaled stalled vanishing collapsed misspecified oscillating diverged",
         "penalty weight_decay learning_rate_high", STEPS),
        ("sparse code, times 1e5", on_activations(1e5), on_activations(1e-4),
         "ill_scaled dead collapsed misspecified", "penalty dead_units loss_scale", 0),
        ("head alone in the optimizer", with_optimizer(partial(Without, last=2, lr=0.001)),
         with_optimizer(partial(SGD, lr=0.05)), "misspecified stalled", "no_update frozen learning_rate_low", STEPS),
        ("learning rate that falls to nothing", with_optimizer(partial(Paced, lr=0.01, factor=0.5)),
         with_optimizer(partial(Paced, lr=0.05, factor=0.999)), "stalled", "learning_rate_low schedule", STEPS),
        ("gradients set to zero before the step", with_optimizer(partial(SGD, lr=0.05), forgetting),
         with_optimizer(partial(SGD, lr=0.05)), "stalled", "no_update", STEPS),
        ("table of words, N(0, 100²), before a GRU", of_words(100.0), of_words(1.0),
         "saturated ill_scaled exploding vanishing", "init broken_layer input_scale gates", 0),
        ("GRU that keeps its state", recurrent(gru, keeping(25.0), 20), recurrent(gru, keeping(0.0), 20),
         "vanishing saturated collapsed", "gates constant_output recurrence", 0),
        ("places times 300", placed(300.0), placed(1.0), "saturated ill_scaled exploding vanishing collapsed",
         "attention input_scale init broken_layer rank", 0),
        ("softmax between layers", lambda: Case(mlp(6, lambda: Shares(1)), classes()), healthy,
         "vanishing collapsed misspecified", "activation init depth rank", 0),
        ("branches multiplied", gated_by_itself(multiplied=True), gated_by_itself(multiplied=False),
         "vanishing exploding diverged ill_scaled", "growth init depth first_loss", 0),
        ("code below zero", bottleneck(-30.0), bottleneck(0.0), "dead no_gradient collapsed vanishing",
         "dead_units", 0),
        ("24 convolutions as torch draws them", convolutions(24, he=False), convolutions(24, he=True),
         "vanishing collapsed", "init depth rank constant_output", 0),
        ("targets that are one number", one_number, fitted(F.mse_loss), "misspecified ill_scaled", "labels", 0),
        ("bias of 100 in the output", leaning(100.0), leaning(0.0), "ill_scaled", "first_loss init", 0),
        ("temperature of 1e-4", contrasted(1e-4), contrasted(0.2), "ill_scaled saturated exploding",
         "first_loss loss_scale init", 0),
        ("LeNet, weights from 0 to 1", lambda: Case(positive(lenet(0)().module, 1.0), images()), lenet(0),
         "exploding ill_scaled collapsed saturated", "init first_loss rank", 0),
        ("Adam, eps 10", with_optimizer(hardly), with_optimizer(softly), "stalled", "eps learning_rate_low", STEPS),
        ("squared error, summed", fitted(summed), fitted(F.mse_loss), "diverged oscillating dead exploding",
         "learning_rate_high", STEPS),
        ("logarithm of a ReLU", lambda: Case(mlp(2), classes(), of_logarithm(torch.relu)),
         lambda: Case(mlp(2), classes(), of_logarithm(partial(torch.softmax, dim=1))), "diverged", "infinite_slope", 0),
        ("a constant column, standardised", constant, healthy, "diverged", "input_not_finite", 0),
        ("a column in other units", columns(lambda x: x * 1e4), healthy, "ill_scaled", "input_scale", 0),
        ("state detached at every step", stepwise(detached=True), stepwise(detached=False), "vanishing", "cut", 0),
        ("sigmoid, pictures of bytes", pictured(255.0), pictured(1.0), "misspecified ill_scaled",
         "labels target_scale activation_on_logits", 0),
    )  # fmt: skip
    for name, sick, cured, words, causes, steps in every:
        yield Fault(name, "unseen", sick, cured, frozenset(words.split()), frozenset(causes.split()), steps, "unseen")
