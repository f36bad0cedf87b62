"""Who keeps a training while it goes on; `keeping` says what is kept of one, `pretraining` what of that before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.store.arrays import Kept


@dataclass(frozen=True)
class Keeper:
    """Who keeps a training; by default nobody does.

    ``load`` gives what was kept, if anything was; ``wanted(t)`` is asked after step t, of some steps one, whether to
    ``save`` what there is then, and after the steps of a pre-training, which are numbered to -1; ``finish`` is given
    what there is at the end, unless it is None.
    """

    load: Callable[[], Kept | None] = lambda: None
    wanted: Callable[[int], bool] = lambda _t: False
    save: Callable[[Kept], None] = lambda _kept: None
    finish: Callable[[Kept], None] | None = None


NOBODY = Keeper()


def plain(tensor: Tensor) -> Tensor:
    """As numpy can hold it, which has no bfloat16: what is rounded to that is a single number, too."""
    return tensor.float() if tensor.dtype is torch.bfloat16 else tensor
