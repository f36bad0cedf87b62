"""The tables of a whole result: merged from its pieces, or read, as Arrow tables or as pandas frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gradlab.spec.named import SpecError
from gradlab.store.atomic import replace
from gradlab.store.documents import check_result, ids_of
from gradlab.store.folder import Folder
from gradlab.store.forms import check_ids
from gradlab.store.pieces import OPTIONAL, TABLES, belonging, read_schema, read_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Merged: TypeAlias = "Mapping[str, pa.Table]"
"""The tidy tables of a result, by name."""

TRIES = 20
"""How often tables that change while they are read are read anew."""


class Finished(Mapping[str, "pa.Table"]):
    """The tables of a merged result, each read when it is first asked for."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._read: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        """Raises `KeyError` for a name that is no table's."""
        if name not in TABLES:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = _table(self._folder, name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)


def merge(folder: Folder, pieces: Sequence[int] | None = None) -> Merged:
    """Merges the pieces into the tables, runs in the order of the grid. The pieces stay: see `drop_pieces`.

    ``pieces`` are those of the plan, by default all that belong to the result. A few pieces at a time, and from the
    system's memory: Arrow's own allocator takes half as much again, and keeps it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())
    ids = ids_of(folder)
    chosen = belonging(folder, ids) if pieces is None else list(pieces)

    def write(name: str, path: Path) -> None:
        schema = _schema(folder, name, chosen)
        with pq.ParquetWriter(path, schema) as writer:
            for batch in _batches(folder, name, chosen, ids, schema):
                writer.write_table(batch)

    try:
        _write_tables(folder, chosen, write)
    except pa.ArrowException as error:
        # Such as: no thread can be started.
        raise OSError(f"tables cannot be merged: {str(error).partition('. ')[0]}") from error
    return Finished(folder)


def _write_tables(folder: Folder, chosen: Sequence[int], write: Callable[[str, Path], None]) -> None:
    for name in TABLES:
        if name in OPTIONAL and not any(folder.piece(index, name).is_file() for index in chosen):
            folder.table(name).unlink(missing_ok=True)
        else:
            replace(folder.table(name), partial(write, name))


def merged(folder: Folder) -> Merged:
    """The Arrow tables of a result, whether it is finished or still in pieces.

    Pieces are listed once for all tables. Where they vanish meanwhile the sweep has ended, and its tables are there.
    """
    for _ in range(TRIES):
        if folder.table("runs").is_file() and not folder.pieces.is_dir():
            return {name: _table(folder, name) for name in TABLES}
        try:
            found = _of_pieces(folder)
        except FileNotFoundError:
            continue
        if folder.pieces.is_dir() or not folder.table("runs").is_file():
            return found
    raise SpecError(f"{folder.root}: its tables change while they are read; try again")


def _of_pieces(folder: Folder) -> Merged:
    import pyarrow as pa

    ids = ids_of(folder)
    pieces = belonging(folder, ids)
    schemas = {name: _schema(folder, name, pieces) for name in TABLES}
    return {
        name: pa.concat_tables([pa.Table.from_batches([], schema), *_batches(folder, name, pieces, ids, schema)])
        for name, schema in schemas.items()
    }


def _schema(folder: Folder, name: str, pieces: Sequence[int]) -> pa.Schema:
    """The columns of a table that is made of these pieces: what one of them alone has, the others have as null."""
    from gradlab.store.record import schema_of

    return schema_of(name, [read_schema(folder.piece(piece, name), name) for piece in pieces])


def _table(folder: Folder, name: str) -> pa.Table:
    """A table of a merged result; columns that were added since it was written are null."""
    from gradlab.store.merging import promoted
    from gradlab.store.record import schema_of

    try:
        found = read_table(folder.table(name), name)
        return promoted(found, schema_of(name, [found.schema]))
    except FileNotFoundError as error:
        raise SpecError(f"{folder.table(name)}: expected, and not there") from error
    except SpecError as error:
        raise SpecError(f"{folder.root}: its tables cannot be read: {error}") from error


def _batches(
    folder: Folder, name: str, pieces: Sequence[int], ids: Sequence[str], schema: pa.Schema
) -> Iterator[pa.Table]:
    """A table of ``pieces``, in the order of the grid."""
    from gradlab.store.merging import in_order

    known = frozenset(ids)

    def read(piece: int, columns: Sequence[str] | None) -> pa.Table:
        path = folder.piece(piece, name)
        table = read_table(path, name, columns)
        check_ids(str(path), table["run_id"].unique().to_pylist(), known)
        return table

    return in_order(read, pieces, ids, schema)


def finished_runs(folder: Folder, ids: Sequence[str]) -> bool:
    """Whether the merged tables are all there and can be read, and hold the runs ``ids`` in this order, none failed."""
    try:
        tables = {name: _table(folder, name) for name in TABLES}
    except SpecError:
        return False
    runs = tables["runs"]
    return runs["run_id"].to_pylist() == list(ids) and "failed" not in runs["state"].to_pylist()


@dataclass(frozen=True)
class Frames:
    """The tables of a result as pandas frames, columns as the contract names them."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame
    instruments: pd.DataFrame


def load_tables(path: Path) -> Merged:
    """The Arrow tables of the result at ``path``, nulls and NaNs apart.

    Raises `SpecError` where it is none, where one of its tables cannot be read or is another one, and where they tell
    of different runs.
    """
    check_result(path)
    folder = Folder(path)
    tables = merged(folder)
    ids = tables["runs"]["run_id"].to_pylist()
    if len(set(ids)) < len(ids) or None in ids:
        raise SpecError(f"{folder.table('runs')}: run_id: expected every run once")
    for name in TABLES[1:]:
        check_ids(f"{folder.table(name)}: run_id", tables[name]["run_id"].unique().to_pylist(), ids)
    return tables


def load(path: str | Path) -> Frames:
    """The tables of a result as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``.

    Raises `SpecError` where it is none. Warns where no run has ended yet: the frames have their columns and no rows, so
    that a notebook that follows a sweep goes on.
    """
    tables = load_tables(Path(path))
    if not tables["runs"].num_rows:
        # The line that is told is the caller's of `gradlab.load`.
        warnings.warn(f"{path}: holds no finished run yet; its frames are empty", stacklevel=3)
    return Frames(*(tables[name].to_pandas() for name in TABLES))
