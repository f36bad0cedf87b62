"""The figures of instruments: each of the runs that have it alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gradlab.report.figures.instruments import instrument_plots
from gradlab.report.figures.style import styled
from gradlab.report.tables import read
from gradlab.store.columns import INSTRUMENTS
from tests.synthetic import grid, write_result


def test_a_figure_is_of_the_runs_of_its_instrument_alone(tmp_path: Path) -> None:
    values = grid({"probe.instrument": ["tangent_kernel", "input_correlation"], "model.depth": [4, 6]})
    folder = write_result(tmp_path / "out", values)
    given = [
        {"run_id": run_id, "step": 0, "quantity": quantity, "index": layer, "value": 1 / layer}
        for run_id, own in zip(read([folder]).ids, values, strict=True)
        for quantity in (
            ("layer_ratio", "layer_predicted") if own["probe.instrument"] == "tangent_kernel" else ("correlation",)
        )
        for layer in range(1, 5)
    ]
    pq.write_table(pa.Table.from_pylist(given, schema=INSTRUMENTS), folder / "instruments.parquet")
    with styled():
        legends = {
            plot.name: [text.get_text() for text in plot.figure.legends[0].get_texts()]
            for plot in instrument_plots(read([folder]))
        }
    assert legends == {
        "instrument_correlation": ["depth = 4", "depth = 6"],
        "instrument_layer_ratio": ["depth = 4", "depth = 6", "theory"],
    }
