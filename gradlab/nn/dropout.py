"""Dropout (Srivastava et al. 2014): entries are zero with a probability, the others grow so that means stay.

The random numbers of an entry are counted, not drawn one after the other: SplitMix64 (Steele et al. 2014) of the
member's seed, the step, the site and the entry's place. So a member's masks are the same alone and in company, in a
training that is taken up again, and when a step is played twice; the way back makes them anew.

Shapes: M members; signals are (M, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.kernels import native
from gradlab.nn.kernels.calls import Shared, call, new
from gradlab.spec.run import RunSpec

GOLDEN = 0x9E3779B97F4A7C15
"""What SplitMix64 counts by."""

OF_STEPS, OF_SITES = 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7
"""Odd numbers that keep steps and sites apart."""


@dataclass(frozen=True)
class Drops:
    """Each member's ``seed`` (M, 1) int64 and ``share`` (M, 1) float64, and the step that it is, ``done`` (1,)."""

    seed: Tensor
    share: Tensor
    done: Tensor

    def of(self, which: slice, step: int) -> Drops:
        """Those of some members, at a step that does not go on."""
        return Drops(self.seed[which], self.share[which], torch.full_like(self.done, step))

    def drop(self, x: Tensor, site: int) -> Tensor:
        """(M, ...) with some entries zero, the others over 1 - share; of the derivative it is the same."""
        if native.serves(x):
            x = native.whole(x)
            y = new(x, *x.shape)
            call("dropout", x, len(x), (native.entries(x), site), (self.seed, Shared(self.done), self.share, x, y))
            return y
        return x * self.factors(x, site)

    def factors(self, like: Tensor, site: int) -> Tensor:
        """What each entry of ``like`` (M, ...) is multiplied by: 0 or 1/(1 - share)."""
        ones = [1] * (like.dim() - 1)
        start = _mixed(self.seed + _wrapped(OF_STEPS) * self.done.to(torch.int64) + _wrapped(OF_SITES * site))  # (M, 1)
        places = torch.arange(1, native.entries(like) + 1, device=like.device)
        # 53 bits are a number in [0, 1).
        uniform = _shifted(_mixed(start + places * _wrapped(GOLDEN)), 11) * 2.0**-53
        share = self.share.view(-1, *ones)
        kept = uniform.view(like.shape) >= share
        return torch.where(kept, 1 / (1 - share), 0.0).to(like.dtype)


def dropping(runs: Sequence[RunSpec], done: Tensor) -> Drops | None:
    """What the members drop; None where none of them does."""
    shares = [run.model.dropout or 0.0 for run in runs]
    if not any(shares):
        return None
    seed = torch.tensor([[run.seed] for run in runs], device=done.device)
    return Drops(_mixed(seed + _wrapped(GOLDEN)), torch.tensor([[one] for one in shares]).to(done), done)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's output function; products wrap."""
    x = (x ^ _shifted(x, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _wrapped(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, as of unsigned numbers."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _wrapped(number: int) -> int:
    """Modulo 2^64, as a signed number has it."""
    return (number + 2**63) % 2**64 - 2**63
