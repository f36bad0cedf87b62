"""CSV files, as beside the report's page, for whatever reads tables; the verdicts' sentences among the runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from gradlab.export.contents import Contents, Place
from gradlab.report.tables import write_csv


def write(contents: Contents, place: str) -> list[Place]:
    """A file for each table that has rows."""
    result = contents.result
    sentences = pa.array(["; ".join(run.sentences) for run in contents.runs()], pa.string())
    told = {**result.tables, "runs": result.runs.append_column("sentences", sentences)}
    return [(file.stem, str(file)) for file in write_csv(replace(result, tables=told), Path(place))]
