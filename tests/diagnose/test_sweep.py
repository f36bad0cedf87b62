"""Since when a run has a verdict, on columns of known pathology."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradlab.diagnose import DEFAULTS, History
from gradlab.diagnose.sweep import since
from tests.diagnose.cases import falling, healthy, profile, rate_of


def history(*factors: float) -> History:
    """A run that learns nothing, whose δ changes by a factor of so much a layer at each of its records."""
    records = [profile(rate_of(factor)) for factor in factors]
    columns = {name: np.stack([one.columns[name][0] for one in records]) for name in records[0].columns}
    steps = np.linspace(0, 200, len(factors)).astype(int)
    return replace(healthy(), along=(replace(records[0], step=steps, columns=columns),), loss=falling(2.3))


@pytest.mark.parametrize(
    ("factors", "step"),
    [((0.5,) * 5, 0), ((1.0, 1.0, 0.5, 0.5, 0.5), 100), ((1.0, 0.5, 1.0, 1.0, 0.5), 200), ((1.0,) * 5, None)],
)
def test_since_the_first_record_from_which_on_it_is_so(factors: tuple[float, ...], step: int | None) -> None:
    assert since(history(*factors), "vanishing", DEFAULTS) == step


def test_a_run_that_diverged_was_another_one_before() -> None:
    broken = replace(history(*(0.5,) * 5), state="diverged", diverged_at=200, diverged_layer=3)
    assert since(broken, "diverged", DEFAULTS) == 200
    assert since(broken, "vanishing", DEFAULTS) == 0


def test_what_a_run_was_before_has_the_loss_scales_of_those_steps_alone() -> None:
    one = replace(history(*(1.0,) * 5), loss=np.full(201, 2.3))
    scaled = replace(one, loss_scale=np.ones_like(one.loss))
    assert since(scaled, "stalled", DEFAULTS) == since(one, "stalled", DEFAULTS)
