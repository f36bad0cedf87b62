"""From a grid to a finished folder: what is written, in which order, and what a crash or an interrupt leave."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import gradlab
from gradlab import report
from gradlab.engine.keeper import Keeper
from gradlab.engine.train import training as real_training
from gradlab.grid.compose import compose_grid
from gradlab.launch import conduct, worker
from gradlab.spec.run import SCHEMA, RunSpec
from gradlab.store import documents
from gradlab.store.columns import SCHEMAS
from gradlab.store.folder import Folder, locked
from gradlab.store.tables import load_tables
from tests.commands import TINY, Gradlab, assert_same_tables, before_training, call, inline, undrawn

Capture = pytest.CaptureFixture[str]

GRID = ("model.activation=tanh,relu", "seed=0,1,2", "optim.lr=0.1,1e38")
"""Twelve runs in two cohorts; those of the large learning rate diverge."""


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """An interrupted command ignores further interrupts, which a process that goes on must not."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def manifest_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return read


def crash_where(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Sequence[RunSpec]], BaseException | None]) -> None:
    """Lets the training of those runs raise for which ``fails`` gives an exception."""

    def train(runs: list[RunSpec], _: Keeper) -> None:
        if (error := fails(runs)) is not None:
            raise error

    before_training(monkeypatch, train)


def test_a_sweep_leaves_what_the_contract_names(gradlab_: Gradlab, tmp_path: Path) -> None:
    ended = gradlab_("sweep", *TINY, *GRID, "name=my sweep")
    assert (ended.status, ended.err) == (0, "")
    (folder,) = (tmp_path / "outputs").glob("20*/*")
    assert folder.name.endswith("-my-sweep")
    dt.datetime.strptime(f"{folder.parent.name} {folder.name[:8]}", "%Y-%m-%d %H-%M-%S")
    names = {path.name for path in folder.iterdir()}
    tables = {"runs.parquet", "steps.parquet", "layers.parquet"}
    assert names == {"manifest.json", "config.yaml", "overrides.yaml", "grid.json", "report", *tables}
    manifest = manifest_of(folder)
    assert manifest["schema"] == SCHEMA
    assert manifest["command"][:2] == ["gradlab", "sweep"]
    assert manifest["state"] == "done"
    assert manifest["runs"] == 12
    assert manifest["swept"] == ["model.activation", "seed", "optim.lr"]
    assert manifest["versions"]["gradlab"] == gradlab.__version__
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["device"]["name"] == "cpu"
    assert {"name", "system", "cores"} <= set(manifest["host"])
    assert "git" in manifest
    assert dt.datetime.fromisoformat(manifest["started"]) <= dt.datetime.fromisoformat(manifest["finished"])
    assert manifest["elapsed_s"] > 0
    runs = load_tables(folder)["runs"]
    members = [run_id for piece in manifest["pieces"] for run_id in piece["members"]]
    assert sorted(members) == sorted(runs["run_id"].to_pylist())
    assert all(sum(piece["chunks"]) == len(piece["members"]) for piece in manifest["pieces"])
    overrides = yaml.safe_load((folder / "overrides.yaml").read_text(encoding="utf-8"))
    assert overrides == [*TINY, *GRID, "name=my sweep"]
    base = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert (base["name"], base["model"]["width"], base["train"]["steps"]) == ("my sweep", 8, 3)
    assert "activation" not in base["model"]


def test_tables_have_the_columns_of_the_contract_in_the_order_of_the_grid(gradlab_: Gradlab, tmp_path: Path) -> None:
    gradlab_("sweep", *TINY, *GRID, "-o", "out")
    tables = load_tables(tmp_path / "out")
    for name, schema in SCHEMAS.items():
        assert tables[name].schema.equals(schema), name
    grid = compose_grid([*TINY, *GRID])
    ids = [run.id for run in grid.runs]
    assert tables["runs"]["run_id"].to_pylist() == ids
    for name in ("steps", "layers"):
        assert list(dict.fromkeys(tables[name]["run_id"].to_pylist())) == ids
    states = tables["runs"]["state"].to_pylist()
    assert states == ["finished", "diverged"] * 6
    rows = tables["steps"].to_pylist()
    for run_id in ids:
        steps = [row["step"] for row in rows if row["run_id"] == run_id]
        assert steps == list(range(len(steps)))


def test_runs_that_are_the_same_run_once(gradlab_: Gradlab, tmp_path: Path) -> None:
    ended = gradlab_("sweep", *TINY, "model.init=he,he_normal,xavier", "seed=0,0", "-o", "out")
    assert "2 runs (4 more were the same as others) in 1 cohort on" in ended.out
    assert manifest_of(tmp_path / "out")["duplicates"] == 4
    assert load_tables(tmp_path / "out")["runs"]["model.init"].to_pylist() == ["he_normal", "xavier_normal"]


def test_a_run_is_the_same_in_any_folder_and_any_grid(gradlab_: Gradlab, tmp_path: Path) -> None:
    gradlab_("run", *TINY, "seed=1", "-o", "alone", "--device", "cpu", "name=x", "launch.memory=1MB")
    gradlab_("sweep", *TINY, "seed=0,1", "optim.lr=0.1,0.2", "-o", "many")
    alone, many = (load_tables(tmp_path / name) for name in ("alone", "many"))
    (run_id,) = alone["runs"]["run_id"].to_pylist()
    place = many["runs"]["run_id"].to_pylist().index(run_id)
    assert many["runs"]["seed"][place].as_py() == 1
    assert many["runs"]["loss_last"][place].as_py() == pytest.approx(alone["runs"]["loss_last"][0].as_py(), rel=1e-5)


def test_the_report_comes_at_the_end_unless_told_otherwise(gradlab_: Gradlab, tmp_path: Path) -> None:
    assert "with/report/index.html" in gradlab_("run", *TINY, "-o", "with").out
    assert (tmp_path / "with/report/index.html").is_file()
    assert "index.html" not in gradlab_("run", *TINY, "-o", "without", "--no-report").out
    assert not (tmp_path / "without/report").exists()


def test_a_folder_may_be_called_anything(gradlab_: Gradlab, tmp_path: Path) -> None:
    name = "with space [bold]and brackets[/bold] :+1:"
    ended = gradlab_("run", *TINY, "-o", f"{name}/")
    assert ended.status == 0
    assert f"{name}/report/index.html" in ended.out
    ended = gradlab_("sweep", "--resume", name)
    assert (ended.status, ended.err) == (0, "")
    assert f"Nothing is missing in {name}" in ended.out


def test_only_the_output_folder_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Also where nothing can be written in the folder that the command is started in."""
    inline(monkeypatch)
    undrawn(monkeypatch)
    ended = call(["run", *TINY, "-o", str(tmp_path / "out")], monkeypatch, capsys, Path("/proc"))
    assert (ended.status, ended.err) == (0, "")
    ended = call(["run", *TINY], monkeypatch, capsys, Path("/proc"))
    assert (ended.status, ended.out) == (2, "")
    assert "give a folder with -o" in ended.err


def test_a_key_without_effect_is_noted(gradlab_: Gradlab) -> None:
    assert "Note: clip.threshold has no effect here." in gradlab_("run", *TINY, "clip.threshold=2").out
    assert "Note" not in gradlab_("run", *TINY, "clip.threshold=2", "clip.mode=norm").out


def test_a_crashed_piece_leaves_the_others_unharmed(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_where(monkeypatch, lambda runs: ValueError("it broke\nhere") if runs[0].model.activation == "relu" else None)
    ended = gradlab_("sweep", *TINY, *GRID, "-o", "out")
    assert ended.status == 1
    assert "gradlab: error: 6 of 12 runs crashed" in ended.err
    assert "6 failed: ValueError: it broke" in ended.out
    runs = gradlab.load(tmp_path / "out").runs
    assert runs["state"].tolist() == ["finished", "diverged"] * 3 + ["failed"] * 6
    assert runs["error"].tolist()[6:] == ["ValueError: it broke"] * 6
    assert runs["error"][:6].isna().all()
    assert manifest_of(tmp_path / "out")["state"] == "failed"
    log = (tmp_path / "out/errors.log").read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log
    assert "it broke" in log

    monkeypatch.setattr(worker, "training", real_training)
    again = gradlab_("sweep", "--resume", "out")
    assert "6 of 12 runs are missing" in again.out
    assert again.status == 0
    assert manifest_of(tmp_path / "out")["state"] == "done"
    assert gradlab_("sweep", *TINY, *GRID, "-o", "whole").status == 0
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


def test_a_single_run_that_crashes(gradlab_: Gradlab, monkeypatch: pytest.MonkeyPatch) -> None:
    crash_where(monkeypatch, lambda _: RuntimeError("no [bold] luck"))
    ended = gradlab_("run", *TINY, "-o", "out", "--no-report")
    assert ended.status == 1
    assert "Crashed: RuntimeError: no [bold] luck." in ended.out
    assert "gradlab: error: 1 of 1 runs crashed; out/errors.log says where" in ended.err


def test_fail_fast_stops_at_the_first_crash(gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def fails(runs: Sequence[RunSpec]) -> BaseException | None:
        trained.append(len(runs))
        return ValueError("broken") if len(trained) == 2 else None

    crash_where(monkeypatch, fails)
    line = [*TINY, "seed=range(5)", "launch.memory=1", "--no-report"]
    ended = gradlab_("sweep", *line, "--fail-fast", "-o", "out")
    assert (ended.status, len(trained)) == (1, 2)
    assert "gradlab sweep --resume out" in ended.err
    assert manifest_of(tmp_path / "out")["state"] == "stopped"
    assert len(gradlab.load(tmp_path / "out").runs) == 2
    assert gradlab_("sweep", "--resume", "out", "--no-report").status == 0
    assert trained == [1] * 6
    assert gradlab_("sweep", *line, "-o", "whole").status == 0
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


def test_what_does_not_fit_the_memory_is_halved_and_that_is_recorded(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def fails(runs: Sequence[RunSpec]) -> BaseException | None:
        sizes.append(len(runs))
        return torch.OutOfMemoryError("too large") if len(runs) > 2 else None

    crash_where(monkeypatch, fails)
    assert gradlab_("sweep", *TINY, "seed=range(7)", "-o", "out").status == 0
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    (piece,) = manifest_of(tmp_path / "out")["pieces"]
    assert piece["chunks"] == [2, 2, 2, 1]
    monkeypatch.setattr(worker, "training", real_training)
    gradlab_("sweep", *TINY, "seed=range(7)", "-o", "whole")
    halved, whole = (gradlab.load(tmp_path / name) for name in ("out", "whole"))
    assert halved.runs["run_id"].tolist() == whole.runs["run_id"].tolist()
    assert halved.steps["loss"].tolist() == pytest.approx(whole.steps["loss"].tolist(), rel=1e-5)
    assert len(halved.layers) == len(whole.layers)


def test_a_resume_begins_with_the_chunks_that_were_recorded(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def fails(runs: Sequence[RunSpec]) -> BaseException | None:
        sizes.append(len(runs))
        if len(runs) > 2:
            return torch.OutOfMemoryError("too large")
        return KeyboardInterrupt() if len(sizes) == 3 else None

    crash_where(monkeypatch, fails)
    assert gradlab_("sweep", *TINY, "seed=range(4)", "-o", "out").status == 130
    assert manifest_of(tmp_path / "out")["pieces"][0]["chunks"] == [2, 2]
    sizes.clear()
    assert gradlab_("sweep", "--resume", "out").status == 0
    assert sizes == [2, 2]


def test_a_single_run_that_is_too_large_fails_with_a_clear_error(
    gradlab_: Gradlab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crash_where(
        monkeypatch, lambda runs: torch.OutOfMemoryError("too large") if any(run.seed == 1 for run in runs) else None
    )
    ended = gradlab_("sweep", *TINY, "seed=0,1,2", "-o", "out")
    assert ended.status == 1
    runs = gradlab.load(tmp_path / "out").runs
    assert runs["state"].tolist() == ["finished", "failed", "finished"]
    assert "too large" in runs["error"][1]
    assert "OutOfMemoryError" in runs["error"][1]


def test_an_interrupt_is_recorded_and_what_has_finished_is_kept(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def fails(runs: Sequence[RunSpec]) -> BaseException | None:
        trained.append(len(runs))
        return KeyboardInterrupt() if len(trained) == 3 else None

    crash_where(monkeypatch, fails)
    line = [*TINY, "seed=range(5)", "launch.memory=1", "--no-report"]
    ended = gradlab_("sweep", *line, "-o", "a b", "-q")
    assert ended.status == 130
    assert ended.err == (
        "Interrupted: 2 finished, 0 diverged, 0 failed of 5. What has finished is kept. Go on with\n"
        "  gradlab sweep --resume 'a b'\n"
    )
    assert manifest_of(tmp_path / "a b")["state"] == "interrupted"
    assert len(gradlab.load(tmp_path / "a b").runs) == 2
    ended = gradlab_("sweep", "--resume", "a b", "--no-report")
    assert (ended.status, ended.err) == (0, "")
    assert "3 of 5 runs are missing" in ended.out
    assert trained == [1] * 6
    manifest = manifest_of(tmp_path / "a b")
    assert (manifest["state"], len(manifest["resumed"])) == ("done", 1)
    gradlab_("sweep", *line, "-o", "whole")
    assert_same_tables(tmp_path / "a b", tmp_path / "whole")


def test_an_interrupt_while_the_report_is_drawn(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_report(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradlab.report.write_report", write_report)
    ended = gradlab_("run", *TINY, "-o", "out")
    assert ended.status == 130
    assert "gradlab report out" in ended.err
    assert manifest_of(tmp_path / "out")["state"] == "done"
    assert len(gradlab.load(tmp_path / "out").runs) == 1


def test_a_kill_between_the_merge_and_the_end_loses_nothing(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed with the tables merged, the manifest not yet written: nothing is trained again."""
    kept = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setattr(conduct, "drop_pieces", lambda folder: folder.pieces.replace(kept))
        gradlab_("sweep", *TINY, *GRID, "-o", "out", "--no-report")
    gradlab_("sweep", *TINY, *GRID, "-o", "whole", "--no-report")
    kept.replace(tmp_path / "out/pieces")
    documents.write_manifest(Folder(tmp_path / "out"), manifest_of(tmp_path / "out") | {"state": "running"})
    crash_where(monkeypatch, lambda _: AssertionError("trained again"))
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert ended.status == 0
    assert "0 of 12 runs are missing" in ended.out
    assert not (tmp_path / "out/pieces").exists()
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


def test_a_finished_sweep_is_not_run_again(gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradlab_("run", *TINY, "-o", "out", "--no-report")
    before = (tmp_path / "out/manifest.json").read_text(encoding="utf-8")
    crash_where(monkeypatch, lambda _: AssertionError("trained again"))
    ended = gradlab_("sweep", "--resume", "out")
    assert (ended.status, ended.err) == (0, "")
    assert "Nothing is missing in out: 1 of 1 runs are done." in ended.out
    assert (tmp_path / "out/manifest.json").read_text(encoding="utf-8") == before


def test_a_folder_in_which_another_process_is_at_work_is_refused(gradlab_: Gradlab, tmp_path: Path) -> None:
    gradlab_("run", *TINY, "-o", "out", "--no-report")
    with locked(Folder(tmp_path / "out")):
        ended = gradlab_("sweep", "--resume", "out")
        assert (ended.status, ended.out) == (2, "")
        assert ended.err == "gradlab: error: out: another gradlab is at work in this folder\n"
        assert gradlab_("run", *TINY, "-o", "out").status == 2


def test_what_the_system_refuses_is_one_line_and_the_way_on(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(worker, "save_piece", full)
        ended = gradlab_("run", *TINY, "-o", "out")
    assert ended.status == 1
    assert ended.err.splitlines() == [
        "gradlab: error: out: tables cannot be written: No space left on device",
        "What has finished is kept. Go on with",
        "  gradlab sweep --resume out",
    ]
    assert manifest_of(tmp_path / "out")["state"] == "stopped"
    assert gradlab_("sweep", "--resume", "out", "--no-report").status == 0
    with monkeypatch.context() as patched:
        patched.setattr(report, "write_report", full)
        ended = gradlab_("run", *TINY, "-o", "drawn")
    assert ended.status == 1
    assert ended.err.splitlines() == [
        "gradlab: error: drawn/report: No space left on device",
        "The tables are whole; the report is not. Go on with",
        "  gradlab report drawn",
    ]
    with monkeypatch.context() as patched:
        patched.setattr(documents, "write_inputs", full)
        ended = gradlab_("run", *TINY, "-o", "other")
    assert (ended.status, ended.err) == (1, "gradlab: error: No space left on device\n")
    assert gradlab_("run", *TINY, "-o", "other").status == 0


def test_pieces_keep_their_company_when_read_back(gradlab_: Gradlab, tmp_path: Path) -> None:
    gradlab_("sweep", *TINY, *GRID, "-o", "out", "launch.memory=60kB", "--no-report")
    runs = documents.read_runs(Folder(tmp_path / "out"))
    place = {run.id: index for index, run in enumerate(runs)}
    pieces = manifest_of(tmp_path / "out")["pieces"]
    assert len(pieces) > 2
    assert sorted(place[member] for piece in pieces for member in piece["members"]) == list(range(12))
    assert [dataclasses.astuple(run) for run in runs] == [
        dataclasses.astuple(run) for run in compose_grid([*TINY, *GRID]).runs
    ]
