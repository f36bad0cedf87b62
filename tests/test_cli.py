"""The command line: what is refused, with which words and which exit status, and what each verb prints."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml
from rich.console import Console

from gradlab import __version__
from gradlab.grid.compose import experiments
from gradlab.grid.experiment import THEMES, by_theme
from gradlab.spec.choices import CLIPS, MODELS
from gradlab.spec.run import SECTIONS, build
from gradlab.store.pieces import read_table
from gradlab.store.tables import load_tables
from gradlab.terminal.catalogue import KINDS, choices
from gradlab.terminal.screen import show_choices
from tests.cases import BAD_RUNS, BAD_SWEEPS
from tests.commands import ENVIRONMENT, TINY, call, inline, run, undrawn
from tests.synthetic import write_result

Capture = pytest.CaptureFixture[str]

MANY = (("run", BAD_RUNS), ("sweep", BAD_SWEEPS))
BAD_LINES = [((verb, *overrides), words) for verb, cases in MANY for overrides, words in cases]

BAD_OPTIONS = (
    (("run", "--device", "foo"), "--device foo"),
    (("run", "--device", "cuda:99"), "--device cuda:99"),
    (("run", "--device", "cuda:-1"), "--device cuda:-1"),
    (("sweep", "seed=0,1", "--device", "CPU"), "--device CPU"),
    (("run", "-o", "made"), "--resume made"),
    (("run", "-o", "made/"), "--resume made"),
    (("sweep", "seed=0,1", "-o", "made"), "-o made: already holds a result"),
    (("run", "-o", "file"), "-o file"),
    (("run", "-o", "file/inside"), "-o file/inside"),
    (("run", "-o", "/proc/nowhere/x"), "-o /proc/nowhere/x"),
    (("sweep", "--resume", "nothing"), "nothing: no such folder"),
    (("sweep", "--resume", "empty"), "empty: holds no result"),
    (("sweep", "--resume", "file"), "file: holds no result"),
    (("sweep", "--resume", "torn"), "torn/manifest.json: not a manifest"),
    (("sweep", "--resume", "foreign"), "foreign/manifest.json: not a manifest"),
    (("sweep", "--resume", "newer"), "newer: written in schema 99"),
    (("sweep", "--resume", "made", "seed=0,1"), "seed=0,1"),
    (("sweep", "--resume", "made", "--plan"), "--plan"),
    (("sweep", "--resume", "made", "--device", "gpu"), "--device gpu"),
    (("sweep", "--resume", "made", "-o", "new"), "--out"),
    (("sweep", "--resume", "made", "-e", "optimizers"), "--experiment"),
    (("sweep", "--resume", "made", "-cd", "empty"), "--config-dir"),
    (("report", "nothing"), "nothing: no such folder"),
    (("report", "empty"), "empty: holds no result"),
    (("report", "made", "empty"), "empty: holds no result"),
    (("report", "spoilt"), "spoilt: its tables cannot be read"),
    (("report", "made", "--x", "nonsense"), "nonsense"),
    (("report", "made", "--x", "model.width"), "model.width"),
    (("report", "made", "--x", "optim.lr", "--y", "optim.lr"), "optim.lr"),
    (("report", "made", "made2", "--x", "nonsense"), "nonsense"),
    (("report", "made", "-o", "file"), "-o file"),
    (("report", "made", "-o", "made"), "-o made: already there"),
    (("report", "made", "--x", "nonsense", "-o", "deep/new"), "nonsense"),
    (("report", "made", "--run", "zzz", "-o", "new"), "--run zzz: no run with this id; the nearest are "),
    (("report", "made", "--run", ""), "4 runs with such an id"),
    (("report", "made", "--run", "zzz", "--color", "seed"), "--color"),
    (("list", "nonsense"), "unknown kind 'nonsense'"),
    (("list", "activation"), "did you mean 'activations'?"),
    (("list", "experiments", "-cd", "nothing"), "nothing"),
    (("run", "-cd", "nothing"), "--config-dir nothing"),
    (("run", "--dry-run", "--device", "gpu"), "--device gpu"),
    (("sweep", "-e", "nonsense"), "'nonsense'"),
    (("sweep", "-e", "optimizers", "-e", "clipping"), "-e is given 2 times: optimizers, clipping"),
    (("run", "name=<script>"), """in a shell as "name='<script>'\""""),
    (("run", "-e", "optimizers"), "gradlab sweep -e optimizers"),
    (("run", "--speed"), "--speed: no such option; see gradlab run --help"),
    (("run", "--devise", "cpu"), "did you mean '--device'?"),
    (("sweep", "--steps", "5", "seed=0,1"), "did you mean train.steps=5?"),
    (("theory", "--lr=0.1"), "did you mean optim.lr=0.1?"),
    (("run", "--epochs", "3"), "did you mean train.steps=3?"),
    (("run", "--from", "nothing", "abc"), "nothing: no such folder"),
    (("run", "--from", "made", "abc"), "made"),
    (("run", "--from", "made", "abc", "-e", "butterfly"), "--experiment"),
    (("run", "--from", "made", "abc", "-e", "optimizers"), "--experiment"),
)
"""Options with what the one message must contain; the folders and files that they name are made by `place`."""

USAGE = (
    (("run", "--nonsense"), "--nonsense"),
    (("list", "--nonsense"), "--nonsense"),
    (("report",), "no result folder given"),
    (("sweep", "--resume"), "--resume"),
    (("run", "--from", "made"), "--from"),
    (("report", "made", "--x"), "--x"),
    (("train",), "train"),
)
"""What never gets as far as gradlab itself: the usage says it."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with results and with what is none."""
    for name, seeds in (("made", (0, 1)), ("made2", (2, 3))):
        write_result(tmp_path / name, [{"seed": seed, "optim.lr": lr} for seed in seeds for lr in (0.1, 0.2)])
    (tmp_path / "file").write_text("text", encoding="utf-8")
    for name, text in (("torn", '{"schema": 1,'), ("foreign", "[1]"), ("newer", '{"schema": 99}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (write_result(tmp_path / "spoilt", [{}]) / "steps.parquet").write_bytes(b"PAR1 and nothing more")
    return tmp_path


def content(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(("arguments", "words"), BAD_LINES, ids=lambda value: str(value)[:60])
def test_a_wrong_override_gets_one_message_and_no_folder(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    # After `--` even `--speed` is an override.
    ended = call([arguments[0], "--", *arguments[1:]], monkeypatch, capsys, tmp_path)
    assert_refused(ended.status, ended.out, ended.err, words)
    assert content(tmp_path) == []


@pytest.mark.parametrize(("arguments", "words"), BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_a_wrong_option_gets_one_message_and_changes_nothing(
    arguments: tuple[str, ...], words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = content(place)
    ended = call(arguments, monkeypatch, capsys, place)
    assert_refused(ended.status, ended.out, ended.err, words)
    assert content(place) == before


def assert_refused(status: int, out: str, err: str, words: str) -> None:
    assert status == 2
    assert out == ""
    assert err.startswith("gradlab: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "words"), USAGE, ids=lambda value: str(value)[:60])
def test_a_wrong_usage(
    arguments: tuple[str, ...], words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = content(place)
    ended = call(arguments, monkeypatch, capsys, place)
    assert ended.status == 2
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert content(place) == before


def test_as_a_process_of_its_own_a_wrong_key_is_one_line_and_status_2(tmp_path: Path) -> None:
    ended = run(["run", "model.dept=3"], tmp_path)
    assert_refused(ended.status, ended.out, ended.err, "did you mean 'model.depth'?")
    assert content(tmp_path) == []


def test_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ended = call(["--version"], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.out) == (0, f"gradlab {__version__}\n")


@pytest.mark.parametrize("verb", ["run", "sweep", "cure", "report", "export", "list"])
def test_help_fits_80_columns(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ended = call([verb, "--help"], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    assert max(map(len, ended.out.splitlines())) <= 80


@pytest.mark.parametrize("kind", [*KINDS, "experiments"])
def test_list_names_every_choice(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ended = call(["list", kind], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    if kind == "experiments":
        names = [one.name for some in by_theme(experiments()).values() for one in some]
    else:
        names = list(KINDS[kind])
    first = [line.split()[0] for line in ended.out.splitlines() if line[:1].strip()]
    assert [name for name in first if name in names] == names
    assert max(map(len, ended.out.splitlines())) <= 80


def test_a_list_of_optimizers_has_the_defaults_of_each() -> None:
    ((_, rows),) = choices("optimizers", (), print)
    told = {name: what for name, what, _ in rows}
    assert told["adamw"].endswith("; lr 0.001, weight_decay 0.01")
    assert told["sgd"].endswith("; lr 0.1")


def test_list_without_a_kind_prints_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ended = call(["list"], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    lines = [line.strip() for line in ended.out.splitlines()]
    titles = [*KINDS, *(f"experiments, {theme}" for theme in THEMES)]
    assert [line for line in lines if line in titles] == titles
    assert all(any(line.startswith(name) for line in lines) for name in (*MODELS, *CLIPS))


def test_a_list_is_a_line_each_where_nothing_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    out = io.StringIO()
    show_choices(Console(file=out), "things", [("one", "the first " * 20, "a book"), ("three", "the third", "-")])
    title, first, second, _ = out.getvalue().split("\n", 3)
    assert title == "things:"
    assert (first.startswith("one    the first"), first.endswith(" (a book)")) == (True, True)
    assert second == "three  the third"


def test_an_experiment_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "cd" / "experiment").mkdir(parents=True)
    for name, text in (("broken", "a: [\n"), ("mine", "experiment:\n  question: Why?\n  source: me\n")):
        (tmp_path / "cd" / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
    ended = call(["list", "experiments", "-cd", "cd"], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    first = [line.split()[0] for line in ended.out.splitlines() if line[:1].strip()]
    assert {"mine", *(found.name for found in experiments())} <= set(first)
    titles = [line for line in ended.out.splitlines() if line.startswith("experiments, ")]
    assert titles == [f"experiments, {theme}" for theme in (*THEMES, "others")]
    assert ended.err.count("\n") == 1
    assert "experiment 'broken' cannot be read" in ended.err
    ended = call(["sweep", "-cd", "cd", "-e", "broken"], monkeypatch, capsys, tmp_path)
    assert_refused(ended.status, ended.out, ended.err, "experiment 'broken' cannot be read")


def test_the_hint_for_special_characters_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    ended = call(["run", "--dry-run", "name='my <run>'"], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.err) == (0, "")


def test_plan_says_what_would_run_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    line = ["sweep", "--plan", "model.depth=2,3", "seed=0,1,2,1", "model.width=8", "launch.memory=100kB"]
    ended = call(line, monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    assert ended.err == ""
    words = " ".join(ended.out.split())
    assert "6 runs (2 more were the same as others) in 2 cohorts" in words
    assert "FLOP" in words
    assert "KiB" in words
    assert content(tmp_path) == []


def test_dry_run_prints_the_spec_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    ended = call(["run", "--dry-run", "model=rnn", "optim.lr=0.3"], monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.err) == (0, "")
    nested = yaml.safe_load(ended.out)
    flat = {"seed": nested["seed"]} | {f"{s}.{key}": value for s in SECTIONS for key, value in nested[s].items()}
    assert build(flat).id == build({"model.name": "rnn", "data.name": "digits", "optim.lr": 0.3}).id
    assert content(tmp_path) == []


def test_the_spec_that_dry_run_prints_makes_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    line = ["model=residual_mlp", "optim=adam", "clip.mode=norm", "seed=7", "data.batch_size=full"]
    first = call(["run", "--dry-run", *line], monkeypatch, capsys, tmp_path)
    nested = yaml.safe_load(first.out)
    names = {"model": "name", "data": "name", "optim": "name", "clip": "mode"}
    given = [f"{section}={nested[section][key]}" for section, key in names.items()]
    given += [
        f"{section}.{key}={'null' if value is None else str(value).lower()}"
        for section in SECTIONS
        for key, value in nested[section].items()
        if key != names.get(section)
    ]
    second = call(["run", "--dry-run", f"seed={nested['seed']}", *given], monkeypatch, capsys, tmp_path)
    assert second.status == 0
    assert yaml.safe_load(second.out) == nested


def test_from_runs_one_run_of_a_sweep_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    inline(monkeypatch)
    assert call(["sweep", *TINY, "seed=0,1", "-o", "s", "--no-report"], monkeypatch, capsys, tmp_path).status == 0
    before = load_tables(tmp_path / "s")
    run_id = before["runs"]["run_id"][1].as_py()
    ended = call(["run", "--from", "s", run_id[:10], "-o", "again", "--no-report"], monkeypatch, capsys, tmp_path)
    assert ended.status == 0
    after = load_tables(tmp_path / "again")
    assert after["runs"]["run_id"].to_pylist() == [run_id]
    losses = before["steps"].filter(pc.equal(before["steps"]["run_id"], run_id))["loss"]
    assert after["steps"]["loss"].to_pylist() == losses.to_pylist()
    both = call(["run", "--from", "s", "", "-o", "x"], monkeypatch, capsys, tmp_path)
    ids = ", ".join(before["runs"]["run_id"].to_pylist())
    assert_refused(both.status, both.out, both.err, f"2 runs with this id; there are {ids}")


@pytest.mark.parametrize(
    "line",
    [
        ("run", *TINY, "-q"),
        ("sweep", *TINY, "seed=0,1", "--no-report", "-q"),
        ("report", "made", "-q"),
        ("sweep", "seed=0,1", "--plan", "-q"),
        ("list", "norms", "-q"),
    ],
    ids=" ".join,
)
def test_quiet_says_nothing(
    line: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    inline(monkeypatch)
    undrawn(monkeypatch)
    ended = call(line, monkeypatch, capsys, place)
    assert (ended.status, ended.out, ended.err) == (0, "", "")


def test_report_of_one_folder_again_and_elsewhere(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    asked = undrawn(monkeypatch)
    for line in (["made"], ["made", "./made/"], ["made", "-o", "else/where"]):
        ended = call(["report", *line], monkeypatch, capsys, place)
        assert (ended.status, ended.err) == (0, "")
        assert f"{asked[-1]}/index.html" in ended.out
        assert "a note" in ended.out
    assert asked == [Path("made/report"), Path("made/report"), Path("else/where")]


def test_report_of_runs_lies_beside_that_of_all(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = undrawn(monkeypatch)
    ids = read_table(place / "made/runs.parquet", "runs", ["run_id"])["run_id"].to_pylist()
    for line in (["--run", ids[2][:12]], ["--run", ids[3], "--run", ids[1]], ["--run", ids[2], "-o", "new"]):
        assert call(["report", "made", *line], monkeypatch, capsys, place).status == 0
    names = [f"report-{ids[2][:8]}", f"report-{ids[1][:8]}-{ids[3][:8]}"]
    assert asked == [*(Path("made") / name for name in names), Path("new")]
    assert not (place / "made/report").exists()


@pytest.mark.usefixtures("unpainted")
def test_report_of_several_folders(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ended = call(["report", "made", "made2", "--x", "seed", "--y", "optim.lr"], monkeypatch, capsys, place)
    assert ended.status == 0
    (folder,) = (place / "outputs").glob("*/*-report")
    assert f"{folder.relative_to(place)}/index.html" in ended.out
    assert {path.name for path in folder.iterdir()} >= {"index.html", "runs.csv", "steps.csv", "layers.csv"}


WATCHED = """
import atexit, sys
atexit.register(lambda: print("torch" if "torch" in sys.modules else "free", file=sys.stderr))
from gradlab.cli import main
main()
"""


@pytest.mark.parametrize(
    "line",
    [
        ("run", *TINY, "--no-report"),
        ("sweep", "--plan", "seed=0,1"),
        ("report", "one"),
        ("list",),
        ("--help",),
    ],
    ids=lambda line: line[0],
)
def test_the_command_itself_never_imports_torch(line: tuple[str, ...], place: Path) -> None:
    write_result(place / "one", [{"train.steps": 0}])
    code = [sys.executable, "-c", WATCHED, *line]
    done = subprocess.run(code, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "free"


def test_a_password_in_an_address_is_kept_nowhere_and_shown_nowhere(
    idx200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    inline(monkeypatch)
    line = [*TINY, "data=mnist", f"data.root={idx200}", "data.mirror='http://me:s3cret@127.0.0.1:9/mnist'"]
    for verb in (
        ["run", "--dry-run"],
        ["run", "-o", "out", "--no-report"],
        ["report", "out", "-o", "again"],
        ["cure", "out", "--no-report"],
    ):
        ended = call([*verb, *(line if verb[0] == "run" else [])], monkeypatch, capsys, tmp_path)
        assert "s3cret" not in ended.out + ended.err
    runs = read_table(tmp_path / "out/runs.parquet", "runs", ["data.mirror"])
    assert runs["data.mirror"].to_pylist() == ["http://***@127.0.0.1:9/mnist"]
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert not [file for file in files if b"s3cret" in file.read_bytes()]


def test_docs_prints_a_page_by_its_name(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert call(["docs", "page"], monkeypatch, capsys, place).out.startswith("# How to read the page\n")
    ended = call(["docs", "pag"], monkeypatch, capsys, place)
    assert ended.status == 2
    assert "unknown page 'pag'; did you mean 'page'?" in ended.err
