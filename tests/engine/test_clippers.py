"""Clippers equal torch.nn.utils for every member, and say what they did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradlab.engine.optim.clippers import CLIPPERS, clip, clipping
from gradlab.nn.float64 import norm64, norms64
from gradlab.nn.slots import Layout, linear_slots
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build

pytestmark = pytest.mark.usefixtures("either_engine")

LAYOUT = Layout((*linear_slots(1, 4, 3), *linear_slots(2, 3, 3), *linear_slots(3, 3, 2)), ("a", "b", "output"))

SETTINGS: tuple[dict[str, Value], ...] = (
    {"clip.mode": "none"},
    {"clip.mode": "norm", "clip.threshold": 0.5},
    {"clip.mode": "norm", "clip.threshold": 1e9},
    {"clip.mode": "value", "clip.threshold": 0.3},
    {"clip.mode": "value", "clip.threshold": 100.0},
    {"clip.mode": "layerwise", "clip.threshold": 0.5},
    {"clip.mode": "layerwise", "clip.threshold": 0.5, "clip.output_threshold": 1e9},
    {"clip.mode": "layerwise", "clip.threshold": 1e9, "clip.output_threshold": 0.2},
    {"clip.mode": "normalize", "clip.threshold": 0.7},
    {"clip.mode": "normalize", "clip.threshold": 1e3},
)
RUNS = tuple(build(settings) for settings in SETTINGS)


def draw(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (scale * torch.randn(len(RUNS), LAYOUT.size, dtype=torch.float64, generator=generator)).to(dtype)


def by_torch(run: RunSpec, gradient: Tensor) -> Tensor:
    """The clipped gradient (P,) of one member."""
    layers = [nn.Parameter(torch.zeros_like(gradient[columns])) for columns in LAYOUT.layers]
    for layer, columns in zip(layers, LAYOUT.layers, strict=True):
        layer.grad = gradient[columns].clone()
    c, own = run.clip.threshold, run.clip.output_threshold
    match run.clip.mode:
        case "norm":
            nn.utils.clip_grad_norm_(layers, c)
        case "value":
            nn.utils.clip_grad_value_(layers, c)
        case "layerwise":
            for layer in layers:
                nn.utils.clip_grad_norm_([layer], own if own is not None and layer is layers[-1] else c)
        case "normalize":
            return gradient.mul(c / (float(torch.linalg.vector_norm(gradient)) + 1e-6))
    return torch.cat([layer.grad for layer in layers if layer.grad is not None])


def test_the_names_are_the_named_choices() -> None:
    assert list(CLIPPERS) == list(choices.CLIPS)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9, 0.0])
def test_every_member_is_clipped_as_torch_clips_it(scale: float, dtype: torch.dtype, exact: float) -> None:
    gradient = draw(scale, dtype)
    before = gradient.clone()
    found = clip(gradient, norm64(gradient), clipping(RUNS, gradient), LAYOUT)
    for member, run in enumerate(RUNS):
        wanted = by_torch(run, before[member])
        torch.testing.assert_close(gradient[member], wanted, rtol=exact, atol=0)
        assert bool(found.changed[member] != 0) == bool((gradient[member] != before[member]).any())
    torch.testing.assert_close(found.norm, norm64(gradient), rtol=10 * exact, atol=0)


def test_the_norm_after_clipping_is_the_threshold() -> None:
    gradient = draw(10.0)
    found = clip(gradient, norm64(gradient), clipping(RUNS, gradient), LAYOUT)
    assert float(found.norm[1]) == pytest.approx(0.5, rel=1e-6)
    assert float(found.norm[8]) == pytest.approx(0.7, rel=1e-6)
    layers = norms64(gradient, LAYOUT.layers)
    assert layers[5].tolist() == pytest.approx([0.5] * 3, rel=1e-6)
    assert layers[7].tolist()[2] == pytest.approx(0.2, rel=1e-5)
    assert float(gradient[3].abs().max()) == 0.3


@pytest.mark.parametrize("broken", range(len(RUNS)))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_member_touches_no_other(broken: int, value: float) -> None:
    healthy, other = draw(), draw()
    other[broken, 5] = value
    for gradient in (healthy, other):
        clip(gradient, norm64(gradient), clipping(RUNS, gradient), LAYOUT)
    kept = [member for member in range(len(RUNS)) if member != broken]
    assert torch.equal(healthy[kept], other[kept])


def test_members_in_any_order_of_modes() -> None:
    order = [8, 1, 0, 5, 3, 2]
    gradient = draw()[order]
    before = gradient.clone()
    runs = [RUNS[place] for place in order]
    clip(gradient, norm64(gradient), clipping(runs, gradient), LAYOUT)
    for member, run in enumerate(runs):
        torch.testing.assert_close(gradient[member], by_torch(run, before[member]), rtol=1e-12, atol=0)
