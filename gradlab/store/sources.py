"""Where the rows of a result's tables come from, and how they are read: whole, some columns and runs, or in stretches.

In memory, from merged files (`parts.Parts`), or from the pieces of a sweep that is still at work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from gradlab.spec.named import SpecError, nearest
from gradlab.store import parts
from gradlab.store.folder import Folder
from gradlab.store.forms import check_ids
from gradlab.store.pieces import OPTIONAL, TABLES, open_table, read_table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Dataset

FEW = 1000
"""Runs whose places are looked up before files are opened; more lie in most of them."""


class Source(Protocol):
    """A table whose rows are read a batch at a time, in the order of the grid."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def rows(self) -> int:
        """How many rows there are."""

    def batches(
        self, columns: Sequence[str], run_ids: pa.Array | None = None, places: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """These ``columns`` of all rows, or of the runs ``run_ids`` at these ``places`` of the grid."""

    def dataset(self) -> Dataset:
        """The same for pyarrow."""


@dataclass(frozen=True)
class Held:
    """A table in memory."""

    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self.table.schema

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.table.num_rows)

    def batches(
        self, columns: Sequence[str], run_ids: pa.Array | None = None, places: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """All at once."""
        del places
        yield _of(self.table, run_ids).select(list(columns))

    def dataset(self) -> Dataset:
        """The same for pyarrow."""
        import pyarrow.dataset as ds

        return ds.dataset(self.table)


@dataclass(frozen=True)
class OfPieces:
    """The table ``name`` of some ``pieces`` of a result whose runs are ``ids``."""

    folder: Folder
    name: str
    pieces: tuple[int, ...]
    ids: Sequence[str]

    @cached_property
    def _seen(self) -> tuple[pa.Schema, int]:
        """Its columns and how many rows it has: what one piece alone has as a column, the others have as null."""
        from gradlab.store.columns import schema_of

        rows = 0
        schemas: dict[pa.Schema, None] = {}
        for piece in self.pieces:
            path = self.folder.piece(piece, self.name)
            if self.name in OPTIONAL and not path.is_file():
                continue
            with open_table(path, self.name) as file:
                schemas[file.schema_arrow] = None
                rows += file.metadata.num_rows
        return schema_of(self.name, schemas), rows

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""
        return self._seen[0]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._seen[1]

    def batches(
        self, columns: Sequence[str], run_ids: pa.Array | None = None, places: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """Its rows in the order of the grid: `merging.in_order`."""
        import pyarrow as pa

        from gradlab.store.merging import in_order

        del places
        known = frozenset(self.ids)
        kept = list(dict.fromkeys(["run_id", *columns]))

        def read(piece: int, asked: Sequence[str] | None) -> pa.Table:
            path = self.folder.piece(piece, self.name)
            table = read_table(path, self.name, asked or kept)
            check_ids(str(path), table["run_id"].unique().to_pylist(), known)
            return table

        wanted = pa.schema([self.schema.field(column) for column in kept])
        for batch in in_order(read, self.pieces, self.ids, wanted):
            yield _of(batch, run_ids).select(list(columns))

    def dataset(self) -> Dataset:
        """The same for pyarrow, piece by piece."""
        import pyarrow.dataset as ds

        files = [self.folder.piece(piece, self.name) for piece in self.pieces]
        there = [str(file) for file in files if self.name not in OPTIONAL or file.is_file()]
        return ds.dataset(there, schema=self.schema, format="parquet")


def _of(table: pa.Table, run_ids: pa.Array | None) -> pa.Table:
    import pyarrow.compute as pc

    return table if run_ids is None else table.filter(pc.is_in(table["run_id"], value_set=run_ids))


class Merged(Mapping[str, "pa.Table"]):
    """The tidy tables of a result, by name: each read whole when it is first asked for, or in parts."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)
        self._whole: dict[str, pa.Table] = {}

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table]) -> Merged:
        """Tables that are in memory."""
        return cls({name: Held(table) for name, table in tables.items()})

    def __getitem__(self, name: str) -> pa.Table:
        """Raises `KeyError` for a name that is no table's."""
        if name not in self._whole:
            self._hold(name, self.batches(name))
        return self._whole[name]

    def _hold(self, name: str, batches: Iterator[pa.Table]) -> None:
        import pyarrow as pa

        table = pa.concat_tables([self._sources[name].schema.empty_table(), *batches])
        self._whole[name], self._sources[name] = table, Held(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def source(self, name: str) -> Source:
        """Where the rows of a table come from. Raises `SpecError` for a name that is no table's."""
        if name not in self._sources:
            raise SpecError(
                f"no table {name!r} of a result{nearest(name, TABLES) or ';'} there are {', '.join(TABLES)}"
            )
        return self._sources[name]

    def rows(self, name: str) -> int:
        """How many rows a table has."""
        return self.source(name).rows

    @property
    def large(self) -> bool:
        """Whether a table has more than `parts.LARGE` rows."""
        return any(source.rows > parts.LARGE for source in self._sources.values())

    def settle(self) -> None:
        """Reads all of them into memory, unless they are large. Raises `FileNotFoundError` where one is not there."""
        if not self.large:
            for name, source in list(self._sources.items()):
                self._hold(name, source.batches(source.schema.names))

    @cached_property
    def ids(self) -> pa.Array:
        """The ids of the runs, in order."""
        import pyarrow as pa

        chunks = [chunk for part in self.batches("runs", ["run_id"]) for chunk in part["run_id"].chunks]
        return pa.concat_arrays([pa.nulls(0, pa.string()), *chunks])

    def batches(
        self, name: str, columns: Sequence[str] | None = None, run_ids: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of a table in order, some at a time: these ``columns``, of the runs ``run_ids``; by default all.

        Raises `SpecError` for a table, a column and a run that there is not, and where the tables change meanwhile.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        source = self.source(name)
        try:
            names = source.schema.names
            asked = [columns] if isinstance(columns, str) else list(columns or names)
            for column in asked:
                if column not in names:
                    near = nearest(column, names) or ";"
                    raise SpecError(f"no column {column!r} in {name}{near} there are {', '.join(names)}")
            if run_ids is None:
                yield from source.batches(asked)
                return
            wanted = pa.array([run_ids] if isinstance(run_ids, str) else list(run_ids), pa.string())
            places = pc.index_in(wanted, value_set=self.ids)
            if places.null_count:
                strange = wanted.filter(pc.is_null(places))[0].as_py()
                raise SpecError(f"no run {strange!r} in this result{nearest(str(strange), self.ids.to_pylist())}")
            yield from source.batches(asked, wanted, places.to_pylist() if len(wanted) <= FEW else None)
        except FileNotFoundError as error:
            raise SpecError(f"a table changed while it was read: {error}; try again") from error

    def read(self, name: str, columns: Sequence[str] | None = None, run_ids: Sequence[str] | None = None) -> pa.Table:
        """`batches` as one table."""
        import pyarrow as pa

        found = list(self.batches(name, columns, run_ids))
        if found:
            return pa.concat_tables(found)
        schema = self.source(name).schema
        names = [columns] if isinstance(columns, str) else columns or schema.names
        return pa.schema([schema.field(column) for column in names]).empty_table()

    def narrow(self, columns: Mapping[str, Collection[str]]) -> Merged:
        """These tables alone, in memory, with those of these ``columns`` that they have."""
        schemas = {name: self.source(name).schema.names for name in columns}
        kept = {name: [column for column in schemas[name] if column in columns[name]] for name in columns}
        return Merged.of({name: self.read(name, own) for name, own in kept.items()})

    def of_runs(self, run_ids: Sequence[str]) -> Merged:
        """All tables of these runs alone, in memory, in the order of the grid."""
        return Merged.of({name: self.read(name, None, run_ids) for name in self})

    def stretches(self, rows: int) -> Iterator[Merged]:
        """All tables of some runs after the other, in memory, in order: of as many as have so many ``rows`` of a table.

        Raises `SpecError` where rows of a table do not stand in the order of its runs.
        """
        following = {name: _Following(self.source(name).schema.empty_table(), self.batches(name)) for name in self}
        runs = max(1, rows * len(self.ids) // max(1, *(self.rows(name) for name in self)))
        for start in range(0, len(self.ids), runs):
            ids = self.ids.slice(start, runs)
            yield Merged.of({name: table.of(ids) for name, table in following.items()})
        for name, rest in following.items():
            if rest.left():
                raise SpecError(f"{name}: expected rows in the order of the runs, and of these runs alone")


class _Following:
    """The rows of a table, run after run."""

    def __init__(self, none: pa.Table, batches: Iterator[pa.Table]) -> None:
        self._batches = batches
        self._rest = none

    def of(self, ids: pa.Array) -> pa.Table:
        """The rows of the runs ``ids``, which come next."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = [self._rest.slice(0, 0)]
        while True:
            other = pc.index(pc.is_in(self._rest["run_id"], value_set=ids), value=False).as_py()
            if other >= 0:
                found.append(self._rest.slice(0, other))
                self._rest = self._rest.slice(other)
                break
            found.append(self._rest)
            following = next(self._batches, None)
            if following is None:
                self._rest = self._rest.slice(self._rest.num_rows)
                break
            self._rest = following
        return pa.concat_tables(found)

    def left(self) -> bool:
        """Whether there are rows that nobody took."""
        return bool(self._rest.num_rows) or any(batch.num_rows for batch in self._batches)
