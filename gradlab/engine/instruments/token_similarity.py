"""How alike the places of a sequence are at every layer: attention pulls them together, skips hold them apart."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode

SEQUENCES = 16
"""At most so many are looked at, the first of the training part."""


def token_similarity(cohort: Cohort, _: Advance) -> Read:
    """Gives, of the stream behind the layers 1..L-1, ``token_distance`` and ``token_cosine``, means over sequences.

    The first is ||X - 1 x'||/||X||, X the places of a sequence and x their mean: 0 where all are one, which attention
    alone comes to doubly exponentially in depth (Dong et al. 2021, arXiv:2103.03404). The second is the mean cosine of
    two places.
    """
    count = min(SEQUENCES, len(cohort.task.inputs))

    def read(_t: int) -> tuple[Curve, ...]:
        samples = cohort.task.inputs[:count]
        distances, cosines = gathered(_seen(cohort, part, samples) for part in parts(cohort, count))
        layers = tuple(range(1, distances.shape[1] + 1))
        return Curve("token_distance", layers, distances), Curve("token_cosine", layers, cosines)

    return read


def _seen(cohort: Cohort, part: Part, samples: Tensor) -> tuple[Tensor, Tensor]:
    """(m, L - 1) each."""
    through = Pass(part.network, Mode.MEASURE, keep=True)
    cohort.architecture.forward(through, through.input(part.scaled(samples)))
    streams = [signal.z[0].value for signal in through.signals[:-1]]  # (m, B, T, D) each
    return torch.stack([_distance(x) for x in streams], 1), torch.stack([_cosine(x) for x in streams], 1)


def _distance(x: Tensor) -> Tensor:
    """(m, B, T, D) -> (m,)."""
    apart = (x - x.mean(2, keepdim=True)).flatten(2).norm(dim=2)
    distance: Tensor = (apart / x.flatten(2).norm(dim=2)).mean(1)
    return distance


def _cosine(x: Tensor) -> Tensor:
    """(m, B, T, D) -> (m,)."""
    places = x.shape[2]
    whole = (x / x.norm(dim=3, keepdim=True)).sum(2).square().sum(2)
    cosine: Tensor = ((whole - places) / (places * (places - 1))).mean(1)
    return cosine
