"""Tables of pieces as one: against a stable sort of all rows by their run's place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from gradlab.store import merging

SCHEMA = pa.schema([("run_id", pa.string()), ("step", pa.int64()), ("name", pa.string()), ("late", pa.float64())])


def reader(tables: dict[int, pa.Table]) -> merging.Read:
    return lambda piece, columns: tables[piece] if columns is None else tables[piece].select(columns)


def made(seed: int, pieces: int, runs: int, most_rows: int) -> tuple[dict[int, pa.Table], list[str]]:
    """Pieces with runs of 1 to ``most_rows`` rows, and all ids in an order of their own."""
    draw = np.random.default_rng(seed)
    tables, ids = {}, []
    for piece in range(pieces):
        own = [f"{piece}-{run}" for run in range(runs)]
        rows = [(run_id, step) for run_id in own for step in range(draw.integers(1, most_rows + 1))]
        columns = {
            "run_id": [run_id for run_id, _ in rows],
            "step": [step for _, step in rows],
            "name": [f"layer {step}" if step % 3 else None for _, step in rows],
            # A column that the first piece was written without.
            **({"late": draw.standard_normal(len(rows))} if piece else {}),
        }
        tables[piece] = pa.table(columns)
        ids += own
    draw.shuffle(ids)
    return tables, ids


@pytest.mark.parametrize(("held", "batch"), [(2**18, 2**16), (40, 7), (1, 1)])
@pytest.mark.parametrize("most_rows", [1, 9])
def test_runs_stand_in_the_order_of_the_grid(
    held: int, batch: int, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "HELD", held)
    monkeypatch.setattr(merging, "BATCH", batch)
    tables, ids = made(held, 6, 5, most_rows)
    # A piece's table comes in chunks, as a file in row groups does.
    chunked = {piece: pa.concat_tables([table.slice(0, 3), table.slice(3)]) for piece, table in tables.items()}
    found = pa.concat_tables(merging.in_order(reader(chunked), list(tables), ids, SCHEMA))
    rows = [row for piece in tables.values() for row in piece.to_pylist()]
    expected = sorted(rows, key=lambda row: ids.index(row["run_id"]))
    assert found.schema == SCHEMA
    assert found.to_pylist() == [{"late": None, **row} for row in expected]


def test_no_more_is_held_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the pieces of 20 rows fit: of the others only the ids are read, until they are due."""
    monkeypatch.setattr(merging, "HELD", 40)
    monkeypatch.setattr(merging, "BATCH", 20)
    pieces = {
        piece: pa.table({"run_id": [f"{piece}"] * 20, "step": list(range(20)), "name": ["x"] * 20, "late": [0.5] * 20})
        for piece in range(5)
    }
    read: list[tuple[int, bool]] = []

    def reading(piece: int, columns: Sequence[str] | None) -> pa.Table:
        read.append((piece, columns is None))
        return reader(pieces)(piece, columns)

    batches = list(merging.in_order(reading, list(pieces), ["4", "3", "2", "1", "0"], SCHEMA))
    assert [batch["run_id"][0].as_py() for batch in batches] == ["4", "3", "2", "1", "0"]
    assert read[:5] == [(0, True), (1, True), (2, False), (3, False), (4, False)]
    assert read[5:] == [(4, True), (3, True), (2, True), (1, True), (0, True)]


def test_nothing_is_nothing() -> None:
    empty: dict[int, pa.Table] = {0: pa.Table.from_batches([], SCHEMA)}
    assert list(merging.in_order(reader(empty), [], [], SCHEMA)) == []
    assert list(merging.in_order(reader(empty), [0], [], SCHEMA)) == []
