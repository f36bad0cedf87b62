"""The rows of several ways back as one: of micro-batches, of losses, of processes."""

from __future__ import annotations

import math
from collections.abc import Callable

from gradlab.watching.ears import Scale
from gradlab.watching.rows import Row

OF_SIGNALS = ("signal_grad_norm", "trunk_grad_norm")
OF_GRADIENTS = ("grad_norm", "grad_rms", "weight_grad_norm")
SCALED = (*OF_SIGNALS, *OF_GRADIENTS, "signal_grad_rms", "trunk_grad_rms")
"""Columns that a loss scale multiplies."""


def unscaled(row: Row, scale: Scale) -> Row:
    """A row of a scaled loss as one of the loss."""
    by = float(scale)
    return row if by == 1.0 else row | {name: row[name] / by for name in SCALED if name in row}


def _squares(old: float, new: float, _: int) -> float:
    return math.hypot(old, new)


def _mean(old: float, new: float, passes: int) -> float:
    return (passes * old + new) / (passes + 1)


def _root_mean(old: float, new: float, passes: int) -> float:
    return math.sqrt((passes * old**2 + new**2) / (passes + 1))


def _least(old: float, new: float, _: int) -> float:
    return min(old, new)


def _most(old: float, new: float, _: int) -> float:
    return max(old, new)


def _sum(old: float, new: float, _: int) -> float:
    return old + new


_ADDED: dict[str, Callable[[float, float, int], float]] = {
    **dict.fromkeys(OF_SIGNALS, _squares),
    **dict.fromkeys(("signal_grad_rms", "trunk_grad_rms"), _root_mean),
    **dict.fromkeys(("act_mean", "saturated", "attention_entropy"), _mean),
    **dict.fromkeys(("dead", "cut", "idle", "normalised"), _least),
    "attention_logit_max": _most,
    "calls": _sum,
}
"""How a column of a further way back joins the same of ``passes`` before; what is not named is the newest.

Of `dead` only the most is known: a unit that rests on all samples rests on those of each micro-batch.
"""


def added(old: Row, new: Row, passes: int) -> Row:
    """The row of a layer with that of one more way back of the same step, of as many samples."""
    both = {name: how(old[name], new[name], passes) for name, how in _ADDED.items() if name in old and name in new}
    row = old | new | both
    if "act_std" in old and "act_std" in new:
        mean, other = old["act_mean"], new["act_mean"]
        squares = _mean(old["act_std"] ** 2 + mean**2, new["act_std"] ** 2 + other**2, passes)
        row["act_std"] = math.sqrt(max(0.0, squares - both["act_mean"] ** 2))
    return row
