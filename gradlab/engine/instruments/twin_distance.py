"""Two trainings from nearly equal weights on the same batches: do they stay together, or does a butterfly part them?"""

from __future__ import annotations

import torch

from gradlab.engine.cohort import Cohort, twin
from gradlab.engine.instruments.bench import Advance, Curve, Read

NEAR = 1e-7
"""How far the twin's weights are from the run's at first, over the norm of these: small enough for the distance to
grow by a million before the twins are strangers, large beside the rounding of float64."""


def twin_distance(cohort: Cohort, advance: Advance) -> Read:
    """Gives ``log_distance``, ln |w_t - w'_t|/|w_0 - w'_0|, and after the first step ``exponent``, the same over t.

    The twin's weights w' begin in a random direction from w, the same for all members; then it is trained as its run
    is. The exponent is the largest Lyapunov exponent of training, as far as t steps and twins still near each other
    tell it: below 0 trainings forget where they began, above 0 they are chaotic.
    """
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(cohort.parameters.shape[1], generator=generator, dtype=torch.float64)
    direction = (direction / direction.norm()).to(cohort.parameters)
    size = cohort.parameters.norm(dim=1, keepdim=True)
    other = twin(cohort, cohort.parameters + NEAR * size * direction)
    first = (other.parameters - cohort.parameters).norm(dim=1)
    taken = torch.zeros(len(size), dtype=torch.int64)
    cohort.beside.update({f"twin.{name}": tensor for name, tensor in other.remembered.items()}, taken=taken)

    def read(t: int) -> tuple[Curve, ...]:
        for step in range(int(taken[0]), t):
            advance(other, step)
        taken.fill_(t)
        logs = ((other.parameters - cohort.parameters).norm(dim=1) / first).log().unsqueeze(1)
        grown = (Curve("exponent", None, logs / t),) if t else ()
        return Curve("log_distance", None, logs), *grown

    return read
