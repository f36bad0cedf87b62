"""The page's part on clipping, and what `gradlab verdict` says of it: a run's spikes, and a row for each of several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab.report.clipping import clipping
from gradlab.report.tables import read
from tests.commands import Gradlab
from tests.synthetic import grid, write_result


def spiked(folder: Path, runs: int) -> Path:
    """A result of ``runs`` runs, of which the first has a gradient of 40 times the usual at step 70."""
    write_result(folder, grid({"model.depth": [3], "optim.lr": [0.1, 0.2, 0.3][:runs]}))
    steps = pq.read_table(folder / "steps.parquet")
    norms = steps["grad_norm"].to_numpy().copy()
    norms[70] *= 40
    place = steps.column_names.index("grad_norm")
    pq.write_table(steps.set_column(place, "grad_norm", pa.array(norms)), folder / "steps.parquet")
    return folder


def test_a_single_run_has_its_spikes(tmp_path: Path) -> None:
    told = clipping(read([spiked(tmp_path / "out", 1)]))
    assert told is not None
    assert told.sentences[0].startswith("Clipping: clip.mode=skip clip.threshold=")
    assert told.table is not None
    (spike,) = told.table.rows
    assert spike[0] == "70"
    assert np.isclose(float(spike[3]), 40, rtol=0.3)


def test_of_several_runs_each_has_a_row(tmp_path: Path) -> None:
    told = clipping(read([spiked(tmp_path / "out", 3)]))
    assert told is not None
    assert told.sentences[0].startswith("Clipping, of 3 runs: none 2, skip 1; 1 with spikes; over all 600 steps")
    assert told.table is not None
    assert [row[1] for row in told.table.rows] == ["lr=0.1", "lr=0.2", "lr=0.3"]
    assert [row[3] for row in told.table.rows] == ["1", "0", "0"]


def test_runs_of_few_steps_have_no_such_part(tmp_path: Path) -> None:
    assert clipping(read([write_result(tmp_path / "out", [{"train.steps": 5}])])) is None


def test_the_verb_tells_it_in_words_and_as_json(tmp_path: Path, gradlab_: Gradlab) -> None:
    folder = spiked(tmp_path / "out", 2)
    said = " ".join(gradlab_("verdict", str(folder)).out.split())
    assert ": clipping: clip.mode=skip clip.threshold=" in said
    assert "clipping, of 2 runs: " in said
    runs = json.loads(gradlab_("verdict", str(folder), "--json").out)["runs"]
    assert [one["clipping"]["mode"] for one in runs] == ["skip", "none"]
    assert [spike["step"] for spike in runs[0]["clipping"]["spikes"]] == [70]
    assert list(runs[1]["clipping"]["thresholds"]) == ["0.01", "0.05", "0.1"]
