"""A table of a merged result as it lies on the disk: one Parquet file, or a folder of them where it is large.

The files of such a folder follow each other in the order of the grid, and each is named by the places of its runs in
it, the first and the last, counted from 0: a file that is missing is noticed, and of a few runs few files are opened.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.spec.named import SpecError
from gradlab.store.pieces import OPTIONAL, open_table, read_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Dataset

LARGE = 4_000_000
"""Rows of a table beyond which it is a folder of files."""

PART = 2**21
"""Rows of a file in it, but for whole runs: some 200 MB of the per-layer table."""


@dataclass(frozen=True)
class Part:
    """A file, and the places in the grid of the first and the last run that it is of."""

    file: Path
    first: int
    last: int


@dataclass(frozen=True)
class Parts:
    """The table ``name`` at ``path``; rows are read a row group at a time."""

    path: Path
    name: str

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its files, in order; none of an `OPTIONAL` table without rows.

        Raises `FileNotFoundError` where it is not there, and `SpecError` where a file of its folder is missing.
        """
        if not self.path.is_dir():
            there = self.path.is_file() or self.name not in OPTIONAL
            return (Part(self.path, 0, 2**62),) if there else ()
        found = []
        for file in sorted(self.path.glob("*.parquet")):
            if (named := re.fullmatch(r"(\d{9})-(\d{9})", file.stem)) is None:
                raise SpecError(f"{file}: no part of a table: expected a name as 000000000-000016383.parquet")
            found.append(Part(file, int(named[1]), int(named[2])))
        for before, part in zip([-1, *(part.last for part in found)], found, strict=False):
            if part.first != before + 1:
                raise self._lacks(before + 1)
        if not found:
            raise SpecError(f"{self.path}: expected the files of a table, and there are none")
        return tuple(found)

    def check(self, runs: int) -> None:
        """Raises `SpecError` where files are missing of a result of so many runs."""
        if self.parts and (after := self.parts[-1].last + 1) < runs:
            raise self._lacks(after)

    def _lacks(self, run: int) -> SpecError:
        return SpecError(f"{self.path}: the file that begins with run {run} is missing")

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns; what was added since it was written is among them."""
        from gradlab.store.columns import schema_of

        return schema_of(self.name, [read_schema(part.file, self.name) for part in self.parts[:1]])

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        total = 0
        for part in self.parts:
            with open_table(part.file, self.name) as file:
                total += file.metadata.num_rows
        return total

    def batches(
        self, columns: Sequence[str], run_ids: pa.Array | None = None, places: Sequence[int] | None = None
    ) -> Iterator[pa.Table]:
        """Its rows in order, a row group at a time: ``columns``, and of the runs ``run_ids`` alone.

        ``places``: those of these runs in the grid, where they are known; other files are not opened.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        from gradlab.store.merging import promoted

        wanted = pa.schema([self.schema.field(column) for column in columns])
        for part in self.parts:
            if places is not None and not any(part.first <= place <= part.last for place in places):
                continue
            with open_table(part.file, self.name) as file:
                there = [column for column in columns if column in file.schema_arrow.names]
                for group in range(file.num_row_groups):
                    if run_ids is None:
                        rows = file.read_row_group(group, there, use_threads=False)
                    else:
                        ids = file.read_row_group(group, ["run_id"], use_threads=False)["run_id"]
                        chosen = pc.is_in(ids, value_set=run_ids)
                        if not pc.any(chosen).as_py():
                            continue
                        rows = file.read_row_group(group, there, use_threads=False).filter(chosen)
                    yield promoted(rows.select(there), wanted)

    def dataset(self) -> Dataset:
        """The same for pyarrow, and what reads its data sets."""
        import pyarrow.dataset as ds

        return ds.dataset([str(part.file) for part in self.parts], schema=self.schema, format="parquet")


def write_parts(path: Path, schema: pa.Schema, batches: Iterable[pa.Table], places: Mapping[str, int]) -> None:
    """Writes a folder of files; ``batches`` are rows of whole runs, in order, ``places`` those of the runs in the grid.

    What lies at ``path`` gives way at the end, when all is on the disk.
    """
    fresh, old = (path.with_name(f".{path.name}.{which}{os.getpid()}") for which in ("", "0"))
    # Of a killed process that had the same number, as in a container the first one always has.
    for left in (fresh, old):
        clear(left)
    fresh.mkdir()
    try:
        _write(fresh, schema, batches, places)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    finally:
        for left in (fresh, old):
            clear(left)


def _write(folder: Path, schema: pa.Schema, batches: Iterable[pa.Table], places: Mapping[str, int]) -> None:
    import pyarrow.parquet as pq

    being_written, first, following = folder / "part", 0, iter(batches)
    batch = next(following, None)
    while batch is not None:
        rows = 0
        with pq.ParquetWriter(being_written, schema) as writer:
            while batch is not None and rows < PART:
                writer.write_table(batch)
                rows, last = rows + batch.num_rows, places[batch["run_id"][-1].as_py()]
                batch = next(following, None)
        with being_written.open("rb") as file:
            os.fsync(file.fileno())
        # Runs without rows behind the last that has some are told of here, too.
        last = last if batch is not None else len(places) - 1
        being_written.rename(folder / f"{first:09d}-{last:09d}.parquet")
        first = last + 1


def clear(path: Path) -> None:
    """Removes a table, file or folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
