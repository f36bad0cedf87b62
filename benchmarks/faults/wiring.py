"""Networks that are wired, drawn or fed wrongly, each beside the right way: for the list of `practice.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.faults.cases import PLAIN, Case, classes, images, linears, mlp
from benchmarks.zoo.built import Net

Make = Callable[[], Case]


def chosen(*, hard: bool) -> Case:
    """A classifier of what another network chose, as a number of a class or as shares of all."""

    def way(net: Any, x: Tensor) -> Any:
        shares = net.first(x).softmax(1)
        return net.second(F.one_hot(shares.argmax(1), 16).float() if hard else shares * 4)

    return Case(Net(way, first=mlp(2, outs=16), second=mlp(1, ins=16)), classes())


def coded(*, straight: bool) -> Case:
    """An autoencoder through a table of codes; without the straight way the encoder learns nothing of the picture.

    The twin had no loss of its table when it was asked first, which is a fault, and was found.
    """

    def way(net: Any, x: Tensor) -> Any:
        found = net.encoder(x)
        code = net.table(torch.cdist(found, net.table.weight).argmin(1))
        return net.decoder(found + (code - found).detach() if straight else code), found, code

    def loss(out: Any, x: Tensor) -> Tensor:
        picture, found, code = out
        return F.mse_loss(picture, x) + (F.mse_loss(code, found.detach()) if straight else 0)

    x, _ = classes()
    parts = {"encoder": mlp(2, outs=8), "table": nn.Embedding(32, 8), "decoder": mlp(2, ins=8, outs=20)}
    return Case(Net(way, **parts), (x, x), loss)


def generated(loss: Callable[[Tensor], Tensor]) -> Make:
    """A generator before a discriminator that is frozen, and certain of what it sees."""

    def case() -> Case:
        judge = mlp(2, outs=1).requires_grad_(False)
        linears(judge)[-1].bias.fill_(-30.0)
        network = Net(lambda net, x: net.judge(net.maker(x)), maker=mlp(3, outs=20), judge=judge)
        return Case(network, (torch.randn(64, 20), None), lambda out, _: loss(out))

    return case


def padded(*, behind: bool) -> Case:
    """A recurrent network that is asked after the last step, with the padding behind what counts or before it."""
    cell, y = nn.RNN(8, 32, batch_first=True), torch.arange(32) % 10
    x = torch.zeros(32, 150, 8)
    x[:, slice(0, 5) if behind else slice(-5, None)] = (torch.randn(10, 8)[y] + 0.3 * torch.randn(32, 8))[:, None]
    return Case(Net(lambda net, x: net.head(net.cell(x)[0][:, -1]), cell=cell, head=nn.Linear(32, 10)), (x, y))


def highway(bias: float) -> Make:
    """Highway layers whose gates start at some bias."""

    def way(net: Any, x: Tensor) -> Any:
        x = net.into(x)
        for layer, gate in zip(net.layers, net.gates, strict=True):
            open_ = gate(x).sigmoid()
            x = open_ * layer(x).tanh() + (1 - open_) * x
        return net.head(x)

    def case() -> Case:
        layers, gates = (nn.ModuleList(nn.Linear(32, 32) for _ in range(6)) for _ in range(2))
        for gate in gates:
            nn.init.constant_(gate.get_parameter("bias"), bias)
        return Case(Net(way, into=nn.Linear(20, 32), layers=layers, gates=gates, head=nn.Linear(32, 10)), classes())

    return case


def routed(*, weighted: bool) -> Case:
    """Experts of which each sample takes the best, times what its router gives it or not."""

    def way(net: Any, x: Tensor) -> Any:
        x = net.into(x).relu()
        share, best = net.router(x).softmax(1).max(1)
        every = torch.stack([expert(x) for expert in net.experts], 1)
        taken = every[torch.arange(len(x)), best]
        return net.head(taken * share[:, None] * 4 if weighted else taken)

    experts = nn.ModuleList(mlp(1, ins=32, outs=32) for _ in range(4))
    parts = {"into": nn.Linear(20, 32), "router": nn.Linear(32, 4), "experts": experts, "head": nn.Linear(32, 10)}
    return Case(Net(way, **parts), classes())


def neighbours(*, summed: bool) -> Case:
    """Six layers over the nodes of a dense graph."""

    def way(net: Any, x: Tensor) -> Any:
        for layer in net.layers:
            x = layer(net.links @ x).relu()
        return net.head(x)

    links = (torch.rand(64, 64) < 0.5).float() + torch.eye(64)
    links = links if summed else torch.eye(64) * 0.9 + 0.1 * links / links.sum(1, keepdim=True)
    layers = nn.ModuleList(linears(mlp(6, outs=64))[:-1])
    return Case(
        Net(way, links=nn.Parameter(links, requires_grad=False), layers=layers, head=nn.Linear(64, 10)), classes()
    )


def cosines(scale: float) -> Make:
    """Cosines to the directions of a hundred classes, as logits."""

    def way(net: Any, x: Tensor) -> Any:
        return scale * F.normalize(net.body(x), dim=1) @ F.normalize(net.directions, dim=1).T

    return lambda: Case(
        Net(way, body=mlp(2, outs=64), directions=nn.Parameter(torch.randn(100, 64))), classes(200, 20, 100)
    )


def pooled(*, straight: bool) -> Case:
    """Maps whose mean is taken away just before it is asked for."""
    parts = [
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.InstanceNorm2d(16),
        *([] if straight else [nn.ReLU()]),
    ]
    return Case(nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)), images())


def attending(*, skips: bool) -> Case:
    """Sixteen layers of attention."""

    def way(net: Any, x: Tensor) -> Any:
        x = net.into(x.view(len(x), 10, 2))
        for layer in net.layers:
            seen = layer(x, x, x, need_weights=False)[0]
            x = x + 0.3 * seen if skips else seen
        return net.head(x.flatten(1))

    layers = nn.ModuleList(nn.MultiheadAttention(32, 2, batch_first=True) for _ in range(16))
    return Case(Net(way, into=nn.Linear(2, 32), layers=layers, head=nn.Linear(320, 10)), classes())


def masked(*, inverted: bool) -> Case:
    """A token for the class that looks at words, or, with the mask inverted, at the padding behind them."""

    def way(net: Any, ids: Tensor) -> Any:
        x = torch.cat((net.token.expand(len(ids), 1, 32), net.table(ids)), 1)
        hidden = torch.cat((torch.zeros(len(ids), 1, dtype=torch.bool), (ids != 0) if inverted else (ids == 0)), 1)
        token = x[:, :1]
        for layer in net.layers:
            token = token + layer(token, x, x, key_padding_mask=hidden, need_weights=False)[0]
        return net.head(token[:, 0])

    ids = torch.randint(1, 40, (32, 16))
    ids[:, 10:] = 0
    layers = nn.ModuleList(nn.MultiheadAttention(32, 2, batch_first=True) for _ in range(3))
    parts = {"table": nn.Embedding(40, 32), "layers": layers, "head": nn.Linear(32, 10)}
    return Case(Net(way, token=nn.Parameter(torch.randn(1, 1, 32)), **parts), (ids, ids[:, 0] % 10))


def listed(*, plain: bool) -> Make:
    """Layers in a list that torch does not look into, or in one that it does."""

    def case() -> Case:
        layers = [part for part in mlp(4) if not isinstance(part, nn.ReLU)]
        held = nn.ModuleList(layers[:-1])
        body = layers[:-1] if plain else held

        def way(net: Any, x: Tensor) -> Any:
            for layer in body:
                x = layer(x).relu()
            return net.head(x)

        parts = {} if plain else {"body": held}
        return Case(Net(way, head=layers[-1], **parts), classes(), optimizer=PLAIN)

    return case


def anew(*, each: bool) -> Case:
    """A layer that is made where it is called."""
    made = nn.Linear(64, 64)

    def way(net: Any, x: Tensor) -> Any:
        return net.head((nn.Linear(64, 64) if each else net.made)(net.into(x).relu()).relu())

    return Case(Net(way, into=nn.Linear(20, 64), head=nn.Linear(64, 10), **({} if each else {"made": made})), classes())


def heard(length: int) -> Make:
    """A reader of signals of some length that are to become twelve letters."""

    def loss(out: Tensor, y: Tensor) -> Tensor:
        lengths = torch.full((len(y),), length), torch.full((len(y),), 12)
        return F.ctc_loss(out.log_softmax(2).transpose(0, 1), y, *lengths)

    return lambda: Case(
        nn.Sequential(nn.Conv1d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv1d(32, 8, 3, padding=1), Turned()),
        (torch.randn(16, 8, length), torch.arange(12).expand(16, 12) % 7 + 1),
        loss,
    )


class Turned(nn.Module):
    """Time before channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) as (B, T, C)."""
        return x.transpose(1, 2)


def steep(factor: float) -> Make:
    """A critic that pays for every slope but 1, by a second derivative."""

    def way(net: Any, x: Tensor) -> Any:
        x = x.clone().requires_grad_()
        out = net.body(x)
        slopes = torch.autograd.grad(out.sum(), x, create_graph=True)[0]
        return torch.stack((out[:, 0], slopes.norm(dim=1)), 1)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return (out[:, 0] * (1 - 2.0 * (y < 5))).mean() + factor * (out[:, 1] - 1).square().mean()

    return lambda: Case(Net(way, body=mlp(3, nn.Tanh, outs=1)), classes(), loss)


def sines(*, small: bool) -> Make:
    """Sines of thirty times what four layers give, as torch draws these or as much smaller as they ask for."""

    def case() -> Case:
        first, *others, last = linears(
            nn.Sequential(*(nn.Linear(64 if at else 2, 64) for at in range(5)), nn.Linear(64, 1))
        )
        if small:
            for layer in (*others, last):
                nn.init.uniform_(layer.weight, -((6 / 64) ** 0.5) / 30, (6 / 64) ** 0.5 / 30)
        x = torch.rand(64, 2) * 2 - 1

        def way(net: Any, x: Tensor) -> Any:
            for layer in net.layers:
                x = (30 * layer(x)).sin()
            return net.last(x)

        network = Net(way, layers=nn.ModuleList([first, *others]), last=last)
        return Case(network, (x, (3 * x[:, :1]).sin()), F.mse_loss)

    return case


def written(factor: float) -> Make:
    """A classifier whose weights another network writes, for each sample its own."""

    def way(net: Any, x: Tensor) -> Any:
        first, second = net.writer(x).mul(factor).split((20 * 64, 64 * 10), 1)
        h = torch.bmm(x[:, None], first.view(-1, 20, 64)).relu()
        return torch.bmm(h, second.view(-1, 64, 10))[:, 0]

    return lambda: Case(Net(way, writer=mlp(2, outs=20 * 64 + 64 * 10)), classes())


def spaces(decay: float) -> Make:
    """A state that is multiplied by the same numbers at each of a hundred steps."""

    def way(net: Any, x: Tensor) -> Any:
        state, taken = x.new_zeros(len(x), 32), net.into(x)
        for step in taken.unbind(1):
            state = net.decay * state + step
        return net.head(state)

    def case() -> Case:
        x, y = torch.randn(16, 100, 8) * 0.1, torch.arange(16) % 10
        x += torch.randn(10, 8)[y][:, None] * 0.1
        return Case(
            Net(
                way,
                into=nn.Linear(8, 32, bias=False),
                head=nn.Linear(32, 10),
                decay=nn.Parameter(torch.full((32,), decay)),
            ),
            (x, y),
        )

    return case


def gained(gain: float) -> Make:
    """Layers behind batch norms whose gains start at one number."""

    def case() -> Case:
        parts: list[nn.Module] = []
        for at in range(5):
            norm = nn.BatchNorm1d(64)
            nn.init.constant_(norm.weight, gain)
            parts += [nn.Linear(64 if at else 20, 64), norm, nn.ReLU()]
        return Case(nn.Sequential(*parts, nn.Linear(64, 10)), classes())

    return case


def sampled(temperature: float) -> Make:
    """An autoencoder through a choice of one of sixteen, which is softened by a temperature."""

    def way(net: Any, x: Tensor) -> Any:
        return net.decoder(F.gumbel_softmax(net.encoder(x), temperature))

    def case() -> Case:
        x, _ = classes()
        return Case(Net(way, encoder=mlp(2, outs=16), decoder=mlp(2, ins=16, outs=20)), (x, x), F.mse_loss)

    return case


def flowing(step: float) -> Make:
    """Twenty steps of Euler's along a field that is learned."""

    def way(net: Any, x: Tensor) -> Any:
        x = net.into(x)
        for _ in range(20):
            x = x + step * net.field(x)
        return net.head(x)

    return lambda: Case(
        Net(way, into=nn.Linear(20, 32), field=mlp(1, ins=32, width=64, outs=32), head=nn.Linear(32, 10)), classes()
    )


def towers(bias: float) -> Make:
    """Two towers whose outputs of a pair shall have a larger cosine than those of strangers."""

    def way(net: Any, x: Tensor) -> Any:
        one, other = F.normalize(net.one(x[:, :10]), dim=1), F.normalize(net.other(x[:, 10:]), dim=1)
        return one @ other.T / 0.1

    def case() -> Case:
        parts = {name: mlp(2, ins=10, outs=16) for name in ("one", "other")}
        for tower in parts.values():
            nn.init.constant_(linears(tower)[-1].bias, bias)
        x = torch.randn(64, 10)
        return Case(Net(way, **parts), (torch.cat((x, x + 0.3 * torch.randn(64, 10)), 1), torch.arange(64)))

    return case


def latent(start: float) -> Make:
    """A variational autoencoder whose logarithms of variances start at some number."""

    def way(net: Any, x: Tensor) -> Any:
        mean, log_variance = net.encoder(x).chunk(2, 1)
        log_variance = log_variance + start
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return net.decoder(code), mean, log_variance

    def loss(out: Any, x: Tensor) -> Tensor:
        picture, mean, log_variance = out
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        found: Tensor = F.mse_loss(picture, x) + 0.01 * divergence
        return found

    def case() -> Case:
        x, _ = classes()
        return Case(Net(way, encoder=mlp(1, outs=8), decoder=mlp(1, ins=4, outs=20)), (x, x), loss)

    return case
