"""Folders that are in use, damaged, or wrong in content: refused in a sentence, or mended by a resume; nothing lost."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradlab.store import documents
from gradlab.store.folder import Folder, time_here
from tests.commands import TINY, Gradlab, assert_same_tables, forked

GRID = ("seed=range(4)", "model.activation=tanh,relu", "launch.memory=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert forked(("sweep", *TINY, *GRID, "-o", "out", "--no-report"), folder).status == 0
    (folder / "out/report").mkdir()
    (folder / "out/report/index.html").touch()
    return folder / "out"


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Path:
    """A finished sweep of eight runs, with a report."""
    return shutil.copytree(finished, tmp_path / "out")


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("verb", ["run", "sweep", "cure"])
@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", "pieces/mine.txt", "runs.parquet", "report/index.html"])
def test_a_folder_in_use_is_refused_and_left_as_it_is(verb: str, name: str, gradlab_: Gradlab, tmp_path: Path) -> None:
    place = tmp_path / "mine" / name
    place.parent.mkdir(parents=True)
    place.write_text("mine", encoding="utf-8")
    before = files(tmp_path)
    ended = gradlab_(verb, *TINY, *(["seed=0,1"] if verb == "sweep" else []), "-o", "mine")
    assert ended.status == 2
    assert ended.err.startswith("gradlab: error: -o mine: already there and not empty (")
    assert files(tmp_path) == before


def test_what_a_start_of_its_own_left_is_no_hindrance(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "write_manifest", killed)
        assert gradlab_("sweep", *TINY, *GRID, "-o", "out").status == 1
    assert not (tmp_path / "out/manifest.json").exists()
    (tmp_path / "out/.grid.json.123").write_text("torn", encoding="utf-8")
    assert gradlab_("sweep", *TINY, *GRID, "-o", "out").status == 0
    assert not list((tmp_path / "out").glob(".*"))


def test_a_link_to_nothing_and_a_name_that_is_no_text(gradlab_: Gradlab, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "a symbolic link to nothing" in gradlab_("run", *TINY, "-o", "link").err
    assert gradlab_("run", *TINY, "-o", "a\udcff").status == 2
    assert not (tmp_path / "outputs").exists()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def foreign(path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), path)


DAMAGE: dict[str, Callable[[Folder], object]] = {
    "runs cut short": lambda folder: truncated(folder.piece(2, "runs")),
    "steps cut short": lambda folder: truncated(folder.piece(2, "steps")),
    "layers empty": lambda folder: folder.piece(2, "layers").write_bytes(b""),
    "layers gone": lambda folder: folder.piece(2, "layers").unlink(),
    "another Parquet file": lambda folder: foreign(folder.piece(2, "runs")),
    "another piece's runs": lambda folder: shutil.copy(folder.piece(1, "runs"), folder.piece(2, "runs")),
    "another piece's steps": lambda folder: shutil.copy(folder.piece(1, "steps"), folder.piece(2, "steps")),
    "a stray piece": lambda folder: shutil.copy(folder.piece(1, "runs"), folder.piece(77, "runs")),
    "a stray file": lambda folder: (folder.pieces / "copy of 1.runs.parquet").touch(),
    "pieces gone": lambda folder: shutil.rmtree(folder.pieces),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_piece_is_trained_again(
    case: str, gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setattr("gradlab.launch.conduct.drop_pieces", lambda folder: folder.pieces.replace(kept))
        assert gradlab_("sweep", *TINY, *GRID, "-o", "out", "--no-report").status == 0
    shutil.copytree(tmp_path / "out", tmp_path / "whole")
    folder = Folder(tmp_path / "out")
    kept.replace(folder.pieces)
    documents.write_manifest(folder, documents.read_manifest(folder.root) | {"state": "running"})
    DAMAGE[case](folder)
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert (ended.status, ended.err) == (0, "")
    assert_same_tables(folder.root, tmp_path / "whole")


def test_a_piece_that_vanishes_while_the_sweep_runs_is_not_called_done(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradlab.launch import rounds

    real = rounds.run

    def remove(*given: Any) -> bool:
        crashed = real(*given)
        Folder(tmp_path / "out").piece(3, "runs").unlink()
        return crashed

    with monkeypatch.context() as patched:
        patched.setattr(rounds, "run", remove)
        ended = gradlab_("sweep", *TINY, *GRID, "-o", "out", "--no-report")
    assert ended.status == 1
    assert "1 of 8 runs are not there: out/pieces/00003.runs.parquet" in ended.err
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert ended.status == 0
    assert "1 of 8 runs are missing" in ended.out


@pytest.mark.parametrize("name", ["runs", "steps", "layers"])
@pytest.mark.parametrize("harm", [Path.unlink, truncated, foreign])
def test_a_finished_result_that_lost_a_table_is_run_again(
    name: str, harm: Callable[[Path], None], made: Path, gradlab_: Gradlab, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "whole")
    harm(made / f"{name}.parquet")
    ended = gradlab_("report", "out")
    assert ended.status == 0 or f"{name}.parquet" in ended.err
    ended = gradlab_("sweep", "--resume", "out", "--no-report")
    assert (ended.status, ended.err) == (0, "")
    assert "8 of 8 runs are missing" in ended.out
    assert_same_tables(made, tmp_path / "whole")


def test_a_resume_finishes_the_report_and_sweeps_up(made: Path, gradlab_: Gradlab) -> None:
    (made / "report/index.html").unlink()
    for name in (".runs.parquet.99999", ".steps.parquet.4"):
        (made / name).write_bytes(b"torn")
    ended = gradlab_("sweep", "--resume", "out")
    assert ended.status == 0
    assert "Nothing is missing in out: 8 of 8 runs are done." in ended.out
    assert (made / "report/index.html").is_file()
    assert not list(made.glob(".*"))
    (made / ".report.drawing").touch()
    assert "report/index.html" in gradlab_("sweep", "--resume", "out").out
    assert not list(made.glob(".*"))


def test_a_report_sweeps_up_what_killed_processes_left(made: Path, gradlab_: Gradlab) -> None:
    for name in (".runs.parquet.99999", ".manifest.json.17", "report/.index.html.4"):
        (made / name).write_bytes(b"torn")
    (made / ".mine").write_text("not of gradlab", encoding="utf-8")
    assert gradlab_("report", "out").status == 0
    assert [path.name for path in made.rglob(".*")] == [".mine"]


def test_a_zone_that_no_place_has_is_told_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC+99")
    time.tzset()
    try:
        assert time_here().utcoffset() == dt.timedelta(0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert time_here().utcoffset() is not None


def test_a_kill_while_the_pieces_are_dropped(made: Path, gradlab_: Gradlab) -> None:
    """Found by the campaign: nothing is trained again, and what was half removed goes."""
    (made / ".pieces").mkdir()
    (made / ".pieces/00001.steps.parquet").write_bytes(b"torn")
    manifest = documents.read_manifest(made)
    documents.write_manifest(Folder(made), manifest | {"state": "interrupted"})
    ended = gradlab_("sweep", "--resume", "out")
    assert (ended.status, ended.err) == (0, "")
    assert "Nothing is missing in out" in ended.out
    assert documents.read_manifest(made)["state"] == "done"
    assert not list(made.glob(".*"))


def test_a_report_is_not_written_into_a_folder_that_is_a_link(made: Path, gradlab_: Gradlab, tmp_path: Path) -> None:
    shutil.rmtree(made / "report")
    (made / "report").symlink_to(tmp_path)
    assert gradlab_("report", "out").status == 2


WRONG: dict[str, list[object]] = {
    "schema": [None, "1", [], 1.5],
    "runs": [None, "x", 0, -1, True, [], 1e400],
    "state": [None, 1, []],
    "command": [5, [1, 2], None, "gradlab"],
    "elapsed_s": ["soon", None, [], float("nan")],
    "host": ["here", [], {"cores": "two"}],
    "device": ["cpu", {}, {"name": "cpu"}, {"name": 1, "label": "", "memory": 1, "cores": 1}],
    "versions": [[], "1.0", {"torch": 2}],
    "maps": [[], {"x": 1}, {"x": "no.key"}],
    "swept": ["seed", [1], ["no.key"], [["seed"]]],
    "diagnose": ["x", [], {"dead": "x"}, {"dead": None}],
    "workers": [0, "2", 10**9],
    "cure": [[], {}, {"round": 0, "seeds": [], "changes": []}, {"round": 0, "seeds": [0], "changes": [{}]}],
    "pieces": ["x", [], [{}], [1], {}],
    "expect": ["x", {}, [1], [{"what": 1}]],
    "experiment": [1, []],
    "resumed": [1, [1], [[1]]],
}
"""Fields of the manifest, and contents that none of them has."""


@pytest.mark.parametrize("field", WRONG)
def test_a_manifest_with_a_wrong_field_is_refused_in_a_sentence(field: str, made: Path, gradlab_: Gradlab) -> None:
    whole = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    for value in [*WRONG[field], "nothing"]:
        wrong = (
            {key: one for key, one in whole.items() if key != field} if value == "nothing" else whole | {field: value}
        )
        (made / "manifest.json").write_text(json.dumps(wrong | ({} if field == "state" else {"state": "running"})))
        for line in (("report", "out"), ("sweep", "--resume", "out", "--no-report")):
            ended = gradlab_(*line)
            assert ended.status in (0, 1, 2), (field, line)
            assert "Traceback" not in ended.err
            if ended.status == 2:
                assert "manifest.json" in ended.err or "schema" in ended.err, ended.err


@pytest.mark.parametrize("name", ["expectations.json", "grid.json", "manifest.json"])
@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "1", "null", '{"a', "\udcff", "[" * 10_000, '{"outcomes": [1]}', '{"keys": [["x"]], "runs": []}'],
)
def test_a_file_of_another_form_is_refused_by_its_name(name: str, text: str, made: Path, gradlab_: Gradlab) -> None:
    manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    (made / "manifest.json").write_text(json.dumps(manifest | {"state": "running"}), encoding="utf-8")
    (made / name).write_bytes(text.encode(errors="surrogateescape"))
    for line in (("report", "out"), ("sweep", "--resume", "out"), ("run", "--from", "out", "x", "-o", "new")):
        ended = gradlab_(*line)
        if line[0] == "sweep":
            assert ended.status == 2, (name, text, ended)
            assert f"out/{name}: " in ended.err


@pytest.mark.parametrize("harm", ["too few", "short ids", "a wrong value", "twice", "a key of a list"])
def test_a_grid_that_does_not_hold_the_plan_is_refused(harm: str, made: Path, gradlab_: Gradlab) -> None:
    grid = json.loads((made / "grid.json").read_text(encoding="utf-8"))
    match harm:
        case "too few":
            grid = {**grid, "runs": grid["runs"][:-1], "ids": grid["ids"][:-1]}
        case "short ids":
            grid = {**grid, "ids": [one[:3] for one in grid["ids"]][:-1]}
        case "a wrong value":
            grid["runs"][0][grid["keys"].index("model.depth")] = "deep"
        case "twice":
            grid = {**grid, "runs": [grid["runs"][0]] * len(grid["runs"])}
        case _:
            grid["keys"][0] = ["seed"]
    (made / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
    manifest = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    (made / "manifest.json").write_text(json.dumps(manifest | {"state": "running"}), encoding="utf-8")
    # Where every row is there the specs are not needed any more; here some are not.
    (made / "runs.parquet").unlink()
    ended = gradlab_("sweep", "--resume", "out")
    assert ended.status == 2
    assert "grid.json" in ended.err


def test_tables_of_other_runs_or_other_types_are_refused(made: Path, gradlab_: Gradlab) -> None:
    import gradlab

    runs = pq.read_table(made / "runs.parquet")
    numbers = runs.set_column(0, "run_id", pa.array(range(runs.num_rows)))
    layers = pq.read_table(made / "layers.parquet")
    strange = layers.set_column(0, "run_id", pa.array(["nobody"] * layers.num_rows))
    for name, table, words in (
        ("runs", numbers, "expected run_id as string, found int64"),
        ("layers", strange, 'expected ids of the result\'s runs, found "nobody"'),
        ("steps", layers.drop_columns(["step"]), "expected a column step"),
    ):
        kept = (made / f"{name}.parquet").read_bytes()
        pq.write_table(table, made / f"{name}.parquet")
        with pytest.raises(ValueError, match=words):
            gradlab.load(made)
        (made / f"{name}.parquet").write_bytes(kept)
