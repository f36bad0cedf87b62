"""Clippers equal torch.nn.utils for every member, and say what they did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlab.engine.optim.clippers import CLIPPERS, clip, clipping
from gradlab.nn.float64 import norm64, norms64
from gradlab.nn.slots import Layout, Slot, linear_slots
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from tests.members import measured

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
    {"clip.mode": "soft", "clip.threshold": 0.7},
    {"clip.mode": "agc", "clip.threshold": 0.3},
    {"clip.mode": "agc", "clip.threshold": 1e9},
    {"clip.mode": "autoclip", "clip.threshold": 30.0},
    {"clip.mode": "zclip", "clip.threshold": 1.5},
    {"clip.mode": "skip", "clip.threshold": 0.5},
)
RUNS = tuple(build(settings) for settings in SETTINGS)


def draw(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (scale * torch.randn(len(RUNS), LAYOUT.size, dtype=torch.float64, generator=generator)).to(dtype)


BEFORE = torch.zeros(1, dtype=torch.float64)
SLOTS = tuple(zip(LAYOUT.slots, LAYOUT.columns, strict=True))


def weights(like: Tensor) -> Tensor:
    """The parameters, the same of all runs; the first unit's are zeros."""
    generator = torch.Generator().manual_seed(5)
    found = torch.randn(1, LAYOUT.size, dtype=torch.float64, generator=generator).to(like.dtype)
    found[:, :4] = 0
    return found.repeat(len(RUNS), 1)


def _adaptive(gradient: Tensor, slot: Slot, span: slice, c: float) -> Tensor:
    """Brock et al. 2021, equation 3, unit by unit."""
    units = slot.shape[0] if len(slot.shape) > 1 else 1
    pairs = zip(gradient[span].chunk(units), weights(gradient)[0, span].chunk(units), strict=True)
    kept = []
    for own, weight in pairs:
        most = c * max(float(weight.norm()), 1e-3)
        kept.append(own * (most / max(float(own.norm()), 1e-6)) if float(own.norm()) > most else own)
    return torch.cat(kept)


def by_torch(run: RunSpec, gradient: Tensor) -> Tensor:
    """The clipped gradient (P,) of one member."""
    layers = [nn.Parameter(torch.zeros_like(gradient[columns])) for columns in LAYOUT.layers]
    for layer, columns in zip(layers, LAYOUT.layers, strict=True):
        layer.grad = gradient[columns].clone()
    c, own = run.clip.threshold, run.clip.output_threshold
    match run.clip.mode:
        case "norm":
            nn.utils.clip_grad_norm_(layers, c)
        case "autoclip":  # of a history of one
            nn.utils.clip_grad_norm_(layers, float(torch.linalg.vector_norm(gradient)))
        case "value":
            nn.utils.clip_grad_value_(layers, c)
        case "layerwise":
            for layer in layers:
                nn.utils.clip_grad_norm_([layer], own if own is not None and layer is layers[-1] else c)
        case "normalize":
            return gradient.mul(c / (float(torch.linalg.vector_norm(gradient)) + 1e-6))
        case "soft":
            return gradient.mul(c / (float(torch.linalg.vector_norm(gradient)) + c))
        case "agc":
            return torch.cat([_adaptive(gradient, slot, span, c) for slot, span in SLOTS])
    return torch.cat([layer.grad for layer in layers if layer.grad is not None])


def test_the_names_are_the_named_choices() -> None:
    assert list(CLIPPERS) == list(choices.CLIPS)


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9, 0.0])
def test_every_member_is_clipped_as_torch_clips_it(scale: float, dtype: torch.dtype, exact: float) -> None:
    gradient = draw(scale, dtype)
    before = gradient.clone()
    found = clip(gradient, norm64(gradient), clipping(RUNS, weights(gradient), BEFORE), LAYOUT)
    for member, run in enumerate(RUNS):
        wanted = by_torch(run, before[member])
        torch.testing.assert_close(gradient[member], wanted, rtol=exact, atol=0)
        stays = found.skipped is not None and bool(found.skipped[member])
        assert bool(found.changed[member] != 0) == (stays or bool((gradient[member] != before[member]).any()))
    assert found.skipped is not None
    applied = torch.where(found.skipped, 0.0, norm64(gradient))
    torch.testing.assert_close(found.norm, applied, rtol=10 * exact, atol=0)


def test_the_norm_after_clipping_is_the_threshold() -> None:
    gradient = draw(10.0)
    found = clip(gradient, norm64(gradient), clipping(RUNS, weights(gradient), BEFORE), LAYOUT)
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
        clip(gradient, norm64(gradient), clipping(RUNS, weights(gradient), BEFORE), LAYOUT)
    kept = [member for member in range(len(RUNS)) if member != broken]
    assert torch.equal(healthy[kept], other[kept])


def test_members_in_any_order_of_modes() -> None:
    order = [8, 1, 0, 5, 3, 2]
    gradient = draw()[order]
    before = gradient.clone()
    runs = [RUNS[place] for place in order]
    clip(gradient, norm64(gradient), clipping(runs, weights(gradient)[order], BEFORE), LAYOUT)
    for member, run in enumerate(runs):
        torch.testing.assert_close(gradient[member], by_torch(run, before[member]), rtol=1e-12, atol=0)


def course(mode: str, threshold: float, norms: Sequence[float]) -> tuple[list[float], Tensor]:
    """The norms after clipping of a member whose gradients have ``norms``, and the last gradient."""
    run, done = build({"clip.mode": mode, "clip.threshold": threshold, "train.steps": len(norms)}), BEFORE.clone()
    direction = torch.nn.functional.normalize(draw()[:1])
    how = clipping([run], weights(direction)[:1], done)
    after = []
    for t, norm in enumerate(norms):
        gradient = direction * norm
        done.fill_(t)
        after.append(float(clip(gradient, norm64(gradient), how, LAYOUT).norm))
        assert float(norm64(gradient)) == pytest.approx(after[-1], rel=1e-9)
    return after, gradient


NORMS = (np.random.default_rng(0).lognormal(0, 0.4, 60) * np.where(np.arange(60) % 17 == 16, 30, 1)).tolist()


def test_autoclip_is_the_percentile_of_the_history() -> None:
    """Seetharaman et al. 2020, algorithm 1, with numpy's percentile."""
    wanted = [norm * min(1, np.percentile(NORMS[: t + 1], 20) / (norm + 1e-6)) for t, norm in enumerate(NORMS)]
    assert course("autoclip", 20.0, NORMS)[0] == pytest.approx(wanted, rel=1e-9)


def test_zclip_is_its_source_s() -> None:
    """Kumar et al. 2025, algorithm 1, with reciprocal clipping, written out."""
    wanted: list[float] = []
    gathered: list[float] = []
    mean, variance = 0.0, 0.0
    for norm in NORMS:
        if len(gathered) < 25:
            gathered.append(norm)
            mean, variance = float(np.mean(gathered)), float(np.var(gathered))
            wanted.append(norm)
            continue
        score = (norm - mean) / (variance**0.5 + 1e-6)
        kept = mean + 1.5 * variance**0.5 / (score / 1.5) if score > 1.5 else norm
        wanted.append(norm * min(1, kept / (norm + 1e-6)) if score > 1.5 else norm)
        mean = 0.97 * mean + 0.03 * kept
        variance = 0.97 * variance + 0.03 * (kept - mean) ** 2
    found = course("zclip", 1.5, NORMS)[0]
    assert found == pytest.approx(wanted, rel=1e-9)
    assert sum(after < norm * 0.999 for after, norm in zip(found, NORMS, strict=True)) >= 2


def test_a_skipped_update_leaves_weights_momenta_and_the_optimizer_s_count() -> None:
    """Beside a member that is never skipped, one that is at every other step trains as if those had not been."""
    settings: dict[str, Value] = {
        "model.depth": 3,
        "model.width": 8,
        "data.batch_size": "full",
        "train.steps": 12,
        "probe.every": 1,
        "optim.name": "adam",
        "train.precision": "float64",
        "clip.mode": "skip",
    }
    free, never = measured(settings | {"clip.threshold": 1e9}, settings | {"clip.threshold": 1e-9})
    norms = [row["grad_norm"] for row in free.steps[:-1]]
    (some,) = measured(settings | {"clip.threshold": sorted(norms)[6]})
    assert not any(row["skipped"] for row in free.steps[:-1])
    assert all(row["skipped"] and row["clipped"] for row in never.steps[:-1])
    assert never.steps[-1]["skipped"] is None
    assert [row["loss"] for row in never.steps] == pytest.approx([never.steps[0]["loss"]] * 13, rel=1e-12)
    assert {row["update_ratio"] for row in never.layers if row["update_ratio"] is not None} == {0.0}
    assert some.steps[0]["skipped"] == (norms[0] > sorted(norms)[6])
    made = [row["loss"] for row in some.steps if not row["skipped"]]
    assert made[: len(made) - 1] == pytest.approx([row["loss"] for row in free.steps][: len(made) - 1], rel=1e-12)
