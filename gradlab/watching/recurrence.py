"""Rows along time: of a layer that is called again and again on what it made, and of fused recurrent modules."""

from __future__ import annotations

import math
from typing import Any

from gradlab.watching.backward import LEAST_CALLS, Heard
from gradlab.watching.graph import between, narrows
from gradlab.watching.rows import Layer
from gradlab.watching.unrolled import deltas


def time_rows(layers: list[Layer], heard: Heard) -> list[dict[str, Any]]:
    """One row a time step of the recurrence that is deepest in the network; none where nothing recurs.

    Of a cell in a loop delta is that of its calls; of a fused module that of the states h_t of its top layer, forward
    in time. ``reads`` says whether the loss reads every step or the last ones alone.
    """
    for layer in reversed(layers):
        fused = [one for one in heard.tape.sequences.get(layer.module, []) if one.came]
        if len(fused) == 1:
            steps, read, entries = deltas(fused[0])
            every = sum(square > 0 for square in read) > len(read) / 2
        elif _recurs(layer, heard):
            felt = [heard.of(heard.signal(call)) for call in layer.calls]
            steps, entries = [one.squares for one in felt], felt[0].entries
            every = _reads_every(layer, heard)
        elif _restarts(layer, heard):
            ends = [heard.of(heard.signal(call)) for call in layer.calls]
            steps, entries, every = [one.squares for one in ends], ends[-1].entries, False
        else:
            continue
        if len(steps) >= LEAST_CALLS:
            return [
                {
                    "step": 0,
                    "axis": "time",
                    "layer": time,
                    "name": layer.name,
                    "calls": 1,
                    "signal_grad_norm": math.sqrt(squares),
                    "signal_grad_rms": math.sqrt(squares / max(1, entries)),
                    "reads": float(every),
                }
                for time, squares in enumerate(steps, start=1)
            ]
    return []


def _recurs(layer: Layer, heard: Heard) -> bool:
    """Whether each call of a layer leads back to the one before it, and by nothing but what is called again, too.

    A layer that is shared by the blocks of a deep network acts again and again, but between its calls stand layers of
    the blocks' own: its calls are no time steps.
    """
    nodes = [heard.signal(call).node for call in layer.calls]
    if len(nodes) < LEAST_CALLS or len(set(nodes)) < len(nodes):
        return False
    known = [node for node in nodes if node is not None and node in heard.graph.place]
    if len(known) < len(nodes):
        return False
    # The first two and the ends: what holds for them holds between.
    pairs = ((known[1], known[0]), (known[-1], known[-2]))
    ways = [between(heard.graph, later, earlier) for later, earlier in pairs]
    own = {heard.signal(call).node for calls in heard.calls if len(calls) < len(layer.calls) / 2 for call in calls}
    return all(way and own.isdisjoint(way) for way in ways)


def _restarts(layer: Layer, heard: Heard) -> bool:
    """Whether the last call alone is on the way back: each was taken off it before the next, or its state thrown away.

    What is detached when all calls are over (the views of one picture) was no state, nor was what no gradient is kept
    of.
    """
    nodes = [heard.signal(call).node for call in layer.calls]
    if len(nodes) < LEAST_CALLS or nodes[-1] not in heard.graph.place:
        return False
    before = nodes[:-1]
    between = [node for node, opened in heard.tape.cuts if opened <= layer.calls[-1].place]
    off = all(node is not None and node not in heard.graph.place for node in before)
    severed = sum(node in heard.severed for node in before)
    return off and (severed == 0 or severed == len(before) <= len(between))


def _reads_every(layer: Layer, heard: Heard) -> bool:
    """Whether the loss reads every step: its ways to the first one then never meet between the last and the second.

    Where it reads the last step alone they all come by the state before that.
    """
    first, second, last = (heard.signal(layer.calls[place]).node for place in (0, 1, -1))
    if first is None or second is None or last is None:
        return False
    return not narrows(heard.graph, first, last, second)
