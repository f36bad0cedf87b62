"""The per-layer table of any `torch.nn.Module` after one way there and back, taken by hooks that leave no trace.

What a layer is, and its signal, stands in `observed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from gradlab.store.columns import MEASURED_COLUMNS, PROBE_COLUMNS
from gradlab.watching.observed import Observed, buffers_kept, observe
from gradlab.watching.rows import Row, parts_of

LossFunction = Callable[[Any, Any], Tensor]
"""From the module's output and the targets to a scalar."""

NO_LEAF = "requires_grad flags of leaf"
"""Of what PyTorch says to a network that asks for the gradient of an input which is no leaf: few do."""


NUMBERS = (*PROBE_COLUMNS, *MEASURED_COLUMNS)
PLACES = {name: place for place, name in enumerate(NUMBERS)}
COLUMNS = pd.Index(["step", "axis", "layer", "name", *NUMBERS])


def measure(module: nn.Module, loss_fn: LossFunction, batch: Any) -> pd.DataFrame:
    """The `layers` frame of ``module`` at its present weights, after one pass there and back in training mode.

    Args:
        module: any network; it is called as ``module(inputs)``; as ``module(*inputs)`` where the inputs are a tuple, or
            a list that its forward takes apart; as ``module(**inputs)`` where they are named as its forward's are.
        loss_fn: from its output and the targets to a scalar, the mean over the batch as everywhere in gradlab.
        batch: inputs and targets, samples first; a tensor of floats as input gives layer 0. Or the inputs alone, by
            name, where the network computes its loss itself: the targets are then what is called "labels".

    Returns:
        The columns of a result's `layers` table but for run_id, with ``step`` 0, and `MEASURED_COLUMNS`, among them
        ``calls``, how often a layer was called: its `signal_grad_norm` is then over all calls. NaN where a column makes
        no sense: what an update gives, `act_correlation` (of gradlab's own networks alone), `saturated` and `dead`
        where no activation follows that can be either, `signal_grad_norm` where nothing before the layer learns.
        ``axis`` is "time" in further rows of a layer that is called again on what it made (a cell in a loop), and of a
        fused recurrent module, whose z is its output sequence: there ||dloss/dh_t|| of its top layer. ``attrs`` has the
        "loss", the "precision" (the coarsest dtype of a parameter or signal), the "activations" that were seen, and
        "facts" about batch, output and loss.

    Raises `TypeError` for what is no module, and `ValueError` where the batch is no pair, the loss is no scalar with a
    gradient, a class is out of range, and where no layer was called. Gradients, buffers, training modes, hooks and
    random generators are left as they were, also after an error.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"the module is of type {type(module).__name__}; expected a torch.nn.Module")
    inputs, targets = _pair(batch)
    try:
        seen = _seen(module, inputs, targets, loss_fn, asking=False)
    except RuntimeError as error:
        if NO_LEAF not in str(error):
            raise
        seen = _seen(module, inputs, targets, loss_fn, asking=True)
    frame = _framed(seen.rows)
    frame.attrs |= seen.told
    return frame


def _seen(module: nn.Module, inputs: Any, targets: Any, loss_fn: LossFunction, *, asking: bool) -> Observed:
    with _left_alone(module):
        return observe(module, inputs, lambda output: loss_fn(output, targets), asking=asking)


def _framed(rows: list[Row]) -> pd.DataFrame:
    """The rows as a frame, from whole columns: pandas would take longer to look at their types than they to be made."""
    numbers = np.full((len(NUMBERS), len(rows)), math.nan)
    for column, row in enumerate(rows):
        for name, value in row.items():
            if name in PLACES:
                numbers[PLACES[name], column] = value
    words = pd.Series([row[name] for name in ("axis", "name") for row in rows]).array
    step, layer = (np.array([row[name] for row in rows]) for name in ("step", "layer"))
    whole: Any = pd.DataFrame
    columns = [step, words[: len(rows)], layer, words[len(rows) :], *numbers]
    frame: pd.DataFrame = whole._from_arrays(columns, COLUMNS.view(), pd.RangeIndex(len(rows)), verify_integrity=False)
    return frame


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        if not any(isinstance(part, Tensor) for part in batch.values()):
            raise ValueError("the batch is a dict; expected a pair, inputs and targets, or a network's inputs by name")
        return batch, batch.get("labels")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}"
        raise ValueError(f"the batch is {given}; expected a pair, inputs and targets")
    return batch[0], batch[1]


@contextmanager
def _left_alone(module: nn.Module) -> Iterator[None]:
    """Training mode inside; modes, buffers (running statistics) and random generators as they were afterwards.

    Where the network trains already, what stands otherwise in it was put so on purpose: a frozen batch norm.
    """
    parts = list(parts_of(module))
    modes = [(part, part.training) for part in parts]
    held = [one for part in parts for one in part._parameters.values() if one is not None]
    cuda = sorted({parameter.device.index for parameter in held if parameter.is_cuda})
    with torch.random.fork_rng(devices=cuda), buffers_kept(parts):
        try:
            if not module.training:
                module.train()
            yield
        finally:
            for part, training in modes:
                part.training = training
