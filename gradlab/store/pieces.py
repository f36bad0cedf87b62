"""The tables of pieces: each is there as soon as its piece is done, and stays until all are merged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.store.atomic import replace
from gradlab.store.folder import Folder

if TYPE_CHECKING:
    import pyarrow as pa

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


def read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or these columns of it; no rows where an `OPTIONAL` one is not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gradlab.store.record import SCHEMAS

    if name in OPTIONAL and not path.is_file():
        return pa.Table.from_batches([], SCHEMAS[name])
    # Not pq.read_table: it imports pyarrow's datasets, and with them pandas.
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns, use_threads=False)


def saved_pieces(folder: Folder) -> dict[int, pa.Table]:
    """The `runs` table of every piece that is whole, by its index."""
    return {index: read_table(folder.piece(index, "runs"), "runs") for index in whole(folder)}


def whole(folder: Folder) -> list[int]:
    """The indices of the pieces that are whole: their runs are written last."""
    found = sorted(folder.pieces.glob("*.runs.parquet")) if folder.pieces.is_dir() else []
    return [int(path.name.split(".")[0]) for path in found]


def drop_pieces(folder: Folder) -> None:
    """Removes the tables of the pieces, once the manifest says that all are merged; for a reader, all at once."""
    if folder.pieces.is_dir():
        folder.pieces.replace(folder.dropped)
    shutil.rmtree(folder.dropped, ignore_errors=True)
