"""CSV files, as beside the report's page, for whatever reads tables; the verdicts' sentences among the runs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from gradlab.export.contents import Contents, Place
from gradlab.report.cells import Cells, unknown


def write(contents: Contents, place: str) -> list[Place]:
    """A file for each table that has rows, each with all of its rows."""
    shown = [name for name in contents.tables if contents.tables.rows(name)]
    empty = {name: unknown(contents.tables, name) for name in shown}
    with ExitStack() as stack:
        files = {name: stack.enter_context(Cells(Path(place) / f"{name}.csv")) for name in shown}
        for part in contents.parts():
            sentences = pa.array(["; ".join(run.sentences) for run in contents.runs_of(part)], pa.string())
            told = {**part.tables, "runs": part.runs.append_column("sentences", sentences)}
            for name, file in files.items():
                file.write(told[name].drop_columns(empty[name]))
    return [(name, str(Path(place) / f"{name}.csv")) for name in shown]
