"""What a network answers where it is not told the answers before: greedy decoding, place by place."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode


def dictated(cohort: Cohort, inputs: Tensor) -> Tensor:
    """Tokens (M, B, T), of whose last P places each holds the answer before its own -> answers (M, B, P).

    Each answer is the most likely one, and is what stands at the next place: (M, B) of them are given at a time.
    """
    places = cohort.network.facts.positions
    given, answers = inputs.clone(), inputs[:, :, -places:].clone()
    for place in range(places):
        through = Pass(cohort.network, Mode.EVALUATE)
        output = cohort.architecture.forward(through, through.input(given)).value
        answers[:, :, place] = output[:, :, place].argmax(-1)
        if place + 1 < places:
            given[:, :, place + 1 - places] = answers[:, :, place]
    return answers


def wholly_right(answers: Tensor, classes: Tensor) -> Tensor:
    """(M, B, P), (B, P) -> (M,) float64: how many samples have every answer right."""
    return (answers == classes).all(-1).to(torch.float64).sum(1)
