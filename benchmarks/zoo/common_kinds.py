"""The common kinds of network with what each is given, its loss and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo.built import (
    actor_critic,
    actor_critic_loss,
    all_convolutional,
    autoencoder,
    cells,
    conv_autoencoder,
    coupling,
    denoiser,
    discriminator,
    elbo,
    encoder,
    experts,
    flow_loss,
    generator,
    graph_convolution,
    lenet,
    mixer,
    mlp,
    nerf,
    points,
    q_network,
    recommender,
    recurrent,
    residual_cnn,
    seq2seq,
    siren,
    small_cnn,
    temporal,
    triplet,
    unet,
    vae,
    wavenet,
)
from benchmarks.zoo.cases import CLASSES, Batch, Loss, Stock, images, next_word, vectors, words


def _tokens(samples: int = 32) -> Batch:
    tokens = words(samples=samples)
    return tokens, tokens[:, 0] % CLASSES


def _sequence() -> Batch:
    tokens = words()
    return tokens, tokens


def _itself() -> Batch:
    x, _ = vectors()
    return x, x


def _pictures() -> Batch:
    x, _ = images()
    return x, x


def _coordinates() -> Batch:
    x = torch.rand(128, 3) * 2 - 1
    return x, (3 * x).sin() * 0.5 + 0.5


def _clicks() -> Batch:
    dense = torch.randn(64, 13)
    return (dense, torch.randint(50, (64, 4))), (dense[:, 0] > 0).float()


def _diffusion() -> Batch:
    x, _ = vectors()
    return (x, torch.rand(len(x))), torch.randn_like(x)


def _triples() -> Batch:
    return tuple(torch.randn(32, 64) for _ in range(3)), None


def _states() -> Batch:
    x = torch.randn(64, 8)
    return x, (x[:, :4].argmax(1))


def _real(samples: int = 16) -> Batch:
    return torch.randn(samples, 3, 32, 32), torch.ones(samples)


def _noise() -> Batch:
    return torch.randn(16, 64), torch.tanh(torch.randn(16, 3, 16, 16))


def _cloud() -> Batch:
    classes = torch.arange(32) % CLASSES
    return torch.randn(32, 40, 3) * (1 + classes[:, None, None] / 5), classes


def _triplet_loss(output: tuple[Tensor, Tensor, Tensor], _: Any) -> Tensor:
    return F.triplet_margin_loss(*output)


def _squared(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output, target)


KINDS: tuple[tuple[str, str, Callable[[], nn.Module], Callable[[], Batch], Loss, str], ...] = (
    *(
        (
            f"mlp.{depth}.{name}",
            "mlp",
            partial(mlp, 64, *[64] * depth, CLASSES, activation=kind),
            vectors,
            F.cross_entropy,
            "adam",
        )
        for depth in (1, 2, 4, 6)
        for name, kind in (("relu", nn.ReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh), ("silu", nn.SiLU))
    ),
    (
        "mlp.batch",
        "normed-mlp",
        partial(mlp, 64, *[64] * 8, CLASSES, norm=nn.BatchNorm1d),
        vectors,
        F.cross_entropy,
        "sgd",
    ),
    (
        "mlp.layer",
        "normed-mlp",
        partial(mlp, 64, *[64] * 8, CLASSES, norm=nn.LayerNorm),
        vectors,
        F.cross_entropy,
        "adam",
    ),
    (
        "mlp.selu",
        "selu-mlp",
        partial(mlp, 64, *[64] * 4, CLASSES, activation=nn.SELU),
        vectors,
        F.cross_entropy,
        "adam",
    ),
    ("lenet", "lenet", lenet, images, F.cross_entropy, "adam"),
    ("cnn", "cnn", partial(small_cnn, False), images, F.cross_entropy, "adam"),
    ("cnn.batch", "cnn", partial(small_cnn, True), images, F.cross_entropy, "sgd"),
    ("all-convolutional", "all-convolutional", all_convolutional, images, F.cross_entropy, "adam"),
    ("resnet.preact", "resnet", partial(residual_cnn, 6, preact=True), images, F.cross_entropy, "sgd"),
    ("resnet.postact", "resnet", partial(residual_cnn, 6, preact=False), images, F.cross_entropy, "sgd"),
    ("unet", "unet", unet, _pictures, _squared, "adam"),
    ("autoencoder", "autoencoder", autoencoder, _itself, _squared, "adam"),
    ("autoencoder.conv", "autoencoder", conv_autoencoder, _pictures, _squared, "adam"),
    ("vae", "vae", vae, _itself, elbo, "adam"),
    ("gan.discriminator", "gan", discriminator, _real, F.binary_cross_entropy_with_logits, "adam"),
    ("gan.generator", "gan", generator, _noise, _squared, "adam"),
    ("lstm", "lstm", partial(recurrent, nn.LSTM), _tokens, F.cross_entropy, "adam"),
    ("lstm.2", "lstm", partial(recurrent, nn.LSTM, 2), _tokens, F.cross_entropy, "adam"),
    ("gru", "gru", partial(recurrent, nn.GRU), _tokens, F.cross_entropy, "adam"),
    ("rnn", "rnn", partial(recurrent, nn.RNN), _tokens, F.cross_entropy, "adam"),
    ("char-lstm", "lstm", partial(recurrent, nn.LSTM, every=True), _sequence, next_word, "adam"),
    ("gru.cells", "gru", cells, _tokens, F.cross_entropy, "adam"),
    ("seq2seq", "seq2seq", seq2seq, _sequence, next_word, "adam"),
    ("gpt", "gpt", partial(encoder, 6, norm_first=True, causal=True), _sequence, next_word, "adam"),
    ("encoder.pre", "transformer", partial(encoder, 4, norm_first=True), _tokens, F.cross_entropy, "adam"),
    ("encoder.post", "transformer", partial(encoder, 4, norm_first=False), _tokens, F.cross_entropy, "adam"),
    ("mixer", "mixer", mixer, images, F.cross_entropy, "adam"),
    ("graph", "graph", graph_convolution, vectors, F.cross_entropy, "adam"),
    ("nerf", "nerf", nerf, _coordinates, _squared, "adam"),
    ("siren", "siren", siren, _coordinates, _squared, "adam"),
    ("flow", "flow", coupling, _itself, flow_loss, "adam"),
    ("experts", "experts", experts, vectors, F.cross_entropy, "adam"),
    ("recommender", "recommender", recommender, _clicks, F.binary_cross_entropy_with_logits, "adam"),
    ("temporal", "temporal", temporal, _tokens, F.cross_entropy, "adam"),
    ("wavenet", "wavenet", wavenet, _sequence, next_word, "adam"),
    ("points", "points", points, _cloud, F.cross_entropy, "adam"),
    ("triplet", "triplet", triplet, _triples, _triplet_loss, "adam"),
    ("q-network", "reinforcement", q_network, _states, F.cross_entropy, "adam"),
    ("actor-critic", "reinforcement", actor_critic, _states, actor_critic_loss, "adam"),
    ("denoiser", "denoiser", denoiser, _diffusion, _squared, "adam"),
)


def common() -> Iterator[Stock]:
    """Every kind."""
    for name, family, make, batch, loss, optimizer in KINDS:
        yield Stock(name, family, make, batch, loss, optimizer)
