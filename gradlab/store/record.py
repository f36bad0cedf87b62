"""What a cohort leaves behind: arrays over steps, members and layers, and the tidy tables made of them.

Torch-free. Shapes: S recorded steps of the loss, K recorded steps of the layers, M members, R rows of the per-layer
table, C of its columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gradlab.diagnose import DEFAULTS, Limits, final_loss, rate, vanishing_ratio
from gradlab.diagnose.tables import with_verdicts
from gradlab.spec.choices import MODELS
from gradlab.spec.keys import KEYS, is_free
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from gradlab.spec.secret import without_password
from gradlab.store.columns import INSTRUMENTS, LAYERS, PROBE_COLUMNS, RUNS, SCHEMAS, SEEN, STEPS, schema_of, table_of
from gradlab.store.merging import promoted
from gradlab.theory.predict import predict

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """A row of the per-layer table: ``axis`` is depth or time, ``layer`` 0..L or 1..T."""

    axis: str
    layer: int
    name: str


@dataclass(frozen=True)
class LayerTable:
    """The per-layer table at one step.

    ``values`` (C, M, R); ``valid`` (C, R) says which columns a row has; ``present`` (M,) which members it is kept for.
    """

    step: int
    values: Floats
    valid: Bools
    present: Bools


@dataclass(frozen=True)
class Reading:
    """One quantity that an instrument gave at one step: ``values`` (M, n), numbered by ``index`` (n,) if at all."""

    step: int
    quantity: str
    index: tuple[int, ...] | None
    values: Floats


@dataclass(frozen=True)
class Pretrained:
    """Losses of a pre-training: ``values`` (m, n) of those ``members`` that had it, at its steps ``index`` (n,)."""

    members: tuple[int, ...]
    index: tuple[int, ...]
    values: Floats


@dataclass(frozen=True)
class Record:
    """A finished cohort.

    ``loss``, ``lr``, ``grad_norm``, ``grad_norm_clipped``, ``clipped`` are (S, M), row t measured at step t; where the
    last row made no update, ``updates`` < S. So are ``skipped`` updates and the ``loss_scale``, None where none can be.
    ``diverged_at`` and ``diverged_layer`` (M,) are -1 where there is none. ``heldout_loss`` and ``accuracy`` (M,) are
    None where data or run have none. ``columns`` are the C of the per-layer table; ``seen`` (M) is what was seen of
    networks that are not gradlab's own: see `SEEN`.
    """

    runs: tuple[RunSpec, ...]
    rows: tuple[Row, ...]
    loss: Floats
    lr: Floats
    grad_norm: Floats
    grad_norm_clipped: Floats
    clipped: Bools
    updates: int
    layers: tuple[LayerTable, ...]
    diverged_at: Ints
    diverged_layer: Ints
    heldout_loss: Floats | None
    accuracy: Floats | None
    duration_s: float
    readings: tuple[Reading, ...] = ()
    columns: tuple[str, ...] = PROBE_COLUMNS
    seen: tuple[str, ...] = ()
    skipped: Bools | None = None
    loss_scale: Floats | None = None
    pretrained: tuple[Pretrained, ...] = ()


@dataclass(frozen=True)
class Tables:
    """The tidy tables of some runs, with the columns of `RUNS`, `STEPS`, `LAYERS` and `INSTRUMENTS`."""

    runs: pa.Table
    steps: pa.Table
    layers: pa.Table
    instruments: pa.Table = dataclasses.field(default_factory=INSTRUMENTS.empty_table)


def joined(parts: Sequence[Tables]) -> Tables:
    """The rows of all ``parts``, in order."""

    def all_of(name: str) -> pa.Table:
        tables = [getattr(part, name) for part in parts]
        schema = schema_of(name, [table.schema for table in tables])
        return pa.concat_tables([promoted(table, schema) for table in tables])

    return Tables(*(all_of(name) for name in SCHEMAS))


def failed_tables(runs: Sequence[RunSpec], error: str) -> Tables:
    """What is left of runs that crashed: their specs and the error."""
    columns: dict[str, object] = _spec_columns(runs)
    columns["state"] = ["failed"] * len(runs)
    columns["error"] = [without_password(error)] * len(runs)
    return Tables(table_of("runs", columns, len(runs)), STEPS.empty_table(), LAYERS.empty_table())


def tidy(record: Record, limits: Limits = DEFAULTS) -> Tables:
    """The tables of a finished cohort, members in their order, each judged by ``limits``."""
    last = np.where(record.diverged_at >= 0, record.diverged_at, len(record.loss) - 1)
    runs, steps, layers = _runs_table(record, last), _steps_table(record, last), _layers_table(record, last)
    return Tables(with_verdicts(runs, steps, layers, limits), steps, layers, _instruments_table(record, last))


def _runs_table(record: Record, last: Ints) -> pa.Table:
    members = np.arange(len(record.runs))
    diverged = record.diverged_at >= 0
    along = "time" if any(row.axis == "time" for row in record.rows) else "depth"
    profile = _profile(record, along)
    columns: dict[str, object] = _spec_columns(record.runs)
    if record.seen:
        columns[SEEN] = list(record.seen)
    columns |= {
        "state": np.where(diverged, "diverged", "finished"),
        "steps": np.where(diverged, record.diverged_at, record.runs[0].train.steps),
        "loss_first": record.loss[0],
        "loss_last": record.loss[last, members],
        "loss_final": _final(record, ~diverged),
        "loss_heldout": _where(~diverged, record.heldout_loss),
        "accuracy": _where(~diverged, record.accuracy),
        "diverged_at": _where(diverged, record.diverged_at),
        "diverged_layer": _where(record.diverged_layer >= 0, record.diverged_layer),
        "rate": [rate(deltas, along) for deltas in profile],
        "vanishing_ratio": [vanishing_ratio(deltas, along) for deltas in profile],
        "duration_s": np.full(len(members), record.duration_s / len(members)),
    }
    return table_of("runs", columns, len(members))


def _profile(record: Record, along: str) -> Floats:
    """The signals' gradient (M, R) at step 0 by which a run's rate is; per entry, where layers differ in size.

    Where it has a trunk it is along that; in a network that is not gradlab's own, in the trunk's order.
    """
    first, model = record.layers[0], record.runs[0].model
    rows = [index for index, row in enumerate(record.rows) if row.axis == along and row.layer > 0]
    if along == "depth" and (layers := MODELS[model.name].trunk) is not None:
        known = layers(model.depth)
        rows = [index for index in rows if record.rows[index].layer in known]
    if along == "time" or "stage" not in record.columns:
        of = "signal_grad_rms" if MODELS[model.name].unequal or "stage" in record.columns else "signal_grad_norm"
        return np.asarray(first.values[record.columns.index(of)][:, rows])
    stages = first.values[record.columns.index("stage")][0, rows]
    trunk = [rows[place] for place in np.argsort(stages, kind="stable") if not np.isnan(stages[place])]
    return np.asarray(first.values[record.columns.index("trunk_grad_rms")][:, trunk])


def _final(record: Record, finished: Bools) -> pa.Array:
    """The final loss (M,); null where a run diverged, which has none, and where no step was made."""
    trained = finished & (len(record.loss) > 1)
    return _where(trained, np.array([final_loss(losses) for losses in record.loss.T]))


def with_final_losses(runs: pa.Table, steps: pa.Table) -> pa.Table:
    """``runs`` with the column `loss_final`, computed from ``steps`` where an older gradlab left it out."""
    trained = pc.and_(pc.equal(runs["state"], "finished"), pc.greater(runs["steps"], 0))
    if "loss_final" in runs.column_names and not pc.any(pc.and_(trained, pc.is_null(runs["loss_final"]))).as_py():
        return runs
    place = pc.index_in(steps["run_id"], value_set=runs["run_id"].combine_chunks())
    known = pc.is_valid(place).to_numpy()
    run, loss = place.to_numpy()[known].astype(np.int64), steps["loss"].to_numpy()[known]
    order = np.lexsort((steps["step"].to_numpy()[known], run))
    parts = np.split(loss[order], np.searchsorted(run[order], np.arange(1, runs.num_rows)))
    values = np.array([final_loss(part) for part in parts])
    column = _where(np.array(trained.to_pylist(), dtype=bool) & ~np.isnan(values), values)
    if "loss_final" in runs.column_names:
        return runs.set_column(runs.column_names.index("loss_final"), RUNS.field("loss_final"), column)
    return runs.add_column(runs.column_names.index("loss_last") + 1, RUNS.field("loss_final"), column)


def _spec_columns(runs: Sequence[RunSpec]) -> dict[str, object]:
    """What stands before a run is trained: its keys, and what theory says of them."""
    flat = [run.flat() for run in runs]
    said = [predict(run) for run in runs]
    return {
        "run_id": [run.id for run in runs],
        **{key: [values[key] for values in flat] for key in KEYS},
        **{key: _alike([values.get(key) for values in flat]) for key in dict.fromkeys(chain(*flat)) if is_free(key)},
        "data.mirror": [run.data.mirror and without_password(run.data.mirror) for run in runs],
        # Of the foretold course, fitted over the layers that the measured rate is. Where these have no single rate,
        # one would be mistaken for theirs.
        "rate_theory": [one.fitted if one.single_rate else None for one in said],
        "rate_limit": [one.rate if one.asymptotic else None for one in said],
        "chi1": [one.chi1 for one in said],
        "depth_scale": [one.depth_scale for one in said],
    }


def _alike(values: list[Value]) -> list[Value]:
    """Arguments as one column holds them: all numbers, all truths, or all texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    return values if len(kinds) == 1 else [None if value is None else str(value) for value in values]


def _steps_table(record: Record, last: Ints) -> pa.Table:
    steps, _ = record.loss.shape
    kept = (np.arange(steps)[:, None] <= last).T
    at = np.broadcast_to(np.arange(steps), kept.shape)[kept]
    updated = at < record.updates
    ids = np.array([run.id for run in record.runs])
    columns = {
        "run_id": np.repeat(ids, kept.sum(1)),
        "step": at,
        "loss": record.loss.T[kept],
        "lr": record.lr.T[kept],
        "grad_norm": record.grad_norm.T[kept],
        "grad_norm_clipped": _where(updated, record.grad_norm_clipped.T[kept]),
        "clipped": _where(updated, record.clipped.T[kept]),
        "loss_scale": None if record.loss_scale is None else record.loss_scale.T[kept],
        "skipped": None if record.skipped is None else _where(updated, record.skipped.T[kept]),
    }
    return table_of("steps", columns, len(at))


def _layers_table(record: Record, last: Ints) -> pa.Table:
    tables = record.layers
    steps = np.array([table.step for table in tables])
    kept = np.stack([table.present for table in tables], axis=1) & (steps <= last[:, None])  # (M, K)
    member, at = np.nonzero(kept)
    rows = len(record.rows)
    values = np.stack([table.values for table in tables], axis=2)[:, member, at]  # (C, kept, R)
    valid = np.stack([table.valid for table in tables], axis=1)[:, at]  # (C, kept, R)
    ids = np.array([run.id for run in record.runs])
    columns: dict[str, object] = {
        "run_id": np.repeat(ids[member], rows),
        "step": np.repeat(steps[at], rows),
        "axis": np.tile([row.axis for row in record.rows], len(at)),
        "layer": np.tile([row.layer for row in record.rows], len(at)),
        "name": np.tile([row.name for row in record.rows], len(at)),
    }
    for index, column in enumerate(record.columns):
        columns[column] = _where(valid[index].ravel(), values[index].ravel())
    return table_of("layers", columns, rows * len(at))


def _instruments_table(record: Record, last: Ints) -> pa.Table:
    readings = record.readings
    if not readings:
        return _pretraining_table(record)
    widths = [reading.values.shape[1] for reading in readings]
    steps = np.repeat([reading.step for reading in readings], widths)
    kept = steps <= last[:, None]  # (M, all n)
    member, at = np.nonzero(kept)
    numbered = np.repeat([reading.index is not None for reading in readings], widths)
    index = np.concatenate([reading.index or (0,) for reading in readings]).astype(np.int64)
    columns: dict[str, object] = {
        "run_id": np.array([run.id for run in record.runs])[member],
        "step": steps[at],
        "instrument": np.full(len(at), record.runs[0].probe.instrument),
        "quantity": np.repeat([reading.quantity for reading in readings], widths)[at],
        "index": _where(numbered[at], index[at]),
        "value": np.concatenate([reading.values for reading in readings], axis=1)[kept],
    }
    table = table_of("instruments", columns, len(at))
    return pa.concat_tables([table, _pretraining_table(record)]) if record.pretrained else table


def _pretraining_table(record: Record) -> pa.Table:
    """What was lost on the way to the weights of step 0, numbered by the steps of the pre-training."""
    parts = [
        table_of(
            "instruments",
            {
                "run_id": np.repeat([record.runs[member].id for member in one.members], len(one.index)),
                "step": np.zeros(one.values.size, dtype=np.int64),
                "instrument": np.full(one.values.size, "pretraining"),
                "quantity": np.full(one.values.size, "pretrain_loss"),
                "index": np.tile(one.index, len(one.members)),
                "value": one.values.ravel(),
            },
            one.values.size,
        )
        for one in record.pretrained
    ]
    return pa.concat_tables(parts) if parts else INSTRUMENTS.empty_table()


def _where(valid: Bools, values: Floats | Ints | Bools | None) -> pa.Array | None:
    """An Arrow array that is null where not ``valid``: a NaN is a value, and stays one."""
    return None if values is None else pa.array(values, mask=~valid, from_pandas=False)
