"""How a network of the user's own is called, what it draws by chance meanwhile, and how its outputs are judged."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.targets import imported
from gradlab.engine.precision import FORMATS
from gradlab.nn.losses import SQUASHES, Objective, objective
from gradlab.spec.choices import LOSSES
from gradlab.spec.run import RunSpec
from gradlab.watching.observed import called_with
from gradlab.watching.tape import signal_of

Judge = Callable[[Any, Tensor], Tensor]
"""From what a network puts out, and the targets, to the loss."""


def answer(module: nn.Module, inputs: Any) -> Any:
    """What a module puts out, called as its inputs are given."""
    parts, names = called_with(module, inputs)
    positional, named = parts[: len(parts) - len(names)], parts[len(parts) - len(names) :]
    return module(*positional, **dict(zip(names, named, strict=True)))


def sow(seed: int, t: int) -> None:
    """Random numbers that a network draws itself at step t (dropout) come from its seed and the step alone."""
    number = int.from_bytes(hashlib.blake2b(f"{seed}:{t}".encode(), digest_size=7).digest(), "big")
    # Not torch.manual_seed, which takes a thousand times as long: it notes its callers for devices to come.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 - it is the user's network that draws from it


def judging(run: RunSpec) -> Judge:
    """How the outputs of a run's network are judged: the activation of its output layer, then its loss.

    A loss that gradlab knows is of single numbers where the network's are of half precision.
    """
    squash = SQUASHES.get(run.model.output or "none")
    known = run.loss in LOSSES
    loss: Objective = objective(run.loss, run.model.output) if known else imported(run.loss)
    form = FORMATS[run.train.precision]

    def judge(output: Any, targets: Tensor) -> Tensor:
        found = tensor_of(output) if known or squash is not None else output
        if known and form.half:
            found = found.to(form.beside)
        return loss(found if squash is None else squash(found), targets)

    return judge


def tensor_of(output: Any) -> Tensor:
    """The tensor that an output is judged by: itself, what is called logits, or the first of floats."""
    found = output if isinstance(output, Tensor) else signal_of(output)
    if found is None:
        raise TypeError(
            f"the network puts out a {type(output).__name__}; expected a tensor, or a tuple or a mapping that has one"
        )
    return found
