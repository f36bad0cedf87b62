"""How a function with its own backward pass is called: torch gives `Function.apply` no types, so it is named once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def call(function: type[torch.autograd.Function], *arguments: Tensor) -> Any:
    """``function``'s forward pass on ``arguments``, remembered for its backward pass."""
    return function.apply(*arguments)
