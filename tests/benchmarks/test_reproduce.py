"""The page of reproductions: what it counts, and what it says of an experiment that could not be run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import reproduce as module
from benchmarks.reproduce import Reproduction, chosen, page, reproduce
from gradlab.grid.experiment import Experiment
from gradlab.spec.named import SpecError

OUTCOME = {"what": "a|b", "expected": "1 ± 0.1", "measured": "1.05", "result": "pass", "source": ""}


def experiment(name: str) -> Experiment:
    return Experiment(name, f"What of {name}?", "a book", (), 2)


def test_every_experiment_with_expectations_is_chosen() -> None:
    names = [found.name for found in chosen([])]
    assert {"he-vs-xavier", "scalar-chain", "clip-rescue"} <= set(names)
    assert [found.name for found in chosen(["scalar-chain", "he-vs-xavier"])] == ["scalar-chain", "he-vs-xavier"]
    with pytest.raises(SpecError, match="did you mean 'he-vs-xavier'"):
        chosen(["he-vs-xaver"])


def test_the_page_counts_what_came_out() -> None:
    text = page(
        [
            Reproduction(experiment("one"), 4, [OUTCOME, {**OUTCOME, "source": "Gauss"}], 1.0),
            Reproduction(experiment("two"), 8, [OUTCOME, {**OUTCOME, "result": "fail"}], 2.5),
            Reproduction(experiment("three"), 2, [], 0.5, "no | file"),
        ]
    )
    assert "**1 of 3 experiments reproduced, 3 of 4 expectations met**, in 4 s" in text
    assert "| [two](#two) | 8 | 1 of 2 | 2.5 | a book |" in text
    assert "| [three](#three) | 2 | not run | 0.5 | a book |" in text
    assert "**Not run:** no \\| file" in text
    assert "| a\\|b (Gauss) | 1 ± 0.1 | 1.05 | pass |" in text
    assert "| a\\|b | 1 ± 0.1 | 1.05 | **fail** |" in text


def test_an_experiment_without_its_data_says_so(tmp_path: Path) -> None:
    found = reproduce(chosen(["clip-rescue"])[0], tmp_path / "out", str(tmp_path / "nowhere"))
    assert not found.reproduced
    assert found.outcomes == ()
    assert found.trouble.endswith("nowhere: no such folder")


def test_other_seeds_are_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def start(command: list[str], **_: object) -> object:
        asked.append(command)
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", start)
    reproduce(chosen(["weight-decay"])[0], tmp_path / "one", None, 1000)
    reproduce(chosen(["clip-quartic"])[0], tmp_path / "two", None, 1000)
    assert [words[-1] for words in asked] == ["seed=range(1000,1003)", "seed=1000"]


def test_the_page_has_a_column_for_other_seeds() -> None:
    own = [Reproduction(experiment("one"), 4, [OUTCOME, OUTCOME], 1.0)]
    failed = {**OUTCOME, "measured": "1.2", "result": "fail"}
    others = {
        1000: [Reproduction(experiment("one"), 4, [OUTCOME, failed], 1.0)],
        2000: [Reproduction(experiment("one"), 4, [], 1.0, "killed")],
    }
    text = page(own, others)
    assert "On other seeds, as many from another first one on: 0 of 1 from 1000, 0 of 1 from 2000." in text
    assert "| experiment | runs | met | from 1000 | from 2000 | core seconds | source |" in text
    assert "| [one](#one) | 4 | 2 of 2 | 1 of 2 | not run | 1.0 | a book |" in text
    assert "| 1 ± 0.1 | 1.05 | pass | 1.05; not run |" in text
    assert "| 1 ± 0.1 | 1.05 | pass | **1.2**; not run |" in text


def test_one_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 0.01)
    found = reproduce(chosen(["scalar-chain"])[0], tmp_path / "out", None)
    assert found.trouble == "took more than 0.01 s"
