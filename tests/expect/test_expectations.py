"""An experiment with expectations from its file to the exit status, the stored outcomes, a resume and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradlab.launch import conduct
from gradlab.report import write_report
from gradlab.spec.named import SpecError, Value
from gradlab.store import documents
from gradlab.store.documents import read_expectations
from gradlab.store.folder import Folder
from gradlab.store.tables import merge
from tests.commands import Gradlab
from tests.synthetic import grid, write_result

Capture = pytest.CaptureFixture[str]

EXPERIMENT = """# @package _global_
experiment:
  question: Does it?
  source: a book

name: mine
model: {depth: 2, width: 8}
train: {steps: 2}
axes:
  seed: range(2)
  optim.lr: 0.1,0.2

expect:
  - what: "the loss begins near ln 10"
    value: {column: loss_first, where: {optim.lr: 0.1}}
    near: 2.3026
    within: 1
"""
WRONG = """  - what: "and ends below zero"
    value: {column: loss_last, where: {optim.lr: 0.2}}
    below: 0
"""


@pytest.fixture
def gradlab_(gradlab_: Gradlab, tmp_path: Path) -> Gradlab:
    """The command, with the experiment `mine` to be found."""
    write(tmp_path, EXPERIMENT)
    return gradlab_


def write(place: Path, text: str) -> None:
    folder = place / "cd" / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text, encoding="utf-8")


SWEEP = ("sweep", "-cd", "cd", "-e", "mine", "-o", "out")


def told(place: Path) -> dict[str, Any]:
    found = read_expectations(place / "out")
    assert found is not None
    return found


def test_what_is_met_is_said_and_stored(gradlab_: Gradlab, tmp_path: Path) -> None:
    ended = gradlab_(*SWEEP)
    assert (ended.status, ended.err) == (0, "")
    assert "1 of 1 expectations of mine are met:" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert (told(tmp_path)["experiment"], told(tmp_path)["altered"]) == ("mine", [])
    (outcome,) = told(tmp_path)["outcomes"]
    assert (outcome["what"], outcome["result"]) == ("the loss begins near ln 10", "pass")
    assert outcome["expected"] == "2.3026 ± 1"
    assert float(outcome["measured"]) == pytest.approx(outcome["value"], rel=1e-4)


def test_what_is_not_met_ends_with_status_1(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT + WRONG)
    ended = gradlab_(*SWEEP)
    assert (ended.status, ended.err) == (1, "gradlab: error: mine: 1 of 2 expectations failed\n")
    assert "FAIL" in ended.out
    assert [outcome["result"] for outcome in told(tmp_path)["outcomes"]] == ["pass", "fail"]
    # The runs themselves are done: there is nothing to resume.
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["state"] == "done"


def test_a_quiet_sweep_says_only_what_failed(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT + WRONG)
    ended = gradlab_(*SWEEP, "-q")
    assert (ended.status, ended.out) == (1, "")
    assert "expectations failed" in ended.err


def test_of_altered_settings_nothing_has_to_hold(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT + WRONG)
    ended = gradlab_(*SWEEP, "optim.lr=0.1,0.3", "model.depth=3")
    assert (ended.status, ended.err) == (0, "")
    assert "Settings of the experiment were changed (optim.lr=0.1,0.3, model.depth=3)" in " ".join(ended.out.split())
    assert told(tmp_path)["altered"] == ["optim.lr=0.1,0.3", "model.depth=3"]
    assert [outcome["result"] for outcome in told(tmp_path)["outcomes"]] == ["pass", "not tested"]


@pytest.mark.parametrize("override", ["seed=3,4", "name=other", "data.seed=1", "probe.every=1", "launch.workers=1"])
def test_another_draw_or_name_alters_nothing(override: str, gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT + WRONG)
    ended = gradlab_(*SWEEP, override)
    assert ended.status == 1
    assert told(tmp_path)["altered"] == []


def test_a_single_run_is_held_to_them_too(gradlab_: Gradlab, tmp_path: Path) -> None:
    text = EXPERIMENT.replace("axes:\n  seed: range(2)\n  optim.lr: 0.1,0.2\n", "")
    write(tmp_path, text + WRONG.replace(", where: {optim.lr: 0.2}", ""))
    ended = gradlab_("run", *SWEEP[1:])
    assert ended.status == 1
    assert [outcome["result"] for outcome in told(tmp_path)["outcomes"]] == ["pass", "fail"]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (WRONG.replace("column", "colum"), "experiment 'mine': expect 2: value: unknown key 'colum'; did you mean"),
        (WRONG.replace("0.2", "0.3"), "experiment 'mine': expect 2: no run of this grid has optim.lr=0.3"),
    ],
)
def test_a_wrong_expectation_stops_before_anything_is_written(
    text: str, fragment: str, gradlab_: Gradlab, tmp_path: Path
) -> None:
    write(tmp_path, EXPERIMENT + text)
    ended = gradlab_(*SWEEP)
    assert ended.status == 2
    assert fragment in " ".join(ended.err.split())
    assert not (tmp_path / "out").exists()


def test_expect_must_be_a_list(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT.partition("expect:")[0] + "expect: {what: x}\n")
    ended = gradlab_(*SWEEP)
    assert (ended.status, "expected expect to be a list" in ended.err) == (2, True)


def test_a_resumed_sweep_is_held_to_them(gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, EXPERIMENT + WRONG)
    real = merge

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conduct, "merge", interrupted)
    assert gradlab_(*SWEEP).status == 130
    assert read_expectations(tmp_path / "out") is None
    monkeypatch.setattr(conduct, "merge", real)
    # What the file says by now does not matter: the sweep is held to what it was started with.
    write(tmp_path, EXPERIMENT)
    ended = gradlab_("sweep", "--resume", "out")
    assert (ended.status, ended.err) == (1, "gradlab: error: mine: 1 of 2 expectations failed\n")
    assert len(told(tmp_path)["outcomes"]) == 2


def test_without_expectations_nothing_is_said(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT.partition("expect:")[0])
    ended = gradlab_(*SWEEP)
    assert (ended.status, "expectations" in ended.out) == (0, False)
    assert not Folder(tmp_path / "out").expectations.exists()


@pytest.mark.usefixtures("unpainted")
def test_the_page_shows_them(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "result", [{"seed": seed} for seed in (0, 1)])
    outcome = {"expected": "1 ± 0.1", "computed": "median of rate", "value": 2.0, "source": "a <book>"}
    outcomes = [
        {**outcome, "what": "it <holds>", "measured": "1.01", "result": "pass"},
        {**outcome, "what": "it does not", "measured": "2", "result": "fail"},
    ]
    documents.write_expectations(Folder(folder), {"experiment": "mine", "altered": ["seed=1"], "outcomes": outcomes})
    page = write_report([folder], tmp_path / "report").page.read_text(encoding="utf-8")
    assert "1 of 2 expectations of mine are met. Settings of the experiment were changed (seed=1)" in page
    assert "it &lt;holds&gt;" in page
    assert "a &lt;book&gt;" in page
    assert '<tr class="fail">' in page
    assert '<a href="#expectations">' in page


def test_expectations_that_are_torn_are_refused(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "result", [{}])
    Folder(folder).expectations.write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match=r"expectations\.json: not what an experiment was expected to show"):
        write_report([folder], tmp_path / "report")


def test_the_experiment_names_the_keys_of_its_maps(gradlab_: Gradlab, tmp_path: Path) -> None:
    write(tmp_path, EXPERIMENT + "report: {x: optim.lr, y: model.depth}\n")
    assert gradlab_(*SWEEP).status == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["maps"] == {"x": "optim.lr", "y": "model.depth"}


@pytest.mark.usefixtures("unpainted")
def test_the_maps_take_the_keys_that_the_experiment_names_where_they_vary(tmp_path: Path) -> None:
    axes: dict[str, list[Value]] = {"model.depth": [5, 10], "model.width": [8, 16], "optim.lr": [0.01, 0.1]}
    folder = write_result(tmp_path / "result", grid(axes))
    manifest = json.loads(Folder(folder).manifest.read_text(encoding="utf-8"))
    for maps, words in (
        ({"x": "model.width", "y": "model.depth"}, "Final loss by model.width and model.depth"),
        ({"x": "optim.lr", "y": "model.gain"}, "Final loss by optim.lr and"),
    ):
        documents.write_manifest(Folder(folder), {**manifest, "maps": maps})
        page = write_report([folder], tmp_path / "report").page.read_text(encoding="utf-8")
        assert words in page
    asked = write_report([folder], tmp_path / "report", x="model.depth").page.read_text(encoding="utf-8")
    assert "Final loss by model.depth and" in asked
