"""Common kinds of network, written by hand as one finds them in tutorials and papers, in their usual defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.cases import CLASSES

Does = Callable[..., Any]


class Net(nn.Module):
    """Parts by name, and what a network does with them."""

    def __init__(self, does: Does, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.does = does
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        """What it does."""
        return self.does(self, *inputs)


def mlp(
    *widths: int, activation: Callable[[], nn.Module] = nn.ReLU, norm: Callable[[int], nn.Module] | None = None
) -> nn.Sequential:
    """Linear layers of these widths in torch's default, a norm where wanted, and an activation between them."""
    parts: list[nn.Module] = []
    for taken, given in pairwise(widths[:-1]):
        parts += [nn.Linear(taken, given), *([norm(given)] if norm else []), activation()]
    return nn.Sequential(*parts, nn.Linear(widths[-2], widths[-1]))


def convs(*channels: int, kernel: int = 3, norm: bool = False, pool: bool = True) -> nn.Sequential:
    """Convolutions with ReLU, halved after each."""
    parts: list[nn.Module] = []
    for taken, given in pairwise(channels):
        parts += [nn.Conv2d(taken, given, kernel, padding=kernel // 2), *([nn.BatchNorm2d(given)] if norm else [])]
        parts += [nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]
    return nn.Sequential(*parts)


def lenet() -> nn.Module:
    """LeNet-5 with tanh and average pooling."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, CLASSES)),
    )


def small_cnn(norm: bool) -> nn.Module:
    """Three convolutions and a linear layer."""
    return nn.Sequential(convs(3, 16, 32, 64, norm=norm), nn.Flatten(), nn.Linear(64 * 16, CLASSES))


def all_convolutional() -> nn.Module:
    """Convolutions alone, then a global mean."""
    return nn.Sequential(convs(3, 32, 64, 64), nn.Conv2d(64, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def residual_cnn(blocks: int, *, preact: bool) -> nn.Module:
    """Residual blocks of two convolutions with batch norm."""

    def block(_: int) -> nn.Module:
        body = (
            nn.Sequential(
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1),
            )
            if preact
            else nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.BatchNorm2d(16),
            )
        )
        return Net((lambda net, x: x + net.body(x)) if preact else (lambda net, x: F.relu(x + net.body(x))), body=body)

    middle = nn.Sequential(*map(block, range(blocks)))
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), middle, end)


def unet() -> nn.Module:
    """Two levels down, two up, with skips."""

    def forward(net: Any, x: Tensor) -> Tensor:
        a = net.down1(x)
        b = net.down2(F.max_pool2d(a, 2))
        c = net.middle(F.max_pool2d(b, 2))
        b = net.up2(torch.cat([F.interpolate(c, scale_factor=2), b], 1))
        a = net.up1(torch.cat([F.interpolate(b, scale_factor=2), a], 1))
        out: Tensor = net.out(a)
        return out

    same = partial(convs, pool=False, norm=True)
    return Net(
        forward,
        down1=same(3, 16, 16),
        down2=same(16, 32, 32),
        middle=same(32, 64, 64),
        up2=same(96, 32, 32),
        up1=same(48, 16, 16),
        out=nn.Conv2d(16, 3, 1),
    )


def autoencoder() -> nn.Module:
    """Linear layers down to 8 units and up again."""
    return nn.Sequential(mlp(64, 48, 24, 8), nn.ReLU(), mlp(8, 24, 48, 64))


def conv_autoencoder() -> nn.Module:
    """Convolutions down and transposed ones up."""
    up = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
    return nn.Sequential(convs(3, 16, 32), up(32, 16), nn.ReLU(), up(16, 3))


def vae() -> nn.Module:
    """A variational autoencoder of linear layers."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = net.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        return net.decoder(z), mean, log_var

    return Net(forward, encoder=mlp(64, 48, 16), decoder=mlp(8, 48, 64))


def elbo(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Squared error and the divergence from a standard normal."""
    made, mean, log_var = output
    return F.mse_loss(made, x) - 5e-4 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()


def discriminator() -> nn.Module:
    """DCGAN's discriminator in its own initialization."""
    parts: list[nn.Module] = []
    for taken, given in ((3, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(taken, given, 4, 2, 1), nn.BatchNorm2d(given), nn.LeakyReLU(0.2)]
    network = nn.Sequential(*parts, nn.Conv2d(64, 1, 4), nn.Flatten(0))
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 0.02)
    return network


def generator() -> nn.Module:
    """DCGAN's generator in its own initialization."""
    parts: list[nn.Module] = [nn.Unflatten(1, (64, 1, 1))]
    for taken, given in ((64, 64), (64, 32), (32, 16)):
        parts += [nn.ConvTranspose2d(taken, given, 4, 2, 1), nn.BatchNorm2d(given), nn.ReLU()]
    network = nn.Sequential(*parts, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())
    for part in network.modules():
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0, 0.02)
    return network


def recurrent(kind: Callable[..., nn.Module], layers: int = 1, *, every: bool = False) -> nn.Module:
    """An embedding, a fused recurrent module, and a read-out of the last or of every step."""

    def forward(net: Any, tokens: Tensor) -> Tensor:
        output, _ = net.recurrent(net.embedding(tokens))
        read: Tensor = net.out(output if every else output[:, -1])
        return read

    return Net(
        forward,
        embedding=nn.Embedding(100, 32),
        recurrent=kind(32, 64, layers, batch_first=True),
        out=nn.Linear(64, 100 if every else CLASSES),
    )


def cells() -> nn.Module:
    """A GRU cell in a loop."""

    def forward(net: Any, tokens: Tensor) -> Tensor:
        h = torch.zeros(len(tokens), 64)
        for x in net.embedding(tokens).unbind(1):
            h = net.cell(x, h)
        out: Tensor = net.out(h)
        return out

    return Net(forward, embedding=nn.Embedding(100, 32), cell=nn.GRUCell(32, 64), out=nn.Linear(64, CLASSES))


def seq2seq() -> nn.Module:
    """A GRU that reads and one that writes."""

    def forward(net: Any, tokens: Tensor) -> Tensor:
        _, state = net.encoder(net.embedding(tokens))
        output, _ = net.decoder(net.embedding(tokens), state)
        out: Tensor = net.out(output)
        return out

    return Net(
        forward,
        embedding=nn.Embedding(100, 32),
        encoder=nn.GRU(32, 64, batch_first=True),
        decoder=nn.GRU(32, 64, batch_first=True),
        out=nn.Linear(64, 100),
    )


def encoder(layers: int, *, norm_first: bool, causal: bool = False) -> nn.Module:
    """A transformer of torch's layers, with a learned position."""

    def forward(net: Any, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length) if causal else None
        x = net.embedding(tokens) + net.position[:length]
        h = net.body(x, mask=mask, is_causal=causal)
        out: Tensor = net.out(h) if causal else net.out(h.mean(1))
        return out

    layer = nn.TransformerEncoderLayer(64, 4, 128, 0.1, batch_first=True, norm_first=norm_first)
    body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    return Net(
        forward,
        embedding=nn.Embedding(100, 64),
        position=nn.Parameter(0.02 * torch.randn(64, 64)),
        body=body,
        out=nn.Linear(64, 100 if causal else CLASSES),
    )


def mixer() -> nn.Module:
    """An MLP-Mixer of six blocks."""

    def block(_: int) -> nn.Module:
        def forward(net: Any, x: Tensor) -> Tensor:
            x = x + net.tokens(net.a(x).transpose(1, 2)).transpose(1, 2)
            out: Tensor = x + net.channels(net.b(x))
            return out

        return Net(
            forward,
            a=nn.LayerNorm(32),
            b=nn.LayerNorm(32),
            tokens=mlp(16, 32, 16, activation=nn.GELU),
            channels=mlp(32, 64, 32, activation=nn.GELU),
        )

    stem = nn.Sequential(nn.Conv2d(3, 32, 8, 8), nn.Flatten(2))
    blocks = nn.Sequential(*map(block, range(6)))
    return Net(
        lambda net, x: net.out(net.norm(net.blocks(net.stem(x).transpose(1, 2))).mean(1)),
        stem=stem,
        blocks=blocks,
        norm=nn.LayerNorm(32),
        out=nn.Linear(32, CLASSES),
    )


def graph_convolution() -> nn.Module:
    """Two graph convolutions over a dense adjacency."""
    adjacency = torch.eye(64) + (torch.rand(64, 64) < 0.1).float()
    adjacency = adjacency / adjacency.sum(1, keepdim=True)
    return Net(
        lambda net, x: net.b(adjacency @ F.relu(net.a(adjacency @ x))), a=nn.Linear(64, 32), b=nn.Linear(32, CLASSES)
    )


def nerf() -> nn.Module:
    """A radiance field's layers over an encoded position."""
    waves = 2.0 ** torch.arange(6)

    def forward(net: Any, x: Tensor) -> Tensor:
        angles = (x[..., None] * waves).flatten(1)
        encoded = torch.cat([x, angles.sin(), angles.cos()], 1)
        h = net.first(encoded)
        out: Tensor = net.second(torch.cat([F.relu(h), encoded], 1)).sigmoid()
        return out

    return Net(forward, first=mlp(39, 64, 64, 64, 64), second=mlp(103, 64, 64, 64, 3))


class Sine(nn.Module):
    """A layer of SIREN with its own initialization (Sitzmann et al. 2020)."""

    def __init__(self, taken: int, given: int, *, first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(taken, given)
        bound = 1 / taken if first else math.sqrt(6 / taken) / 30
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """sin(30 (Wx + b))."""
        return torch.sin(30 * self.linear(x))


def siren() -> nn.Module:
    """Three sine layers."""
    return nn.Sequential(
        Sine(3, 64, first=True), Sine(64, 64, first=False), Sine(64, 64, first=False), nn.Linear(64, 3)
    )


def coupling() -> nn.Module:
    """Six affine coupling layers of a flow."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(len(x))
        for part in net.parts:
            a, b = x.chunk(2, 1)
            scale, shift = part(a).chunk(2, 1)
            x = torch.cat([b * scale.tanh().exp() + shift, a], 1)
            log_det = log_det + scale.tanh().sum(1)
        return x, log_det

    return Net(forward, parts=nn.ModuleList(mlp(32, 64, 64) for _ in range(6)))


def flow_loss(output: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
    """The negative log-likelihood under a standard normal."""
    z, log_det = output
    return (0.5 * z.square().sum(1) - log_det).mean()


def experts() -> nn.Module:
    """Four experts under a soft gate."""

    def forward(net: Any, x: Tensor) -> Tensor:
        gate = net.gate(x).softmax(1)
        made = torch.stack([one(x) for one in net.experts], 1)
        out: Tensor = net.out((gate[..., None] * made).sum(1))
        return out

    return Net(
        forward,
        gate=nn.Linear(64, 4),
        experts=nn.ModuleList(mlp(64, 64, 32) for _ in range(4)),
        out=nn.Linear(32, CLASSES),
    )


def recommender() -> nn.Module:
    """Embeddings and their pairwise products."""

    def forward(net: Any, dense: Tensor, sparse: Tensor) -> Tensor:
        vectors_ = [net.bottom(dense), *(table(sparse[:, place]) for place, table in enumerate(net.tables))]
        stacked = torch.stack(vectors_, 1)
        pairs = (stacked @ stacked.transpose(1, 2)).flatten(1)
        out: Tensor = net.top(torch.cat([vectors_[0], pairs], 1))[:, 0]
        return out

    return Net(
        forward,
        bottom=mlp(13, 32, 16),
        tables=nn.ModuleList(nn.Embedding(50, 16) for _ in range(4)),
        top=mlp(16 + 25, 64, 1),
    )


def temporal(blocks: int = 4) -> nn.Module:
    """Dilated convolutions with skips."""

    def block(place: int) -> nn.Module:
        conv = nn.Conv1d(32, 32, 3, padding=2**place, dilation=2**place)
        return Net(lambda net, x: F.relu(x + F.relu(net.conv(x))), conv=conv)

    return Net(
        lambda net, tokens: net.out(net.body(net.embedding(tokens).transpose(1, 2)).mean(2)),
        embedding=nn.Embedding(100, 32),
        body=nn.Sequential(*map(block, range(blocks))),
        out=nn.Linear(32, CLASSES),
    )


def wavenet() -> nn.Module:
    """Gated causal convolutions."""

    def forward(net: Any, tokens: Tensor) -> Tensor:
        x = net.embedding(tokens).transpose(1, 2)
        skips = torch.zeros_like(x)
        for place, (both, back) in enumerate(zip(net.both, net.back, strict=True)):
            a, b = both(F.pad(x, (2**place, 0))).chunk(2, 1)
            made = back(a.tanh() * b.sigmoid())
            x, skips = x + made, skips + made
        out: Tensor = net.out(F.relu(skips).transpose(1, 2))
        return out

    both = nn.ModuleList(nn.Conv1d(32, 64, 2, dilation=2**place) for place in range(4))
    back = nn.ModuleList(nn.Conv1d(32, 32, 1) for _ in range(4))
    return Net(forward, embedding=nn.Embedding(100, 32), both=both, back=back, out=nn.Linear(32, 100))


def points() -> nn.Module:
    """A network of each point, and a maximum over them."""

    def forward(net: Any, x: Tensor) -> Tensor:
        out: Tensor = net.out(net.each(x).amax(1))
        return out

    return Net(forward, each=mlp(3, 64, 128), out=mlp(128, 64, CLASSES))


def triplet() -> nn.Module:
    """One body for three inputs."""
    return Net(lambda net, a, b, c: tuple(F.normalize(net.body(one), dim=1) for one in (a, b, c)), body=mlp(64, 64, 32))


def q_network() -> nn.Module:
    """Two hidden layers to four values."""
    return mlp(8, 64, 64, 4)


def actor_critic() -> nn.Module:
    """A policy and a value on one body."""
    body = mlp(8, 64, 64, 64, activation=nn.Tanh)
    actor, critic = nn.Linear(64, 4), nn.Linear(64, 1)
    nn.init.orthogonal_(actor.weight, 0.01)
    return Net(
        lambda net, x: (net.actor(net.body(x).tanh()), net.critic(net.body(x).tanh())),
        body=body,
        actor=actor,
        critic=critic,
    )


def actor_critic_loss(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Both losses."""
    policy, value = output
    return F.cross_entropy(policy, target) + 0.5 * F.mse_loss(value[:, 0], target.float() / 4)


def denoiser() -> nn.Module:
    """Residual layers with an embedding of time, and an output that starts at zero."""

    def forward(net: Any, x: Tensor, t: Tensor) -> Tensor:
        time = net.time(
            torch.cat([(t[:, None] * 2.0 ** torch.arange(4)).sin(), (t[:, None] * 2.0 ** torch.arange(4)).cos()], 1)
        )
        h = net.into(x) + time
        for block in net.blocks:
            h = h + block(h)
        out: Tensor = net.out(h)
        return out

    blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(64), mlp(64, 128, 64, activation=nn.SiLU)) for _ in range(4))
    out = nn.Linear(64, 64)
    nn.init.zeros_(out.weight)
    return Net(forward, into=nn.Linear(64, 64), time=mlp(8, 64, 64, activation=nn.SiLU), blocks=blocks, out=out)
