"""The tables of pieces: each is there as soon as its piece is done, and stays until all are merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.spec.named import SpecError
from gradlab.store.atomic import replace
from gradlab.store.folder import Folder

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gradlab.store.record import Tables

TABLES = ("runs", "steps", "layers", "instruments")


OPTIONAL = ("instruments",)
"""Tables that are written only where they have rows."""


def save_piece(folder: Folder, index: int, tables: Tables) -> None:
    """Writes the tables of a piece; its runs come last, and say that the piece is whole."""
    for name in reversed(TABLES):
        write_table(folder.piece(index, name), name, getattr(tables, name))


def write_table(path: Path, name: str, table: pa.Table) -> None:
    """Replaces a Parquet file; of a table that is `OPTIONAL` there is none without rows."""
    import pyarrow.parquet as pq

    if table.num_rows or name not in OPTIONAL:
        replace(path, lambda temporary: pq.write_table(table, temporary))
    else:
        path.unlink(missing_ok=True)


KEYED_BY = {
    "runs": ("run_id", "state"),
    "steps": ("run_id", "step", "loss"),
    "layers": ("run_id", "step", "axis", "layer", "name"),
    "instruments": ("run_id", "step", "instrument", "quantity", "index", "value"),
}
"""Columns that every table has had since the first gradlab; one that came later may be missing in an older file."""


def read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or these columns of it; no rows where an `OPTIONAL` one is not there.

    Raises `SpecError` for a file that cannot be read, and for one that holds another table.
    """
    import pyarrow as pa

    from gradlab.store.columns import SCHEMAS

    if name in OPTIONAL and not path.is_file():
        return pa.Table.from_batches([], SCHEMAS[name])
    with open_table(path, name) as file:
        return file.read(columns=columns, use_threads=False)


def read_schema(path: Path, name: str) -> pa.Schema:
    """The columns of the table in a Parquet file. Raises `SpecError` as `read_table`."""
    from gradlab.store.columns import SCHEMAS

    if name in OPTIONAL and not path.is_file():
        return SCHEMAS[name]
    with open_table(path, name) as file:
        return file.schema_arrow


@contextmanager
def open_table(path: Path, name: str) -> Iterator[pq.ParquetFile]:
    """The Parquet file of a table. Raises `SpecError` where it, or what is read of it, is damaged or another table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: it imports pyarrow's datasets, and with them pandas.
        with pq.ParquetFile(path) as file:
            _check_columns(path, name, file.schema_arrow)
            yield file
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise SpecError(f"{path}: cannot be read as a table of {name}: {str(error).partition('. ')[0]}") from error


def _check_columns(path: Path, name: str, found: pa.Schema) -> None:
    from gradlab.store.columns import SCHEMAS

    if missing := [column for column in KEYED_BY[name] if column not in found.names]:
        raise SpecError(f"{path}: no table of {name}: expected a column {missing[0]}, found {', '.join(found.names)}")
    for field in SCHEMAS[name]:
        if field.name in found.names and found.field(field.name).type != field.type:
            kind = found.field(field.name).type
            raise SpecError(f"{path}: no table of {name}: expected {field.name} as {field.type}, found {kind}")


def saved_pieces(folder: Folder, planned: Mapping[int, Sequence[str]] | None = None) -> dict[int, pa.Table]:
    """The `runs` table of every piece that is whole, by its index; where ``planned`` is given their states alone.

    Where it is ``planned`` whose runs each piece holds, one whose tables cannot be read, or are of other runs, counts
    as not there: it is trained again.
    """
    if planned is None:
        return {index: read_table(folder.piece(index, "runs"), "runs") for index in whole(folder)}
    found = {index: _sound(folder, index, planned[index]) for index in whole(folder) if index in planned}
    return {index: runs for index, runs in found.items() if runs is not None}


def _sound(folder: Folder, index: int, ids: Sequence[str]) -> pa.Table | None:
    """The runs of a piece; None where any of its tables is damaged, or of other runs than ``ids``."""
    try:
        runs = read_table(folder.piece(index, "runs"), "runs")
        if runs["run_id"].to_pylist() != list(ids):
            return None
        for name in TABLES[1:]:
            if not set(read_table(folder.piece(index, name), name)["run_id"].unique().to_pylist()) <= set(ids):
                return None
    except (FileNotFoundError, SpecError):
        return None
    return runs.select(["run_id", "state"])


def lost(folder: Folder, planned: Mapping[int, Sequence[str]]) -> list[int]:
    """The pieces of the plan whose runs are not there, cannot be read, or are others."""
    return [index for index, ids in planned.items() if _ids(folder, index) != list(ids)]


def _ids(folder: Folder, index: int) -> list[str] | None:
    try:
        found: list[str] = read_table(folder.piece(index, "runs"), "runs", ["run_id"])["run_id"].to_pylist()
    except (FileNotFoundError, SpecError):
        return None
    return found


def belonging(folder: Folder, ids: Sequence[str]) -> list[int]:
    """The pieces that are whole and hold runs of ``ids`` that no earlier piece holds; any other is left aside."""
    open_ids, found = set(ids), []
    for index in whole(folder):
        held = set(_ids(folder, index) or ())
        if held and held <= open_ids:
            open_ids -= held
            found.append(index)
    return found


def whole(folder: Folder) -> list[int]:
    """The indices of the pieces that are whole: their runs are written last."""
    found = sorted(folder.pieces.glob("*.runs.parquet")) if folder.pieces.is_dir() else []
    return [int(number) for path in found if (number := path.name.partition(".")[0]).isdecimal() and len(number) == 5]


def drop_pieces(folder: Folder) -> None:
    """Removes the tables of the pieces, once the manifest says that all are merged; for a reader, all at once."""
    if folder.pieces.is_dir():
        # A kill may have left the last ones half removed.
        shutil.rmtree(folder.dropped, ignore_errors=True)
        folder.pieces.replace(folder.dropped)
    shutil.rmtree(folder.dropped, ignore_errors=True)
