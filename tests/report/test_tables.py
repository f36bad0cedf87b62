"""Reading results, joining folders, and the CSV files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gradlab.report import write_report
from gradlab.report.cells import write_cells, write_csv
from gradlab.report.tables import read
from gradlab.spec.named import SpecError
from tests.synthetic import grid, write_result

LR = {"optim.lr": [0.1, 0.2]}


@pytest.mark.parametrize("name", ["runs", "steps", "layers"])
def test_csv_keeps_every_value_with_nan_inf_and_null_apart(tmp_path: Path, name: str) -> None:
    source = write_result(tmp_path / "result", grid(LR), diverge={1: 3}, fail={0: 'bad "quote", comma\nand line'})
    write_csv(read([source]), tmp_path)
    table = pq.read_table(source / f"{name}.parquet")
    with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == table.column_names
    assert len(rows) == table.num_rows
    for key, column, texts in zip(head, table.columns, zip(*rows, strict=True), strict=True):
        for value, text in zip(column.to_pylist(), texts, strict=True):
            # What has no verdict yet is judged as it is read.
            assert key == "verdict" or _same(value, text), (value, text)


def _same(value: object, text: str) -> bool:
    if value is None:
        return text == ""
    if isinstance(value, bool):
        return text == str(value).lower()
    if isinstance(value, float):
        return text == "nan" if math.isnan(value) else text == str(value) if math.isinf(value) else float(text) == value
    return text == str(value)


def test_csv_has_literal_nan_and_inf(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", [{}], diverge={0: 3})
    write_csv(read([source]), tmp_path)
    last = (tmp_path / "steps.csv").read_text(encoding="utf-8").splitlines()[-1]
    assert last.split(",")[2:5] == ["inf", "0.1", "nan"]


@pytest.mark.usefixtures("unpainted")
def test_several_folders_are_read_as_one(tmp_path: Path) -> None:
    first = write_result(tmp_path / "first", grid(LR), name="one")
    second = write_result(tmp_path / "second", grid({"optim.lr": [0.2, 0.4]}), name="other")
    report = write_report([first, second], tmp_path / "report")
    assert report.notes == ("One run stands in more than one folder (same run_id); each is kept once.",)
    assert _column(tmp_path / "report" / "runs.csv", "optim.lr") == ["0.1", "0.2", "0.4"]
    steps = _column(tmp_path / "report" / "steps.csv", "run_id")
    assert len(steps) == 3 * 201
    page = report.page.read_text(encoding="utf-8")
    assert "<h1>one, other</h1>" in page
    assert report.notes[0] in page


def test_of_a_run_found_twice_the_one_that_did_not_fail_is_kept(tmp_path: Path) -> None:
    failed = write_result(tmp_path / "failed", grid(LR), fail={0: "RuntimeError: x"})
    whole = write_result(tmp_path / "whole", grid(LR))
    result = read([failed, whole])
    assert sorted(result.state.tolist()) == ["finished", "finished"]
    assert result.tables["steps"].num_rows == 2 * 201


def test_a_folder_that_holds_no_result_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SpecError) as error:
            write_report([path], tmp_path / "report")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


def test_profiles_hold_delta_by_layer_and_nan_where_there_is_no_row(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "result", grid({"model.depth": [3, 5]}))])
    table = pq.read_table(tmp_path / "result" / "layers.parquet").to_pandas()
    start = result.depth.profile(2, np.zeros(2, dtype=int))
    assert start.shape == (2, 6)
    assert np.isnan(start[0, 4:]).all()
    for run, run_id in enumerate(result.columns["run_id"]):
        rows = table[(table.run_id == run_id) & (table.step == 0)].sort_values("layer")
        assert start[run, : len(rows)].tolist() == rows.signal_grad_norm.tolist()


def test_the_median_update_ratio_is_pandas_median(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "result", [{"train.steps": 100}])])
    rows = pq.read_table(tmp_path / "result" / "layers.parquet").to_pandas().dropna(subset=["update_ratio"])
    expected = rows.groupby("layer").update_ratio.median()
    assert result.depth.median_update(1)[0, 1:].tolist() == pytest.approx(expected.tolist())


def test_very_long_runs_are_thinned_with_both_ends_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradlab.report.tables.DENSE_CELLS", 100)
    result = read([write_result(tmp_path / "result", [{}])])
    assert result.curves.thinned
    assert len(result.curves.step) == 100
    assert result.curves.step[[0, -1]].tolist() == [0, 200]
    assert not np.isnan(result.curves.loss).any()


def _column(file: Path, name: str) -> list[str]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [row[name] for row in csv.DictReader(lines)]


def test_an_interrupted_sweep_says_how_much_is_missing(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", grid(LR))
    first = pq.read_table(source / "runs.parquet")["run_id"][0]
    for name in ("runs", "steps", "layers"):
        table = pq.read_table(source / f"{name}.parquet")
        pq.write_table(table.filter(pc.equal(table["run_id"], first)), source / f"{name}.parquet")
    manifest = (source / "manifest.json").read_text(encoding="utf-8").replace('"done"', '"interrupted"')
    (source / "manifest.json").write_text(manifest, encoding="utf-8")
    assert read([source]).notes == ("Of 2 planned runs 1 are here (the sweep is marked 'interrupted').",)


FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3+cmd",
    "@SUM(A1)",
    "\t=1",
    "a=b",
    "-1.5e-3",
    "-inf",
    "",
    "plain",
    "'kept",
]


def test_a_text_that_would_be_a_formula_is_quoted_and_numbers_are_not(tmp_path: Path) -> None:
    table = pa.table({"text": [*FORMULAS, None], "number": [-1.5] * (len(FORMULAS) + 1)})
    file = write_cells(table, tmp_path / "cells.csv")
    quoted = {text: f"'{text}" for text in FORMULAS[:5]}
    assert _column(file, "text") == [*(quoted.get(text, text) for text in FORMULAS), ""]
    assert set(_column(file, "number")) == {"-1.5"}


@pytest.mark.usefixtures("unpainted")
def test_an_error_that_would_be_a_formula_is_quoted_in_runs_csv(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", grid(LR), fail={1: "=HYPERLINK(A1)"})
    write_report([source], tmp_path / "report")
    assert _column(tmp_path / "report/runs.csv", "error") == ["", "'=HYPERLINK(A1)"]
