"""The config group `launch`: files of the user's own, what a folder may not decide, and what is not installed."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from gradlab.grid.compose import compose_launch, compose_run
from gradlab.grid.launching import LAUNCHERS, Launch, launch_of
from gradlab.launch import ray
from gradlab.launch.places import elsewhere
from gradlab.spec.named import SpecError
from tests.commands import TINY, Gradlab


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A folder of configs with a cluster of the user's own, and one whose file has a slip."""
    (tmp_path / "cd/launch").mkdir(parents=True)
    written = {
        "ourcluster": 'defaults: [slurm, _self_]\npartition: gpu\ntime: "4:00:00"',
        "slip": "name: slurm\npartion: gpu",
    }
    for name, text in written.items():
        (tmp_path / f"cd/launch/{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "cd"


def test_a_folder_of_configs_holds_a_cluster(ours: Path) -> None:
    grid = compose_run(["launch=ourcluster", "launch.workers=40"], config_dirs=[ours])
    assert grid.launch == Launch(name="slurm", partition="gpu", time="4:00:00", workers=40)
    assert grid.runs == compose_run([]).runs
    with pytest.raises(SpecError, match=r"'launch\.partion'; did you mean 'launch\.partition'\?"):
        compose_run(["launch=slip"], config_dirs=[ours])


def test_a_launcher_has_a_file_for_each_name_and_takes_what_it_stores() -> None:
    for name, launcher in LAUNCHERS.items():
        launch = compose_run([f"launch={name}"]).launch
        assert tuple(launch.stored()) == launcher.keys
        assert launch_of({f"launch.{key}": value for key, value in launch.stored().items()}) == launch


@pytest.mark.parametrize(
    ("given", "found"), [("90min", "90"), ("4h", "240"), ("2d", "2880"), ("0:30:00", "0:30:00"), ("1-12", "1-12")]
)
def test_times(given: str, found: str) -> None:
    assert launch_of({"launch.name": "slurm", "launch.time": given}).time == found


def test_where_a_result_goes_on(ours: Path) -> None:
    before = Launch(name="ray", memory=1, address="auto", workers=8)
    assert compose_launch([], before) is before
    assert compose_launch(["launch.workers=2"], before) == Launch(name="ray", memory=1, address="auto", workers=2)
    moved = compose_launch(["launch=ourcluster"], before, config_dirs=[ours])
    assert moved == Launch(name="slurm", memory=1, partition="gpu", time="4:00:00")
    with pytest.raises(SpecError, match="its pieces are planned"):
        compose_launch(["launch.memory=1GiB"], before)


@pytest.mark.parametrize(
    ("text", "found"), [("launch=ray", True), ("launch.name=slurm", True), ("launch=local", False), ("seed=1", False)]
)
def test_nobody_imports_torch_here_for_pieces_that_run_elsewhere(text: str, found: bool) -> None:
    assert elsewhere(["model.depth=3", text]) == found


def test_what_is_not_installed_is_said_before_anything_is_written(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("ray", "submitit") else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        ended = gradlab_("run", *TINY, f"launch={name}", "-o", "out")
        assert ended.status == 2
        assert ended.err.endswith(f"launch={name}: {package} is not installed; pip install 'gradlab[{name}]'\n")
    ended = gradlab_("sweep", *TINY, "seed=0,1", "--detach", "-o", "out")
    assert (ended.status, "expected launch=slurm" in ended.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_folder_alone_has_no_command_run(gradlab_: Gradlab, tmp_path: Path) -> None:
    """A manifest may come from anybody: what it would have a shell do is asked for."""
    gradlab_("sweep", *TINY, "seed=0,1", "-o", "out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "out/runs.parquet").unlink()
    manifest |= {"state": "interrupted", "launch": {"name": "slurm", "setup": "touch here"}}
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    ended = gradlab_("sweep", "--resume", "out")
    assert ended.status == 2
    assert "out: goes on with launch.setup=touch here, as its manifest says; to do so add --allow-code" in ended.err
    assert gradlab_("sweep", "--resume", "out", "launch=local").status == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_an_address_where_nobody_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"launch.address={address}: no Ray cluster there: ")):
        ray._answered(address)
    ray._answered("auto")
