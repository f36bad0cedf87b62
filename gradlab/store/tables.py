"""The tables of a whole result: merged from its pieces, or read, as Arrow tables or as pandas frames."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.spec.named import SpecError
from gradlab.store import parts
from gradlab.store.atomic import replace
from gradlab.store.documents import check_result, ids_of
from gradlab.store.folder import Folder
from gradlab.store.forms import check_ids
from gradlab.store.parts import Parts, clear, write_parts
from gradlab.store.pieces import OPTIONAL, TABLES, belonging, read_table
from gradlab.store.sources import Merged, OfPieces

if TYPE_CHECKING:
    import pandas as pd
    from pyarrow.dataset import Dataset

TRIES = 20
"""How often tables that change while they are read are read anew."""


def merge(folder: Folder, pieces: Sequence[int] | None = None) -> Merged:
    """Merges the pieces into the tables, runs in the order of the grid. The pieces stay: see `drop_pieces`.

    ``pieces`` are those of the plan, by default all that belong to the result. A few pieces at a time, and from the
    system's memory: Arrow's own allocator takes half as much again, and keeps it. A table of more than `parts.LARGE`
    rows becomes a folder: `parts.Parts`.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    ids = ids_of(folder)
    chosen = belonging(folder, ids) if pieces is None else list(pieces)
    places: dict[str, int] = {}
    try:
        for name in TABLES:
            if name in OPTIONAL and not any(folder.piece(index, name).is_file() for index in chosen):
                clear(folder.table(name))
                continue
            source = OfPieces(folder, name, tuple(chosen), ids)
            if source.rows > parts.LARGE:
                places = places or _places(folder, chosen, ids)
                write_parts(folder.table(name), source.schema, source.batches(source.schema.names), places)
                continue
            if folder.table(name).is_dir():
                clear(folder.table(name))
            replace(folder.table(name), partial(_write, source))
    except pa.ArrowException as error:
        # Such as: no thread can be started.
        raise OSError(f"tables cannot be merged: {str(error).partition('. ')[0]}") from error
    return _finished(folder)


def _write(source: OfPieces, path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, source.schema) as writer:
        for batch in source.batches(source.schema.names):
            writer.write_table(batch)


def _places(folder: Folder, pieces: Sequence[int], ids: Sequence[str]) -> dict[str, int]:
    """The places of the runs in the merged tables: of a sweep that ended early not all of the grid are there."""
    places = {run_id: place for place, run_id in enumerate(ids)}
    here = bytearray(len(ids))
    for index in pieces:
        for run_id in read_table(folder.piece(index, "runs"), "runs", ["run_id"])["run_id"].to_pylist():
            here[places[run_id]] = True
    if all(here):
        return places
    return {run_id: place for place, run_id in enumerate(compress(ids, here))}


def _finished(folder: Folder) -> Merged:
    """Raises `FileNotFoundError` and `SpecError` where one of the tables is not there, or not the whole of it."""
    tables = {name: Parts(folder.table(name), name) for name in TABLES}
    for table in tables.values():
        table.check(tables["runs"].rows)
    return Merged(tables)


def merged(folder: Folder) -> Merged:
    """The Arrow tables of a result, whether it is finished or still in pieces; of a large one read when asked for.

    Pieces are listed once for all tables. Where they vanish meanwhile the sweep has ended, and its tables are there.
    """
    for _ in range(TRIES):
        if folder.table("runs").exists() and not folder.pieces.is_dir():
            return _read(folder)
        try:
            ids = ids_of(folder)
            pieces = tuple(belonging(folder, ids))
            found = Merged({name: OfPieces(folder, name, pieces, ids) for name in TABLES})
            found.settle()
        except FileNotFoundError:
            continue
        if folder.pieces.is_dir() or not folder.table("runs").exists():
            return found
    raise SpecError(f"{folder.root}: its tables change while they are read; try again")


def _read(folder: Folder) -> Merged:
    try:
        found = _finished(folder)
        found.settle()
    except FileNotFoundError as error:
        missing = next((name for name in TABLES if not folder.table(name).exists() and name not in OPTIONAL), "runs")
        raise SpecError(f"{folder.table(missing)}: expected, and not there") from error
    except SpecError as error:
        raise SpecError(f"{folder.root}: its tables cannot be read: {error}") from error
    return found


def finished_runs(folder: Folder, ids: Sequence[str]) -> bool:
    """Whether the merged tables are all there and can be read, and hold the runs ``ids`` in this order, none failed."""
    found: list[str] = []
    try:
        tables = _finished(folder)
        for name in TABLES:
            for batch in tables.batches(name):
                if name == "runs" and "failed" in batch["state"].unique().to_pylist():
                    return False
                found += batch["run_id"].to_pylist() if name == "runs" else ()
    except (FileNotFoundError, SpecError):
        return False
    return found == list(ids)


def load_tables(path: Path) -> Merged:
    """The Arrow tables of the result at ``path``, nulls and NaNs apart; those of a large one are read when asked for.

    Raises `SpecError` where it is none, where one of its tables cannot be read or is another one, and where they tell
    of different runs.
    """
    check_result(path)
    folder = Folder(path)
    tables = merged(folder)
    ids = tables.ids.to_pylist()
    if len(set(ids)) < len(ids) or None in ids:
        raise SpecError(f"{folder.table('runs')}: run_id: expected every run once")
    for name in TABLES[1:] if not tables.large else ():
        check_ids(f"{folder.table(name)}: run_id", tables[name]["run_id"].unique().to_pylist(), ids)
    return tables


class Frames:
    """The tables of a result as pandas frames, columns as the contract names them.

    Those of a result with a table of more than `parts.LARGE` rows are read when they are asked for, and whole: `read`
    takes columns and runs of them, and `dataset` is for what filters and sums without reading all.
    """

    def __init__(self, tables: Merged) -> None:
        self._tables = tables

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run."""
        return self.read("runs")

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a run and step."""
        return self.read("steps")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a run, recorded step and layer."""
        return self.read("layers")

    @cached_property
    def instruments(self) -> pd.DataFrame:
        """One row a run, recorded step, quantity and index."""
        return self.read("instruments")

    def read(
        self, name: str, columns: Sequence[str] | None = None, run_ids: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """These ``columns`` of the table ``name``, and the rows of the runs ``run_ids``; by default all.

        Raises `SpecError` for a table, a column and a run that there is not.
        """
        frame: pd.DataFrame = self._tables.read(name, columns, run_ids).to_pandas()
        return frame

    def dataset(self, name: str) -> Dataset:
        """The table ``name`` as a data set of pyarrow, which pandas, polars and DuckDB read too; nothing is read yet.

        Raises `SpecError` for a table that there is not.
        """
        return self._tables.source(name).dataset()


def load(path: str | Path) -> Frames:
    """The tables of a result as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``; see `loaded`."""
    return Frames(loaded(path))


def loaded(path: str | Path) -> Merged:
    """`load_tables` for who gives them to a user at once.

    Warns where no run has ended yet: the frames have their columns and no rows, so that a notebook that follows a sweep
    goes on.
    """
    tables = load_tables(Path(path))
    if not tables.rows("runs"):
        # The line that is told is the caller's of `gradlab.load`.
        warnings.warn(f"{path}: holds no finished run yet; its frames are empty", stacklevel=3)
    return tables
