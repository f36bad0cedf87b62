"""Tables in files: every column but the label is an input, and must hold numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradlab.data.dataset import DataError
from gradlab.data.samples import Read
from gradlab.spec.named import nearest

if TYPE_CHECKING:
    import pyarrow as pa

FRACTIONS = ("float", "double", "half")
NUMERIC = ("int", "uint", "bool", *FRACTIONS)
"""What the names of Arrow's types begin with."""


def csv(path: Path, label: str | None) -> Read:
    """A table of text. Raises `DataError` with the line of the first fault."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    try:
        # Only what is empty is nothing: a word such as n/a is told as it stands.
        nothing = pa_csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        table = pa_csv.read_csv(path, pa_csv.ReadOptions(use_threads=False), convert_options=nothing)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table: {str(error).partition(chr(10))[0]}") from error
    names = table.column_names
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise DataError(f"{path}: its columns stand apart by {other!r}; expected commas")
    if all(map(_is_number, names)) and names not in ([*map(str, range(n, n + len(names)))] for n in (0, 1)):
        raise DataError(f"{path}: line 1 holds numbers ({', '.join(names)[:40]}); expected the names of the columns")
    return _table(path, table, label, lambda sample: f"line {_lines(path)[sample + 1]}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(path: Path) -> list[int]:
    """The numbers of the lines that are not empty; the header's comes first."""
    with path.open(encoding="utf-8-sig") as lines:
        return [place for place, line in enumerate(lines, start=1) if line.strip("\r\n")]


def parquet(path: Path, label: str | None) -> Read:
    """A table of Parquet. Raises `DataError` with the row of the first fault."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as source:
            table = source.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as a table: {str(error).partition(chr(10))[0]}") from error
    return _table(path, table, label, lambda sample: f"row {sample + 1}")


def _table(path: Path, table: pa.Table, label: str | None, line: Callable[[int], str]) -> Read:
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice!r}")
    if len(names) < 2 or table.num_rows < 2:
        raise DataError(f"{path}: {table.num_rows} rows of {len(names)} columns; expected 2 of each at least")
    chosen = names[-1] if label is None else label
    if chosen not in names:
        raise DataError(
            f"data.label={chosen}: no such column in {path}{nearest(chosen, names)}; it has: {', '.join(names)}"
        )
    columns = [_column(path, table, name, line) for name in names if name != chosen]
    labels, kind = table[chosen], str(table[chosen].type)
    if labels.null_count:
        place = labels.to_pylist().index(None)
        raise DataError(f"{path}: {line(place)}, column {chosen!r}: empty; expected a label")
    numeric = kind.startswith(NUMERIC)
    values = np.asarray(labels.to_pylist()) if numeric else np.asarray([str(one) for one in labels.to_pylist()])
    classes = None if kind.startswith(FRACTIONS) else [str(one) for one in np.unique(values)]
    return Read(np.stack(columns, axis=1), values, line, classes=classes, label=repr(chosen))


def _column(path: Path, table: pa.Table, name: str, line: Callable[[int], str]) -> NDArray[np.float64]:
    """A column of inputs; of one that is no number the first place where it is none is told."""
    column = table[name]
    values = column.to_pylist()
    kind = str(column.type)
    for place, value in enumerate(values) if column.null_count or not kind.startswith(NUMERIC) else ():
        if value is None:
            raise DataError(f"{path}: {line(place)}, column {name!r}: empty; expected a number")
        if not isinstance(value, (int, float)):
            try:
                float(value)
            except (TypeError, ValueError):
                raise DataError(
                    f"{path}: {line(place)}, column {name!r}: {str(value)[:40]!r}; expected a number"
                ) from None
    found = np.array(values, dtype=np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(found))):
        place = int(bad[0])
        raise DataError(f"{path}: {line(place)}, column {name!r}: {found[place]:g}; expected a finite number")
    return found
