"""The kernels as functions of tensors. Who calls them asks `serves` first, and has the same in torch at hand.

Shapes: M members, B batch, D width, K outputs, P parameters, N samples. Signals (M, B, D) are contiguous within a
member; parameters and gradients may be views of flat ones (M, P).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from gradlab.nn.kernels.calls import Place, Shared, call, new, scratch, serves

__all__ = ["new", "serves"]

LARGEST = 2**25
"""Multiplications of one member's product up to which ours is at least as fast as torch's; see docs/performance.md."""

SLIM = 2**15
"""Entries of the smallest of the three matrices up to which that holds for any product: over all steps of a sequence
many rows meet one small matrix, or make one, and ours are played for several members at a time."""

ACTIVATIONS = ("relu", "leaky", "tanh", "sigmoid", "silu", "elu", "selu", "hardtanh", "gelu", "softplus")
"""As source/activations.h numbers them."""

CLIPS = ("none", "norm", "value", "layerwise", "normalize")
"""As source/optimizers.h numbers them."""

VECTOR_BYTES = 64
"""Bytes of the widest vector, to which rows are padded."""

MOST_UNITS = 512
"""Of a row of units that `dead` looks at, as in source/probes.h."""


def entries(x: Tensor) -> int:
    """Of each member or sample. (A look at the first one would be an operation, which takes ten times as long.)"""
    return x.numel() // len(x)


def multiplies(a: Tensor, b: Tensor) -> bool:
    """Whether ``a b`` is better computed here than by torch, which is better at large products, and uses all cores."""
    rows, inner, columns = a.shape[1], a.shape[2], b.shape[2]
    slim = min(rows * inner, inner * columns, rows * columns) <= SLIM
    return (rows * inner * columns <= LARGEST or slim) and serves(a)


def product(a: Tensor, b: Tensor, start: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """For each member start + a b: (M, n, k), (M, k, p), (M, n or 1, p) or None -> (M, n, p), into ``out`` if given.

    The columns of ``out`` are adjacent; ``a`` and ``b`` at any strides; ``start`` may be ``out``.
    """
    members, rows, inner = a.shape
    columns = b.shape[2]
    out = new(a, members, rows, columns) if out is None else out
    start_row = start.stride(1) if start is not None and start.shape[1] > 1 else 0
    lanes = VECTOR_BYTES // a.element_size()
    room = scratch(a, inner * (columns + lanes) + rows * lanes)
    sizes = (rows, columns, inner, *a.stride()[1:], *b.stride()[1:], start_row, out.stride(1))
    call("product", a, members, sizes, (a, b, start, out, room))
    return out


def activate(name: str, z: Tensor, slope: Place) -> Tensor:
    """phi(z) (M, B, D); ``slope`` (M, ...) of the leaky family."""
    z = whole(z)
    h = new(z, *z.shape)
    call("activate", z, len(z), (ACTIVATIONS.index(name), entries(z)), (z, slope, h))
    return h


def activate_back(name: str, dh: Tensor, known: Tensor, slope: Place, *, learned: bool) -> tuple[Tensor, Tensor | None]:
    """The derivative dh phi'(z) (M, B, D), and the slope's (M, 1) where it is ``learned``.

    ``known`` is phi(z) for relu, tanh and sigmoid, z for the others.
    """
    dh, known = whole(dh), whole(known)
    dz, dslope = new(dh, *dh.shape), new(dh, len(dh), 1) if learned else None
    sizes = (ACTIVATIONS.index(name), entries(dh))
    call("activate_back", dh, len(dh), sizes, (dh, known, slope, dslope, dz))
    return dz, dslope


@dataclass(frozen=True)
class BatchStatistics:
    """Of a batch, (M, D) each: mean, and 1/sqrt(variance + eps)."""

    mean: Tensor
    inverse: Tensor


def batch_norm(
    z: Tensor, gain: Tensor, shift: Tensor, eps: float, running: tuple[Tensor, Tensor] | None, momentum: float
) -> tuple[Tensor, BatchStatistics]:
    """(M, B, D), gain and shift (M, D) -> shift + gain (z - mean)/sqrt(var + eps); moves ``running`` mean and var."""
    members, batch, width = z.shape
    z = whole(z)
    y, mean, inverse = new(z, *z.shape), new(z, members, width), new(z, members, width)
    places = (z, gain, shift, *(running or (None, None)), mean, inverse, y)
    call("batch_norm", z, members, (batch, width), places, (eps, momentum))
    return y, BatchStatistics(mean, inverse)


def batch_norm_back(dy: Tensor, z: Tensor, found: BatchStatistics, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From dy (M, B, D): dz (M, B, D), dgain and dshift (M, D)."""
    members, batch, width = z.shape
    dy, z = whole(dy), whole(z)
    dz, dgain, dshift = new(z, *z.shape), new(z, members, width), new(z, members, width)
    places = (dy, z, found.mean, found.inverse, gain, dgain, dshift, scratch(z, 2 * width), dz)
    call("batch_norm_back", z, members, (batch, width), places)
    return dz, dgain, dshift


@dataclass(frozen=True)
class Normalised:
    """The signal n (M, B, D), normalised in each sample, and the ``inverse`` (M, B) of its spread."""

    n: Tensor
    inverse: Tensor


def layer_norm(
    z: Tensor, gain: Tensor, shift: Tensor | None, eps: float, *, centred: bool
) -> tuple[Tensor, Normalised]:
    """(M, B, D), gain and shift (M, D) -> shift + gain n; where it is not ``centred`` the mean stays in."""
    members, batch, width = z.shape
    z = whole(z)
    y, n, inverse = new(z, *z.shape), new(z, *z.shape), new(z, members, batch)
    call("layer_norm", z, members, (batch, width, centred), (z, gain, shift, n, inverse, y), (eps,))
    return y, Normalised(n, inverse)


def layer_norm_back(
    dy: Tensor, found: Normalised, gain: Tensor, *, centred: bool, shifted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """From dy (M, B, D): dz (M, B, D), dgain (M, D), and dshift where there is a shift."""
    members, batch, width = found.n.shape
    dy = whole(dy)
    dz, dgain = new(dy, *dy.shape), new(dy, members, width)
    dshift = new(dy, members, width) if shifted else None
    places = (dy, found.n, found.inverse, gain, dgain, dshift, dz)
    call("layer_norm_back", dy, members, (batch, width, centred), places)
    return dz, dgain, dshift


def group_norm(z: Tensor, gain: Tensor, shift: Tensor, eps: float, groups: int) -> tuple[Tensor, Normalised]:
    """(M, B, ..., D), gain and shift (M, D) -> shift + gain n, over ``groups`` of units and all that stands between."""
    members, batch, *places, width = z.shape
    z = whole(z)
    y, n, inverse = new(z, *z.shape), new(z, *z.shape), new(z, members, batch * groups)
    sizes = (batch, math.prod(places), groups, width // groups)
    call("group_norm", z, members, sizes, (z, gain, shift, n, inverse, y), (eps,))
    return y, Normalised(n, inverse)


def group_norm_back(dy: Tensor, found: Normalised, gain: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """From dy (M, B, ..., D): dz, dgain and dshift (M, D)."""
    members, batch, *places, width = found.n.shape
    dy = whole(dy)
    dz, dgain, dshift = new(dy, *found.n.shape), new(dy, members, width), new(dy, members, width)
    sizes = (batch, math.prod(places), groups, width // groups)
    call("group_norm_back", dy, members, sizes, (dy, found.n, found.inverse, gain, dgain, dshift, dz))
    return dz, dgain, dshift


def directed(matrix: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Rows v of (M, out, in) and their lengths (M, out) -> g v/|v|, and 1/|v| (M, out)."""
    members, rows, columns = matrix.shape
    inverse, acting = new(matrix, members, rows), new(matrix, *matrix.shape)
    call("directed", matrix, members, (rows, columns), (matrix, length, inverse, acting))
    return acting, inverse


def directed_back(dacting: Tensor, matrix: Tensor, length: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives by the matrix and its lengths."""
    members, rows, columns = matrix.shape
    dacting = whole(dacting)
    dmatrix, dlength = new(matrix, *matrix.shape), new(matrix, members, rows)
    places = (dacting, matrix, length, inverse, dmatrix, dlength)
    call("directed_back", matrix, members, (rows, columns), places)
    return dmatrix, dlength


def batch_sum(x: Tensor) -> Tensor:
    """(M, B, D), whose rows may lie at any distance -> (M, D)."""
    members, batch, width = x.shape
    x = x if x.stride(2) == 1 else whole(x)
    total = new(x, members, width)
    call("batch_sum", x, members, (batch, width, x.stride(1)), (x, total))
    return total


def add(x: Tensor, y: Tensor | None, scale: float = 1.0, out: Tensor | None = None) -> Tensor:
    """Gives scale x, added to ``y`` where there is one, (M, ...) each, contiguous within a member.

    ``out`` may be either.
    """
    out = new(x, *x.shape) if out is None else out
    call("add", x, len(x), (entries(x),), (whole(x), y, out), (scale,))
    return out


def clear(out: Tensor) -> None:
    """Makes ``out`` (M, ...), contiguous within a member, zero."""
    call("add", out, len(out), (entries(out),), (None, None, out))


@cache
def _edges(spans: tuple[tuple[int, int], ...], on: torch.device) -> tuple[Shared, Shared]:
    return tuple(Shared(torch.tensor(ends, device=on)) for ends in zip(*spans, strict=True))  # type: ignore[return-value]


def norms(rows: Tensor, spans: Sequence[slice], out: Tensor, unless: Sequence[Tensor] = ()) -> None:
    """(M, P) with adjacent columns, spans of columns: their norms into ``out`` (M, spans) float64.

    ``unless`` are what has changed (M,) float64, which is zero where nothing has, and what they were then (M, spans).
    """
    call("norms", rows, len(rows), (len(spans),), (*_edges_of(spans, rows), rows, out, *unless))


def distances(rows: Tensor, others: Tensor, spans: Sequence[slice], out: Tensor) -> None:
    """The norms of the difference of two (M, P); shapes as in `norms`."""
    call("distances", rows, len(rows), (len(spans),), (*_edges_of(spans, rows), rows, others, out))


def gradients(
    rows: Tensor, matrices: Sequence[slice], layers: Sequence[slice], norm: Tensor, weights: Tensor, zero: Tensor
) -> None:
    """(M, P) by layers, whose matrices come first: norms, those of the matrices, shares of zeros, (M, L) each."""
    (starts, ends), (_, stops) = _edges_of(matrices, rows), _edges_of(layers, rows)
    call("gradients", rows, len(rows), (len(layers),), (starts, ends, stops, rows, norm, weights, zero))


def _edges_of(spans: Sequence[slice], like: Tensor) -> tuple[Shared, Shared]:
    return _edges(tuple((span.start, span.stop) for span in spans), like.device)


def unsound(x: Tensor, out: Tensor) -> None:
    """(M, ...): zero into ``out`` (M,) float64 where every entry of the member is finite, else not a number."""
    x = whole(x)
    call("unsound", x, len(x), (entries(x),), (x, out))


def sound_norm(
    x: Tensor, matrices: Sequence[slice], layers: Sequence[slice], known: Tensor | None, norm: Tensor, broken: Tensor
) -> None:
    """(M, P) by layers, as in `gradients`: the norm of all into (M,) float64, and what `unsound` gives.

    ``known`` are the layers' norms (M, L), where they are.
    """
    (starts, ends), (_, stops) = _edges_of(matrices, x), _edges_of(layers, x)
    places = (starts, ends, stops, x, known, norm, broken)
    call("sound_norm", x, len(x), (entries(x), len(layers)), places)


def spread(h: Tensor, mean: Tensor, deviation: Tensor, cosine: Tensor | None, each: Sequence[Tensor] = ()) -> None:
    """(M, T, B, D): as `float64.spread`, into (M,) float64 each, and of ``each`` step into (M, T)."""
    _, *sizes = h.shape
    # The sum of unit vectors, or the length of each, in double precision.
    room = scratch(h, max(sizes[1:]) * 8 // h.element_size())
    call("spread", h, len(h), tuple(sizes), (whole(h), room, mean, deviation, cosine, *each))


def within(x: Tensor, ends: tuple[float, ...], out: Tensor) -> None:
    """(M, ...): the share of entries in the two ranges of ``ends``, low and high of each, into ``out`` (M,) float64."""
    x = whole(x)
    call("within", x, len(x), (entries(x),), (_shared_numbers(ends, x.device), x, out))


def dead(z: Tensor, slope: Place, out: Tensor) -> None:
    """(M, B, D), slope below zero: the share of units never above zero, at no slope, into ``out`` (M,) float64."""
    members, batch, width = z.shape
    call("dead", z, members, (batch, width), (whole(z), slope, scratch(z, max(width, MOST_UNITS)), out))


def gather(samples: Tensor, chosen: Tensor, scale: Tensor) -> Tensor:
    """Samples (N, *shape), those chosen (B,), scale (M,) -> (M, B, *shape)."""
    out = new(scale, len(scale), len(chosen), *samples.shape[1:])
    places = (Shared(chosen), Shared(samples), scale, out)
    call("gather", scale, len(scale), (len(chosen), entries(samples)), places)
    return out


def gather_tokens(samples: Tensor, chosen: Tensor, scale: Tensor) -> Tensor:
    """Samples (N, *shape) of whole numbers, those chosen (B,) -> (M, B, *shape), M as many as ``scale`` (M,) has."""
    out = new(samples, len(scale), len(chosen), *samples.shape[1:])
    call("gather_tokens", scale, len(scale), (len(chosen), entries(samples)), (Shared(chosen), Shared(samples), out))
    return out


def copied(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(M, n, D), whose rows lie at any distance, into ``out``, whose rows do too, or a new one."""
    members, count, width = x.shape
    out = new(x, members, count, width) if out is None else out
    call("copy", x, members, (count, width, x.stride(1), out.stride(1)), (x, out))
    return out


def look_up(table: Tensor, tokens: Tensor, bias: Tensor | None) -> Tensor:
    """The rows of ``table`` (M, V, D) by tokens (M, B, T), any strides, plus ``bias`` (M, D) -> (M, B, T, D)."""
    out = new(table, *tokens.shape, table.shape[2])
    sizes = (entries(tokens), table.shape[2], *table.stride()[1:], tokens.shape[2], *tokens.stride()[1:])
    call("look_up", table, len(table), sizes, (tokens, table, bias, out))
    return out


def look_up_back(out: Tensor, tokens: Tensor, grad: Tensor, *, more: bool) -> None:
    """Rows of ``grad`` (M, B, T, D) added up by tokens (M, B, T) into ``out`` (M, V, D), any strides."""
    grad = whole(grad)
    sizes = (entries(tokens), out.shape[2], *out.stride()[1:], tokens.shape[2], *tokens.stride()[1:])
    call("look_up_back", grad, len(grad), (*sizes, out.shape[1], more), (tokens, grad, out))


def cross_entropy(output: Tensor, classes: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(M, B, ..., K), classes (N, ...), those chosen (B,) -> loss (M,) and its derivative (M, B, ..., K)."""
    members, outputs, places = len(output), output.shape[-1], entries(classes)
    loss, slope = output.new_empty(members), new(output, *output.shape)
    at = (whole(output), Shared(chosen), Shared(classes), loss, slope)
    call("cross_entropy", output, members, (len(chosen) * places, outputs, places), at)
    return loss, slope


def squared_error(output: Tensor, targets: Tensor, chosen: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(M, B, K), targets (N, K), those chosen (B,), scale (M,) -> loss (M,) and its derivative (M, B, K)."""
    members, batch, outputs = output.shape
    loss, slope = output.new_empty(members), new(output, *output.shape)
    places = (whole(output), Shared(chosen), Shared(targets), scale, loss, slope)
    call("squared_error", output, members, (batch, outputs), places)
    return loss, slope


def margin(output: Tensor, classes: Tensor, chosen: Tensor, margins: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """As `cross_entropy`; ``margins`` are those of the right class and of the others, and what the others count."""
    members, outputs, places = len(output), output.shape[-1], entries(classes)
    loss, slope = output.new_empty(members), new(output, *output.shape)
    at = (whole(output), Shared(chosen), Shared(classes), _shared_numbers(margins, output.device), loss, slope)
    call("margins", output, members, (len(chosen) * places, outputs, places), at)
    return loss, slope


@cache
def _shared_numbers(numbers: tuple[float, ...], on: torch.device) -> Shared:
    return Shared(torch.tensor(numbers, dtype=torch.float64, device=on))


@dataclass(frozen=True)
class Clips:
    """The members' own ways of clipping, (M,) each: the place of the mode in `CLIPS`, and float64 thresholds."""

    mode: Tensor
    threshold: Tensor
    output_threshold: Tensor


def clip(gradient: Tensor, norm: Tensor, clips: Clips, layers: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """(M, P) in place; its norm before (M,) -> the norm after it, and zero where no entry changed."""
    after, changed = torch.empty_like(norm), torch.empty_like(norm)
    edges = _edges_of(layers, gradient)
    places = (clips.mode, clips.threshold, clips.output_threshold, *edges, norm, gradient, after, changed)
    call("clip", gradient, len(gradient), (gradient.shape[1], len(layers)), places)
    return after, changed


@dataclass(frozen=True)
class Descent:
    """A kernel that updates parameters, whether it asks for the updates done so far, and its own numbers."""

    kernel: str
    counts: bool = False
    sizes: tuple[int, ...] = ()


SGD, RMSPROP, ADAGRAD = Descent("sgd"), Descent("rmsprop"), Descent("adagrad")
ADAM, ADAMW = Descent("adam", counts=True, sizes=(0,)), Descent("adam", counts=True, sizes=(1,))


def descend(
    how: Descent, parameters: Tensor, gradient: Tensor, done: Tensor, columns: Sequence[Place], buffers: Sequence[Place]
) -> None:
    """One update of (M, P) in place, after ``done`` (1,) float64 others, by the members' own ``columns`` (M, 1)."""
    count = (Shared(done),) if how.counts else ()
    places = (*count, *columns, gradient, *buffers, parameters)
    call(how.kernel, gradient, len(gradient), (gradient.shape[1], *how.sizes), places)


def whole(x: Tensor) -> Tensor:
    """(M, ...), copied where a member's entries do not lie one after the other."""
    expected = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size > 1 and stride != expected:
            return x.contiguous()
        expected *= size
    return x
