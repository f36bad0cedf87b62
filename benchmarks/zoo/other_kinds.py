"""Seventeen healthy kinds of network, written before the rules had been asked about any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.built import Net, mlp
from benchmarks.zoo.cases import CLASSES, Batch, Loss, Stock, images, next_word, vectors, words

Field = Callable[[Tensor], Tensor]


class Down(nn.Module):
    """A residual block of convolutions with group norms, told the time."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, taken), nn.SiLU(), nn.Conv2d(taken, given, 3, padding=1))
        self.second = nn.Sequential(nn.GroupNorm(4, given), nn.SiLU(), nn.Conv2d(given, given, 3, padding=1))
        self.time, self.skip = nn.Linear(32, given), nn.Conv2d(taken, given, 1)
        nn.init.zeros_(self.second[2].get_parameter("weight"))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, taken, H, W) and (B, 32) to (B, given, H, W)."""
        found: Tensor = self.skip(x) + self.second(self.first(x) + self.time(time)[:, :, None, None])
        return found


def diffusion() -> nn.Module:
    """A U-Net with attention at its bottom and the time of the noise in each block."""

    def way(net: Any, x: Tensor, t: Tensor) -> Any:
        waves = t[:, None] * 100 * 2.0 ** -torch.arange(8)
        time = net.time(torch.cat((waves.sin(), waves.cos()), 1))
        wide = net.down(net.stem(x), time)
        low = net.lower(F.avg_pool2d(wide, 2), time)
        tokens = net.norm(low).flatten(2).transpose(1, 2)
        low = low + net.attention(tokens, tokens, tokens)[0].transpose(1, 2).view_as(low)
        up = F.interpolate(net.middle(low, time), scale_factor=2.0)
        return net.end(net.up(torch.cat((up, wide), 1), time))

    return Net(
        way,
        stem=nn.Conv2d(3, 16, 3, padding=1),
        time=mlp(16, 32, 32, activation=nn.SiLU),
        down=Down(16, 32),
        lower=Down(32, 64),
        norm=nn.GroupNorm(4, 64),
        attention=nn.MultiheadAttention(64, 4, batch_first=True),
        middle=Down(64, 32),
        up=Down(64, 16),
        end=nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1)),
    )


def quantised() -> nn.Module:
    """An autoencoder through a table of codes, by the straight way back."""

    def way(net: Any, x: Tensor) -> Any:
        found = net.encoder(x)
        code = net.table(torch.cdist(found, net.table.weight).argmin(1))
        return net.decoder(found + (code - found).detach()), found, code

    # With torch's draw, N(0, 1), all samples came to one code after thirty steps in two of three seeds: no false alarm.
    table = nn.Embedding(64, 16)
    nn.init.uniform_(table.weight, -1 / 16, 1 / 16)
    return Net(way, encoder=mlp(64, 64, 64, 16), table=table, decoder=mlp(16, 64, 64, 64))


def quantised_loss(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """The picture, the codes towards what was found, and a quarter of that the other way."""
    picture, found, code = output
    return F.mse_loss(picture, x) + F.mse_loss(code, found.detach()) + 0.25 * F.mse_loss(found, code.detach())


def switch() -> nn.Module:
    """A transformer whose words go to one expert each, with a loss that keeps all of them busy."""

    def way(net: Any, ids: Tensor) -> Any:
        x, balance = net.table(ids) + net.places, torch.zeros(())
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        for attention, router, experts, norms in zip(net.attention, net.routers, net.experts, net.norms, strict=True):
            seen = norms[0](x)
            x = x + attention(seen, seen, seen, attn_mask=causal, need_weights=False)[0]
            seen = norms[1](x)
            share = router(seen).softmax(-1)
            weight, best = share.max(-1)
            taken = torch.stack([expert(seen) for expert in experts], -2)
            x = x + weight[..., None] * taken.gather(-2, best[..., None, None].expand(*best.shape, 1, 48))[..., 0, :]
            balance = balance + 4 * (F.one_hot(best, 4).float().mean((0, 1)) * share.mean((0, 1))).sum()
        return net.head(net.last(x)), balance

    def each(make: Callable[[], nn.Module]) -> nn.ModuleList:
        return nn.ModuleList(make() for _ in range(3))

    return Net(
        way,
        table=nn.Embedding(100, 48),
        places=nn.Parameter(0.02 * torch.randn(24, 48)),
        attention=each(lambda: nn.MultiheadAttention(48, 4, batch_first=True)),
        routers=each(lambda: nn.Linear(48, 4)),
        experts=each(lambda: nn.ModuleList(mlp(48, 96, 48, activation=nn.GELU) for _ in range(4))),
        norms=each(lambda: nn.ModuleList(nn.LayerNorm(48) for _ in range(2))),
        last=nn.LayerNorm(48),
        head=nn.Linear(48, 100),
    )


def switch_loss(output: tuple[Tensor, Tensor], tokens: Tensor) -> Tensor:
    """The next word, and a hundredth of the balance."""
    return next_word(output[0], tokens) + 0.01 * output[1]


def sets() -> nn.Module:
    """Attention through a few induced points over a set."""

    def way(net: Any, x: Tensor) -> Any:
        x = net.into(x)
        for index in range(2):
            points = net.points[index].expand(len(x), -1, -1)
            points = points + net.gather[index](points, x, x, need_weights=False)[0]
            x = x + net.spread[index](x, points, points, need_weights=False)[0]
            x = x + net.feed[index](x)
        return net.head(x.mean(1))

    layers = [nn.ModuleList(nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(2)) for _ in range(2)]
    return Net(
        way,
        into=nn.Linear(3, 32),
        points=nn.Parameter(torch.randn(2, 1, 8, 32)),
        gather=layers[0],
        spread=layers[1],
        feed=nn.ModuleList(mlp(32, 64, 32) for _ in range(2)),
        head=mlp(32, 32, CLASSES),
    )


def graph_attention() -> nn.Module:
    """Two layers that look at the neighbours in a fixed dense graph."""

    def way(net: Any, x: Tensor) -> Any:
        for layer, sends, hears in zip(net.layers, net.sends, net.hears, strict=True):
            h = layer(x)
            scores = F.leaky_relu(hears(h) + sends(h).T, 0.2).masked_fill(~net.links, -torch.inf)
            x = F.elu(scores.softmax(1) @ h)
        return net.head(x)

    net = Net(
        way,
        layers=nn.ModuleList(nn.Linear(64, 64) for _ in range(2)),
        sends=nn.ModuleList(nn.Linear(64, 1, bias=False) for _ in range(2)),
        hears=nn.ModuleList(nn.Linear(64, 1, bias=False) for _ in range(2)),
        head=nn.Linear(64, CLASSES),
    )
    same = torch.arange(64) % CLASSES
    net.register_buffer("links", (same[:, None] == same) | (torch.rand(64, 64) < 0.05))
    return net


def equation() -> nn.Module:
    """A field that is learned, along which eight steps of Runge and Kutta go."""

    def way(net: Any, x: Tensor) -> Any:
        x, h = net.into(x), 1 / 8
        for at in range(8):
            time = x.new_full((len(x), 1), at * h)
            field: Field = lambda z: net.field(torch.cat((z, time), 1))  # noqa: B023, E731
            one = field(x)
            two = field(x + h / 2 * one)
            three = field(x + h / 2 * two)
            x = x + h / 6 * (one + 2 * two + 2 * three + field(x + h * three))
        return net.head(x)

    return Net(way, into=nn.Linear(64, 32), field=mlp(33, 64, 32, activation=nn.Tanh), head=nn.Linear(32, CLASSES))


def towers() -> nn.Module:
    """Pictures and words that are to be told apart by their cosines, over a temperature that is learned."""

    def way(net: Any, pictures: Tensor, ids: Tensor) -> Any:
        one = F.normalize(net.picture(pictures), dim=1)
        other = F.normalize(net.text(net.table(ids).mean(1)), dim=1)
        return net.scale.exp() * one @ other.T

    picture = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 32)),
    )
    return Net(
        way,
        picture=picture,
        table=nn.Embedding(100, 32),
        text=mlp(32, 64, 32, activation=nn.GELU),
        scale=nn.Parameter(torch.tensor(2.66)),
    )


def towers_loss(logits: Tensor, _: Any) -> Tensor:
    """Either way."""
    pairs = torch.arange(len(logits))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def gaussian_policy() -> nn.Module:
    """A policy of continuous actions with a deviation of its own, beside a value."""
    policy, value = mlp(8, 64, 64, 2, activation=nn.Tanh), mlp(8, 64, 64, 1, activation=nn.Tanh)
    nn.init.orthogonal_(policy[-1].get_parameter("weight"), 0.01)
    return Net(
        lambda net, x: (net.policy(x), net.deviation, net.value(x)),
        policy=policy,
        deviation=nn.Parameter(torch.zeros(2)),
        value=value,
    )


def surrogate(output: tuple[Tensor, Tensor, Tensor], states: Tensor) -> Tensor:
    """PPO's clipped surrogate, with the value's error and the entropy."""
    mean, deviation, value = output
    policy = torch.distributions.Normal(mean, deviation.exp())
    actions = states[:, :2] + 0.5
    logs = policy.log_prob(actions).sum(1)
    ratio, advantage = (logs - logs.detach()).exp(), states[:, 2]
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    error = F.mse_loss(value[:, 0], states[:, :4].sum(1))
    entropy: Tensor = policy.entropy().sum(1).mean()
    return -gain + 0.5 * error - 0.01 * entropy


def state_space() -> nn.Module:
    """Residual blocks of a diagonal linear recurrence and a gate."""

    def way(net: Any, ids: Tensor) -> Any:
        x = net.table(ids)
        for norm, into, out, decay in zip(net.norms, net.into, net.out, net.decays, strict=True):
            signal, gate = into(norm(x)).chunk(2, -1)
            state, seen = torch.zeros_like(signal[:, 0]), []
            for step in signal.unbind(1):
                state = decay.sigmoid() * state + (1 - decay.sigmoid()) * step
                seen.append(state)
            x = x + out(torch.stack(seen, 1) * F.silu(gate))
        return net.head(x)

    return Net(
        way,
        table=nn.Embedding(100, 48),
        norms=nn.ModuleList(nn.LayerNorm(48) for _ in range(3)),
        into=nn.ModuleList(nn.Linear(48, 192) for _ in range(3)),
        out=nn.ModuleList(nn.Linear(96, 48) for _ in range(3)),
        decays=nn.ParameterList(torch.linspace(-2, 4, 96) for _ in range(3)),
        head=nn.Linear(48, 100),
    )


def perceiver() -> nn.Module:
    """A few latent vectors that look at all pixels, and then at each other."""

    def way(net: Any, x: Tensor) -> Any:
        seen = net.norm(net.into(x.flatten(2).transpose(1, 2)) + net.places)
        latents = net.latents.expand(len(x), -1, -1)
        latents = latents + net.looks(latents, seen, seen, need_weights=False)[0]
        return net.head(net.body(latents).mean(1))

    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True, activation="gelu")
    return Net(
        way,
        into=nn.Linear(3, 32),
        places=nn.Parameter(0.5 * torch.randn(256, 32)),
        norm=nn.LayerNorm(32),
        latents=nn.Parameter(0.02 * torch.randn(1, 8, 32)),
        looks=nn.MultiheadAttention(32, 1, batch_first=True),
        body=nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
        head=nn.Linear(32, CLASSES),
    )


def highway() -> nn.Module:
    """Ten layers whose gates start nearly shut."""

    def way(net: Any, x: Tensor) -> Any:
        for layer, gate in zip(net.layers, net.gates, strict=True):
            share = gate(x).sigmoid()
            x = share * layer(x).relu() + (1 - share) * x
        return net.head(x)

    layers, gates = (nn.ModuleList(nn.Linear(64, 64) for _ in range(10)) for _ in range(2))
    for gate in gates:
        nn.init.constant_(gate.get_parameter("bias"), -2.0)
    return Net(way, layers=layers, gates=gates, head=nn.Linear(64, CLASSES))


def heat() -> nn.Module:
    """A solution of the heat equation, with what the equation leaves over and what it is on the border."""

    def way(net: Any, x: Tensor) -> Any:
        x = x.clone().requires_grad_()
        value = net.body(x)
        slopes = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
        bends = torch.autograd.grad(slopes[:, 0].sum(), x, create_graph=True)[0]
        return value, slopes[:, 1] - 0.1 * bends[:, 0]

    return Net(way, body=mlp(2, 48, 48, 48, 1, activation=nn.Tanh))


def heat_loss(output: tuple[Tensor, Tensor], start: Tensor) -> Tensor:
    """The first half of the points are on the border."""
    value, left = output
    return F.mse_loss(value[: len(start)], start) + left.square().mean()


def mixture() -> nn.Module:
    """Five bells, whose weights, means and deviations are put out."""
    return mlp(8, 64, 64, 15, activation=nn.Tanh)


def mixture_loss(out: Tensor, y: Tensor) -> Tensor:
    """The negative logarithm of the density at the target."""
    weights, means, logs = out.chunk(3, 1)
    bells: Tensor = torch.distributions.Normal(means, logs.exp()).log_prob(y[:, None])
    return -(weights.log_softmax(1) + bells).logsumexp(1).mean()


def shrinkage() -> nn.Module:
    """Sixteen steps of a sparse code by one pair of matrices, each with a threshold of its own."""

    def way(net: Any, x: Tensor) -> Any:
        code = taken = net.into(x)
        for threshold in net.thresholds:
            code = F.softshrink(code, 0.0) - threshold * code.tanh()
            code = code - 0.5 * net.again(code) + 0.1 * taken
        return net.out(code)

    again = nn.Linear(96, 96, bias=False)
    nn.init.orthogonal_(again.weight, 0.2)
    return Net(
        way,
        into=nn.Linear(64, 96, bias=False),
        again=again,
        thresholds=nn.Parameter(torch.full((16, 1), 0.05)),
        out=nn.Linear(96, 64),
    )


def adapted() -> nn.Module:
    """A frozen body with a small matrix beside each of its own, of which one factor starts at zero."""

    def way(net: Any, x: Tensor) -> Any:
        for layer, first, second in zip(net.body, net.first, net.second, strict=True):
            x = F.gelu(layer(x) + second(first(x)))
        return net.head(x)

    second = nn.ModuleList(nn.Linear(4, 64, bias=False) for _ in range(4))
    for one in second:
        nn.init.zeros_(one.get_parameter("weight"))
    body = nn.ModuleList(nn.Linear(64, 64) for _ in range(4)).requires_grad_(False)
    first = nn.ModuleList(nn.Linear(64, 4, bias=False) for _ in range(4))
    return Net(way, body=body, first=first, second=second, head=nn.Linear(64, CLASSES))


def gated_convolutions() -> nn.Module:
    """Words through convolutions with gates beside them."""

    def way(net: Any, ids: Tensor) -> Any:
        x = net.table(ids).transpose(1, 2)
        for layer in net.layers:
            x = (x + F.glu(layer(F.pad(x, (2, 0))), 1)) * 0.5**0.5
        return net.head(x.transpose(1, 2))

    layers = nn.ModuleList(nn.utils.parametrizations.weight_norm(nn.Conv1d(48, 96, 3)) for _ in range(6))
    return Net(way, table=nn.Embedding(100, 48), layers=layers, head=nn.Linear(48, 100))


def critic() -> nn.Module:
    """A critic whose matrices have a largest stretch of one."""
    spectral = nn.utils.parametrizations.spectral_norm
    widths = [(64, 64), (64, 64), (64, 64), (64, 1)]
    parts = [part for sizes in widths for part in (spectral(nn.Linear(*sizes)), nn.LeakyReLU(0.1))]
    return nn.Sequential(*parts[:-1])


def hinge(out: Tensor, real: Tensor) -> Tensor:
    """The hinge loss of a critic."""
    return (1 - real * out[:, 0]).relu().mean()


def _diffused() -> Batch:
    x, _ = images(16)
    t = torch.rand(len(x))
    noise = torch.randn_like(x)
    return ((1 - t)[:, None, None, None].sqrt() * x + t[:, None, None, None].sqrt() * noise, t), noise


def _itself() -> Batch:
    x, _ = vectors()
    return x, x


def _sequence() -> Batch:
    tokens = words()
    return tokens, tokens


def _cloud() -> Batch:
    y = torch.arange(32) % CLASSES
    return torch.randn(32, 40, 3) * (1 + y[:, None, None] / 5), y


def _pairs() -> Batch:
    pictures, _ = images()
    return (pictures, torch.randint(100, (16, 6))), None


def _states() -> Batch:
    x = torch.randn(64, 8)
    return x, x


def _points() -> Batch:
    x = torch.rand(128, 2) * 2 - 1
    x[:64, 1] = 0
    return x, (3.14 * x[:64, :1]).sin()


def _curves() -> Batch:
    x = torch.randn(64, 8)
    return x, x[:, 0].sin() + 0.2 * torch.randn(64)


def _seen() -> Batch:
    x, _ = vectors()
    return x, torch.where(x[:, 0] > 0, 1.0, -1.0)


KINDS: tuple[tuple[str, Callable[[], nn.Module], Callable[[], Batch], Loss], ...] = (
    ("unet.diffusion", diffusion, _diffused, F.mse_loss),
    ("vq-vae", quantised, _itself, quantised_loss),
    ("switch", switch, _sequence, switch_loss),
    ("set-transformer", sets, _cloud, F.cross_entropy),
    ("graph-attention", graph_attention, vectors, F.cross_entropy),
    ("neural-ode", equation, vectors, F.cross_entropy),
    ("two-towers", towers, _pairs, towers_loss),
    ("gaussian-policy", gaussian_policy, _states, surrogate),
    ("state-space", state_space, _sequence, next_word),
    ("perceiver", perceiver, partial(images, 16), F.cross_entropy),
    ("highway", highway, vectors, F.cross_entropy),
    ("pinn", heat, _points, heat_loss),
    ("mixture-density", mixture, _curves, mixture_loss),
    ("shrinkage", shrinkage, _itself, F.mse_loss),
    ("lora", adapted, vectors, F.cross_entropy),
    ("gated-convolutions", gated_convolutions, _sequence, next_word),
    ("critic", critic, _seen, hinge),
)


def others() -> Iterator[Stock]:
    """Every kind."""
    for name, make, batch, loss in KINDS:
        yield Stock(name, name, make, batch, loss, listed="further")
