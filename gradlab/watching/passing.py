"""Modules of torch whose operators are known beforehand, so that nothing in Python need look at each of them.

An operator that is looked at costs some ten microseconds, and most of a network are in its linear layers and norms.
"""

from __future__ import annotations

from torch import nn

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.Identity, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_BENDING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.MaxPool2d, nn.Dropout)

PASSING = dict.fromkeys(_LINEAR, True) | dict.fromkeys(_BENDING, False)
"""The kinds, and whether one leaves a network linear; none has an activation, a loss, or an end of the way back."""

_AS_WRITTEN = {kind: kind.forward for kind in PASSING}

USUAL = {"padding_mode": "zeros", "max_norm": None, "inplace": False}
"""Settings with which their operators are the usual ones."""

HOOKS = 2
"""Our own on each module: one before it runs, and one behind."""


def known(module: nn.Module) -> bool:
    """Whether it is one of the kinds, as it was written, and nobody else has hooks on it."""
    kind, held = type(module), module.__dict__
    return (
        kind in PASSING
        and kind.forward is _AS_WRITTEN[kind]
        and "forward" not in held
        and len(module._forward_hooks) + len(module._forward_pre_hooks) <= HOOKS
        and all(held.get(name, usual) == usual for name, usual in USUAL.items())
    )


def linear(module: nn.Module) -> bool:
    """Whether a module that is known leaves a network linear; dropout does where it drops nothing."""
    return PASSING[type(module)] or (isinstance(module, nn.Dropout) and not (module.training and module.p))


def dropped(module: nn.Module) -> float:
    """The share of numbers that a module takes away: of dropout that trains, and keeps some."""
    return 1 - (1 - module.p) if isinstance(module, nn.Dropout) and module.training and module.p < 1 else 0.0
