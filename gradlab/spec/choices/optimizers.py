"""Optimizers, with the keys that act in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.spec.named import Choice, Value, table


@dataclass(frozen=True)
class Optimizer(Choice):
    """``uses``: the keys of `optim` that act; ``defaults``: its values of them where they differ from SGD's.

    Those are torch's, but RMSprop's learning rate, which is Keras's: torch's 0.01 loses ten layers of ReLU on digits.
    ``buffers``: how many numbers its state holds for each parameter at most; ``as_long_as``: what its steps go with
    when all gradients are multiplied by a number, and all weights: gradients, neither (``rate``), or weights;
    ``begins_as_momentum``: its first steps go with gradients all the same.
    """

    uses: tuple[str, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)
    buffers: int = 0
    as_long_as: str = "rate"
    begins_as_momentum: bool = False

    @property
    def adaptive(self) -> bool:
        """Whether its steps are as long however small the gradients are."""
        return self.as_long_as != "gradients"


_DECAYS = ("lr", "weight_decay", "l1", "maximize")
_ADAM = (*_DECAYS, "beta1", "beta2", "eps")


OPTIMIZERS: dict[str, Optimizer] = table(
    Optimizer(
        "sgd",
        "gradient descent, with momentum or Nesterov's",
        "torch.optim.SGD; Sutskever et al. 2013",
        (*_DECAYS, "momentum", "nesterov", "dampening"),
        buffers=1,
        as_long_as="gradients",
    ),
    Optimizer(
        "adam",
        "running mean over the root of the running square",
        "torch.optim.Adam; Kingma & Ba 2014, arXiv:1412.6980",
        (*_ADAM, "amsgrad"),
        {"lr": 0.001},
        buffers=2,
    ),
    Optimizer(
        "adamw",
        "adam with decoupled weight decay",
        "torch.optim.AdamW; Loshchilov & Hutter 2017, arXiv:1711.05101",
        (*_ADAM, "amsgrad"),
        {"lr": 0.001, "weight_decay": 0.01},
        buffers=2,
    ),
    Optimizer(
        "rmsprop",
        "gradient over the root of its running square; beta2 is torch's alpha",
        "torch.optim.RMSprop; Hinton 2012, lecture 6e",
        (*_DECAYS, "momentum", "beta2", "eps"),
        {"lr": 0.001, "beta2": 0.99},
        buffers=2,
    ),
    Optimizer(
        "adagrad",
        "gradient over the root of the sum of its squares",
        "torch.optim.Adagrad; Duchi et al. 2011",
        (*_DECAYS, "eps"),
        {"lr": 0.01, "eps": 1e-10},
        buffers=1,
    ),
    Optimizer(
        "nadam",
        "adam with Nesterov's momentum",
        "torch.optim.NAdam; Dozat 2016",
        _ADAM,
        {"lr": 0.002},
        buffers=2,
    ),
    Optimizer(
        "radam",
        "adam, but plain momentum until the scale can be told: a warmup of its own",
        "torch.optim.RAdam; Liu et al. 2019, arXiv:1908.03265",
        _ADAM,
        {"lr": 0.001},
        buffers=2,
        begins_as_momentum=True,
    ),
    Optimizer(
        "adamax",
        "running mean over the largest gradient lately",
        "torch.optim.Adamax; Kingma & Ba 2014, arXiv:1412.6980, section 7.1",
        _ADAM,
        {"lr": 0.002},
        buffers=2,
    ),
    Optimizer(
        "adadelta",
        "steps in the units of the weights; beta2 is torch's rho",
        "torch.optim.Adadelta; Zeiler 2012, arXiv:1212.5701",
        (*_DECAYS, "beta2", "eps"),
        {"lr": 1.0, "beta2": 0.9, "eps": 1e-6},
        buffers=2,
    ),
    Optimizer(
        "lamb",
        "adamw's direction, as long in each tensor as its weights are",
        "You et al. 2019, arXiv:1904.00962, algorithm 2",
        _ADAM,
        {"lr": 0.001, "weight_decay": 0.01, "eps": 1e-6},
        buffers=2,
        as_long_as="weights",
    ),
    Optimizer(
        "lion",
        "the sign of a running mean, with decoupled weight decay",
        "Chen et al. 2023, arXiv:2302.06675, algorithm 2",
        (*_DECAYS, "beta1", "beta2"),
        {"lr": 0.0001, "beta2": 0.99},
        buffers=1,
    ),
    Optimizer(
        "muon",
        "the orthogonal part of each matrix's momentum, adamw for all else",
        "torch.optim.Muon; Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982",
        (*_ADAM, "momentum", "nesterov"),
        {"lr": 0.001, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "beta2": 0.95},
        buffers=3,
        as_long_as="weights",
    ),
)
