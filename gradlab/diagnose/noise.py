"""The batch size that the gradient's noise suggests (McCandlish et al. 2018, arXiv:1812.06162)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

VARIANCE, SQUARE = "gradient_variance", "gradient_square"
"""What the instrument `gradient_noise` gives, and the advice needs."""


@dataclass(frozen=True)
class BatchAdvice:
    """The noise scale of a run, None where no gradient is seen in its noise, beside the ``batch`` that it had."""

    scale: float | None
    batch: int

    @property
    def sentence(self) -> str:
        """What it comes to, in plain words."""
        if self.scale is None:
            return (
                f"Gradient noise: in batches of {self.batch} the gradient cannot be told from its noise, so that "
                "larger ones cost nothing but samples."
            )
        steps, samples = 1 + self.scale / self.batch, 1 + self.batch / self.scale
        told = (
            f"Gradient noise scale {self.scale:.3g}: batches of {self.batch} need {steps:.3g} times the fewest steps "
            f"that any batch could, and {samples:.3g} times the fewest samples"
        )
        return f"{told}; data.batch_size={worth(self.scale)} would need about twice of each."


def worth(scale: float) -> int:
    """The noise scale as a batch size: the nearest power of two.

    >>> [worth(scale) for scale in (0.3, 90.0, 100.0)]
    [1, 64, 128]
    """
    return int(2 ** max(0, round(math.log2(scale)))) if scale > 0 else 1


def batch_advice(variance: Sequence[float], square: Sequence[float], batch: int) -> BatchAdvice | None:
    """The advice from the records of one run in order; None where there is none.

    The second half of them counts, for the scale grows while the loss falls; the two numbers are averaged each by
    itself, since the mean of their ratios would be that of the noisiest record.
    """
    known = [pair for pair in zip(variance, square, strict=True) if all(map(math.isfinite, pair))]
    late = known[len(known) // 2 :]
    if not late:
        return None
    noise, signal = (sum(pair[which] for pair in late) / len(late) for which in (0, 1))
    if noise <= 0:
        return None
    return BatchAdvice(noise / signal if signal > 0 else None, batch)


def advised(instruments: pa.Table, runs: pa.Table) -> list[BatchAdvice | None]:
    """The advice of each row of ``runs``, from the rows of the instruments' table."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    wanted = instruments.filter(pc.is_in(instruments["quantity"], value_set=pa.array([VARIANCE, SQUARE])))
    for row in wanted.to_pylist():
        found.setdefault(row["run_id"], {VARIANCE: [], SQUARE: []})[row["quantity"]].append((row["step"], row["value"]))
    told: list[BatchAdvice | None] = []
    for run_id, batch in zip(runs["run_id"].to_pylist(), runs["data.batch_size"].to_pylist(), strict=True):
        own = found.get(run_id, {VARIANCE: [], SQUARE: []})
        variance, square = ([value for _, value in sorted(own[name])] for name in (VARIANCE, SQUARE))
        told.append(batch_advice(variance, square, batch))
    return told
