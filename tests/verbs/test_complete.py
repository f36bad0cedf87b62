"""The Tab key: what the shells' protocol is answered with, and a real bash with the script that is installed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradlab.grid.compose import experiments
from gradlab.spec.choices import ACTIVATIONS
from gradlab.spec.keys import allowed_keys
from gradlab.store.pieces import read_table
from gradlab.terminal.catalogue import KINDS
from gradlab.verbs import choices
from gradlab.verbs.complete import short
from tests.commands import ENVIRONMENT, GRADLAB, call
from tests.synthetic import write_result

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a result, whose plan names its runs, a folder of configs and a plain folder."""
    write_result(tmp_path / "made", [{"seed": 0}, {"seed": 1}])
    ids = read_table(tmp_path / "made/runs.parquet", "runs", ["run_id"])["run_id"].to_pylist()
    manifest = tmp_path / "made/manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('{"runs": 2}', f'{{"members": {ids}}}'.replace("'", '"')), encoding="utf-8")
    (tmp_path / "more/experiment").mkdir(parents=True)
    (tmp_path / "more/experiment/mine.yaml").write_text("experiment:\n  question: Why?\n", encoding="utf-8")
    return tmp_path


ANSWERS: tuple[tuple[str, set[str]], ...] = (
    ("gradlab ex", {"export"}),
    ("gradlab run --d", {"--device", "--dry-run"}),
    ("gradlab run --device c", {"cpu", "cuda"}),
    ("gradlab run mod", {"model=", "model."}),
    ("gradlab run model.activation=re", {"model.activation=relu"}),
    ("gradlab run model.activation=", {f"model.activation={name}" for name in (*ACTIVATIONS, "own")}),
    ("gradlab sweep model.activation=relu,tan", {"model.activation=relu,tanh"}),
    ("gradlab sweep model.activation=relu,rel", set()),
    (
        "gradlab sweep model=rnn data=adding data.",
        {f"{key}=" for key in allowed_keys("rnn", "adding") if key.startswith("data.")},
    ),
    ("gradlab sweep optim=ada", {f"optim={name}" for name in ("adam", "adamw", "adagrad", "adadelta", "adamax")}),
    ("gradlab run train.steps=", {"train.steps=200"}),
    ("gradlab run optim.nesterov=", {"optim.nesterov=true", "optim.nesterov=false"}),
    ("gradlab run clip.mode=nor", {"clip.mode=norm", "clip.mode=normalize"}),
    ("gradlab run data.path=", set()),
    ("gradlab run lau", {"launch=", "launch."}),
    ("gradlab run diagnose.van", {"diagnose.vanishing_ratio="}),
    ("gradlab run -cd more -e mi", {"mine"}),
    ("gradlab sweep -cd more +experiment=min", {"+experiment=mine"}),
    ("gradlab cure ma", {"made"}),
    ("gradlab report m", {"made", "more/"}),
    ("gradlab report made --x optim.l", {"optim.lr", "optim.l1"}),
    ("gradlab sweep --resume m", {"made", "more/"}),
    ("gradlab export made --to ml", {"mlflow"}),
    ("gradlab verdict made --fail-on vanishing,de", {"vanishing,dead"}),
    ("gradlab list act", {"activations"}),
    ("gradlab docs tab", {"tables"}),
)


def asked(line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, place: Path, shell: str = "bash") -> list[str]:
    """The answers to Tab at the end of ``line``, by the protocol of the shell's script."""
    words = line.split(" ")
    monkeypatch.setenv("_GRADLAB_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS" if shell == "bash" else "_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    ended = call([], monkeypatch, capsys, place)
    assert (ended.status, ended.err) == (0, "")
    return ended.out.splitlines()


@pytest.mark.parametrize(("line", "answers"), ANSWERS, ids=[line for line, _ in ANSWERS])
def test_answers(line: str, answers: set[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    found = asked(line, monkeypatch, capsys, place)
    assert set(found) == answers | ({""} if not answers else set())
    assert len(found) == len(set(found))


def test_ids_of_the_result_that_is_named(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    ids = read_table(place / "made/runs.parquet", "runs", ["run_id"])["run_id"].to_pylist()
    for line in ("gradlab report made --run ", "gradlab run --from made ", "gradlab export made --to csv --run "):
        assert asked(line, monkeypatch, capsys, place) == ids
    assert asked(f"gradlab cure --from made {ids[1][:5]}", monkeypatch, capsys, place) == [ids[1]]
    assert asked("gradlab cure --from ma", monkeypatch, capsys, place) == ["made"]


def test_every_experiment_with_its_question(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    found = asked("gradlab sweep -e ", monkeypatch, capsys, place, shell="fish")
    told = dict(line.split("\t") for line in found)
    assert told == {one.name: short(one.question) for one in experiments()}


def test_other_shells_are_told_what_it_is(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fish = asked("gradlab run model.activation=rel", monkeypatch, capsys, place, shell="fish")
    assert fish[0].startswith("model.activation=relu\t")
    (zsh,) = asked("gradlab run seed", monkeypatch, capsys, place, shell="zsh")
    assert zsh.startswith("""_arguments '*: :(("seed=":"the initial weights""")


def test_the_kinds_of_the_help_are_those_there_are() -> None:
    assert (*KINDS, "experiments") == choices.KINDS


@pytest.mark.parametrize("line", ["gradlab run model.activation=re", "gradlab sweep -e he"])
def test_nothing_heavy_is_waited_for(line: str, tmp_path: Path) -> None:
    heavy = "{'torch', 'numpy', 'pyarrow', 'hydra', 'pandas'} & set(sys.modules)"
    code = f"import atexit, sys\natexit.register(lambda: print(*({heavy}), file=sys.stderr))\n"
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_GRADLAB_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}from gradlab.cli import main\nmain()"],
        env=ENVIRONMENT | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "\n")
    assert done.stdout


def test_a_real_bash(place: Path) -> None:
    home = {**ENVIRONMENT, "HOME": str(place), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "TERM": "dumb"}
    done = subprocess.run([GRADLAB, "--install-completion", "bash"], env=home, capture_output=True, check=True)
    assert b"bash completion installed in" in done.stdout
    assert (place / ".bash_completions/gradlab.sh").read_text(encoding="utf-8").startswith("_gradlab_completion() {")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        variables = {**home, "PATH": f"{Path(GRADLAB).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
        os.execvpe("bash", ["bash", "--noprofile", "--rcfile", str(place / ".bashrc"), "-i"], variables)
    try:
        said = typed(terminal, b"PS1=; echo ready$((1+1))\r", r"ready2\r\n")
        # Behind a key that is clear no blank follows; a value that is clear is closed with one.
        said = typed(terminal, b"gradlab run model.dep\t", r"model\.depth=$")
        said += typed(terminal, b"5 model.activation=sil\t", r"model\.activation=silu $")
        said += typed(terminal, b"-e he-de\t", r"-e he-depth30 $")
        said += typed(terminal, b"-o mad\t", r"-o made/$")
        assert said.endswith("gradlab run model.depth=5 model.activation=silu -e he-depth30 -o made/")
    finally:
        os.write(terminal, b"\x03exit\r")
        os.close(terminal)
        os.waitpid(pid, 0)


def typed(terminal: int, keys: bytes, until: str, seconds: float = 30.0) -> str:
    """Presses ``keys``, and returns what the terminal shows once it matches ``until``."""
    os.write(terminal, keys)
    shown, end = "", time.monotonic() + seconds
    while not re.search(until, shown):
        assert time.monotonic() < end, f"waited for {until!r} in vain; there is {shown!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode("utf-8", "replace")
    return shown
