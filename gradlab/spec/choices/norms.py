"""Normalizations of signals, and of weights."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Norm(Choice):
    """``over_batch``: statistics are shared by the samples of a batch, so a batch of one is an error.

    ``of_signals``: it divides a signal, before or behind the activation, and no matrix.
    """

    over_batch: bool = False
    of_signals: bool = True


NORMS: dict[str, Norm] = table(
    Norm("none", "no normalization", "-", of_signals=False),
    Norm(
        "batch",
        "each unit over the batch, with running statistics",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        over_batch=True,
    ),
    Norm("layer", "each sample over its units", "Ba et al. 2016, arXiv:1607.06450"),
    Norm("rms", "each sample over the root mean square of its units", "Zhang & Sennrich 2019, arXiv:1910.07467"),
    Norm(
        "group",
        "each sample over each of `model.groups` groups of its units, or channels, all pixels together",
        "Wu & He 2018, arXiv:1803.08494",
    ),
    Norm("instance", "each channel of each sample over its pixels", "Ulyanov et al. 2016, arXiv:1607.08022"),
    Norm(
        "weight",
        "the weights of each unit as a direction, and its length, which is learned by itself",
        "Salimans & Kingma 2016, arXiv:1602.07868",
        of_signals=False,
    ),
)
