"""Files of a folder of configs that somebody else wrote, or an editor spoiled: each is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradlab.grid.compose import compose_any, compose_grid, experiments
from gradlab.spec.named import SpecError

HEAD = "# @package _global_\nexperiment:\n  question: Why?\n"
AXES = "axes:\n  seed: '0,1'\n"

BOMB = "".join(f"  a{n}: &a{n} [{','.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(26))

EXPERIMENTS: dict[str, tuple[str, str]] = {
    "an alias bomb": (HEAD + BOMB, "more than 100,000 values, its aliases written out"),
    "an alias of itself": ("experiment: &a\n  question: *a\n", "*a stands inside of what it names"),
    "a deep nest": (f"experiment: {'[' * 1000}{']' * 1000}\n", "more than 50 lists and mappings inside each other"),
    "itself in its defaults": (
        f"{HEAD}defaults:\n  - /experiment: mine\n{AXES}",
        "defaults that lead back to their own",
    ),
    "the environment": (f"{HEAD}name: ${{oc.env:HOME}}\n{AXES}", "${oc.env:...} is not followed from a file"),
    "the environment, deep": (f"{HEAD}name: {'${oc.env:' * 200}A{'}' * 200}\n", "is not followed from a file"),
    "the environment, in an axis": (f"{HEAD}axes:\n  seed: '0,${{oc.env:UID}}'\n", "is not followed from a file"),
    "a list for a key": (
        f"{HEAD}report: {{x: [model.depth]}}\n{AXES}",
        "report: x: expected one key, such as model.depth",
    ),
    "a byte order mark": (f"\ufeff{HEAD}{AXES}", "begins with a byte order mark; expected UTF-8 without one"),
    "more than anybody writes": (f"{HEAD}# {'x' * 1_000_000}\n", "expected a config of at most 1,000,000"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for group in ("experiment", "model"):
        (tmp_path / group).mkdir()
    return tmp_path


@pytest.mark.parametrize("case", EXPERIMENTS)
def test_an_experiment_is_refused_in_a_sentence(case: str, folder: Path) -> None:
    text, said = EXPERIMENTS[case]
    (folder / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        compose_grid([], experiment="mine", config_dirs=[folder])
    assert said in str(refused.value)
    assert "mine" in str(refused.value)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
    skipped: list[SpecError] = []
    assert len(experiments([folder], skipped.append)) >= 37


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults:\n  - mine\nname: mlp\n", "defaults that lead back to their own file"),
        ("name: mlp\ndepth: ${oc.env:SHLVL}\n", "${oc.env:...} is not followed from a file"),
        ("defaults:\n  - other\nwidth: 8\n", "${oc.env:...} is not followed from a file"),
        ("\ufeffname: mlp\n", "byte order mark"),
    ],
)
def test_a_model_is_refused_in_a_sentence(text: str, said: str, folder: Path) -> None:
    (folder / "model" / "mine.yaml").write_text(text, encoding="utf-8")
    (folder / "model" / "other.yaml").write_text("name: mlp\ndepth: ${oc.env:SHLVL}\n", encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        compose_any(["model=mine"], config_dirs=[folder])
    assert said in str(refused.value)
    assert "cannot compose model=mine" in str(refused.value)


def test_what_was_typed_may_read_the_environment_and_a_file_its_own_values(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADLAB_LABEL", "mine")
    (folder / "model" / "mine.yaml").write_text("name: mlp\ndepth: ${seed}\nwidth: 8\n", encoding="utf-8")
    grid = compose_any(["model=mine", "seed=3", "name=${oc.env:GRADLAB_LABEL}"], config_dirs=[folder])
    assert (grid.name, grid.runs[0].model.depth) == ("mine", 3)


def test_what_is_typed_too_deep_is_told_in_short() -> None:
    with pytest.raises(SpecError) as refused:
        compose_any([f"name={'${oc.env:' * 200}A{'}' * 200}"])
    assert len(str(refused.value)) < 600


def test_two_folders_of_data_are_no_sweep() -> None:
    with pytest.raises(SpecError, match=r"cannot be swept: data\.root says where data lie"):
        compose_grid(["data=mnist", "data.root=here,there"])
