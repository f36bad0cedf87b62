"""Normalizations before the activation."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Norm(Choice):
    """``over_batch``: statistics are shared by the samples of a batch, so a batch of one is an error."""

    over_batch: bool = False


NORMS: dict[str, Norm] = table(
    Norm("none", "no normalization", "-"),
    Norm(
        "batch",
        "each unit over the batch, with running statistics",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        over_batch=True,
    ),
    Norm("layer", "each sample over its units", "Ba et al. 2016, arXiv:1607.06450"),
    Norm("rms", "each sample over the root mean square of its units", "Zhang & Sennrich 2019, arXiv:1910.07467"),
)
