"""How much of a recurrent state reaches a later one, beside the bound that spectra set to it."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts, singular_values
from gradlab.nn.activations import ACTIVATIONS
from gradlab.nn.network import Pass
from gradlab.nn.norms import Mode
from gradlab.nn.slots import Role


def recurrent_jacobian(cohort: Cohort, _: Advance) -> Read:
    """Gives ``jacobian_norm`` at k = 1..T-1, the 2-norm of dh_T/dh_(T-k) of the top layer at the batch's first sample.

    ``bound`` at the same k is (gamma rho)^k, gamma the activation's steepest slope and rho the largest singular value
    of the recurrent matrix (Pascanu et al. 2013, arXiv:1211.5063, section 2.1). An unrolled network knows no dh_T/dh_0:
    for T factors take a sequence of T + 1 steps.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        sample = cohort.task.inputs[cohort.task.chosen[:1]]
        width = cohort.runs[0].model.width
        norms, bases = gathered(
            (singular_values(_jacobians(cohort, part, sample))[..., 0], _base(cohort, part))
            for part in parts(cohort, width)
        )
        lags = tuple(range(1, norms.shape[1] + 1))
        bounds = bases.unsqueeze(1) ** torch.tensor(lags).to(bases)
        return Curve("jacobian_norm", lags, norms), Curve("bound", lags, bounds)

    return read


def _jacobians(cohort: Cohort, part: Part, sample: Tensor) -> Tensor:
    """dh_T/dh_(T-k) (m, T-1, D, D), k from 1 on.

    The sample is given D times over, and the way back begins at the last state of copy i with the i-th unit vector.
    """
    model = cohort.runs[0].model
    through = Pass(part.network, Mode.MEASURE, keep=True)
    x = through.input(part.scaled(sample.expand(model.width, *sample.shape[1:])))
    cohort.architecture.forward(through, x)
    states = through.signals[model.depth - 1].h
    through.backward(states[-1], torch.eye(model.width).to(x.value).expand(part.size, -1, -1).contiguous())
    found = [h.derivative for h in states[:-1]]
    return torch.stack(found[::-1], dim=1)


def _base(cohort: Cohort, part: Part) -> Tensor:
    """The bound of one step, gamma rho (m,)."""
    model = cohort.runs[0].model
    rho = singular_values(part.network.parameters[model.depth, Role.RECURRENT])[:, 0]
    gamma = ACTIVATIONS[model.activation or "linear"].steepest
    below = torch.as_tensor(part.network.slope(model.depth)).to(rho).flatten().abs()
    return rho * below.clamp(min=gamma)
