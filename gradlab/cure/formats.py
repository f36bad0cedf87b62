"""What remedies set in half precision: of the format of numbers, the loss scale, and an eps that it can hold.

None where a run is in single precision or better: there nothing of this is tried.
"""

from __future__ import annotations

from gradlab.cure.changes import Change
from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.choices.formats import FORMATS, HALF
from gradlab.spec.run import RunSpec

EPS = 1e-4
"""What float16 holds with a thousand numbers to spare; what is used for Adam in half precision."""


def dynamic(spec: RunSpec) -> Change | None:
    """Of passes in float16 alone: bfloat16 has the range of single precision."""
    return {"train.loss_scale": "dynamic"} if spec.train.precision.endswith("float16") and not _wide(spec) else None


def _wide(spec: RunSpec) -> bool:
    return spec.train.precision.endswith("bfloat16") or spec.train.loss_scale == "dynamic"


def single_copies(spec: RunSpec) -> Change | None:
    """Passes in the same format, beside single weights."""
    return {"train.precision": f"mixed_{spec.train.precision}"} if spec.train.precision in HALF else None


def wider(spec: RunSpec) -> Change | None:
    """Bfloat16 in the place of float16, which needs no loss scale."""
    if not spec.train.precision.endswith("float16") or spec.train.precision.endswith("bfloat16"):
        return None
    return {"train.precision": spec.train.precision.replace("float16", "bfloat16"), "train.loss_scale": "1"}


def single(spec: RunSpec) -> Change | None:
    """Everything single."""
    return {"train.precision": "float32", "train.loss_scale": "1"} if "float16" in spec.train.precision else None


def by_chance(spec: RunSpec) -> Change | None:
    """Where weights are in half precision."""
    return {"train.rounding": "stochastic"} if spec.train.precision in HALF else None


def eps(spec: RunSpec) -> Change | None:
    """Where the optimizer has one that its weights' format makes zero."""
    if spec.train.precision not in HALF or "eps" not in OPTIMIZERS[spec.optim.name].uses:
        return None
    return {"optim.eps": EPS} if spec.optim.eps < FORMATS[spec.train.precision].smallest / 2 else None
