"""The CSV files of a report and of an export: whole tables, or some rows at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from gradlab.report.tables import Result
from gradlab.store.columns import MEASURED_COLUMNS
from gradlab.store.pieces import OPTIONAL
from gradlab.store.sources import Merged

NUMBER = re.compile(r"[+-]?(\d[\d.]*(e[+-]?\d+)?|inf|∞)").fullmatch
"""Such as the value of a key may be."""

SOMETIMES = (
    *(*MEASURED_COLUMNS, "signal_grad_rms", "grad_rms", "attention_entropy", "attention_logit_max"),
    *("loss_scale", "skipped"),
)
"""Columns that not every run of gradlab's own, or none of an older gradlab, fills."""


def write_csv(result: Result, out: Path) -> tuple[Path, ...]:
    """Writes runs.csv, steps.csv, layers.csv and, where there are any, the instruments' rows into ``out``.

    Literal ``nan`` and ``inf``, null empty. Of the columns that only a watched training has none without a value. Of a
    large result runs.csv has all runs, and the others have the rows of those that were drawn.
    """
    files = []
    for name, table in result.tables.items():
        if name in OPTIONAL and not table.num_rows:
            continue
        if name == "runs" and result.every.behind is not None:
            with Cells(out / "runs.csv") as file:
                for batch in result.every.behind.runs():
                    file.write(batch)
            files.append(file.path)
        else:
            files.append(write_cells(table.drop_columns(unknown(Merged.of(result.tables), name)), out / f"{name}.csv"))
    return tuple(files)


def unknown(tables: Merged, name: str) -> list[str]:
    """The columns that only some trainings fill, and none of these did."""
    there = [column for column in SOMETIMES if column in tables.source(name).schema.names]
    return [
        column
        for column in there
        if all(batch[column].null_count == batch.num_rows for batch in tables.batches(name, [column]))
    ]


FORMULAS = tuple("=+-@\t\r")
"""What a spreadsheet takes for the beginning of a formula."""


def write_cells(table: pa.Table, file: Path) -> Path:
    """Writes ``table`` as CSV, no text in it a formula: one that begins as such, and is no number, gets a quote first.

    An error message may hold anything, and whoever opens the file in a spreadsheet did not ask to run it.
    """
    pyarrow.csv.write_csv(_as_cells(table), file)
    return file


class Cells:
    """A file of CSV like that of `write_cells`, for a table that comes some rows at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: pyarrow.csv.CSVWriter | None = None

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Adds ``rows``, which all have the same columns."""
        if self._writer is None:
            self._writer = pyarrow.csv.CSVWriter(self.path, rows.schema)
        self._writer.write_table(_as_cells(rows))


def _as_cells(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(place, field, _harmless(table[field.name]))
    return table


def _harmless(column: pa.ChunkedArray) -> pa.ChunkedArray:
    words = [word for word in column.unique().to_pylist() if word and word.startswith(FORMULAS) and not NUMBER(word)]
    for word in words:
        column = pc.if_else(pc.fill_null(pc.equal(column, word), fill_value=False), f"'{word}", column)
    return column
