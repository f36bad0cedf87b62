"""The instruments' table on disk: written whole, merged in order, resumed, drawn, and held to expectations."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import gradlab
from gradlab.expect.evaluate import evaluate
from gradlab.expect.form import parse
from gradlab.report import write_report
from gradlab.report.figures.all_figures import NAMES
from gradlab.spec.named import SpecError
from gradlab.spec.run import build
from gradlab.store import documents
from gradlab.store.columns import INSTRUMENTS, LAYERS, RUNS, STEPS
from gradlab.store.folder import Folder
from gradlab.store.pieces import TABLES
from gradlab.store.tables import load_tables
from tests.commands import Gradlab, assert_same_tables, call, inline
from tests.conftest import dotted

SWEEP = (
    *("sweep", "model.activation=linear", "model.depth=3,5", "seed=1,2", "model.width=4", "train.steps=4"),
    *("probe.every=2", "probe.instrument=gradient_log", "launch.memory=1", "-o", "out"),
)


@pytest.fixture
def gradlab_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gradlab:
    """`gradlab` in this process, in the folder of the test."""
    inline(monkeypatch)
    return lambda *arguments: call(arguments, monkeypatch, capsys, tmp_path)


def test_the_table_is_tidy_and_in_the_order_of_the_grid(gradlab_: Gradlab, tmp_path: Path) -> None:
    assert gradlab_(*SWEEP, "--no-report").status == 0
    frames = gradlab.load(tmp_path / "out")
    assert list(frames.instruments.columns) == ["run_id", "step", "instrument", "quantity", "index", "value"]
    assert list(dict.fromkeys(frames.instruments.run_id)) == list(frames.runs.run_id)
    for run_id, depth in zip(frames.runs.run_id, frames.runs["model.depth"], strict=True):
        own = frames.instruments[frames.instruments.run_id == run_id]
        assert own.step.tolist() == [step for step in (0, 2, 4) for _ in range(depth + 1)]
        assert own["index"].tolist() == list(range(depth + 1)) * 3
    assert set(frames.instruments.instrument) == {"gradient_log"}
    assert load_tables(tmp_path / "out")["instruments"].schema.equals(INSTRUMENTS)


def test_what_is_missing_is_run_again_and_nothing_else_changes(gradlab_: Gradlab, tmp_path: Path) -> None:
    assert gradlab_(*SWEEP, "--no-report").status == 0
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "out", whole)
    folder = Folder(tmp_path / "out")
    manifest = documents.read_manifest(folder.root)
    # Back to the moment before the last two of the four pieces were done.
    folder.pieces.mkdir()
    tables = load_tables(whole)
    for piece in manifest["pieces"][:2]:
        for name in TABLES:
            rows = pa.compute.is_in(tables[name]["run_id"], value_set=pa.array(piece["members"]))
            pa.parquet.write_table(tables[name].filter(rows), folder.piece(piece["index"], name))
    documents.write_manifest(folder, {**manifest, "state": "interrupted"})
    assert len(gradlab.load(folder.root).runs) == 2
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert "2 of 4 runs are missing" in ended.out
    assert_same_tables(folder.root, whole)
    assert load_tables(folder.root)["instruments"].num_rows > 0


def test_without_instruments_there_is_no_file_and_an_empty_table(gradlab_: Gradlab, tmp_path: Path) -> None:
    line = [word for word in SWEEP if not word.startswith("probe.instrument")]
    assert gradlab_(*line, "--no-report").status == 0
    assert not (tmp_path / "out" / "instruments.parquet").exists()
    assert gradlab.load(tmp_path / "out").instruments.empty


@pytest.mark.usefixtures("unpainted")
def test_the_report_has_its_rows_as_csv(gradlab_: Gradlab, tmp_path: Path) -> None:
    assert gradlab_(*SWEEP, "--no-report").status == 0
    write_report([tmp_path / "out"], tmp_path / "page")
    rows = pyarrow.csv.read_csv(tmp_path / "page" / "instruments.csv")
    assert rows.num_rows == load_tables(tmp_path / "out")["instruments"].num_rows


CASES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "spectrum": (("seed=0,1", "probe.instrument=jacobian_spectrum"), {"singular_value"}),
    "gradient": (("seed=0,1", "model.gain=0.5,1", "probe.instrument=gradient_log"), {"log_square"}),
    "grid": (
        ("data=interval", "seed=0,1", "model.depth=2,5", "probe.instrument=input_autocorrelation"),
        {"autocorrelation", "input_gradient"},
    ),
    "rnn": (
        ("model=rnn", "model.init=orthogonal", "seed=0,1", "probe.instrument=recurrent_jacobian"),
        {"jacobian_norm"},
    ),
    "correlation": (("seed=0,1", "probe.instrument=input_correlation"), {"correlation"}),
    "tokens": (
        ("model=transformer", "data=digits", "model.skip=true,false", "probe.instrument=token_similarity"),
        {"token_distance", "token_cosine"},
    ),
    "tangent": (("seed=0,1", "probe.instrument=tangent_kernel"), {"layer_ratio"}),
    "twins": (
        ("seed=0,1", "train.steps=20", "train.precision=float64", "probe.instrument=twin_distance"),
        {"log_distance"},
    ),
    "plane": (
        ("model=rnn", "model.width=1", "data=silence", "data.length=5,7", "probe.instrument=loss_plane"),
        {"plane_gradient"},
    ),
    "modes": (
        (
            *("model=linear_chain", "data=spectral_teacher", "model.depth=2", "model.width=4"),
            *("model.gain=0.1,0.2", "train.steps=40", "probe.instrument=mode_strength"),
        ),
        {"strength"},
    ),
    "range": (("probe.instrument=number_range", "seed=0,1"), {"delta_below_float16", "number_range"}),
    "motion": (("probe.instrument=weight_motion", "seed=0,1", "train.steps=4"), {"unmoved"}),
    "some with, some without": (("probe.instrument=none,gradient_log",), {"log_square"}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_instrument_is_drawn(case: str, gradlab_: Gradlab, tmp_path: Path) -> None:
    settings, quantities = CASES[case]
    steps = () if any(word.startswith("train.steps") for word in settings) else ("train.steps=0",)
    depth = () if case in ("rnn", "plane", "modes", "grid") else ("model.depth=3",)
    assert gradlab_("sweep", *settings, *steps, *depth, "-o", "out", "--no-report").status == 0
    with nullcontext() if case in ("grid", "twins") else dotted(laid_out=True):
        report = write_report([tmp_path / "out"], tmp_path / "page")
    drawn = {file.stem for file in report.files if file.suffix == ".png"}
    assert {name for name in drawn if name.startswith("instrument_")} == {f"instrument_{name}" for name in quantities}
    assert drawn <= set(NAMES)


RUN = build({"probe.instrument": "jacobian_spectrum"})
ROWS = [(0, "singular_value", k, 4.0 / k) for k in (1, 2, 4)] + [(0, "spread", None, 7.0), (10, "spread", None, 9.0)]
MADE = {
    "runs": pa.Table.from_pylist([{"run_id": RUN.id, **RUN.flat()}], schema=RUNS),
    "steps": STEPS.empty_table(),
    "layers": LAYERS.empty_table(),
    "instruments": pa.Table.from_pylist(
        [
            {"run_id": RUN.id, "step": step, "instrument": "x", "quantity": quantity, "index": index, "value": value}
            for step, quantity, index, value in ROWS
        ],
        schema=INSTRUMENTS,
    ),
}


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"quantity": "singular_value", "index": 2}, 2.0),
        ({"quantity": "singular_value", "index": "last"}, 1.0),
        ({"quantity": "singular_value", "index": [1, 2], "over": "mean"}, 3.0),
        ({"quantity": "singular_value", "fit": "power", "along": "index"}, -1.0),
        ({"quantity": "spread", "step": "last"}, 9.0),
        ({"quantity": "spread", "fit": "slope", "along": "step"}, 0.2),
    ],
)
def test_expectations_read_it(given: dict[str, object], number: float) -> None:
    value = {"table": "instruments", "column": "value", **given}
    (told,) = evaluate(parse([{"what": "x", "value": value, "above": -1e9}]), MADE)
    assert told.value is not None
    np.testing.assert_allclose(told.value, number, rtol=1e-12)
    assert str(given["quantity"]) in told.computed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": "instruments", "column": "value"}, "unknown quantity 'null'; available: "),
        ({"table": "instruments", "column": "value", "quantity": "spred"}, "did you mean 'spread'?"),
        ({"table": "layers", "column": "act_std", "index": 1}, "has no index; expected table: instruments"),
        ({"table": "runs", "column": "rate", "quantity": "spread"}, "has no quantity; expected table: instruments"),
    ],
)
def test_expectations_of_it_that_are_not_understood(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse([{"what": "x", "value": given, "above": 0}])
    assert message in str(caught.value)
