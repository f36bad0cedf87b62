"""Choices of the user's own, from an installed package and from a file beside configs: every verb knows them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.spec.choices import ACTIVATIONS, Activation, Optimizer
from gradlab.spec.named import Choice, SpecError
from gradlab.spec.plugins import PRESENT, Plugin, Source, enter
from gradlab.spec.run import build
from gradlab.store.tables import load_tables
from tests.commands import ENVIRONMENT, Ended, forked, wait_for

LAB = Path(__file__).parent / "fixtures" / "lab" / "plugins.py"

EVERY_KIND = (
    *("model=mlp,pair", "model.activation=softsign", "model.init=he,halved", "clip=norm,softly", "optim=sgd,sign"),
    *("data=rings", "model.depth=3", "model.width=8", "train.steps=3", "probe.every=1"),
)

Call = Callable[..., Ended]


def start(folder: Path, arguments: tuple[str, ...], site: Path | None) -> subprocess.Popen[str]:
    """`gradlab` in a process of its own, with what is installed in ``site`` on its path."""
    path = os.pathsep.join(filter(None, (str(site) if site else "", ENVIRONMENT.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "-m", "gradlab", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def call(folder: Path, *arguments: str, site: Path | None = None) -> Ended:
    return forked(arguments, folder, site=site)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages: one, whose entry point names a module with plugins."""
    site = tmp_path / "site"
    (site / "mylab").mkdir(parents=True)
    (site / "mylab" / "__init__.py").touch()
    shutil.copy(LAB, site / "mylab" / "gradients.py")
    told = site / "mylab-1.2.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 1.2\n", encoding="utf-8")
    (told / "entry_points.txt").write_text("[gradlab]\nmylab = mylab.gradients\n", encoding="utf-8")
    return site


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder of configs with a file of code."""
    (tmp_path / "lab").mkdir()
    shutil.copy(LAB, tmp_path / "lab" / "plugins.py")
    return tmp_path / "lab"


def test_an_installed_package_brings_choices_of_every_kind(site: Path, tmp_path: Path) -> None:
    listed = call(tmp_path, "list", "activations", site=site)
    assert "z/(1+|z|)" in listed.out
    # Its workers are processes of their own, which must find the package too.
    process = start(tmp_path, ("sweep", *EVERY_KIND, "launch.workers=1", "-o", "out", "--no-report"), site)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    runs = load_tables(tmp_path / "out")["runs"].to_pylist()
    assert len(runs) == 16
    assert {run["state"] for run in runs} == {"finished"}
    (source,) = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["plugins"]
    assert (source["kind"], source["place"]) == ("package", "mylab of mylab 1.2")
    # The report knows none of them, and needs none: the package is not there any more.
    assert forked(("report", "out"), tmp_path, painted=False).status == 0
    page = (tmp_path / "out/report/index.html").read_text(encoding="utf-8")
    assert "softsign" in page
    gone = call(tmp_path, "cure", "--from", "out", runs[-1]["run_id"])
    assert gone.status == 2
    assert "mylab of mylab 1.2, which has changed or is not installed" in " ".join(gone.err.split())


def test_the_recipe_of_the_docs_is_a_plugin(tmp_path: Path) -> None:
    page = LAB.parents[3] / "docs" / "house.md"
    text = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "plugins.py").write_text(text, encoding="utf-8")
    given = ("model.activation=softsign", "model.width=8", "train.steps=2", "--no-report")
    ended = call(tmp_path, "run", "-cd", ".", "--allow-code", *given)
    assert (ended.status, ended.err) == (0, "")


def test_theory_knows_an_activation_and_an_init_that_bring_their_own(site: Path, tmp_path: Path) -> None:
    told = call(tmp_path, "theory", "model.activation=softsign", "model.init=halved", site=site)
    assert told.status == 0
    assert "softsign" in told.out
    assert "no entry" not in told.out
    silent = call(tmp_path, "theory", "model=pair", site=site)
    assert "no theory of 'pair' is known here" in " ".join(silent.out.split())


def test_a_sweep_with_plugins_is_killed_and_gone_on_with(lab: Path, tmp_path: Path) -> None:
    line = ("sweep", "-cd", "lab", "--allow-code", "model.activation=softsign", "seed=range(0,8)", "launch.memory=1MiB")
    process = start(tmp_path, (*line, "model.width=16", "train.steps=100", "-o", "out", "--no-report"), None)
    pieces = tmp_path / "out" / "pieces"
    wait_for(lambda: len(list(pieces.glob("[0-9]*.runs.parquet"))) > 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    refused = call(tmp_path, "sweep", "--resume", "out")
    assert refused.status == 2
    assert f"{lab}/plugins.py, which is code; expected --allow-code" in " ".join(refused.err.split()).replace("/ ", "/")
    ended = forked(("sweep", "--resume", "out", "--allow-code"), tmp_path, painted=False)
    assert (ended.status, ended.err) == (0, "")
    assert {run["state"] for run in load_tables(tmp_path / "out")["runs"].to_pylist()} == {"finished"}
    assert (tmp_path / "out/report/index.html").is_file()
    (lab / "plugins.py").write_text(LAB.read_text(encoding="utf-8") + "# Other code.\n", encoding="utf-8")
    other = call(tmp_path, "run", "--from", "out", "", "--allow-code")
    assert other.status == 2
    assert "has changed or is not installed" in " ".join(other.err.split())


def test_a_run_with_a_plugin_is_cured_and_run_again(lab: Path, tmp_path: Path) -> None:
    given = ("model.activation=softsign", "model.gain=0.05", "model.width=8", "model.depth=4", "train.steps=20")
    assert call(tmp_path, "run", "-cd", str(lab), "--allow-code", *given, "-o", "sick", "--no-report").status == 0
    again = call(tmp_path, "run", "--from", "sick", "", "optim.lr=0.2", "--allow-code", "-o", "other", "--no-report")
    assert (again.status, again.err) == (0, "")
    healed = call(tmp_path, "cure", "sick", "--allow-code", "-o", "cured", "--no-report")
    assert (healed.status, healed.err) == (0, "")
    assert "model.activation=softsign" in healed.out


def test_code_beside_configs_is_not_run_because_its_folder_was_named(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "plugins.py").write_text(
        "import pathlib\npathlib.Path('was_here').touch()\nPLUGINS = []\n", encoding="utf-8"
    )
    assert call(tmp_path, "run", "-cd", "lab", "--dry-run").status == 0
    assert call(tmp_path, "list", "models", "-cd", "lab").status == 0
    unknown = call(tmp_path, "run", "-cd", "lab", "model.activation=mine")
    assert unknown.status == 2
    assert "lab/plugins.py is code, and is not run without --allow-code" in " ".join(unknown.err.split())
    assert not (tmp_path / "was_here").exists()
    assert call(tmp_path, "run", "-cd", "lab", "--allow-code", "--dry-run").status == 0
    assert (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/0", "cannot be run: ZeroDivisionError: division by zero (line 1)"),
        ("def", "cannot be run: SyntaxError"),
        ("PLUGINS = 3", "expected PLUGINS, a list of gradlab.spec.plugins.Plugin"),
        ("", "expected PLUGINS, a list of gradlab.spec.plugins.Plugin"),
    ],
)
def test_a_broken_file_is_told_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plugins.py").write_text(text, encoding="utf-8")
    ended = call(tmp_path, "run", "-cd", ".", "--allow-code", "--dry-run")
    assert ended.status == 2
    assert said in " ".join(ended.err.split())
    assert len(ended.err.splitlines()) < 5


def test_allowed_code_must_be_there(tmp_path: Path) -> None:
    assert "there is no --config-dir" in " ".join(call(tmp_path, "run", "--allow-code").err.split())
    assert "plugins.py is not there" in " ".join(call(tmp_path, "run", "-cd", ".", "--allow-code").err.split())


@pytest.fixture
def _tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is entered is taken out again."""
    monkeypatch.setattr("gradlab.spec.plugins.PRESENT", dict(PRESENT))
    monkeypatch.setattr("gradlab.spec.run.PRESENT", {})
    for name in ("mine", "relu"):
        monkeypatch.setitem(ACTIVATIONS, name, ACTIVATIONS["relu"])
    del ACTIVATIONS["mine"]


def plugin(name: str) -> Plugin:
    return Plugin("model.activation", Activation(name, "its own", "nobody"), lambda: None)


@pytest.mark.usefixtures("_tables")
@pytest.mark.parametrize("name", ["relu", "leaky", "identity"])
def test_no_plugin_takes_the_place_of_a_choice(name: str) -> None:
    with pytest.raises(SpecError, match=f"lab: activation '{name}' is gradlab's own"):
        enter(Source("file", "lab", "0"), [plugin(name)])
    assert name not in ACTIVATIONS or ACTIVATIONS[name].source != "nobody"


@pytest.mark.usefixtures("_tables")
def test_two_plugins_do_not_share_a_name() -> None:
    enter(Source("file", "one", "0"), [plugin("mine")])
    enter(Source("file", "one", "0"), [plugin("mine")])
    with pytest.raises(SpecError, match="two: activation 'mine' is that of one"):
        enter(Source("file", "two", "0"), [plugin("mine")])


@pytest.mark.usefixtures("_tables")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Plugin("model.depth", Choice("a", "b", "c"), lambda: None), "key 'model.depth' takes no plugins"),
        (Plugin("optim.name", Choice("a", "b", "c"), lambda: None), "expected a Optimizer, given a Choice"),
        (Plugin("optim.name", Optimizer("A b", "b", "c"), lambda: None), "expected a name of a-z, 0-9 and _"),
    ],
)
def test_an_entry_has_its_form(given: Plugin, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        enter(Source("file", "lab", "0"), [given])


def test_the_id_of_a_run_depends_on_the_code_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "mine", plugin("mine").choice)
    named = {"model.activation": "mine"}
    ids, usual = {build(named).id}, build({}).id
    for digest in ("one", "two"):
        monkeypatch.setitem(PRESENT, ("model.activation", "mine"), (Source("file", "lab", digest), plugin("mine")))
        ids.add(build(named).id)
        assert build({}).id == usual
    assert len(ids) == 3
