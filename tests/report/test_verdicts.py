"""The verdicts in the report: filled in where missing, counted over each swept key, shown with their evidence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradlab.diagnose import DEFAULTS, ORDER, History, Profile, Verdict, judge, names
from gradlab.diagnose.tables import JUDGED
from gradlab.report import write_report
from gradlab.report.figures.evidence import ALONG, DRAWN, evidence_plot
from gradlab.report.figures.style import sheet, styled
from gradlab.report.tables import read
from gradlab.report.verdicts import counts, examples, outdated, table, tally
from gradlab.spec.named import Value
from tests.diagnose.cases import CASES
from tests.synthetic import grid, write_result

AXES: dict[str, list[Value]] = {"model.activation": ["sigmoid", "relu"], "model.depth": [3, 20], "seed": [0, 1]}


def stored(folder: Path, column: list[str | None]) -> Path:
    """A result whose runs have the verdicts of ``column``."""
    file = folder / "runs.parquet"
    runs = pq.read_table(file)
    place = runs.column_names.index("verdict")
    pq.write_table(runs.set_column(place, "verdict", pa.array(column, pa.string())), file)
    return folder


def test_missing_verdicts_are_filled_in_and_the_others_kept(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", grid(AXES), fail={7: "KeyError: x"})
    stored(source, ["dead", *[None] * 7])
    column = read([source]).columns["verdict"]
    assert column[0] == "dead"
    assert "vanishing" in names(str(column[2]))
    assert column[7] is None


def test_the_thresholds_of_the_manifest_are_used(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", [{"model.activation": "sigmoid", "model.depth": 20}])
    assert "vanishing" in names(str(read([source]).columns["verdict"][0]))
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    text = json.dumps({**manifest, "diagnose": {"vanishing_ratio": 1e-30}})
    (source / "manifest.json").write_text(text, encoding="utf-8")
    assert "vanishing" not in names(str(read([source]).columns["verdict"][0]))


def test_counts_over_each_swept_key(tmp_path: Path) -> None:
    column = ["healthy", "healthy", "vanishing", "vanishing+underflow", "healthy", "diverged", "exploding", None]
    source = stored(write_result(tmp_path / "out", grid(AXES), fail={7: "KeyError: x"}), column)
    result = read([source])
    rows = {(row.key, row.value): (row.runs, dict(zip(ORDER, row.verdicts, strict=True))) for row in counts(result)}
    assert [key for key, _ in rows] == ["", *["model.depth"] * 2, *["model.activation"] * 2]
    runs, every = rows["", "all"]
    assert runs == 8
    assert {name: count for name, count in every.items() if count} == {
        "healthy": 3,
        "vanishing": 2,
        "underflow": 1,
        "exploding": 1,
        "diverged": 1,
    }
    assert rows["model.activation", "sigmoid"][1]["vanishing"] == 2
    assert rows["model.activation", "relu"][1]["vanishing"] == 0
    assert rows["model.depth", "20"] == (4, dict.fromkeys(ORDER, 0) | {"vanishing": 2, "underflow": 1, "exploding": 1})
    assert tally(result) == (
        "Verdicts of 7 runs: 1 diverged, 1 exploding, 2 vanishing, 1 underflow, 3 healthy (a run may have several)."
    )
    shown = table(result)
    assert shown.head == ("key", "value", "runs", "diverged", "exploding", "vanishing", "underflow", "healthy")
    assert shown.rows[0] == ("", "all", "8", "1", "1", "2", "1", "3")


@pytest.mark.usefixtures("unpainted")
def test_the_counts_are_a_csv_file_and_a_section_of_the_page(tmp_path: Path) -> None:
    report = write_report([write_result(tmp_path / "out", grid(AXES), diverge={5: 3})], tmp_path / "report")
    with (tmp_path / "report" / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["key", "value", "runs", *ORDER]
    assert (rows[0]["value"], rows[0]["runs"], rows[0]["diverged"]) == ("all", "8", "1")
    assert tmp_path / "report" / "verdicts.csv" in report.files
    page = report.page.read_text(encoding="utf-8")
    section = page.partition('<section id="verdicts">')[2].partition("</section>")[0]
    assert "diverged at step 3" in section
    assert "diagnose.vanishing_ratio=0.05" in section
    assert "Schoenholz et al. 2017" in section
    assert "Verdicts of 8 runs: 1 diverged" in page


@pytest.mark.usefixtures("unpainted")
def test_a_single_run_tells_its_verdicts_among_the_findings(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", [{"model.activation": "sigmoid", "model.depth": 20}])
    page = write_report([source], tmp_path / "report").page.read_text(encoding="utf-8")
    findings = page.partition('<section class="findings"')[2].partition("</section>")[0]
    assert "Vanishing: δ of layer 1 is" in findings
    assert "Schoenholz et al. 2017" in findings
    assert '<section id="verdicts">' not in page


def test_an_example_is_the_run_with_the_fewest_other_verdicts(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", grid({"model.depth": [20, 30], "model.activation": ["sigmoid", "tanh"]}))
    stored(source, ["vanishing+stalled", "healthy", "vanishing", "healthy"])
    (vanishing,) = [example for example in examples(read([source])) if example.verdict.name == "vanishing"]
    assert vanishing.run == 2
    assert "depth=30" in vanishing.setting


def test_all_runs_healthy_need_no_evidence(tmp_path: Path) -> None:
    source = stored(write_result(tmp_path / "out", grid({"seed": [0, 1]})), ["healthy", "healthy"])
    assert evidence_plot(read([source])) is None


def judged() -> list[tuple[History, Verdict]]:
    at = {name: np.stack([np.ones(3), np.full(3, np.nan)]) for name in JUDGED} | {"saturated": np.full((2, 3), np.nan)}
    broken = Profile("depth", np.array([0, 3]), np.arange(1, 4), at | {"dead": np.zeros((2, 3))})
    diverged = History((broken,), "diverged", diverged_at=3, diverged_layer=1, loss=np.array([1.0, 9.0, 1e9, np.inf]))
    return [
        (history, verdict)
        for history in (diverged, *(history for history, _ in CASES.values() if history.along))
        for verdict in judge(history)
    ]


@pytest.mark.parametrize("name", ORDER)
def test_every_verdict_has_its_evidence_drawn(name: str) -> None:
    mine = [(history, verdict) for history, verdict in judged() if verdict.name == name]
    assert mine
    for history, verdict in mine:
        with styled():
            axes = sheet(4, 3).subplots()
            DRAWN[name](axes, history, verdict, DEFAULTS)
        assert axes.get_xlabel() in (*ALONG.values(), "step")
        # A legend over the lines would hide what it names.
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_bbox_to_anchor().y1 < axes.get_window_extent().y0
        drawn = [line for line in axes.lines if np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any()]
        assert drawn or axes.patches


def drawn(history: History, verdict: Verdict) -> dict[str, np.ndarray]:
    """The lines of a verdict's evidence by their labels: x and y, (2, N)."""
    with styled():
        axes = sheet(4, 3).subplots()
        DRAWN[verdict.name](axes, history, verdict, DEFAULTS)
    return {str(line.get_label()): np.array(line.get_data(), dtype=float) for line in axes.lines}


def deep(deltas: np.ndarray) -> History:
    columns = {name: np.full((1, len(deltas)), np.nan) for name in JUDGED} | {"signal_grad_norm": deltas[None]}
    return History((Profile("depth", np.array([0]), np.arange(1, len(deltas) + 1), columns, independent=True),))


def test_the_evidence_shows_what_the_ends_are_compared_with() -> None:
    history = deep(0.5 ** np.arange(30, 0, -1))
    (verdict,) = judge(history)
    lines = drawn(history, verdict)
    assert list(lines) == ["‖δ‖, step 0", "rate 0.5 ± 0", "0.05 × layer 29: vanishing"]
    np.testing.assert_allclose(lines["0.05 × layer 29: vanishing"][1], np.log10(0.05 * 0.25))
    healthy = drawn(history, Verdict("healthy", {}, {}, "", "healthy"))
    assert [label for label in healthy if "layer 29" in label] == [
        "20 × layer 29: exploding",
        "0.05 × layer 29: vanishing",
    ]


def test_the_evidence_says_where_one_rate_is_not_enough() -> None:
    history = deep(np.exp(-0.01 * np.arange(40, 0, -1.0) ** 2))
    (verdict,) = judge(history)
    assert any(label.startswith("no single rate: ") for label in drawn(history, verdict))


def test_one_loss_before_a_divergence_can_be_seen() -> None:
    profile = Profile("depth", np.array([0, 1]), np.arange(1, 4), {name: np.ones((2, 3)) for name in JUDGED})
    history = History((profile,), "diverged", diverged_at=1, diverged_layer=1, loss=np.array([5.0, np.nan]))
    verdict = Verdict("diverged", {}, {}, "", "diverged at step 1")
    with styled():
        axes = sheet(4, 3).subplots()
        DRAWN["diverged"](axes, history, verdict, DEFAULTS)
    loss, cross = axes.lines
    assert (loss.get_marker(), cross.get_label()) == ("o", "diverged")
    assert float(np.asarray(cross.get_ydata())[0]) > np.log10(5.0)


def test_a_run_that_was_judged_by_other_rules_is_judged_again_and_says_so(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", [{"model.activation": "sigmoid", "model.depth": 20}])
    assert outdated(read([source])) == ()
    result = read([stored(source, ["dead"])])
    assert "vanishing" in [example.verdict.name for example in examples(result)]
    assert outdated(result) == ("The runs table says dead: it was judged by the rules of another version.",)


def test_the_example_of_a_verdict_is_the_clearest(tmp_path: Path) -> None:
    values = grid({"model.depth": [10, 30, 20], "model.activation": ["sigmoid"], "train.steps": [20]})
    (vanishing,) = [
        one for one in examples(read([write_result(tmp_path / "out", values)])) if one.verdict.name == "vanishing"
    ]
    assert vanishing.run == 1
    values = grid({"optim.lr": [1.0, 2.0, 3.0], "train.steps": [50]})
    source = write_result(tmp_path / "diverged", values, diverge={0: 0, 1: 30, 2: 4})
    (diverged,) = [one for one in examples(read([source])) if one.verdict.name == "diverged"]
    assert diverged.run == 2
