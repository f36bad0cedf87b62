"""Gated recurrences, unrolled over all time steps at once: there and back, by kernels where they serve.

What drives them comes for all steps together, and one product at the end gives the recurrent matrix's gradient.
Shapes: M members, T time, B batch, D width, P the last steps that somebody asks for. Signals are (M, T, B, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.nn.float64 import share
from gradlab.nn.kernels import native, recurrences
from gradlab.nn.network import Further, Pass, give, rows
from gradlab.nn.products import batch_sum, clear, deposit, join, product, product_into, stacked
from gradlab.nn.slots import Role
from gradlab.nn.tape import Cell, Node

SHUT_BELOW = 0.05 * 0.25
"""Slope of a sigmoid gate that counts as saturated: 5 % of the largest."""


@dataclass(frozen=True)
class Unrolled:
    """``seen`` (M, P, B, D): the last steps' h, for what comes above; ``steps``: all of them, to be observed.

    ``gates`` (M, T, B, kinds D) lie one beside the other, ``sigmoids`` among the ``kinds`` of them.
    """

    seen: Node
    steps: tuple[Node, ...]
    gates: Tensor
    kinds: int
    sigmoids: tuple[int, ...]


def in_time(through: Pass, x: Node) -> Node:
    """(M, B, T, *F) -> (M, T, B, F): step by step."""
    shape, cell = x.value.shape, x.cell

    def back(grad: Tensor) -> None:
        give(cell, turned(grad).view(shape))

    return through.remember(Node(turned(x.value.flatten(3)), cell and Cell()), back)


def by_sample(through: Pass, x: Node) -> Node:
    """(M, T, B, D) -> (M, B, T, D)."""
    cell = x.cell
    return through.remember(Node(turned(x.value)), lambda grad: give(cell, turned(grad)))


def parts(through: Pass, x: Node) -> tuple[Node, ...]:
    """(M, T, B, D) -> T of (M, B, D), which are parts of it."""
    cell, shape = x.cell, x.value.shape

    def back(*grads: Tensor | None) -> None:
        known = [grad for grad in grads if grad is not None]
        assert len(known) == len(grads), "every step is on the way to the loss"
        give(cell, stacked(known).view(shape))

    return through.remember_all(tuple(Node(part) for part in x.value.unbind(1)), back)


def together(through: Pass, steps: Sequence[Node]) -> Node:
    """T of (M, B, D) -> (M, T, B, D)."""
    cells = [step.cell for step in steps]

    def back(grad: Tensor) -> None:
        for cell, part in zip(cells, grad.unbind(1), strict=True):
            give(cell, part)

    whole = stacked([step.value for step in steps])
    return through.remember(Node(whole.view(len(whole), len(steps), *steps[0].value.shape[1:])), back)


def last(through: Pass, x: Node) -> Node:
    """(M, T, B, D) -> (M, B, D): its last step."""
    cell, shape = x.cell, x.value.shape

    def back(grad: Tensor) -> None:
        whole = native.new(grad, *shape) if native.serves(grad) else grad.new_empty(shape)
        clear(whole)
        deposit(whole[:, -1], grad, more=False)
        give(cell, whole)

    return through.remember(Node(x.value[:, -1]), back)


def turned(x: Tensor) -> Tensor:
    """(M, S, N, D) -> (M, N, S, D), copied."""
    return join(x.unbind(1))


def lstm(through: Pass, layer: int, driven: Node, seen: int) -> Unrolled:
    """What the inputs bring to i, f, g, o (M, T, B, 4D) -> the last ``seen`` steps' h (Hochreiter & Schmidhuber 1997).

    c_t = f c_{t-1} + i g and h_t = o tanh c_t, from zeros, with the forget gate of Gers et al. 2000; as torch.nn.LSTM.
    """
    matrix, cell = through.network.parameters[layer, Role.RECURRENT], driven.cell
    served = native.serves(driven.value)
    if served:
        gates = driven.value
        c, squashed, h = recurrences.lstm(gates, matrix)
    else:
        gates, c, squashed, h = _lstm(driven.value, matrix)
    node, steps = _observed(through, h, seen)

    def back(above: Tensor) -> None:
        found = (recurrences.lstm_back if served else _lstm_back)(above, matrix, gates, c, squashed)
        dz, dh = found
        _deposit_recurrent(through, layer, dz, h)
        _give_steps(steps, dh)
        give(cell, dz)

    through.remember(node, back)
    return Unrolled(node, steps, gates, 4, (0, 1, 3))


def gru(through: Pass, layer: int, driven: Node, seen: int, first: Node | None = None) -> Unrolled:
    """What the inputs bring to r, z, n (M, T, B, 3D) -> the last ``seen`` steps' h (Cho et al. 2014, arXiv:1406.1078).

    n_t = tanh(driven + r (h_{t-1} U_n' + b)) and h_t = (1 - z) n_t + z h_{t-1}, from ``first`` (M, B, D) or zeros; as
    torch.nn.GRU, which resets behind the product.
    """
    parameters, cell = through.network.parameters, driven.cell
    matrix, bias = parameters[layer, Role.RECURRENT], parameters[layer, Role.RECURRENT_BIAS]
    before = None if first is None else first.value
    served = native.serves(driven.value)
    if served:
        gates = driven.value
        fresh, h = recurrences.gru(gates, matrix, bias, before)
    else:
        gates, fresh, h = _gru(driven.value, matrix, bias, before)
    node, steps = _observed(through, h, seen)

    def back(above: Tensor) -> None:
        found = (recurrences.gru_back if served else _gru_back)(above, matrix, before, gates, fresh, h)
        dz, again, dh, dfirst = found
        width = h.shape[-1]
        through.deposit((layer, Role.RECURRENT_BIAS), batch_sum(rows(again)[:, :, 2 * width :]))
        _deposit_recurrent(through, layer, again, h)
        if first is not None and dfirst is not None and before is not None:
            _add_product(through, layer, again[:, 0], before)
            give(first.cell, dfirst)
        _give_steps(steps, dh)
        give(cell, dz)

    through.remember(node, back)
    return Unrolled(node, steps, gates, 3, (0, 1))


def _observed(through: Pass, h: Tensor, seen: int) -> tuple[Node, tuple[Node, ...]]:
    """The last steps as what goes on, and all of them as what can be seen."""
    steps = tuple(Node(step, Cell()) for step in h.unbind(1)) if through.keep else ()
    return Node(h[:, h.shape[1] - seen :]), steps


def _give_steps(steps: tuple[Node, ...], dh: Tensor) -> None:
    for step, grad in zip(steps, dh.unbind(1), strict=bool(steps)):
        give(step.cell, grad)


def _deposit_recurrent(through: Pass, layer: int, dz: Tensor, h: Tensor) -> None:
    """The recurrent matrix's gradient: of all steps but the first, which meets another state, or none."""
    if h.shape[1] > 1:
        _add_product(through, layer, rows(dz[:, 1:]), rows(h[:, :-1]))


def _add_product(through: Pass, layer: int, dz: Tensor, h: Tensor) -> None:
    name = (layer, Role.RECURRENT)
    product_into(through.network.gradients[name], dz.transpose(1, 2), h, more=name in through.written)
    through.written.add(name)


def observe(through: Pass, parts: Sequence[Unrolled], *, along_time: bool = False) -> None:
    """Says what can be measured of a layer, in ``parts`` one after the other: h at each step, and saturated gates."""
    if not through.keep:
        return
    steps = [step for part in parts for step in part.steps]
    gates = stacked([gate for part in parts for gate in part.gates.unbind(1)]) if len(parts) > 1 else parts[0].gates
    of_steps = gates.unbind(1) if along_time else ()
    at: list[Further] = [{("saturated",): _shut(gate, parts[0])} for gate in of_steps]
    further: Further = {("saturated",): _shut(gates, parts[0])}
    through.observe(steps, None, steps, along_time=along_time, further=further, further_at=at)


def _shut(gates: Tensor, of: Unrolled) -> Callable[[Tensor], None]:
    """What writes the share of sigmoids that are saturated."""

    def write(out: Tensor) -> None:
        if native.serves(gates):
            recurrences.shut(gates, of.kinds, of.sigmoids, SHUT_BELOW, out)
        else:
            apart = gates.unflatten(-1, (of.kinds, -1))
            # One by one: an index of several would travel to a GPU.
            sigmoids = torch.stack([apart[..., kind, :] for kind in of.sigmoids], -2)
            out.copy_(share(SHUT_BELOW - sigmoids * (1 - sigmoids)))

    return write


def _lstm(driven: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gates: list[Tensor] = []
    cs: list[Tensor] = []
    squashed: list[Tensor] = []
    hs: list[Tensor] = []
    for t, part in enumerate(driven.unbind(1)):
        z = product(hs[-1], matrix.transpose(1, 2), part) if t else part
        i, f, g, o = z.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = i * g + f * cs[-1] if t else i * g
        gates.append(torch.cat((i, f, g, o), -1))
        cs.append(c)
        squashed.append(torch.tanh(c))
        hs.append(o * squashed[-1])
    return torch.stack(gates, 1), torch.stack(cs, 1), torch.stack(squashed, 1), torch.stack(hs, 1)


def _lstm_back(above: Tensor, matrix: Tensor, gates: Tensor, c: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    time, seen = c.shape[1], above.shape[1]
    dz, dh = torch.empty_like(gates), torch.empty_like(c)
    dc = torch.zeros_like(c[:, 0])
    for t in reversed(range(time)):
        own = above[:, t - time + seen] if t >= time - seen else torch.zeros_like(dc)
        if t < time - 1:
            own = product(dz[:, t + 1], matrix, own)
        i, f, g, o = gates[:, t].chunk(4, -1)
        s = squashed[:, t]
        dc = dc + own * o * (1 - s * s)
        before = c[:, t - 1] if t else torch.zeros_like(dc)
        slopes = (dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), own * s * o * (1 - o))
        dz[:, t], dh[:, t] = torch.cat(slopes, -1), own
        dc = dc * f
    return dz, dh


def _gru(driven: Tensor, matrix: Tensor, bias: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    gates, fresh, hs = [], [], []
    width = matrix.shape[2]
    h = driven.new_zeros(*driven.shape[:1], driven.shape[2], width) if first is None else first
    for part in driven.unbind(1):
        again = product(h, matrix.transpose(1, 2))
        r, z = torch.sigmoid(part[..., : 2 * width] + again[..., : 2 * width]).chunk(2, -1)
        m = again[..., 2 * width :] + bias.unsqueeze(1)
        n = torch.tanh(part[..., 2 * width :] + r * m)
        h = (1 - z) * n + z * h
        gates.append(torch.cat((r, z, n), -1))
        fresh.append(m)
        hs.append(h)
    return torch.stack(gates, 1), torch.stack(fresh, 1), torch.stack(hs, 1)


def _gru_back(
    above: Tensor, matrix: Tensor, first: Tensor | None, gates: Tensor, fresh: Tensor, h: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    time, seen = h.shape[1], above.shape[1]
    driven, recurrent, dh = torch.empty_like(gates), torch.empty_like(gates), torch.empty_like(h)
    carry = torch.zeros_like(h[:, 0])
    for t in reversed(range(time)):
        own = carry + above[:, t - time + seen] if t >= time - seen else carry
        r, z, n = gates[:, t].chunk(3, -1)
        before = h[:, t - 1] if t else torch.zeros_like(carry) if first is None else first
        dn = own * (1 - z) * (1 - n * n)
        dr, dz = dn * fresh[:, t] * r * (1 - r), own * (before - n) * z * (1 - z)
        driven[:, t], recurrent[:, t] = torch.cat((dr, dz, dn), -1), torch.cat((dr, dz, dn * r), -1)
        dh[:, t] = own
        carry = product(recurrent[:, t], matrix, own * z)
    return driven, recurrent, dh, None if first is None else carry
