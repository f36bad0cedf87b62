"""What a network's hidden layers learn from inputs alone, before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Pretraining(Choice):
    """``models``: the architectures that it makes sense for; ``corrupts``: `pretrain.corruption` acts."""

    models: tuple[str, ...] = ()
    corrupts: bool = False


_VECTORS = ("mlp", "residual_mlp")

PRETRAINING: dict[str, Pretraining] = table(
    Pretraining("none", "training begins at the weights as they are drawn", "-"),
    Pretraining(
        "layerwise",
        "one layer after the other as the encoder of an autoencoder of what the layers before it give",
        "Hinton & Salakhutdinov 2006; Bengio et al. 2007; Erhan et al. 2010",
        ("mlp",),
    ),
    Pretraining(
        "autoencoder",
        "all hidden layers at once: a linear read-out of the last gives the inputs back",
        "Hinton & Salakhutdinov 2006, Science 313",
        _VECTORS,
    ),
    Pretraining(
        "denoising",
        "the same from inputs with noise of the deviation pretrain.corruption",
        "Vincent et al. 2008; Alain & Bengio 2014, arXiv:1211.4246",
        _VECTORS,
        corrupts=True,
    ),
    Pretraining(
        "masked",
        "the same, where a share pretrain.corruption of the inputs is hidden, and these alone are asked for",
        "Devlin et al. 2018, arXiv:1810.04805; He et al. 2021, arXiv:2111.06377",
        _VECTORS,
        corrupts=True,
    ),
    Pretraining(
        "generative",
        "the next step of each sequence from those before it: of characters, a language model",
        "Radford et al. 2018; Dai & Le 2015, arXiv:1511.01432",
        ("rnn", "lstm", "gru", "transformer"),
    ),
)
