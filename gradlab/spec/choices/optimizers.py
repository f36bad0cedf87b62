"""Optimizers, with the keys that act in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Optimizer(Choice):
    """``uses``: the keys of `optim` that act; ``defaults``: its values of them where they differ from SGD's.

    Those are torch's, but RMSprop's learning rate, which is Keras's: torch's 0.01 loses ten layers of ReLU on digits.
    ``buffers``: how many numbers its state holds for each parameter at most.
    """

    uses: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    buffers: int = 0


_DECAYS = ("lr", "weight_decay", "l1")


OPTIMIZERS: dict[str, Optimizer] = table(
    Optimizer(
        "sgd",
        "gradient descent, with momentum or Nesterov's; lr 0.1",
        "torch.optim.SGD; Sutskever et al. 2013",
        (*_DECAYS, "momentum", "nesterov"),
        buffers=1,
    ),
    Optimizer(
        "adam",
        "running mean over the root of the running square; lr 0.001",
        "torch.optim.Adam; Kingma & Ba 2014, arXiv:1412.6980",
        (*_DECAYS, "beta1", "beta2", "eps"),
        {"lr": 0.001},
        buffers=2,
    ),
    Optimizer(
        "adamw",
        "adam with decoupled weight decay; lr 0.001",
        "torch.optim.AdamW; Loshchilov & Hutter 2017, arXiv:1711.05101",
        (*_DECAYS, "beta1", "beta2", "eps"),
        {"lr": 0.001, "weight_decay": 0.01},
        buffers=2,
    ),
    Optimizer(
        "rmsprop",
        "gradient over the root of its running square; beta2 is torch's alpha; lr 0.001",
        "torch.optim.RMSprop; Hinton 2012, lecture 6e",
        (*_DECAYS, "momentum", "beta2", "eps"),
        {"lr": 0.001, "beta2": 0.99},
        buffers=2,
    ),
    Optimizer(
        "adagrad",
        "gradient over the root of the sum of its squares; lr 0.01",
        "torch.optim.Adagrad; Duchi et al. 2011",
        (*_DECAYS, "eps"),
        {"lr": 0.01, "eps": 1e-10},
        buffers=1,
    ),
)
