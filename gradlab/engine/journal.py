"""The host's side of a cohort's training: rows as they arrive, who has ended and where, and the record at the end.

Shapes: M members, S steps, R rows and C columns of the per-layer table, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.engine.divergence import layer_of, notice
from gradlab.engine.instruments.bench import Curve
from gradlab.engine.optim.clippers import Clipped
from gradlab.engine.probes import Measurement, stacked
from gradlab.spec.run import RunSpec
from gradlab.store.arrays import Array, Kept
from gradlab.store.columns import KEPT_OF_STEPS, PROBE_COLUMNS
from gradlab.store.record import Bools, Floats, LayerTable, Pretrained, Reading, Record, Row


@dataclass(frozen=True)
class StepRow:
    """One step on the device, (M,) each. None: what follows clipping in the last row; a table that was not due.

    ``broken`` are zero where the weights, and where their gradient, are finite, else not a number.
    """

    t: int
    loss: Tensor
    lr: Tensor
    grad_norm: Tensor
    clipped: Clipped | None
    broken: tuple[Tensor, Tensor]
    measurement: Measurement | None
    loss_scale: Tensor | None = None

    @property
    def figures(self) -> tuple[Tensor, ...]:
        """What a step leaves, but for its rates: tensors of its own, (M, ...) each."""
        clipped, table = self.clipped, self.measurement
        found = [self.loss, self.grad_norm, *self.broken]
        found += [] if clipped is None else [clipped.norm, clipped.changed]
        return tuple(found if table is None else [*found, table.values, table.unsound])

    def with_figures(self, t: int, lr: Tensor, figures: Sequence[Tensor]) -> StepRow:
        """The row of step t at the rates ``lr`` (M,), which left these ``figures``."""
        loss, norm, weights, gradient, *rest = figures
        table = self.measurement and replace(self.measurement, values=rest[-2], unsound=rest[-1])
        clipped = self.clipped and replace(self.clipped, norm=rest[0], changed=rest[1])
        return replace(
            self, t=t, lr=lr, loss=loss, grad_norm=norm, broken=(weights, gradient), clipped=clipped, measurement=table
        )


@dataclass(frozen=True)
class Rows:
    """Steps in their order: ``values`` (8, steps, M) float64 are `KEPT_OF_STEPS`; and the tables that were due."""

    steps: range
    values: Tensor
    tables: tuple[tuple[int, Measurement], ...]


def of_step(row: StepRow) -> Rows:
    """One step."""
    tables = () if row.measurement is None else ((row.t, row.measurement),)
    return Rows(range(row.t, row.t + 1), values_of(row).unsqueeze(1), tables)


def without_update(rows: Rows) -> Rows:
    """One step as the last one is: of what was clipped and updated, as if neither had been."""
    values = rows.values.clone()
    for name in ("grad_norm_clipped", "clipped", "skipped"):
        values[KEPT_OF_STEPS.index(name)] = 0
    ((t, table),) = rows.tables
    return Rows(rows.steps, values, ((t, table.without_update()),))


def of_steps(steps: range, lr: Tensor, recorded: Bools, rows: Mapping[bool, tuple[StepRow, Sequence[Tensor]]]) -> Rows:
    """Several, at the rates ``lr`` (steps, M), some of them ``recorded`` (steps,).

    ``rows``: of steps with a table and without, one for all and the `figures` (as many or more, M, ...) that each left.
    """
    values = lr.new_empty(len(KEPT_OF_STEPS), len(steps), lr.shape[1])
    tables: list[tuple[int, Measurement]] = []
    for record, (row, figures) in rows.items():
        places = np.flatnonzero(recorded == record)
        there = torch.from_numpy(places).to(lr.device, non_blocking=True)
        several = row.with_figures(steps.start, lr[there], [figure[: len(places)] for figure in figures])
        values[:, there] = values_of(several)
        if several.measurement is not None:
            parts = zip(several.measurement.values.clone(), several.measurement.unsound.clone(), strict=True)
            found = [replace(several.measurement, values=table, unsound=unsound) for table, unsound in parts]
            tables = list(zip((steps[place] for place in places), found, strict=True))
    return Rows(steps, values, tuple(tables))


def values_of(row: StepRow) -> Tensor:
    """(8, ..., M) float64: `KEPT_OF_STEPS` of a row, or of several with the same."""
    blank, clipped = torch.zeros_like(row.grad_norm), row.clipped
    columns = (
        row.loss,
        row.grad_norm,
        blank if clipped is None else clipped.norm,
        blank if clipped is None else clipped.changed,
        row.broken[0] + row.broken[1],
        row.lr,
        blank if clipped is None or clipped.skipped is None else clipped.skipped,
        blank if row.loss_scale is None else row.loss_scale,
    )
    return torch.stack([column.to(torch.float64) for column in columns])


class Journal:
    """Collects the rows of M members; a member ends at its first row that is not healthy."""

    def __init__(self, members: int, columns: tuple[str, ...] = PROBE_COLUMNS) -> None:
        self._members = members
        self._columns = columns  # of the per-layer table
        self._steps: list[Floats] = []  # (8, steps, M) a window: `KEPT_OF_STEPS`
        self._layers: list[LayerTable] = []
        self._finite: dict[int, Bools] = {}  # step -> (M, L), z_l is finite
        self._rows: tuple[Row, ...] = ()
        self._ended = np.full(members, -1)
        self._readings: list[Reading] = []
        self._seen: tuple[str, ...] = ()

    def see(self, seen: tuple[str, ...]) -> None:
        """Notes what was ``seen`` at the first record, as in `Record`, unless something is noted."""
        self._seen = self._seen or seen

    @property
    def diverged(self) -> int:
        """How many members have ended."""
        return int((self._ended >= 0).sum())

    @property
    def going_on(self) -> NDArray[np.int64]:
        """The members that have not ended."""
        return np.flatnonzero(self._ended < 0)

    def ended_in(self, window: range) -> set[int]:
        """The steps of ``window`` at which some member ended."""
        return {int(t) for t in self._ended if t in window}

    def ended_at(self, steps: set[int]) -> NDArray[np.int64]:
        """The members that ended at one of ``steps``."""
        return np.flatnonzero(np.isin(self._ended, list(steps)))

    def add(self, rows: Sequence[Rows]) -> None:
        """The rows of one window, in one transfer each of steps and layers."""
        values = torch.cat([some.values for some in rows], 1).cpu().numpy()
        self._steps.append(values)
        notice(self._ended, [t for some in rows for t in some.steps], loss=values[0], broken=values[4])
        self._add_layers([table for some in rows for table in some.tables], everyone=True)

    def note(self, t: int, curves: Sequence[Curve]) -> None:
        """What an instrument gave before step t."""
        values = [curve.values.cpu().numpy() for curve in curves]
        self._readings += [
            Reading(t, curve.quantity, curve.index, found) for curve, found in zip(curves, values, strict=True)
        ]

    def add_unseen(self, rows: Sequence[Rows]) -> None:
        """Recorded rows of a window played again, each kept for the members that ended at it."""
        self._add_layers([table for some in rows for table in some.tables], everyone=False)

    def _add_layers(self, measured: Sequence[tuple[int, Measurement]], *, everyone: bool) -> None:
        if not measured:
            return
        values = stacked([measurement for _, measurement in measured])
        finite = (torch.stack([measurement.unsound for _, measurement in measured]) == 0).cpu().numpy()
        for (t, measurement), table, whole in zip(measured, values, finite, strict=True):
            present = np.full(self._members, True) if everyone else self._ended == t
            self._layers.append(LayerTable(t, table, measurement.held, present))
            self._finite[t] = whole
            self._rows = measurement.rows

    def packed(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """All that was collected, as facts and arrays."""
        tables, readings = self._layers, self._readings
        arrays: dict[str, Array] = {"ended": self._ended}
        if self._steps:
            self._steps = [np.concatenate(self._steps, axis=1)]
            arrays["steps"] = self._steps[0]
        if tables:
            arrays |= {
                "layers.step": np.array([table.step for table in tables]),
                "layers.values": np.stack([table.values for table in tables]),
                "layers.valid": np.stack([table.valid for table in tables]),
                "layers.present": np.stack([table.present for table in tables]),
                "layers.finite": np.stack([self._finite[table.step] for table in tables]),
            }
        if readings:
            numbers = [reading.index or () for reading in readings]
            arrays |= {
                "readings.values": np.concatenate([reading.values for reading in readings], axis=1),
                "readings.index": np.concatenate(numbers).astype(np.int64),
            }
        facts = {
            "seen": list(self._seen),
            "columns": [*KEPT_OF_STEPS, *self._columns],
            "rows": [[row.axis, row.layer, row.name] for row in self._rows],
            "readings": [
                [one.step, one.quantity, one.values.shape[1], len(one.index or ()) if one.index is not None else None]
                for one in readings
            ],
        }
        return facts, {f"journal.{name}": array for name, array in arrays.items()}

    def unpack(self, kept: Kept) -> None:
        """Puts an empty journal to where `packed` was taken."""
        arrays = {name.removeprefix("journal."): array for name, array in kept.arrays.items()}
        self._rows = tuple(Row(*row) for row in kept.facts["rows"])
        self._seen = tuple(kept.facts.get("seen", ()))
        self._ended = arrays["ended"].copy()
        self._steps = [arrays["steps"]] if "steps" in arrays else []
        for number, t in enumerate(arrays.get("layers.step", ())):
            values, valid, present = (arrays[f"layers.{name}"][number] for name in ("values", "valid", "present"))
            self._layers.append(LayerTable(int(t), values, valid, present))
            self._finite[int(t)] = arrays["layers.finite"][number]
        told = kept.facts["readings"]
        spans = pairwise(np.cumsum([0, *(width for _, _, width, _ in told)]))
        numbers = pairwise(np.cumsum([0, *(count or 0 for *_, count in told)]))
        for (t, quantity, _, count), span, at in zip(told, spans, numbers, strict=True):
            index = None if count is None else tuple(arrays["readings.index"][slice(*at)].tolist())
            self._readings.append(Reading(t, quantity, index, arrays["readings.values"][:, slice(*span)]))

    def _diverged_layer(self, member: int) -> int:
        t = int(self._ended[member])
        finite = self._finite[t][member]
        table = next(table for table in self._layers if table.step == t and table.present[member])
        first = next(place for place, row in enumerate(self._rows) if row.layer > 0)
        gradients = table.values[self._columns.index("grad_norm"), member, first : first + len(finite)]
        return layer_of(finite, gradients)

    def close(
        self,
        runs: tuple[RunSpec, ...],
        heldout: tuple[Floats, Floats | None] | None,
        duration_s: float,
        *,
        may_skip: bool = False,
        pretrained: tuple[Pretrained, ...] = (),
    ) -> Record:
        """The record of a training that is over; ``heldout`` is the loss and accuracy (M,) where they were taken.

        ``pretrained`` as in `Record`; ``may_skip``: some member's updates may be left out.
        """
        steps = np.concatenate(self._steps, axis=1)
        loss, accuracy = heldout if heldout is not None else (None, None)
        layers = sorted(self._layers, key=lambda table: table.step)
        return Record(
            runs=runs,
            rows=self._rows,
            loss=steps[0],
            lr=steps[5],
            grad_norm=steps[1],
            grad_norm_clipped=steps[2],
            clipped=(steps[3] != 0) & ~np.isnan(steps[3]),
            updates=runs[0].train.steps,
            layers=tuple(layers),
            diverged_at=self._ended.astype(np.int64),
            diverged_layer=np.array(
                [self._diverged_layer(m) if self._ended[m] >= 0 else -1 for m in range(len(runs))], dtype=np.int64
            ),
            heldout_loss=loss,
            accuracy=accuracy,
            duration_s=duration_s,
            readings=tuple(self._readings),
            columns=self._columns,
            seen=self._seen,
            skipped=steps[6] != 0 if may_skip else None,
            loss_scale=steps[7] if (steps[7] != 0).any() else None,
            pretrained=pretrained,
        )
