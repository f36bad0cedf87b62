"""Convolutions and means of pixels equal torch's, there and back, with kernels and without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.nn import convolutions as ours
from tests.nn.test_kernels import EXACT, draw

pytestmark = pytest.mark.usefixtures("either_engine")

SHAPES = [(8, 8, 16, 16), (5, 7, 3, 4), (9, 13, 1, 33), (1, 1, 2, 20), (4, 2, 20, 17), (28, 28, 1, 3)]
"""Height, width, channels that enter and that leave: whole vectors, parts of them, edges of every length."""


def torch_s(x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
    """One network after the other, by torch.nn.functional.conv2d."""
    found = []
    for member, image in enumerate(x):
        weight = filters[member].view(filters.shape[1], 3, 3, -1).permute(0, 3, 1, 2)
        shift = None if bias is None else bias[member]
        found.append(F.conv2d(image.permute(0, 3, 1, 2), weight, shift, padding=1).permute(0, 2, 3, 1))
    return torch.stack(found)


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize(("height", "width", "channels", "to"), SHAPES)
def test_convolutions_equal_torch_s_there_and_back(
    height: int, width: int, channels: int, to: int, dtype: torch.dtype
) -> None:
    x = draw(2, 3, height, width, channels, seed=1, dtype=dtype).requires_grad_()
    filters = draw(2, to, 9 * channels, seed=2, dtype=dtype).requires_grad_()
    bias, dz = draw(2, to, seed=3, dtype=dtype), draw(2, 3, height, width, to, seed=4, dtype=dtype)
    near = 20 * EXACT[dtype]
    for shift in (bias, None):
        wanted = torch_s(x, filters, shift)
        found = ours._convolved(x.detach(), filters.detach(), shift)
        torch.testing.assert_close(found, wanted.detach(), rtol=near, atol=near)
    dx, dw = torch.autograd.grad(wanted, (x, filters), dz)
    torch.testing.assert_close(ours._convolved_back(dz, filters.detach()), dx, rtol=near, atol=near)
    # A member's gradient is a piece of a row.
    flat = torch.zeros(2, 7 + to * 9 * channels, dtype=dtype)
    found = flat[:, 7:].view(2, to, 9 * channels)
    for times in (1, 2):
        ours._to_filters(found, dz, x.detach(), more=times == 2)
        torch.testing.assert_close(found, times * dw, rtol=near, atol=height * near)
    assert (flat[:, :7] == 0).all()


def test_what_is_not_finite_stays_where_it_is() -> None:
    x, filters = draw(1, 2, 6, 6, 2, seed=1), draw(1, 3, 18, seed=2)
    x[0, 1, 0, 0, 1] = torch.nan
    found = ours._convolved(x, filters, None).isnan().any(-1)[0]
    assert not found[0].any()
    assert found[1].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(("height", "width", "high", "wide"), [(8, 8, 2, 2), (7, 5, 2, 2), (3, 4, 3, 4)])
def test_means_of_blocks_equal_torch_s(height: int, width: int, high: int, wide: int) -> None:
    x = draw(2, 3, height, width, 5, dtype=torch.float64).requires_grad_()
    wanted = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), (high, wide)).permute(0, 2, 3, 1).unflatten(0, (2, 3))
    torch.testing.assert_close(ours._block_mean(x.detach(), high, wide), wanted.detach())
    dy = draw(*wanted.shape, seed=2, dtype=torch.float64)
    (dx,) = torch.autograd.grad(wanted, x, dy)
    torch.testing.assert_close(ours._spread(dy, height, width, high, wide), dx)


@pytest.mark.parametrize(("scaled", "shifted"), [(True, True), (True, False), (False, True)])
def test_a_learned_number_s_gradient_is_autograd_s(scaled: bool, shifted: bool) -> None:
    x, dy = draw(2, 3, 4, 5, seed=1, dtype=torch.float64), draw(2, 3, 4, 5, seed=2, dtype=torch.float64)
    scale, shift = draw(2, 1, seed=3, dtype=torch.float64), draw(2, 1, seed=4, dtype=torch.float64)
    given = [one.requires_grad_() for one in (x, scale, shift)]
    by, level = (scale if scaled else None), (shift if shifted else None)
    wanted = x * (scale.view(2, 1, 1, 1) if scaled else 1) + (shift.view(2, 1, 1, 1) if shifted else 0)
    exact = torch.autograd.grad(wanted, given, dy, allow_unused=True)
    x, scale, shift = (one.detach() for one in given)
    by, level = (scale if scaled else None), (shift if shifted else None)
    torch.testing.assert_close(ours._affine(x, by, level), wanted.detach())
    for found, one in zip(ours._affine_back(dy, x, by, shifted=shifted), exact, strict=True):
        assert (found is None) == (one is None)
        if found is not None:
            torch.testing.assert_close(found, one)
