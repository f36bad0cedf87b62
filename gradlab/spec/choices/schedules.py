"""How the learning rate changes in the course of a training."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Schedule(Choice):
    """``uses``: the keys of `optim` that act, beside `lr` and `warmup`; ``to_the_end``: `train.steps` acts, too."""

    uses: tuple[str, ...] = ()
    to_the_end: bool = False


SCHEDULES: dict[str, Schedule] = table(
    Schedule("constant", "the learning rate as it is", "-"),
    Schedule(
        "linear",
        "on a straight line to end_factor of itself at the last step",
        "torch.optim.lr_scheduler.LinearLR",
        ("end_factor",),
        to_the_end=True,
    ),
    Schedule(
        "cosine",
        "on half a cosine to end_factor of itself at the last step",
        "torch CosineAnnealingLR; Loshchilov & Hutter 2016, arXiv:1608.03983",
        ("end_factor",),
        to_the_end=True,
    ),
    Schedule(
        "step", "times decay every decay_every steps", "torch.optim.lr_scheduler.StepLR", ("decay", "decay_every")
    ),
    Schedule(
        "exponential",
        "times decay in decay_every steps, by the same factor at each",
        "torch.optim.lr_scheduler.ExponentialLR",
        ("decay", "decay_every"),
    ),
    Schedule(
        "inverse_sqrt",
        "as 1/sqrt(t) after the warmup, which it begins with",
        "Vaswani et al. 2017, arXiv:1706.03762, equation 3",
    ),
    Schedule(
        "one_cycle",
        "up from lr/25 over the warmup (of 0: 30 % of the steps), then down to end_factor",
        "torch OneCycleLR; Smith & Topin 2017, arXiv:1708.07120",
        ("end_factor",),
        to_the_end=True,
    ),
    Schedule(
        "plateau",
        "times decay after decay_every steps without a loss that is lower by 1e-4 of itself",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        ("decay", "decay_every"),
    ),
)
