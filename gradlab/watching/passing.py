"""Modules of torch whose operators are known beforehand, so that nothing in Python need look at each of them.

An operator that is looked at costs some ten microseconds, and most of a network are in its linear layers and norms.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_WEIGHING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
_RESHAPING = (nn.Identity, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_BENDING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.MaxPool2d, nn.Dropout)

PASSING: dict[Any, bool] = dict.fromkeys((*_WEIGHING, *_RESHAPING), True) | dict.fromkeys(_BENDING, False)
"""The kinds, and whether one leaves a network linear; none has an activation, a loss, or an end of the way back."""

_AS_WRITTEN = {kind: kind.forward for kind in PASSING}


def known(module: nn.Module) -> bool:
    """Whether it is one of the kinds, as it was written and at its usual settings, and nobody else has hooks on it."""
    kind, held = type(module), module.__dict__
    return (
        kind in PASSING
        and kind.forward is _AS_WRITTEN[kind]
        and "forward" not in held
        and held.get("padding_mode", "zeros") == "zeros"
        and held.get("max_norm") is None
        and not held.get("inplace")
        and all(map(_ours, module._forward_hooks.values()))
        and all(map(_ours, module._forward_pre_hooks.values()))
    )


def _ours(hook: Any) -> bool:
    """Whether a hook is one of those that look, and do nothing."""
    return str(hook.__module__).startswith("gradlab.watching.")


def linear(module: nn.Module) -> bool:
    """Whether a module that is known leaves a network linear; dropout does where it drops nothing."""
    return PASSING[type(module)] or (isinstance(module, nn.Dropout) and not (module.training and module.p))


def dropped(module: nn.Module) -> float:
    """The share of numbers that a module takes away: of dropout that trains, and keeps some."""
    return 1 - (1 - module.p) if isinstance(module, nn.Dropout) and module.training and module.p < 1 else 0.0
