"""`gradlab theory`: what it prints, what it refuses, and that it needs no torch."""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.grid.compose import compose_any
from gradlab.store.columns import RUNS
from gradlab.terminal.theory import distinct
from gradlab.theory.predict import predict
from tests.cases import BAD_RUNS, BAD_SWEEPS
from tests.commands import ENVIRONMENT, Ended, call

Capture = pytest.CaptureFixture[str]

SWEPT_OR_NOT = ("gradlab sweep", "nothing is swept")
"""What is wrong of `gradlab run` or `gradlab sweep` alone."""

BAD = [
    overrides for overrides, words in (*BAD_RUNS, *BAD_SWEEPS) if not any(words.startswith(one) for one in SWEPT_OR_NOT)
]

CHAOS = ("model.activation=tanh", "model.bias_var=0.05", "model.weight_var=2.5", "model.depth=50")


@pytest.fixture
def theory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> object:
    def run(*arguments: str) -> Ended:
        ended = call(["theory", *arguments], monkeypatch, capsys, tmp_path)
        assert list(tmp_path.iterdir()) == []
        return ended

    return run


def run(theory: object, *arguments: str) -> Ended:
    assert callable(theory)
    ended = theory(*arguments)
    assert isinstance(ended, Ended)
    return ended


def test_every_run_of_a_grid_has_its_row(theory: object) -> None:
    grid = ("model.activation=tanh", "model.weight_var=range(1,3,0.02)", "seed=0,1", "model.depth=20")
    some = run(theory, *grid)
    assert "... and 40 more: --all shows them, --csv FILE writes a row for each run." in " ".join(some.out.split())
    assert len(run(theory, *grid, "--all").out.splitlines()) == len(some.out.splitlines()) + 39
    rows = list(csv.DictReader(io.StringIO(run(theory, *grid, "--csv", "-").out)))
    assert len(rows) == 200
    assert float(rows[100]["model.weight_var"]) == 2.0
    runs = compose_any(grid).runs
    assert [row["run_id"] for row in rows] == [one.id for one in runs]
    assert float(rows[100]["chi1"]) == predict(runs[100]).chi1
    assert rows[0]["note"] == predict(runs[0]).note


def test_a_csv_is_written_whole_and_called_as_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    given = ["theory", "model.depth=5,10", "--csv", "theory.csv"]
    ended = call(given, monkeypatch, capsys, tmp_path)
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    header = (tmp_path / "theory.csv").read_text(encoding="utf-8").partition("\n")[0].split(",")
    assert header[:2] == ["run_id", "model.depth"]
    assert {"rate_theory", "rate_limit", "chi1", "depth_scale"} <= set(RUNS.names)
    nowhere = call([*given[:-1], "nowhere/theory.csv"], monkeypatch, capsys, tmp_path)
    assert (nowhere.status, nowhere.err) == (1, "gradlab: error: nowhere/theory.csv: No such file or directory\n")


@pytest.mark.parametrize("overrides", BAD, ids=lambda value: str(value)[:60])
def test_a_wrong_override_gets_one_message(overrides: tuple[str, ...], theory: object) -> None:
    ended = run(theory, "--", *overrides)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("gradlab: error: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-cd", "nothing"), "--config-dir nothing"),
        (("-e", "nonsense"), "unknown experiment 'nonsense'"),
        (("-e", "optimizers", "-e", "clipping"), "-e is given 2 times"),
        (("model.activation=rellu",), "did you mean 'relu'?"),
    ],
)
def test_a_wrong_option_gets_one_message(arguments: tuple[str, ...], words: str, theory: object) -> None:
    ended = run(theory, *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert words in ended.err


def test_one_run_is_a_block_of_sentences(theory: object) -> None:
    ended = run(theory, *CHAOS)
    assert (ended.status, ended.err) == (0, "")
    said = " ".join(ended.out.split())
    assert said.startswith(
        "tanh, σb²=0.05: critical at σw²=1.761; yours is 2.5, gradients grow 1.065 a layer toward the input. rate"
    )
    for words in (
        "1.065 a layer, χ₁ = 1.134",
        "ξc = 11.8 layers for correlations, ξ = 7.98 layers for gradients",
        "to about 70.8 layers",
        "here 50",
        "δ of layer 1 over L-1 is 15.2",
        "Schoenholz et al. 2016",
    ):
        assert words in said
    assert max(map(len, ended.out.splitlines())) <= 80


def test_quiet(theory: object) -> None:
    assert run(theory, *CHAOS, "-q") == Ended(0, "", "")


def test_no_theory_is_said_so(theory: object) -> None:
    assert run(theory, "model.init=zeros").out == "every weight is 0, so no gradient passes a layer at all.\n"


def test_through_time(theory: object) -> None:
    said = " ".join(run(theory, "model=rnn", "model.activation=tanh", "data=adding").out.split())
    assert "a time step toward the first step" in said
    assert "never above γρ = 2.828 a time step" in said
    assert "δ of step 1 over T is" in said


def test_far_below_the_mean_the_typical_draw_is_said_too(theory: object) -> None:
    """ReLU, 32 units, 200 layers: variance 5 x 198/32 of ln delta^2, so ln delta typically lies 7.73 below 0.

    400 draws in numpy had -7.86 +- 0.15.
    """
    said = " ".join(run(theory, "model.depth=200", "model.width=32").out.split())
    assert "is 1 in the mean square over draws of the weights, but typically about 4.38e-04, within" in said


def test_a_mean_over_layers_is_no_limit(theory: object) -> None:
    said = " ".join(run(theory, "model=residual_mlp", "model.norm=batch", "model.depth=30").out.split())
    assert "the mean over these layers" in said
    assert "limit" not in said


def test_a_grid_is_a_table_of_what_theory_can_tell_apart(theory: object) -> None:
    grid = ("model.activation=tanh,relu", "model.init=he,xavier", "model.depth=30", "seed=0,1", "optim.lr=0.1,0.2")
    lines = run(theory, *grid).out.splitlines()
    assert lines[0] == "16 runs, 4 of which theory can tell apart:"
    assert lines[1].split() == ["activation", "init", "rate", "χ₁", "ξc", "6ξc", "δ₁/δ", "σw²*"]
    rows = [line.split() for line in lines[2:6]]
    assert [row[:3] for row in rows] == [
        ["tanh", "he_normal", "1.051"],
        ["tanh", "xavier_normal", "~1"],
        ["relu", "he_normal", "1"],
        ["relu", "xavier_normal", "0.7071"],
    ]
    assert rows[3][3:] == ["0.5", "1.44", "8.66", "6.10e-05", "2"]
    assert max(map(len, lines)) <= 80


def test_a_named_experiment(theory: object) -> None:
    lines = run(theory, "-e", "order-to-chaos").out.splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [["1", "0.8712"], ["2.5", "1.065"], ["4", "1.159"]]


def test_a_wide_grid_fits_80_columns(theory: object) -> None:
    lines = run(theory, "-e", "reference-grid").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("... and 12 more: --all shows them") for line in lines)


def test_runs_that_theory_cannot_tell_apart_are_one(theory: object) -> None:
    said = run(theory, "seed=range(3)").out
    assert said.startswith("3 runs that theory cannot tell apart:\nrelu, σb²=0: critical at σw²=2; yours is 2,")


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (("data.batch_size=8,16", "seed=0,1"), []),
        (("data.batch_size=8,16", "model.norm=none,batch"), ["data.batch_size", "model.norm"]),
        (("model.init=he_normal,he_uniform", "model.depth=3,4"), ["model.depth"]),
        (("model=mlp,rnn", "optim.lr=0.1,0.2"), ["model.name"]),
    ],
)
def test_only_keys_that_theory_sees_are_columns(overrides: tuple[str, ...], keys: list[str]) -> None:
    grid = compose_any(overrides)
    rows = distinct(grid.runs, grid.swept)
    assert list(rows[0][0]) == keys
    assert len({tuple(values.values()) for values, _ in rows}) == len(rows)


DOCS = Path(__file__).resolve().parents[2] / "docs" / "theory.md"
SHOWN = re.findall(r"```console\n\$ gradlab theory ([^\n]*)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_documentation_shows_what_is_printed(command: str, shown: str, theory: object) -> None:
    printed = [line.rstrip() for line in run(theory, *shlex.split(command)).out.splitlines()]
    assert printed[: len(shown.splitlines())] == shown.splitlines()


def test_torch_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom gradlab.cli import main\n"
        f"sys.argv = ['gradlab', 'theory', *{list(CHAOS)!r}]\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tanh, σb²=0.05")
