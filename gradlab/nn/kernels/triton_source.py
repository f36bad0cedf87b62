"""Kernels for GPUs in Triton, each one launch where torch takes up to a dozen; `fused` calls them.

Shapes: M members, B batch, D width, P parameters. Each program of a grid goes through one member's storage, or one row
of a signal, from end to end: every sum is taken in one order.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton
import triton.language as tl

NONE, NORM, VALUE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Places in `native.CLIPS`."""


@triton.jit
def sound_norm(rows, norm, broken, count, stride, BLOCK: tl.constexpr):
    """As `float64.sound_norm64`: rows (M, P) -> (M,) float64 each. Grid (M,)."""
    member = tl.program_id(0)
    squares, zeros = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        x = tl.load(rows + member.to(tl.int64) * stride + place, mask=place < count, other=0.0).to(tl.float64)
        squares += x * x
        zeros += x * 0.0
    tl.store(norm + member, tl.sqrt(tl.sum(squares)))
    tl.store(broken + member, tl.sum(zeros))


@triton.jit
def clip(rows, norm, mode, threshold, after, changed, count, stride, BLOCK: tl.constexpr):
    """Modes none, norm, value and normalize of `clippers.clip`: rows (M, P) in place, the others (M,). Grid (M,)."""
    member = tl.program_id(0)
    how, most, was = tl.load(mode + member), tl.load(threshold + member), tl.load(norm + member)
    scale = most / (was + 1e-6)
    scale = tl.where((how == NORM) & (scale > 1.0), 1.0, scale)
    scale = tl.where((how == NONE) | (how == VALUE), 1.0, scale).to(rows.dtype.element_ty)
    end = most.to(rows.dtype.element_ty)
    squares, cut = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        at = rows + member.to(tl.int64) * stride + place
        x = tl.load(at, mask=place < count, other=0.0)
        # Comparisons, not minima: what is no number stays none.
        kept = tl.where(x > end, end, tl.where(x < -end, -end, x))
        kept = tl.where(how == VALUE, kept, x * scale)
        tl.store(at, kept, mask=place < count)
        squares += kept.to(tl.float64) * kept.to(tl.float64)
        cut += tl.abs(x - kept).to(tl.float64)
    rescaled = was * scale.to(tl.float64)
    tl.store(after + member, tl.where(how == VALUE, tl.sqrt(tl.sum(squares)), rescaled))
    tl.store(changed + member, tl.where(how == VALUE, tl.sum(cut), tl.where(how == NONE, 0.0, rescaled - was)))


@triton.jit
def _decayed(w, g, l2, l1):
    """The gradient with L2 and L1, as torch.optim adds `weight_decay`."""
    sign = tl.where(w > 0.0, 1.0, tl.where(w < 0.0, -1.0, 0.0)).to(w.dtype)
    return g + l2 * w + l1 * sign


@triton.jit
def _unbiased(beta, done):
    """1 - beta^(done + 1), in float64."""
    return 1.0 - tl.exp(tl.log(beta.to(tl.float64)) * (done + 1.0))


@triton.jit
def sgd(
    weights, gradient, buffer, lr, momentum, nesterov, l2, l1, count, stride, gradient_stride, buffer_stride,
    BUFFERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of torch.optim.SGD: weights, gradient and buffer (M, P), the columns (M,). Grid (M, blocks)."""
    member, place = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, row = place < count, member.to(tl.int64)
    at = weights + row * stride + place
    w = tl.load(at, mask=inside, other=0.0)
    g = tl.load(gradient + row * gradient_stride + place, mask=inside, other=0.0)
    g = _decayed(w, g, tl.load(l2 + member), tl.load(l1 + member))
    if BUFFERED:
        held, keep = buffer + row * buffer_stride + place, tl.load(momentum + member)
        b = keep * tl.load(held, mask=inside, other=0.0) + g
        tl.store(held, b, mask=inside)
        g = tl.where(tl.load(nesterov + member) != 0.0, g + keep * b, b)
    tl.store(at, w - tl.load(lr + member) * g, mask=inside)


@triton.jit
def adam(
    weights, gradient, mean, square, done, lr, beta1, beta2, eps, l2, l1, count, stride, gradient_stride, buffer_stride,
    DECOUPLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of torch.optim.Adam, or AdamW, after ``done`` (1,) others; as `sgd`."""
    member, place = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, row, before = place < count, member.to(tl.int64), tl.load(done)
    at, held = weights + row * stride + place, row * buffer_stride + place
    w = tl.load(at, mask=inside, other=0.0)
    g = tl.load(gradient + row * gradient_stride + place, mask=inside, other=0.0)
    rate, b1, b2 = tl.load(lr + member), tl.load(beta1 + member), tl.load(beta2 + member)
    decay, lasso = tl.load(l2 + member), tl.load(l1 + member)
    if DECOUPLED:
        w = w * (1.0 - rate * decay)
        g = _decayed(w, g, decay * 0.0, lasso)
    else:
        g = _decayed(w, g, decay, lasso)
    m = tl.load(mean + held, mask=inside, other=0.0)
    m = m + (1.0 - b1) * (g - m)
    v = b2 * tl.load(square + held, mask=inside, other=0.0) + (1.0 - b2) * g * g
    tl.store(mean + held, m, mask=inside)
    tl.store(square + held, v, mask=inside)
    root, unbiased = tl.sqrt(_unbiased(b2, before)).to(w.dtype), _unbiased(b1, before).to(w.dtype)
    tl.store(at, w - rate / unbiased * (m / (tl.sqrt(v) / root + tl.load(eps + member))), mask=inside)


@triton.jit
def layer_norm(
    z, gain, shift, n, inverse, y, batch, width, gain_stride, shift_stride,
    EPS: tl.constexpr, CENTRED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As `norms.layer_norm`, or `rms_norm`: z, n and y (M, B, D), inverse (M, B). Grid (M B,)."""
    row, place = tl.program_id(0), tl.arange(0, BLOCK)
    inside, member, at = place < width, (row // batch).to(tl.int64), row.to(tl.int64) * width + place
    x = tl.load(z + at, mask=inside, other=0.0)
    if CENTRED:
        x = tl.where(inside, x - tl.sum(x) / width, 0.0)
    over = 1.0 / tl.sqrt(tl.sum(x * x) / width + EPS)
    normal = (x * over).to(z.dtype.element_ty)
    grown = normal * tl.load(gain + member * gain_stride + place, mask=inside, other=0.0)
    if CENTRED:
        grown += tl.load(shift + member * shift_stride + place, mask=inside, other=0.0)
    tl.store(n + at, normal, mask=inside)
    tl.store(inverse + row, over)
    tl.store(y + at, grown, mask=inside)


@triton.jit
def layer_norm_back(dy, n, inverse, gain, dz, batch, width, gain_stride, CENTRED: tl.constexpr, BLOCK: tl.constexpr):
    """From dy to dz, (M, B, D) each. Grid (M B,)."""
    row, place = tl.program_id(0), tl.arange(0, BLOCK)
    inside, member, at = place < width, (row // batch).to(tl.int64), row.to(tl.int64) * width + place
    dn = tl.load(dy + at, mask=inside, other=0.0) * tl.load(gain + member * gain_stride + place, mask=inside, other=0.0)
    normal = tl.load(n + at, mask=inside, other=0.0)
    along = tl.sum(dn * normal) / width
    if CENTRED:
        dn = dn - tl.sum(dn) / width
    tl.store(dz + at, (dn - normal * along) * tl.load(inverse + row), mask=inside)


@triton.jit
def affine_back(dy, n, dgain, dshift, batch, width, SHIFTED: tl.constexpr, BLOCK: tl.constexpr):
    """The gradients of gain and shift (M, D), from dy and n (M, B, D). Grid (M, blocks of D)."""
    member, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    gains, shifts = tl.zeros([BLOCK], dy.dtype.element_ty), tl.zeros([BLOCK], dy.dtype.element_ty)
    for sample in range(batch):
        at = (member * batch + sample) * width + place
        d = tl.load(dy + at, mask=inside, other=0.0)
        gains += d * tl.load(n + at, mask=inside, other=0.0)
        shifts += d
    tl.store(dgain + member * width + place, gains, mask=inside)
    if SHIFTED:
        tl.store(dshift + member * width + place, shifts, mask=inside)
