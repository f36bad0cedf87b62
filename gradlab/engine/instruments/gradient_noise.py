"""How much of a batch's gradient is noise: what larger batches could gain (McCandlish et al. 2018, arXiv:1812.06162).

Shapes: m networks at a time, B batch, P parameters a member.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import BYTES_AT_A_TIME, PARAMETER_COPIES, Advance, Curve, Read
from gradlab.nn.losses import SQUASHES, objective
from gradlab.nn.network import Pass, assemble
from gradlab.nn.norms import Mode


def gradient_noise(cohort: Cohort, _: Advance) -> Read:
    """Gives, of batch t, ``gradient_variance`` and ``gradient_square``, and ``noise_scale``, their ratio.

    The variance is tr Sigma, the sum of the squared distances of the samples' gradients g_i to their mean G over B - 1;
    the square is |G|^2 - tr Sigma/B: a batch's squared gradient is larger than that of all samples by its noise, and
    both estimates are unbiased (appendix A.1 of the paper, with batches of one and of B). The ratio of unbiased numbers
    is not; where the batch is too small to see a gradient at all, the square is not above 0 and the scale infinite.
    """

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        found = [_moments(cohort, member) for member in range(len(cohort.runs))]
        variance, square = (torch.stack(each).unsqueeze(1) for each in zip(*found, strict=True))
        scale = torch.where(square > 0, variance / square, torch.where(square.isnan(), torch.nan, torch.inf))
        return (
            Curve("noise_scale", None, scale),
            Curve("gradient_variance", None, variance),
            Curve("gradient_square", None, square),
        )

    return read


def _moments(cohort: Cohort, member: int) -> tuple[Tensor, Tensor]:
    """The variance and the square of one member: each sample meets a copy of the network of its own."""
    batch, size = len(cohort.task.chosen), cohort.layout.size
    together = max(1, BYTES_AT_A_TIME // (8 * PARAMETER_COPIES * size))
    squares, whole = [], torch.zeros(size, dtype=torch.float64, device=cohort.parameters.device)
    for chosen in cohort.task.chosen.split(together):
        gradients = sample_gradients(cohort, member, chosen)
        squares.append(gradients.square().sum(1))
        whole += gradients.sum(0)
    mean_square = (whole / batch).square().sum()
    variance = (torch.cat(squares).sum() - batch * mean_square) / (batch - 1)
    return variance, mean_square - variance / batch


def sample_gradients(cohort: Cohort, member: int, chosen: Tensor) -> Tensor:
    """The gradient (B, P) of the loss of each of the samples ``chosen`` (B,), in float64."""
    run, task = cohort.runs[0], cohort.task
    flat = cohort.parameters[member].to(torch.float64).repeat(len(chosen), 1)
    through = Pass(assemble(run, cohort.layout, flat), Mode.MEASURE)
    samples = task.inputs[chosen].unsqueeze(1)
    if samples.is_floating_point():
        samples = samples.to(torch.float64) * task.input_scale[member].to(torch.float64)
    output = cohort.architecture.forward(through, through.input(samples.contiguous()))
    targets = task.targets[chosen].unsqueeze(1)
    if targets.is_floating_point():
        targets = targets.to(torch.float64) * task.target_scale[member].to(torch.float64)
    judge, squash = objective(run.loss, run.model.output), SQUASHES.get(run.model.output or "none")
    with torch.enable_grad():
        known = output.value.detach().requires_grad_()
        told = known if squash is None else squash(known)
        losses = torch.stack([judge(one, target) for one, target in zip(told, targets, strict=True)])
        (slope,) = torch.autograd.grad(losses.sum(), known)
    return through.backward(output, slope)
