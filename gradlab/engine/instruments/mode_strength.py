"""The modes of a two-layer linear network as they are learned, one after the other, beside their exact solution."""

from __future__ import annotations

import numpy as np
import torch

from gradlab.engine.cohort import Cohort
from gradlab.engine.instruments.bench import Advance, Curve, Read, parts
from gradlab.nn.slots import Role
from gradlab.theory import saxe


def mode_strength(cohort: Cohort, _: Advance) -> Read:
    """Gives ``strength`` u_k'W_2 W_1 v_k of the modes k = 1, 2, ..., the strongest first, and what is ``predicted``.

    ``error`` is the difference of the two over s_k. u_k, s_k and v_k are the singular vectors and values of the map to
    learn. The loss is a mean over K outputs, so that tau is K/(2 lr) steps.
    """
    task, outputs = cohort.task, cohort.runs[0].facts.outputs
    inputs, targets = task.inputs.to(torch.float64), task.targets.to(torch.float64)
    left, values, right = torch.linalg.svd(targets.T @ inputs / len(inputs))
    taus = [outputs / (2 * run.optim.lr) if run.optim.lr else np.inf for run in cohort.runs]
    scaled = task.target_scale.to(torch.float64).unsqueeze(1) * values  # (M, K)

    def strengths() -> torch.Tensor:
        maps = [
            part.network.parameters[2, Role.WEIGHT] @ part.network.parameters[1, Role.WEIGHT]
            for part in parts(cohort, 1)
        ]
        return torch.einsum("ik,mij,kj->mk", left, torch.cat(maps), right)

    first = strengths()

    def read(t: int) -> tuple[Curve, ...]:
        found = strengths()
        told = [
            [_mode(t, s, u, tau) for s, u in zip(own.tolist(), begun.tolist(), strict=True)]
            for own, begun, tau in zip(scaled, first, taus, strict=True)
        ]
        predicted = torch.tensor(told, dtype=torch.float64).to(found)
        modes = tuple(range(1, outputs + 1))
        return (
            Curve("strength", modes, found),
            Curve("predicted", modes, predicted),
            Curve("error", modes, (found - predicted).abs() / scaled),
        )

    return read


def _mode(t: int, s: float, u: float, tau: float) -> float:
    """`saxe.mode_strength`, which knows modes of positive strengths alone."""
    return float(saxe.mode_strength(np.array(t), s, u, tau)) if s > 0 and u > 0 else np.nan
