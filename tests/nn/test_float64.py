"""Norms from 1e-150 to 1e150, and the test for finite entries."""

from __future__ import annotations

import math

import pytest
import torch

from gradlab.nn.float64 import layer_gradients, norm64, norms64, sound_norm64, spread, unsound
from gradlab.nn.kernels import native

pytestmark = pytest.mark.usefixtures("any_engine")

SPANS = (slice(0, 3), slice(3, 4), slice(4, 10))


@pytest.mark.parametrize("exponent", [-150, -100, -33, 0, 33, 100, 150])
def test_float64_norms_are_right_from_1e_150_to_1e150(exponent: int) -> None:
    rows = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = 10.0**exponent
    found = norms64(rows * scale, SPANS)
    for layer, span in enumerate(SPANS):
        wanted = torch.tensor([math.hypot(*row) * scale for row in rows[:, span].tolist()], dtype=torch.float64)
        torch.testing.assert_close(found[:, layer], wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(norm64(rows * scale), norms64(rows * scale, (slice(0, 10),))[:, 0], rtol=1e-14, atol=0)


@pytest.mark.parametrize("value", [1e-45, 1e-40, 1.3e-33, 1e-20, 1e20, 3e38])
def test_float32_norms_neither_underflow_nor_overflow(value: float) -> None:
    rows = torch.full((2, 400), value, dtype=torch.float32)
    exact = float(rows[0, 0]) * 20
    assert norm64(rows).tolist() == pytest.approx([exact, exact], rel=1e-12, abs=0)
    assert norm64(rows).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", [1, 2, 17, 64])
def test_finite_sees_one_entry_wherever_it_stands(width: int, value: float, dtype: torch.dtype) -> None:
    rows = torch.randn(width + 2, width, dtype=dtype)
    for place in range(width):  # member 0 and the last stay finite
        rows[place + 1, place] = value
    assert (unsound(rows) == 0).tolist() == [True, *[False] * width, True]


def test_finite_is_true_of_the_largest_and_the_smallest_numbers() -> None:
    for dtype in (torch.float32, torch.float64):
        limits = torch.finfo(dtype)
        rows = torch.tensor([[limits.max, limits.min, limits.tiny, 0.0, -0.0], [limits.max] * 5], dtype=dtype)
        assert (unsound(rows) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_and_the_test_for_finite_entries_come_together(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    rows = torch.tensor([[1.0, 2.0, 2.0], [largest] * 3, [1.0, math.inf, 1.0], [math.nan, 0.0, 0.0]], dtype=dtype)
    norm, broken = sound_norm64(rows)
    torch.testing.assert_close(norm, norm64(rows), rtol=0, atol=0, equal_nan=True)
    assert norm[0] == 3
    assert (broken == 0).tolist() == [True, True, False, False], "a norm may overflow where no entry does"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_norm_is_that_of_layers_whether_they_are_known_or_not(dtype: torch.dtype) -> None:
    rows = torch.randn(3, 50, dtype=dtype, generator=torch.Generator().manual_seed(0))
    rows[1, 3] = math.nan
    rows[2] *= 1e-30
    matrices, layers = (slice(0, 12), slice(20, 45)), (slice(0, 20), slice(20, 50))
    norm, weights, zero = torch.empty(3, 3, 2, dtype=torch.float64)
    layer_gradients(rows, matrices, layers, norm, weights, zero)
    for known in (None, norm):
        found, broken = sound_norm64(rows, matrices, layers, known)
        torch.testing.assert_close(found, norm64(rows), rtol=1e-14, atol=0, equal_nan=True)
        assert (broken == 0).tolist() == [True, False, True]
        assert torch.equal(found.nan_to_num(), sound_norm64(rows, matrices, layers)[0].nan_to_num())


def test_what_has_not_changed_has_the_norms_that_it_had() -> None:
    rows, spans = torch.randn(2, 9), (slice(0, 4), slice(4, 9))
    had, out = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), torch.empty(2, 2, dtype=torch.float64)
    norms64(rows, spans, out, (torch.tensor([0.0, 1.0], dtype=torch.float64), had))
    assert torch.equal(out[1], norms64(rows, spans)[1])
    if native.serves(rows):
        assert torch.equal(out[0], had[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(9, 8), (6, 3), (4, 64), (5, 130)])
def test_mean_and_deviation_are_right_where_entries_are_nearly_equal_too(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    noise = torch.randn(4, 1, *shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    h = torch.tensor([0.0, 1.0, 40.0, 3e4], dtype=dtype).view(4, 1, 1, 1) + noise
    mean, deviation, cosine = torch.empty(3, 4, dtype=torch.float64)
    spread(h, mean, deviation, cosine)
    wide = h.double().flatten(1)
    torch.testing.assert_close(mean, wide.mean(1), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(deviation, wide.std(1, unbiased=False), rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_correlation_of_samples_is_the_mean_cosine_of_pairs_that_have_one(dtype: torch.dtype) -> None:
    h = torch.randn(4, 3, 5, 7, dtype=dtype, generator=torch.Generator().manual_seed(0)) + 0.5
    h[0, 1, 2] = 0.0
    h[1, 0, 0, 0] = math.inf
    h[2] = 0.0
    h[2, 1, 3] = 1.0
    h[3] = 1e-30 * torch.tensor([1.0, -1.0, 2.0, -0.5, 3.0], dtype=dtype).view(5, 1)
    mean, deviation, found = torch.empty(3, 4, dtype=torch.float64)
    each = [torch.empty(4, 3, dtype=torch.float64) for _ in range(3)]
    spread(h, mean, deviation, found, each)
    for step in range(3):
        alone = torch.empty(3, 4, dtype=torch.float64)
        spread(h[:, step : step + 1], *alone)
        torch.testing.assert_close(
            torch.stack([part[:, step] for part in each]), alone, rtol=1e-12, atol=0, equal_nan=True
        )
    wide = h.double().flatten(1)
    torch.testing.assert_close(mean, wide.mean(1), equal_nan=True)
    torch.testing.assert_close(deviation, wide.std(1, unbiased=False), rtol=1e-12, atol=0, equal_nan=True)
    awake = [[row for row in step if row.any()] for step in h[0].double()]
    pairs = [(a, b) for step in awake for place, a in enumerate(step) for b in step[:place]]
    assert len(pairs) == 10 + 6 + 10
    assert found[0] == pytest.approx(sum(float(a @ b / a.norm() / b.norm()) for a, b in pairs) / 26, rel=1e-12)
    assert math.isnan(found[1]), "an entry is not finite"
    assert math.isnan(found[2]), "one sample alone has no other to be alike to"
    assert found[3] == pytest.approx((3 + 1 - 3 * 2) / 10), "three of one sign, two of the other, however small"


def test_equal_numbers_have_no_deviation_at_any_level() -> None:
    mean, deviation = torch.empty(2, 2, dtype=torch.float64)
    spread(torch.full((2, 3, 5, 7), 1e6 + 0.1), mean, deviation, None)
    assert deviation.tolist() == [0.0, 0.0]
    h = 1e6 + torch.randn(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread(h, mean, deviation, None)
    torch.testing.assert_close(deviation, h.flatten(1).std(1, unbiased=False), rtol=1e-9, atol=0)
