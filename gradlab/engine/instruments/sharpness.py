"""The largest eigenvalue of the loss's Hessian, beside the one at which descent becomes unstable.

On the quadratic that the loss is near by, gradient descent oscillates ever wider along a direction of curvature above
2/lr. Full-batch descent rises to that number by itself, and stays there: the edge of stability (Cohen et al. 2021,
arXiv:2103.00065). Shapes: m members, P parameters a member, K vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Part, Read, gathered, parts
from gradlab.nn.kernels.calls import aside
from gradlab.nn.losses import SQUASHES, objective
from gradlab.nn.network import Pass, assemble
from gradlab.nn.norms import Mode
from gradlab.spec.run import OptimSpec

VECTORS = 20
"""Of the Krylov space: where the largest eigenvalue stands apart from the rest, its error is far below a thousandth."""


def sharpness(cohort: Cohort, _: Advance) -> Read:
    """Gives ``sharpness``, the Hessian's largest eigenvalue of the loss of batch t, and ``sharpness_error``, its bound.

    By Lanczos' iteration on products with the Hessian, which autograd gives exactly, orthogonalised in full, in
    float64. ``stable`` is the largest at which the run's descent is stable on a quadratic, at the rate of step t: 2/lr,
    with momentum b 2(1 + b)/lr; where the optimizer is no descent with or without momentum, it is left out.
    """
    descends = cohort.runs[0].optim.name == "sgd"
    bounds = torch.tensor([stable(run.optim) for run in cohort.runs], dtype=torch.float64)

    def read(t: int) -> tuple[Curve, ...]:
        cohort.task.turn_to(t)
        lr = cohort.pace.turn_to(t)
        samples = len(cohort.task.chosen)
        room = parts(cohort, 2 * samples, copies=2 * VECTORS)
        values, errors = gathered(_largest(cohort, part) for part in room)
        found = (Curve("sharpness", None, values.unsqueeze(1)), Curve("sharpness_error", None, errors.unsqueeze(1)))
        return (*found, Curve("stable", None, (bounds.to(lr) / lr).unsqueeze(1))) if descends else found

    return read


def stable(optim: OptimSpec) -> float:
    """The largest stable curvature times the learning rate, under heavy-ball and Nesterov's momentum too.

    >>> from gradlab.spec.run import build
    >>> stable(build({"optim.momentum": 0.9}).optim)
    3.8
    """
    bound = (2 + 2 * optim.momentum) / (1 - optim.dampening if optim.momentum else 1.0)
    return bound / (1 + 2 * optim.momentum) if optim.nesterov else bound


def _largest(cohort: Cohort, part: Part) -> tuple[Tensor, Tensor]:
    """(m,) each: the eigenvalue and the bound of its error; nan where a curvature is not finite."""
    product = curvature(cohort, part)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(cohort.layout.size, generator=generator, dtype=torch.float64).to(cohort.parameters.device)
    return lanczos(product, first.expand(part.size, -1), min(VECTORS, cohort.layout.size))


def curvature(cohort: Cohort, part: Part) -> Callable[[Tensor], Tensor]:
    """Products (m, P) -> (m, P) with the Hessians of the members' losses on the samples that are chosen."""
    run, task = cohort.runs[0], cohort.task
    judge, squash = objective(run.loss, run.model.output), SQUASHES.get(run.model.output or "none")
    targets = task.targets[task.chosen]
    with aside(), torch.enable_grad():
        flat = cohort.parameters[part.which].detach().to(torch.float64, copy=True).requires_grad_()
        through = Pass(assemble(run, cohort.layout, flat), Mode.MEASURE)
        output = cohort.architecture.forward(through, through.input(part.scaled(task.inputs[task.chosen]))).value
        output = output if squash is None else squash(output)
        losses = []
        for one, scale in zip(output, part.target_scale, strict=True):
            wanted = targets.to(torch.float64) * scale if targets.is_floating_point() else targets
            losses.append(judge(one, wanted))
        (slope,) = torch.autograd.grad(torch.stack(losses).sum(), flat, create_graph=True)

    def product(vectors: Tensor) -> Tensor:
        with aside():
            (found,) = torch.autograd.grad(slope, flat, vectors, retain_graph=True)
        return found

    return product


def lanczos(product: Callable[[Tensor], Tensor], first: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue (m,) of m symmetric maps, and the bound of its error, from ``count`` products.

    ``first`` (m, P) begins the Krylov space, which is orthogonalised twice at each step: without that, rounding brings
    back directions that were done with. Of the tridiagonal matrix's largest pair (theta, s) the error is at most
    |beta s_last| (Parlett 1998, theorem 4.5.1).
    """
    basis = [first / first.norm(dim=1, keepdim=True)]
    diagonal, beside = [], []
    for _ in range(count):
        w = product(basis[-1])
        diagonal.append((w * basis[-1]).sum(1))
        known = torch.stack(basis, dim=1)
        for _ in range(2):
            w = w - torch.einsum("mk,mkp->mp", torch.einsum("mkp,mp->mk", known, w), known)
        size = w.norm(dim=1)
        beside.append(size)
        # Where the space is exhausted there is no next direction: rounding must not make one up.
        over = size <= 1e-12 * torch.stack(diagonal).abs().amax(0)
        basis.append(torch.where(over.unsqueeze(1), 0.0, w / size.unsqueeze(1).clamp(min=1e-300)))
    alpha, beta = torch.stack(diagonal, dim=1), torch.stack(beside, dim=1)
    matrix = torch.diag_embed(alpha) + torch.diag_embed(beta[:, :-1], 1) + torch.diag_embed(beta[:, :-1], -1)
    sound = torch.isfinite(matrix).all(-1).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(sound[:, None, None], matrix, 0.0))
    error = (beta[:, -1] * vectors[:, -1, -1]).abs()
    return torch.where(sound, values[:, -1], torch.nan), torch.where(sound, error, torch.nan)
