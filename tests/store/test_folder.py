"""The folder of a result: claimed once, written whole, read back in the order of the grid, null and NaN apart."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import gradlab
from gradlab.data.facts import described
from gradlab.report import write_report
from gradlab.spec.keys import KEYS
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import SCHEMA, RunSpec, build
from gradlab.store import documents
from gradlab.store.columns import LAYERS, RUNS, STEPS
from gradlab.store.folder import Folder, new_report, new_result
from gradlab.store.pieces import drop_pieces, save_piece, saved_pieces
from gradlab.store.record import Tables, failed_tables
from gradlab.store.tables import load_tables, merge, merged
from tests.synthetic import write_result

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)

CONTRACT = {
    "runs": [
        *("run_id", "state", *KEYS, "steps", "loss_first", "loss_last", "loss_final", "loss_heldout", "accuracy"),
        *("diverged_at", "diverged_layer", "rate", "rate_theory", "rate_limit", "chi1", "depth_scale"),
        *("vanishing_ratio", "verdict", "duration_s", "error"),
    ],
    "steps": [
        *("run_id", "step", "loss", "lr", "grad_norm", "grad_norm_clipped", "clipped"),
        *("loss_scale", "skipped"),
    ],
    "layers": [
        *("run_id", "step", "axis", "layer", "name", "grad_norm", "grad_norm_clipped", "weight_grad_norm"),
        *("signal_grad_norm", "weight_norm", "update_ratio", "act_mean", "act_std"),
        *("act_correlation", "saturated", "dead", "grad_zero"),
        *("signal_grad_rms", "grad_rms", "attention_entropy", "attention_logit_max"),
    ],
    "instruments": ["run_id", "step", "instrument", "quantity", "index", "value"],
}


def specs(count: int) -> list[RunSpec]:
    return [build({"seed": seed}) for seed in range(count)]


def piece(runs: list[RunSpec], loss: float | None = 1.0) -> Tables:
    """The tables of a piece, one row a run in steps and layers."""
    ids = [run.id for run in runs]

    def row(schema: pa.Schema, **values: object) -> pa.Table:
        return pa.table(
            {f.name: pa.array([values.get(f.name)] * len(ids) if f.name != "run_id" else ids, f.type) for f in schema}
        )

    return Tables(
        row(RUNS, state="finished", loss_last=loss),
        row(STEPS, step=0, loss=loss),
        row(LAYERS, step=0, axis="depth", layer=1, name="hidden_1", grad_norm=loss),
    )


def begun(root: Path, runs: list[RunSpec]) -> Folder:
    """A folder whose runs are planned, none of them trained."""
    root.mkdir()
    folder = Folder(root)
    documents.write_inputs(folder, "name: run\n", ("seed=0,1",), runs)
    documents.write_manifest(folder, {"schema": SCHEMA, "state": "running", "runs": len(runs)})
    return folder


def test_a_folder_is_named_after_the_time_and_the_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = []
    for name in ("run", "run", "../<b>evil name/", "...", "a" * 200, "größer, 深い"):
        with new_result(None, name, NOW) as folder:
            made.append(str(folder.root))
    day = "outputs/2026-03-04/05-06-07-"
    labels = ("run", "run-2", "b-evil-name", "run-3", "a" * 60, "größer-深い")
    assert made == [f"{day}{label}" for label in labels]


def test_a_folder_is_taken_once(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with (
        new_result(out, "run", NOW) as folder,
        pytest.raises(SpecError, match="another gradlab is at work"),
        new_result(out, "run", NOW),
    ):
        pass
    with new_result(out, "run", NOW):
        documents.write_manifest(folder, {"schema": SCHEMA})
    with pytest.raises(SpecError, match="already holds a result"), new_result(out, "run", NOW):
        pass


def test_where_outputs_is_a_file_there_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").write_text("", encoding="utf-8")
    with pytest.raises(SpecError, match=r"give .* with -o"), new_result(None, "run", NOW):
        pass


def test_a_refused_report_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for out in (None, Path("mine/new/deep"), Path("mine")):
        with pytest.raises(SpecError, match="refused"), new_report(out, NOW):
            raise SpecError("refused")
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with new_report(None, NOW) as to:
        (to / "index.html").write_text("", encoding="utf-8")
    assert to == Path("outputs/2026-03-04/05-06-07-report")


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", runs := specs(2))
    save_piece(folder, 0, piece(runs))
    merge(folder)
    found = load_tables(folder.root)
    assert list(found) == list(CONTRACT)
    for name, columns in CONTRACT.items():
        assert found[name].column_names == columns
        assert folder.table(name).is_file() == (found[name].num_rows > 0)


def test_pieces_are_merged_in_the_order_of_the_grid(tmp_path: Path) -> None:
    runs = specs(6)
    folder = begun(tmp_path / "out", runs)
    save_piece(folder, 1, piece([runs[4], runs[1], runs[0]]))
    save_piece(folder, 0, piece([runs[5], runs[3]]))
    expected = [runs[place].id for place in (0, 1, 3, 4, 5)]
    unfinished = gradlab.load(folder.root)
    assert unfinished.runs["run_id"].tolist() == expected
    assert unfinished.layers["run_id"].tolist() == expected
    save_piece(folder, 2, piece([runs[2]]))
    merge(folder)
    drop_pieces(folder)
    assert not folder.pieces.exists()
    assert not folder.dropped.exists()
    assert gradlab.load(folder.root).runs["seed"].isna().all()
    assert gradlab.load(str(folder.root)).steps["run_id"].tolist() == [run.id for run in runs]


def test_a_folder_where_nothing_has_ended_has_empty_tables_and_says_so_where_it_is_loaded(tmp_path: Path) -> None:
    root = begun(tmp_path / "out", specs(2)).root
    with pytest.warns(UserWarning, match=r"out: holds no finished run yet; its frames are empty$") as told:
        frames = gradlab.load(root)
    assert [warning.filename for warning in told] == [__file__]
    assert len(frames.runs) == len(frames.steps) == len(frames.layers) == 0
    assert list(frames.layers.columns) == CONTRACT["layers"]


def test_pieces_from_before_a_column_was_added_are_merged_too(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", runs := specs(2))
    save_piece(folder, 0, piece(runs[:1]))
    old = piece(runs[1:])
    save_piece(folder, 1, dataclasses.replace(old, runs=old.runs.drop_columns(["rate_theory", "chi1"])))
    found = merged(folder)["runs"]
    assert found["run_id"].to_pylist() == [run.id for run in runs]
    assert found["chi1"].to_pylist() == [None, None]


def test_a_piece_counts_only_when_its_runs_are_there(tmp_path: Path) -> None:
    """The runs come last: a kill before them leaves a piece that is not there."""
    folder = begun(tmp_path / "out", runs := specs(2))
    save_piece(folder, 0, piece(runs))
    folder.piece(0, "runs").unlink()
    assert saved_pieces(folder) == {}
    assert load_tables(folder.root)["steps"].num_rows == 0


def test_a_write_that_breaks_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path / "out", specs(1))

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="No space left"):
            documents.write_manifest(folder, {"schema": SCHEMA, "state": "done"})
    assert documents.read_manifest(folder.root)["state"] == "running"


def test_specs_come_back_as_they_were(tmp_path: Path) -> None:
    given: list[dict[str, Value]] = [
        {},
        {"model.name": "rnn", "model.depth": 2, "data.name": "adding", "data.length": 7},
        {"model.name": "linear_chain", "model.width": 9, "train.precision": "float64"},
        {"model.weight_var": 1.5, "clip.mode": "layerwise", "clip.output_threshold": 3, "data.batch_size": "full"},
        {"model.activation": "prelu", "optim.name": "rmsprop", "optim.lr": 1e-300},
    ]
    runs = [build(values) for values in given]
    folder = begun(tmp_path / "out", runs)
    assert list(documents.read_runs(folder)) == runs
    assert [run.id for run in documents.read_runs(folder)] == [run.id for run in runs]


@pytest.mark.parametrize("read", [1, 7, 1000])
def test_specs_are_read_wherever_a_part_of_the_file_ends(
    read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / 'odd "],[1,2]}, names.csv'
    data.write_text("x,y\n1,2\n2,3\n3,4\n4,5\n5,6\n", encoding="utf-8")
    runs = [
        described({"seed": seed, "data.name": "file", "data.path": str(data), "data.batch_size": 1, "optim.lr": 1e-300})
        for seed in range(9, 12)
    ]
    folder = begun(tmp_path / "out", runs)
    whole = folder.grid.read_text(encoding="utf-8")
    monkeypatch.setattr(documents, "READ", read)
    assert list(documents.read_runs(folder)) == runs
    for torn in (whole[:-3], whole[: len(whole) // 2], whole.replace("]}", "],7}"), f"{whole}x"):
        folder.grid.write_text(torn, encoding="utf-8")
        with pytest.raises(SpecError, match="not the specs of a result's runs"):
            documents.read_runs(folder)
    folder.grid.write_text(whole.replace("1e-300", '"fast"'), encoding="utf-8")
    with pytest.raises(SpecError, match=r"grid\.json: runs 1: optim\.lr"):
        documents.read_runs(folder)


def test_null_nan_and_infinity_stay_apart(tmp_path: Path) -> None:
    runs = specs(4)
    folder = begun(tmp_path / "out", runs)
    for index, loss in enumerate((None, math.nan, math.inf, 0.5)):
        save_piece(folder, index, piece([runs[index]], loss))
    merge(folder)
    for name, column in (("runs", "loss_last"), ("steps", "loss"), ("layers", "grad_norm")):
        values = pq.read_table(folder.table(name))[column]
        assert values.is_null().to_pylist() == [True, False, False, False]
        assert pc.is_nan(values).to_pylist() == [None, True, False, False]
        assert values[2].as_py() == math.inf


@pytest.mark.usefixtures("unpainted")
def test_csv_keeps_nan_and_inf_and_leaves_null_empty(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "out", [{"seed": 0}, {"seed": 1}], diverge={1: 3})
    write_report([folder], tmp_path / "report")
    lines = (tmp_path / "report/steps.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].replace('"', "") == ",".join(CONTRACT["steps"][:7])
    last_of = {line.split(",")[0].strip('"'): line.split(",") for line in lines[1:]}
    finished, diverged = last_of.values()
    assert finished[5:] == ["", ""], "the last row makes no update"
    assert diverged[2] == "inf"
    assert diverged[4] == "nan"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [("", "not a manifest"), ("{}", "not a manifest"), ("[]", "not a manifest"), ('{"schema": 2}', "schema 2")],
)
def test_a_foreign_folder_is_refused(manifest: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(SpecError, match=words):
        gradlab.load(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nothing", "no such folder"), (tmp_path, "holds no result")):
        with pytest.raises(SpecError, match=words):
            gradlab.load(path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": SCHEMA}), encoding="utf-8")
    with pytest.raises(SpecError, match=r"grid\.json is missing"):
        gradlab.load(tmp_path)


def test_failed_runs_keep_their_specs_and_their_error(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", runs := specs(2))
    save_piece(folder, 0, failed_tables(runs, "it broke"))
    frame = gradlab.load(folder.root).runs
    assert frame["state"].tolist() == ["failed", "failed"]
    assert frame["seed"].tolist() == [0, 1]
    assert frame["error"].tolist() == ["it broke", "it broke"]
    assert frame["loss_last"].isna().all()


def test_overrides_and_errors_are_readable(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out", specs(1))
    assert folder.overrides.read_text(encoding="utf-8") == '- "seed=0,1"\n'
    documents.log_error(folder, "one")
    documents.log_error(folder, "two")
    assert folder.errors.read_text(encoding="utf-8") == "one\ntwo\n"
    assert not [path for path in folder.root.iterdir() if path.name.startswith(".")]
