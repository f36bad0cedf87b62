"""The loss of a single recurrent unit over the plane of its two weights, and the cliff in it."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Read
from gradlab.nn.losses import Targets
from gradlab.nn.network import Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.nn.slots import Role

POINTS = 101
"""Along each side of the plane."""

WEIGHTS, BIASES = (0.0, 10.0), (-5.0, 0.0)
"""The sides of the plane, ends included."""


def loss_plane(cohort: Cohort, _: Advance) -> Read:
    """Gives ``plane_loss`` and ``plane_gradient`` over the plane, its sides ``plane_weight`` and ``plane_bias``.

    The 101 values along each side are numbered from 0; in the plane, bias i and weight j have the number 101 i + j. The
    gradient is the norm of the loss's derivative by these two, ``cliff`` its maximum over its median. The weight is the
    recurrent one; all others are those of the run, the loss is that of batch t.
    Pascanu et al. 2013, arXiv:1211.5063, figure 6.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        found = [_plane(cohort, member) for member in range(len(cohort.runs))]
        loss, gradient = (torch.stack(each) for each in zip(*found, strict=True))
        axis, every = tuple(range(POINTS)), tuple(range(POINTS**2))
        sides = [
            torch.linspace(*side, POINTS, dtype=torch.float64).expand(len(found), -1) for side in (WEIGHTS, BIASES)
        ]
        cliff = gradient.amax(1, keepdim=True) / gradient.median(1, keepdim=True).values
        return (
            Curve("plane_weight", axis, sides[0]),
            Curve("plane_bias", axis, sides[1]),
            Curve("plane_loss", every, loss),
            Curve("plane_gradient", every, gradient),
            Curve("cliff", None, cliff),
        )

    return read


def _plane(cohort: Cohort, member: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient (n,) of one member: its network as n members that differ in the two weights alone."""
    task, layout = cohort.task, cohort.layout
    places = {(slot.layer, slot.role): at.start for slot, at in zip(layout.slots, layout.columns, strict=True)}
    columns = [places[1, Role.RECURRENT], places[1, Role.BIAS]]
    flat = cohort.parameters[member].to(torch.float64).repeat(POINTS**2, 1)
    weight, bias = (torch.linspace(*side, POINTS, dtype=torch.float64).to(flat) for side in (WEIGHTS, BIASES))
    flat[:, columns] = torch.cartesian_prod(bias, weight).flip(1)
    through = Pass(assemble(cohort.runs[0], layout, flat), Mode.MEASURE)
    samples = task.inputs[task.chosen].to(torch.float64) * task.input_scale[member].to(torch.float64)
    x = through.input(samples.expand(len(flat), *samples.shape))
    output = cohort.architecture.forward(through, x)
    scale = task.target_scale[member].to(torch.float64).expand(len(flat)).contiguous()
    wide = task.targets.to(torch.float64) if task.targets.is_floating_point() else task.targets
    loss, slope = cohort.loss.measure(output.value, Targets(wide, task.chosen, scale))
    gradient = through.backward(output, slope)
    return loss, gradient[:, columns].norm(dim=1)
