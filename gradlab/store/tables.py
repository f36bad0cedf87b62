"""The tables of a whole result: merged from its pieces, or read, as Arrow tables or as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gradlab.spec.named import SpecError
from gradlab.store.atomic import replace
from gradlab.store.documents import ids_of, read_manifest
from gradlab.store.folder import Folder
from gradlab.store.pieces import OPTIONAL, TABLES, read_table, whole

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Merged: TypeAlias = "Mapping[str, pa.Table]"
"""The tidy tables of a result, by name."""


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
            self._read[name] = read_table(self._folder.table(name), name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)


def merge(folder: Folder) -> Merged:
    """Merges the pieces into the tables, runs in the order of the grid. The pieces stay: see `drop_pieces`.

    A few pieces at a time, and from the system's memory: Arrow's own allocator takes half as much again, and keeps it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gradlab.store.record import SCHEMAS

    pa.set_memory_pool(pa.system_memory_pool())

    def write(path: Path, name: str) -> None:
        with pq.ParquetWriter(path, SCHEMAS[name]) as writer:
            for batch in _batches(folder, name):
                writer.write_table(batch)

    for name in TABLES:
        if name in OPTIONAL and not any(folder.pieces.glob(f"*.{name}.parquet")):
            folder.table(name).unlink(missing_ok=True)
        else:
            replace(folder.table(name), partial(write, name=name))
    return Finished(folder)


def merged(folder: Folder) -> Merged:
    """The Arrow tables of a result, whether it is finished or still in pieces."""
    if folder.table("runs").is_file() and not folder.pieces.is_dir():
        return {name: read_table(folder.table(name), name) for name in TABLES}
    import pyarrow as pa

    from gradlab.store.record import SCHEMAS

    return {
        name: pa.concat_tables([pa.Table.from_batches([], SCHEMAS[name]), *_batches(folder, name)]) for name in TABLES
    }


def _batches(folder: Folder, name: str) -> Iterator[pa.Table]:
    """A table of the pieces that are whole, in the order of the grid."""
    from gradlab.store.merging import in_order
    from gradlab.store.record import SCHEMAS

    def read(piece: int, columns: Sequence[str] | None) -> pa.Table:
        return read_table(folder.piece(piece, name), name, columns)

    return in_order(read, whole(folder), ids_of(folder), SCHEMAS[name])


@dataclass(frozen=True)
class Frames:
    """The tables of a result as pandas frames, columns as the contract names them."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame
    instruments: pd.DataFrame


def load_tables(path: Path) -> Merged:
    """The Arrow tables of the result at ``path``, nulls and NaNs apart. Raises `SpecError` where it is none."""
    import pyarrow as pa

    read_manifest(path)
    try:
        return merged(Folder(path))
    except pa.ArrowInvalid as error:
        raise SpecError(f"{path}: its tables cannot be read: {str(error).partition('. ')[0]}") from error


def load(path: str | Path) -> Frames:
    """The tables of a result as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``.

    Raises `SpecError` where it is none.
    """
    tables = load_tables(Path(path))
    return Frames(*(tables[name].to_pandas() for name in TABLES))
