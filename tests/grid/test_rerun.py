"""`run --from`: a run of a result again, as it was or with one thing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradlab
from gradlab.grid.rerun import again
from gradlab.spec.named import SpecError
from tests.commands import TINY, Gradlab


@pytest.fixture
def swept(gradlab_: Gradlab, tmp_path: Path) -> tuple[Path, str]:
    """A finished sweep over two learning rates, and the id of its second run."""
    assert gradlab_("sweep", *TINY, "optim.lr=0.1,0.2", "name=rates", "--no-report", "-q", "-o", "out").status == 0
    return tmp_path / "out", str(gradlab.load(tmp_path / "out").runs.run_id[1])


def test_one_thing_is_changed_and_the_rest_stays(swept: tuple[Path, str]) -> None:
    (was,), (now,) = again(*swept).runs, again(*swept, ["model.activation=Tanh", "train.steps=5"]).runs
    assert was.id == swept[1]
    differing = {key for key, value in now.flat().items() if was.flat()[key] != value}
    assert differing == {"model.activation", "train.steps"}
    assert (now.model.activation, now.optim.lr) == ("tanh", 0.2)
    assert again(*swept).name == "rates"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optim.lr=1,2", "a sweep; --from runs one run"),
        ("name=x", "name is none"),
        ("model.depht=3", "did you mean 'model.depth'"),
        ("model.depth=0", "expected an integer of at least 1"),
        ("data.length=5", "data 'digits' has no key"),
    ],
)
def test_a_change_that_the_run_cannot_have_is_refused(swept: tuple[Path, str], change: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        again(*swept, [change])


@pytest.mark.parametrize(
    ("schedule", "goes_on"), [("constant", True), ("step", True), ("plateau", True), ("cosine", False)]
)
def test_a_schedule_that_ends_with_the_training_begins_anew(
    schedule: str, goes_on: bool, gradlab_: Gradlab, tmp_path: Path
) -> None:
    assert gradlab_("run", *TINY, f"optim.schedule={schedule}", "--no-report", "-q", "-o", "out").status == 0
    run_id = str(gradlab.load(tmp_path / "out").runs.run_id[0])
    assert (again(tmp_path / "out", run_id, ["train.steps=500"]).longer is not None) == goes_on
