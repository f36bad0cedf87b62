"""Steps on a GPU, each of them one launch: what changes from step to step lies on the card.

A captured step reads its own number there, takes the batch and the learning rates of that number, and leaves what it
measured on a reel; the host does nothing between two flushes but launch. Shapes: M members, W places of a reel, C
columns and R rows of the per-layer table, L layers.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradlab.engine.cohort import Cohort
from gradlab.engine.journal import Rows, StepRow, values_of
from gradlab.engine.probes import Measurement
from gradlab.engine.step import step
from gradlab.nn.kernels.graphs import Graph, capture
from gradlab.store.columns import KEPT_OF_STEPS


class Reel:
    """On the card, what up to W steps in a row leave: of each a row, and of some a per-layer table.

    ``number`` (1,) is that of the step that comes next.
    """

    def __init__(self, like: Tensor, places: int) -> None:
        self._places = places
        self._counts = torch.zeros(3, dtype=torch.int64, device=like.device)  # the step, its row's place, its table's
        self.number, self._row, self._table = self._counts.split(1)
        self._values = like.new_empty(len(KEPT_OF_STEPS), places, len(like), dtype=torch.float64)
        self._tables: tuple[Tensor, Tensor] | None = None  # (W, M, C, R) and (W, M, L), as `Measurement` has them

    def begin(self, t: int) -> None:
        """Goes back to the first places, with step t to come."""
        self.number.fill_(t)
        self._counts[1:].zero_()

    def take(self, row: StepRow) -> None:
        """Leaves a row in the next place, and its table in the next of those, and counts on."""
        self._values.index_copy_(1, self._row, values_of(row).unsqueeze(1))
        table = row.measurement
        if table is None:
            self._counts[:2].add_(1)
            return
        parts = table.values, table.unsound
        if self._tables is None:
            values, unsound = (part.new_empty(self._places, *part.shape) for part in parts)
            self._tables = values, unsound
        for room, part in zip(self._tables, parts, strict=True):
            room.index_copy_(0, self._table, part.unsqueeze(0))
        self._counts.add_(1)

    def taken(self, steps: Sequence[int], recorded: Sequence[int], like: Measurement | None) -> Rows:
        """A copy of what ``steps`` left, those that were ``recorded`` with tables ``like`` this one."""
        tables: list[tuple[int, Measurement]] = []
        if like is not None and self._tables is not None:
            copies = (room[: len(recorded)].clone() for room in self._tables)
            parts = zip(recorded, *copies, strict=True)
            tables = [(t, replace(like, values=values, unsound=unsound)) for t, values, unsound in parts]
        return Rows(range(steps[0], steps[-1] + 1), self._values[:, : len(steps)].clone(), tuple(tables))


@dataclass(frozen=True)
class Captured:
    """A step in a graph, whose result has the form of its table, if it is recorded; and the ``reel`` that it fills."""

    graph: Graph[Measurement | None]
    reel: Reel


def captured(cohort: Cohort, places: int) -> dict[bool, Captured | None]:
    """A step with and without record, at most ``places`` of which leave their rows before these are taken."""
    reel = Reel(cohort.parameters, places)

    def counted(*, record: bool) -> Measurement | None:
        cohort.task.turn_to(reel.number)
        lr = cohort.pace.turn_to(reel.number)
        row = step(cohort, 0, lr, record=record)
        cohort.pace.heed(reel.number, row.loss, lr)
        reel.take(row)
        return row.measurement

    reel.begin(0)
    graphs = capture({record: partial(counted, record=record) for record in (True, False)}, cohort.moving)
    return {record: None if graph is None else Captured(graph, reel) for record, graph in graphs.items()}


def launch(steps: Sequence[int], due: Container[int], graphs: Mapping[bool, Captured]) -> Rows:
    """Neighbouring ``steps``, each with the graph for it."""
    reel = graphs[steps[0] in due].reel
    reel.begin(steps[0])
    recorded = [t for t in steps if t in due]
    for t in steps:
        graphs[t in due].graph.play()
    return reel.taken(steps, recorded, graphs[True].graph.result if recorded else None)
