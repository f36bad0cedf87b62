"""The tables of many pieces as one: run by run in the order of the grid, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BATCH = 2**16
"""Rows of a batch, but for whole runs."""

HELD = 2**18
"""Rows of pieces that are held at a time: some 35 MB of the per-layer table."""

Ints = NDArray[np.int64]


Read = Callable[[int, Sequence[str] | None], pa.Table]
"""Reads the table of a piece, or these columns of it."""


def in_order(read: Read, pieces: Sequence[int], ids: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all ``pieces`` as tables of ``schema``, runs in the order of ``ids``; the order within a run stays.

    A column that a piece lacks, since it was added later, is null. What is held does not grow with the grid: where the
    runs of many large pieces are mixed, pieces are read again.
    """
    held = _Held(lambda piece: promoted(read(piece, None), schema))
    place = {run_id: number for number, run_id in enumerate(ids)}
    # The rows of a run stand together: where they do, in (place, piece, first row, rows).
    found = [np.zeros((0, 4), dtype=np.int64)]
    for piece in pieces:
        table = read(piece, ["run_id"]) if held.full else held[piece]
        own = [(place[run_id], piece, first, rows) for run_id, first, rows in _runs(table)]
        found.append(np.array(own, dtype=np.int64).reshape(-1, 4))
    runs = np.concatenate(found)
    runs = runs[np.lexsort(runs.T[::-1])]
    batch = np.cumsum(runs[:, 3]) // BATCH
    for part in np.split(runs, np.flatnonzero(np.diff(batch)) + 1):
        if len(part):
            yield _batch(held, part)


def _batch(held: _Held, runs: Ints) -> pa.Table:
    """The rows of some runs, given in their order: what each piece has of them, put into that order."""
    by_piece = runs[np.argsort(runs[:, 1], kind="stable")]
    parts = np.split(by_piece, np.flatnonzero(np.diff(by_piece[:, 1])) + 1)
    together = pa.concat_tables([taken(held[int(part[0, 1])], _all_rows(part)) for part in parts])
    order = np.argsort(np.repeat(by_piece[:, 0], by_piece[:, 3]), kind="stable")
    return taken(together, order)


def _all_rows(runs: Ints) -> Ints:
    return np.concatenate([np.arange(first, first + rows) for first, rows in runs[:, 2:]])


def taken(table: pa.Table, rows: Ints) -> pa.Table:
    """The ``rows`` of a table, by their places."""
    if len(rows) == table.num_rows and (np.diff(rows) > 0).all():
        return table
    # Not pa.array, which imports pandas.
    return table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(rows)]))


def _runs(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Of each run its id, its first row, and how many there are."""
    start = 0
    for chunk in table["run_id"].chunks:
        stretches = pc.run_end_encode(chunk)
        edges = pairwise([0, *stretches.run_ends.to_pylist()])
        for run_id, (first, end) in zip(stretches.values.to_pylist(), edges, strict=True):
            yield run_id, start + first, end - first
        start += len(chunk)


def promoted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of ``schema``: one that it lacks is null, one that it has beyond them is left out."""
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


class _Held:
    """The pieces read last, so many rows of them."""

    def __init__(self, read: Callable[[int], pa.Table]) -> None:
        self._read = read
        self._tables: dict[int, pa.Table] = {}
        self._rows = 0

    @property
    def full(self) -> bool:
        """Whether another piece would take the place of one that is held."""
        return self._rows >= HELD

    def __getitem__(self, piece: int) -> pa.Table:
        table = self._tables.pop(piece, None)
        if table is None:
            table = self._read(piece)
            self._rows += table.num_rows
        self._tables[piece] = table
        while self._rows > HELD and len(self._tables) > 1:
            oldest = next(iter(self._tables))
            self._rows -= self._tables.pop(oldest).num_rows
        return table
