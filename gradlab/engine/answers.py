"""What a network answers where it is not told the answers before: greedy decoding, place by place."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.models import Architecture
from gradlab.nn.network import Network, Pass
from gradlab.nn.norms import Mode


def dictated(architecture: Architecture, network: Network, inputs: Tensor) -> Tensor:
    """Tokens (M, B, T), of whose last P places each holds the answer before its own -> answers (M, B, P).

    Each answer is the most likely one, and is what stands at the next place: (M, B) of them are given at a time.
    """
    places = network.facts.positions
    given, answers = inputs.clone(), inputs[:, :, -places:].clone()
    for place in range(places):
        through = Pass(network, Mode.EVALUATE)
        output = architecture.forward(through, through.input(given)).value
        answers[:, :, place] = output[:, :, place].argmax(-1)
        if place + 1 < places:
            given[:, :, place + 1 - places] = answers[:, :, place]
    return answers


def wholly_right(answers: Tensor, classes: Tensor) -> Tensor:
    """(M, B, P), (B, P) -> (M,) float64: how many samples have every answer right."""
    return (answers == classes).all(-1).to(torch.float64).sum(1)
