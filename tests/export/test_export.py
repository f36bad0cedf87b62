"""`gradlab export`: what each program reads back is what the tables hold, by the program's own package, offline."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.csv
import pytest
import torch

import gradlab
from gradlab.export.contents import OUTCOMES
from gradlab.export.targets import TARGETS
from tests.commands import ENVIRONMENT, call
from tests.synthetic import write_result

Capture = pytest.CaptureFixture[str]
Scalars = dict[str, list[tuple[int, float]]]

# What the packages warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vanishing run, a diverged one, a recurrent one and one that crashed, in few steps."""
    few = {"train.steps": 6, "probe.every": 3, "model.width": 8}
    runs: list[dict[str, Any]] = [
        few | {"model.depth": 12, "model.activation": "sigmoid"},
        few | {"model.depth": 5, "model.activation": "relu"},
        few | {"model.name": "rnn", "model.depth": 1, "data.name": "digits"},
        few | {"model.depth": 12, "model.activation": "tanh"},
    ]
    root = tmp_path_factory.mktemp("made") / "grid"
    return write_result(root, runs, diverge={1: 4}, fail={3: "RuntimeError: <no memory>"})


def export(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> str:
    """Runs the command as a process of its own, as its packages expect; what it prints."""
    line = [sys.executable, "-m", "gradlab", "export", str(folder), *words]
    variables = {**ENVIRONMENT, "PYTHONWARNINGS": "ignore", "WANDB_MODE": "offline", **(environment or {})}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def read_back(target: str, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """What the target's own package reads there: see `readers.py`."""
    line = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("readers.py")), target, *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def expected(folder: Path, place: int) -> Scalars:
    """The scalars of a run as its frames have them."""
    frames = gradlab.load(folder)
    run_id = frames.runs["run_id"][place]
    found: Scalars = {}

    def add(name: str, rows: pd.DataFrame, column: str) -> None:
        known = [(int(step), float(value)) for step, value in zip(rows["step"], rows[column], strict=True)]
        found[name] = known

    # As Arrow has them: a frame tells no null from a NaN.
    tables = {name: table.to_pandas(types_mapper=pd.ArrowDtype) for name, table in arrow(folder).items()}
    steps, layers = (tables[name][tables[name]["run_id"] == run_id] for name in ("steps", "layers"))
    for column in steps.columns[2:]:
        add(column, steps[steps[column].notna()], column)
    for (axis, layer, name), rows in layers.groupby(["axis", "layer", "name"]):
        # The same in all runs of a result: of another depth they have the same names.
        every = tables["layers"]
        digits = len(str(every[every["axis"] == axis]["layer"].max()))
        for column in layers.columns[5:]:
            where = f"/{layer:0{digits}d} {name}" if axis == "depth" else f" along time/{layer:0{digits}d}"
            add(column + where, rows[rows[column].notna()], column)
    return {name: values for name, values in found.items() if values}


def arrow(folder: Path) -> Mapping[str, Any]:
    from gradlab.store.tables import load_tables

    return load_tables(folder)


def assert_same(
    found: Mapping[str, Any], folder: Path, place: int, rel: float = 1e-12, infinite: float = math.inf
) -> None:
    """Every scalar of the run, at every step, and no other. ``infinite``: what the program keeps for an infinity."""
    wanted = expected(folder, place)
    assert len(wanted) > 10
    assert sorted(found) == sorted(wanted)
    for name, values in wanted.items():
        steps, numbers = zip(*values, strict=True)
        assert [step for step, _ in found[name]] == list(steps), name
        numbers = tuple(infinite if number == math.inf else number for number in numbers)
        assert [float(value) for _, value in found[name]] == pytest.approx(numbers, rel=rel, nan_ok=True), name


def test_tensorboard(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    said = export(made, "--to", "tensorboard", "-o", str(tmp_path / "out"))
    assert said.splitlines()[1] == f"look    tensorboard --logdir {tmp_path / 'out'}"
    runs = gradlab.load(made).runs
    folders = {path.name[-8:]: path for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert set(folders) == {run_id[:8] for run_id in runs["run_id"]}
    for place, status in ((0, 1), (1, 1), (2, 1), (3, 2)):
        row = runs.iloc[place]
        found = read_back("tensorboard", str(folders[row["run_id"][:8]]))
        scalars = found["scalars"]
        outcomes = {name: scalars.pop(f"summary/{name}") for name in OUTCOMES if f"summary/{name}" in scalars}
        assert found["status"] == status
        assert (found["group"], found["words"]["state"]) == (row["run_id"], row["state"])
        if row["state"] == "failed":
            assert (scalars, found["text"]) == ({}, "crashed: RuntimeError: <no memory>")
            continue
        # Event files hold float32.
        assert_same(scalars, made, place, rel=1e-6)
        assert outcomes["loss_first"][0][1] == pytest.approx(row["loss_first"], rel=1e-6)
        assert found["numbers"]["model.width"] == 8
        assert found["words"]["model.name"] == row["model.name"]
    first = read_back("tensorboard", str(folders[runs["run_id"][0][:8]]))
    assert first["words"]["verdict"].split("+")[0] == "vanishing"
    assert first["text"].startswith("vanishing: δ of layer 1 is ")


def test_csv(made: Path, tmp_path: Path) -> None:
    export(made, "--to", "csv", "-o", str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["layers.csv", "runs.csv", "steps.csv"]
    read = {name: pyarrow.csv.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("runs", "steps", "layers")}
    tables = arrow(made)
    for name, table in read.items():
        assert table["run_id"].to_pylist() == tables[name]["run_id"].to_pylist()
    assert read["steps"]["loss"].to_pylist()[:7] == tables["steps"]["loss"].to_pylist()[:7]
    sentences = read["runs"]["sentences"].to_pylist()
    assert sentences[0].startswith("vanishing: δ of layer 1 is ")
    assert sentences[1].startswith("diverged")
    assert sentences[3] == "crashed: RuntimeError: <no memory>"


def test_wandb(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    said = export(made, "--to", "wandb", "-o", str(tmp_path / "out"))
    assert said.splitlines()[1] == f"upload  wandb sync {tmp_path / 'out' / 'wandb'}/offline-run-*"
    runs = gradlab.load(made).runs
    for place, status in ((0, 0), (1, 0), (2, 0), (3, 1)):
        found = read_back("wandb", str(tmp_path / "out"), runs["run_id"][place])
        assert found["exit"] == status
        assert found["config"]["model.name"] == runs["model.name"][place]
        if status:
            assert found["notes"] == "crashed: RuntimeError: <no memory>"
            continue
        scalars: Scalars = {}
        for row in found["rows"]:
            for name, value in row.items():
                if not name.startswith("_"):
                    scalars.setdefault(name, []).append((row["_step"], float(str(value).replace("Infinity", "inf"))))
        assert_same(scalars, made, place)
        assert found["summary"]["loss_first"] == runs["loss_first"][place]
        assert found["tags"] == [runs["state"][place], *found["summary"]["verdict"].split("+")]
        assert found["notes"].startswith(f"{found['tags'][1]}")


def test_mlflow(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow is not installed")
    store = f"sqlite:///{tmp_path / 'mine.db'}"
    export(made, "--to", "mlflow", environment={"MLFLOW_TRACKING_URI": store})
    assert not (made / "export").exists()
    said = export(made, "--to", "mlflow", "-o", str(tmp_path / "out"), environment={"MLFLOW_TRACKING_URI": store})
    given = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
    assert said.splitlines() == [f"store  {given}", f"look   mlflow ui --backend-store-uri {given}"]
    runs = gradlab.load(made).runs
    for place in (store, given):
        back = read_back("mlflow", place)
        assert set(back) == set(runs["run_id"])
        for number, status in enumerate(("FINISHED", "FINISHED", "FINISHED", "FAILED")):
            found = back[runs["run_id"][number]]
            assert (found["status"], found["experiment"]) == (status, "grid")
            assert found["params"]["model.name"] == runs["model.name"][number]
            assert found["tags"]["state"] == runs["state"][number]
            if status == "FAILED":
                assert found["tags"]["mlflow.note.content"] == "crashed: RuntimeError: <no memory>"
                continue
            outcomes = {name: found["scalars"].pop(name) for name in OUTCOMES if name in found["scalars"]}
            assert outcomes["loss_first"][0][1] == runs["loss_first"][number]
            # MLflow keeps the largest number in the place of an infinity.
            assert_same(found["scalars"], made, number, infinite=sys.float_info.max)
            assert found["tags"]["mlflow.note.content"].startswith(found["tags"]["verdict"].split("+")[0])


def test_trackio(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    said = export(made, "--to", "trackio", "-o", str(tmp_path / "out"))
    assert said.splitlines()[1] == f"look   TRACKIO_DIR={tmp_path / 'out'} trackio show --project grid"
    back = read_back("trackio", "grid", environment={"TRACKIO_DIR": str(tmp_path / "out")})
    runs = gradlab.load(made).runs
    byid = {name.rpartition("(")[2].rstrip(")"): found for name, found in back.items()}
    assert set(byid) == {run_id[:8] for run_id in runs["run_id"]}
    for place in range(3):
        found = byid[runs["run_id"][place][:8]]
        scalars: Scalars = {}
        for row in found["rows"]:
            for name, value in row.items():
                if name not in ("step", "timestamp") and not name.startswith("summary/"):
                    scalars.setdefault(name, []).append((row["step"], value))
        assert_same(scalars, made, place)
        assert found["rows"][-1]["summary/loss_first"] == runs["loss_first"][place]
        assert found["config"]["model.name"] == runs["model.name"][place]
        assert found["config"]["sentences"].startswith(found["config"]["verdict"].split("+")[0])


def test_a_watched_training_and_some_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    inputs, classes = torch.randn(16, 4), torch.randint(2, (16,))
    with gradlab.watch(network, optimizer, every=2, out=tmp_path / "seen", quiet=True, report=False) as seen:
        for _ in range(4):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(inputs), classes)
            loss.backward()
            optimizer.step()
            seen.step(loss)
    ended = call(["export", "seen", "--to", "csv"], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "runs    seen/export/csv/runs.csv" in ended.out.splitlines()
    read = pyarrow.csv.read_csv(tmp_path / "seen/export/csv/runs.csv")
    assert read["sentences"].to_pylist()[0]
    two = write_result(tmp_path / "two", [{"seed": 0}, {"seed": 1}])
    manifest = (two / "manifest.json").read_text(encoding="utf-8")
    (two / "manifest.json").write_text(manifest.replace('"runs": 2, "dup', '"runs": 3, "dup'), encoding="utf-8")
    run_id = gradlab.load(tmp_path / "two").runs["run_id"][1]
    ended = call(["export", "two", "--to", "csv", "--run", run_id[:9]], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    assert "note    Of 3 planned runs 2 are here" in ended.out
    read = pyarrow.csv.read_csv(tmp_path / "two/export/csv/steps.csv")
    assert set(read["run_id"].to_pylist()) == {run_id}


BAD = (
    (("made", "--to", "tensorbord"), "--to tensorbord: no such target; did you mean 'tensorboard'?"),
    (
        ("made", "--to", "neptune"),
        "--to neptune: no such target; expected one of tensorboard, wandb, mlflow, trackio, csv",
    ),
    (("nothing", "--to", "csv"), "nothing: no such folder"),
    (("made", "--to", "csv", "--run", "zzz"), "--run zzz: no run with this id"),
    (("made", "--to", "csv", "-o", "full"), "-o full: already there and not empty; give a new folder with -o"),
    (("made", "--to", "csv", "-o", "full/file"), "-o full/file: cannot be made a folder: File exists"),
)


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda value: str(value)[:50])
def test_what_is_refused_writes_nothing(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_result(tmp_path / "made", [{}])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("text", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    ended = call(["export", *words], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"gradlab: error: {message}")
    assert ended.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.package])
def test_a_package_that_is_missing_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_result(tmp_path / "made", [{}])
    monkeypatch.setattr("gradlab.export.targets.find_spec", lambda _: None)
    ended = call(["export", "made", "--to", name], monkeypatch, capsys, tmp_path)
    assert ended.status == 2
    assert ended.err == f"gradlab: error: --to {name}: {name} is not installed; pip install 'gradlab[{name}]'\n"
    assert not (tmp_path / "made/export").exists()


def test_what_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    write_result(tmp_path / "made", [{}])

    def full(*_: object) -> Callable[..., None]:
        raise OSError(28, "No space left on device", "made/export/csv/steps.csv")

    monkeypatch.setattr("gradlab.report.tables.pyarrow.csv.CSVWriter", full)
    ended = call(["export", "made", "--to", "csv"], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.err) == (
        1,
        "gradlab: error: made/export/csv/steps.csv: No space left on device\n",
    )
    assert not (tmp_path / "made/export").exists()
    (tmp_path / "mine").mkdir()
    assert call(["export", "made", "--to", "csv", "-o", "mine"], monkeypatch, capsys, tmp_path).status == 1
    assert not any((tmp_path / "mine").iterdir())
