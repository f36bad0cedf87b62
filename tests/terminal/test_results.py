"""`gradlab ls`, and the name of the newest result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradlab.spec.named import SpecError
from gradlab.store.folder import open_result
from gradlab.terminal.results import lines
from tests.commands import TINY, Gradlab
from tests.synthetic import grid, write_result


def test_results_are_listed_with_what_was_swept_and_their_verdicts(tmp_path: Path) -> None:
    write_result(tmp_path / "day" / "deep", grid({"model.depth": [5, 30], "model.activation": ["sigmoid", "relu"]}))
    write_result(tmp_path / "one", [{}])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{", encoding="utf-8")
    cut = write_result(tmp_path / "cut", [{}]) / "runs.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    lost, deep, one, torn = lines(tmp_path)
    assert (lost.folder, lost.verdicts) == ("cut", "")
    assert "runs.parquet" in lost.state
    assert (deep.folder, deep.runs, deep.state) == ("day/deep", "4", "done")
    assert (one.folder, one.runs, one.swept) == ("one", "1", "")
    assert "not a manifest of gradlab" in torn.state
    (itself,) = lines(tmp_path / "one")
    assert (itself.folder, itself.runs) == (str(tmp_path / "one"), "1")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="holds no results"):
        lines(tmp_path)
    with pytest.raises(SpecError, match="no such folder"):
        lines(tmp_path / "nowhere")


def test_latest_is_the_newest_result(gradlab_: Gradlab, tmp_path: Path) -> None:
    for seed in (1, 2):
        assert gradlab_("run", *TINY, f"seed={seed}", "--no-report", "-q").status == 0
        latest = tmp_path / "outputs" / "latest"
        assert json.loads((latest / "config.yaml").read_text().splitlines()[1].partition(": ")[2]) == seed
    listed = gradlab_("ls").out.splitlines()
    assert len(listed) == 3
    assert all(str(latest.resolve().parent.name) in line for line in listed[1:])
    assert gradlab_("ls", "nowhere").status == 2


def test_a_folder_of_results_is_told_from_one_that_holds_none(gradlab_: Gradlab, tmp_path: Path) -> None:
    gradlab_("run", *TINY, "--no-report", "-q")
    with pytest.raises(SpecError, match=r"no result of gradlab .*; results below it: .*outputs/.*-run \(gradlab ls"):
        open_result(tmp_path / "outputs")


def test_a_name_that_is_taken_is_left_alone(gradlab_: Gradlab, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "latest").write_text("mine", encoding="utf-8")
    assert gradlab_("run", *TINY, "--no-report", "-q").status == 0
    assert (tmp_path / "outputs" / "latest").read_text(encoding="utf-8") == "mine"
