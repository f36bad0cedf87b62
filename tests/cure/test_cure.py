"""`gradlab cure` from end to end on small networks: what it tries, finds, prints, refuses and survives."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from gradlab.cure import trials
from gradlab.cure.ranking import front, outcomes
from gradlab.engine.keeper import Keeper
from gradlab.engine.train import training as real_training
from gradlab.grid.compose import compose_any
from gradlab.launch import worker
from gradlab.spec.run import RunSpec
from gradlab.store import documents
from gradlab.store.documents import read_manifest, read_runs
from gradlab.store.folder import Folder
from gradlab.store.record import Record
from gradlab.store.tables import load_tables, merged
from tests.commands import Ended, Gradlab, assert_same_tables, before_training, forked, run
from tests.cure.test_command import as_the_shell_reads

Capture = pytest.CaptureFixture[str]

SICK = (
    *("model.depth=12", "model.width=16", "model.activation=sigmoid", "model.init=xavier", "optim.lr=0.3"),
    *("train.steps=60", "probe.every=60", "data.batch_size=32", "--device", "cpu"),
)
"""Twelve sigmoid layers: δ of the first is some 1e-7 of that of the last, and 60 steps teach the network nothing."""

SEEDS = "seed=0,1,2"

WELL = ("model.depth=3", "model.width=16", "train.steps=60", "probe.every=60", "--device", "cpu", SEEDS)


@pytest.fixture(scope="module")
def cured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A finished cure with its report, which several tests look at."""
    folder = tmp_path_factory.mktemp("cured")
    ended = run(("cure", *SICK, SEEDS, "launch.workers=1", "-o", "out", "--no-report"), folder)
    assert forked(("report", "out"), folder, painted=False).status == 0
    return folder / "out", ended


def test_a_deep_sigmoid_network_is_cured(cured: tuple[Path, Ended]) -> None:
    folder, ended = cured
    assert (ended.status, ended.err) == (0, "")
    found = outcomes(read_manifest(folder)["cure"], load_tables(folder))
    states = {one.name: one.state for one in found}
    # Glorot & Bengio 2010; He et al. 2016: what the literature says of such a network.
    assert states["tanh"] == states["residual"] == "heals"
    assert {states[name] for name in ("lr/10", "clip-norm", "he", "twice-as-wide")} == {"no help"}
    best = front(found)
    assert [one.cost for one in best] == sorted({one.cost for one in best})
    assert found[0].ends < 1e-4
    assert all(0.05 < one.ends < 20 for one in best)
    assert found[0].verdict == "vanishing"


def test_what_is_printed(cured: tuple[Path, Ended]) -> None:
    _, ended = cured
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(ended.out.split())
    for words in (
        "Round 1: 34 single changes over 3 seeds.",
        "As it was: vanishing, healthy in 0 of 3 seeds; loss",
        "The smallest changes that heal",
        "1. model.activation=tanh (cost 3)",
        "rate 0.236 -> ~1: tanh, σb²=0: critical at σw²=1",
        "Glorot & Bengio 2010",
        "Do not help: ",
    ):
        assert words in said


def test_the_commands_that_are_printed_are_the_runs_that_healed(cured: tuple[Path, Ended]) -> None:
    """As they stand on the screen: a shell joins the lines, and no blank stands behind a backslash."""
    folder, ended = cured
    printed: list[str] = []
    for line in ended.out.splitlines():
        if line.startswith("   gradlab run"):
            printed.append(line)
        elif printed and printed[-1].endswith("\\"):
            printed[-1] += f"\n{line}"
    best = front(outcomes(read_manifest(folder)["cure"], load_tables(folder)))
    assert len(printed) == len(best) > 0
    for text, one in zip(printed, best, strict=True):
        verb, *given = as_the_shell_reads(text)
        assert verb == "run"
        assert compose_any(given).runs[0].id == one.change["members"][0]


def test_every_change_that_is_named_has_the_id_of_a_run(cured: tuple[Path, Ended]) -> None:
    folder, ended = cured
    ids = set(load_tables(folder)["runs"]["run_id"].to_pylist())
    best = front(outcomes(read_manifest(folder)["cure"], load_tables(folder)))
    assert [line.split()[1] for line in ended.out.splitlines() if line.startswith("   run ")] == [
        one.run_id for one in best
    ]
    _, _, also = ended.out.partition("Also:")
    rows = [line for line in also.splitlines() if line.startswith("heals")]
    assert rows
    for line in rows:
        assert any(word in {run_id[:8] for run_id in ids} for word in line.split())
    table = (folder / "report" / "cure.csv").read_text(encoding="utf-8")
    assert all(one.run_id in table for one in best)


def test_it_is_an_ordinary_sweep_folder(cured: tuple[Path, Ended]) -> None:
    folder, _ = cured
    manifest, tables = read_manifest(folder), load_tables(folder)
    facts, ids = manifest["cure"], tables["runs"]["run_id"].to_pylist()
    assert (manifest["state"], manifest["runs"], facts["round"], facts["seeds"]) == ("done", len(ids), 2, [0, 1, 2])
    assert [run.id for run in read_runs(Folder(folder))] == ids
    assert sorted(run_id for piece in manifest["pieces"] for run_id in piece["members"]) == sorted(ids)
    assert [piece["index"] for piece in manifest["pieces"]] == list(range(len(manifest["pieces"])))
    assert len({piece["cohort"] for piece in manifest["pieces"]}) == manifest["cohorts"]
    assert {run_id for change in facts["changes"] for run_id in change["members"]} == set(ids)
    seeds = dict(zip(ids, tables["runs"]["seed"].to_pylist(), strict=True))
    assert all([seeds[one] for one in change["members"]] == [0, 1, 2] for change in facts["changes"])
    assert {len(change["remedies"]) for change in facts["changes"]} == {0, 1, 2}
    assert "model.activation" in manifest["swept"]
    assert not Folder(folder).pieces.exists()


def test_every_override_is_the_run_that_was_tried(cured: tuple[Path, Ended]) -> None:
    folder, _ = cured
    given = [text for text in SICK if "=" in text]
    for change in read_manifest(folder)["cure"]["changes"]:
        keys = [text.partition("=")[0] for text in change["override"].split()]
        kept = [text for text in given if text.partition("=")[0] not in keys]
        assert compose_any([*kept, *change["override"].split()]).runs[0].id == change["members"][0]


def test_the_report_of_a_cure(cured: tuple[Path, Ended]) -> None:
    report = cured[0] / "report"
    page = (report / "index.html").read_text(encoding="utf-8")
    assert '<section id="cure">' in page
    assert "model.activation=tanh" in page
    assert {"cure_gains.png", "cure_profiles.svg", "runs.csv"} <= {path.name for path in report.iterdir()}
    rows = pyarrow.csv.read_csv(report / "cure.csv").to_pylist()
    tanh = next(row for row in rows if row["change"] == "tanh")
    assert (tanh["state"], tanh["cost"], tanh["override"]) == ("heals", 3, "model.activation=tanh")
    assert tanh["gain_low"] <= tanh["gain"] <= tanh["gain_high"]
    assert tanh["vanishing_ratio_before"] < 1e-4 < 0.05 < tanh["vanishing_ratio_after"]
    assert sum(row["smallest"] for row in rows) >= 1
    assert {row["state"] for row in rows} <= {"heals", "helps", "unclear", "no help", "harms"}


def test_a_healthy_run_is_left_alone(gradlab_: Gradlab, tmp_path: Path) -> None:
    ended = gradlab_("cure", *WELL, "-o", "out")
    assert (ended.status, ended.err) == (0, "")
    assert "Healthy in 3 of 3 seeds" in ended.out
    assert "nothing was tried" in " ".join(ended.out.split())
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["state"], manifest["runs"], manifest["cure"]["round"]) == ("done", 3, 0)


def test_a_run_that_is_sick_at_its_own_seed_alone_is_told_so(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlucky(runs: list[RunSpec], _: Keeper) -> None:
        if runs[0].seed == 0:
            runs[0] = replace(runs[0], optim=replace(runs[0].optim, lr=1e38))

    before_training(monkeypatch, unlucky)
    ended = gradlab_("cure", *WELL, "-o", "out")
    assert ended.status == 0
    said = " ".join(ended.out.split())
    assert "The run itself is diverged, and yet 2 of 3 seeds are healthy" in said
    assert "Another seed is all that it needs" in said
    assert read_manifest(tmp_path / "out")["cure"]["round"] == 0


def test_a_sweep_names_the_runs_to_choose_from(gradlab_: Gradlab) -> None:
    deeper = [text for text in SICK if "depth" not in text]
    gradlab_("sweep", *deeper, "model.depth=2,12", "-o", "several", "--no-report")
    ended = gradlab_("cure", "several")
    (sick,) = [run for run in read_runs(Folder(Path("several"))) if run.model.depth == 12]
    assert f"1 is sick: {sick.id} vanishing" in ended.err
    assert "all are in several/runs.parquet" in " ".join(ended.err.split())
    Path("several/runs.parquet").unlink()
    assert "RUN_ID (none has ended yet)" in " ".join(gradlab_("cure", "several").err.split())


def test_what_a_guess_comes_to() -> None:
    """Le et al. 2015, section 4.1: the sum of two uniform numbers has the variance 1/6."""
    adding = trials.guess(compose_any(["model=rnn", "data=adding", "data.target_scale=2"]).runs[0])
    assert adding["accuracy"] is None
    assert adding["loss"] == pytest.approx(4 / 6, rel=0.02)
    digits = trials.guess(compose_any([]).runs[0])
    assert digits == {"loss": pytest.approx(math.log(10)), "accuracy": pytest.approx(0.1)}
    silence = trials.guess(compose_any(["model=rnn", "data=silence", "model.width=1"]).runs[0])
    assert silence == {"loss": None, "accuracy": None}
    text = trials.guess(compose_any(["model=gru", "data=characters"]).runs[0])
    assert text == {"loss": 3.10, "accuracy": None}


def test_a_learning_rate_that_is_far_off_is_cured_by_another(gradlab_: Gradlab, tmp_path: Path) -> None:
    """However far off: three times and ten times less do not reach it."""
    small = ("model.depth=3", "model.width=16", "probe.every=200", "--device", "cpu", SEEDS)
    ended = gradlab_("cure", *small, "optim.lr=1e30", "-o", "out")
    assert ended.status == 0
    assert "out/report/index.html" in ended.out
    found = outcomes(read_manifest(tmp_path / "out")["cure"], load_tables(tmp_path / "out"))
    first = front(found)[0]
    assert (first.name, first.cost, first.change["change"]) == ("lr-usual", 1, {"optim.lr": 0.01})
    assert {one.state for one in found if one.name in ("lr/10", "lr*10", "momentum")} == {"no help"}
    assert "which counts as 2.3" in " ".join(ended.out.split())
    assert "the change is in the steps that are taken" in " ".join(ended.out.split())


def test_a_finished_run_is_cured_by_its_folder(gradlab_: Gradlab, tmp_path: Path) -> None:
    well = [text for text in WELL if text != SEEDS]
    gradlab_("run", *well, "-o", "one")
    (run_id,) = load_tables(tmp_path / "one")["runs"]["run_id"].to_pylist()
    assert gradlab_("cure", "one", "-o", "by-folder").status == 0
    assert gradlab_("cure", "--from", "one", run_id, "-o", "by-id").status == 0
    for name in ("by-folder", "by-id"):
        members = read_manifest(tmp_path / name)["cure"]["changes"][0]["members"]
        assert (members[0], len(members)) == (run_id, trials.SEEDS)
    gradlab_("sweep", *well, "seed=4,7", "-o", "seeds")
    gradlab_("cure", "seeds", "-o", "by-seeds")
    assert read_manifest(tmp_path / "by-seeds")["cure"]["seeds"] == [4, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model.depth=2,3",), "model.depth is swept"),
        (("-e", "optimizers"), "is swept"),
        (("seed=range(1)",), "at least two"),
        (("train.steps=0",), "train.steps=0"),
        (("model.activation=rellu",), "did you mean 'relu'?"),
        (("nothing/here",), "nothing/here: no such folder"),
        (("model.depth",), "expected model.depth=value"),
        (("empty",), "empty: holds no result"),
        (("several",), "--from several RUN_ID"),
        (("several", "-e", "optimizers"), "--experiment"),
        (("several", "optim.lr=1"), "optim.lr=1: several takes no overrides"),
        (("optim.lr=1", "nothing/here"), "optim.lr=1: nothing/here takes no overrides"),
        (("--from", "several", "zzz"), "no run with this id"),
        (("--from", "several", "zzz", "seed=1"), "seed=1"),
        (("-o", "several"), "already holds a result"),
    ],
)
def test_a_wrong_command_gets_one_message(
    arguments: tuple[str, ...], words: str, gradlab_: Gradlab, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    gradlab_("sweep", "model.depth=2,3", "model.width=4", "train.steps=0", "-o", "several", "--no-report")
    before = sorted(tmp_path.rglob("*"))
    ended = gradlab_("cure", *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("gradlab: error: ")
    assert ended.err.count("\n") == 1
    assert words in ended.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("trained", "planned"), [(4, 1), (20, 2)])
def test_an_interrupted_cure_is_resumed(
    trained: int,
    planned: int,
    cured: tuple[Path, Ended],
    gradlab_: Gradlab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the first round and in the second: the same runs follow, and the same tables."""
    count = 0

    def interrupted(runs: list[RunSpec], _: Keeper) -> None:
        nonlocal count
        count += 1
        if count > trained:
            raise KeyboardInterrupt

    before_training(monkeypatch, interrupted)
    ended = gradlab_("cure", *SICK, SEEDS, "-o", "out")
    assert ended.status == 130
    assert "gradlab sweep --resume out" in " ".join(ended.err.split())
    assert read_manifest(tmp_path / "out")["cure"]["round"] == planned
    monkeypatch.setattr(worker, "training", real_training)
    ended = gradlab_("sweep", "--resume", "out")
    assert (ended.status, ended.err) == (0, "")
    assert "The smallest changes that heal" in ended.out
    assert_same_tables(tmp_path / "out", cured[0])


def test_a_kill_between_the_specs_of_a_round_and_its_pieces_loses_nothing(
    cured: tuple[Path, Ended], gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What nothing catches."""

    def killed(folder: Folder, manifest: dict[str, Any]) -> None:
        if manifest.get("cure", {}).get("round") == 1:
            raise Killed
        written(folder, manifest)

    written = documents.write_manifest
    monkeypatch.setattr(documents, "write_manifest", killed)
    with pytest.raises(Killed):
        gradlab_("cure", *SICK, SEEDS, "-o", "out")
    assert read_manifest(tmp_path / "out")["cure"]["round"] == 0
    assert len(read_runs(Folder(tmp_path / "out"))) > 3
    assert merged(Folder(tmp_path / "out"))["runs"].num_rows == 3
    monkeypatch.setattr(documents, "write_manifest", written)
    assert gradlab_("sweep", "--resume", "out").status == 0
    assert_same_tables(tmp_path / "out", cured[0])


def test_a_crash_of_every_seed_tries_nothing(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> Record:
        raise ValueError("it broke")

    monkeypatch.setattr(worker, "training", crash)
    ended = gradlab_("cure", *WELL, "-o", "out")
    assert ended.status == 1
    assert "Every seed of the run crashed" in ended.out
    assert read_manifest(tmp_path / "out")["cure"]["round"] == 0


def test_a_large_run_gets_fewer_seeds() -> None:
    assert trials.patient(compose_any(["seed=3"])).cure is not None
    assert [run.seed for run in trials.patient(compose_any(["seed=3"])).runs] == [3, 4, 5, 6, 7]
    assert len(trials.patient(compose_any(["model.width=512", "model.depth=30"])).runs) == trials.FEWER_SEEDS
