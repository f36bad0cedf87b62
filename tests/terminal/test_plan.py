"""`gradlab sweep --plan`, and how long it says that a grid will take."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from gradlab.grid.cohorts import Plan, make_plan
from gradlab.grid.expand import Grid
from gradlab.grid.launching import Launch
from gradlab.launch import speed
from gradlab.launch.devices import CPU_MEMORY
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.terminal.plan import described, show_plan
from tests.commands import Gradlab


def shown(plan: Plan, runs: Sequence[RunSpec], *, duplicates: int = 0, width: int = 80, by: str = "by this") -> str:
    grid = Grid(tuple(runs), duplicates, (), frozenset(), "a", Launch(None, None), "", (), None)
    out = io.StringIO()
    show_plan(Console(file=out, width=width), plan, grid, "cpu, 2 cores", lambda _: 200.0, by)
    return out.getvalue()


def runs_of(*values: Mapping[str, Value]) -> list[RunSpec]:
    return [build(value) for value in values]


def test_a_plan_lists_its_cohorts() -> None:
    runs = [build({"model.depth": depth, "seed": seed}) for depth in (5, 20) for seed in range(216)]
    plan = make_plan(runs, CPU_MEMORY, 2)
    text = shown(plan, runs, duplicates=7)
    assert " ".join(text.split()[:10]) == "432 runs (7 more were the same as others) in"
    assert "about 3.3 min, by this." in " ".join(text.split())
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()][1:]
    assert [(row[1], " ".join(row[-2:])) for row in rows] == [("216", "depth 20"), ("216", "depth 5")]
    assert sum(int(row[2]) for row in rows) == len(plan.pieces)
    runs = runs_of(*({"model.width": width, "train.steps": 1} for width in range(1, 31)))
    text = shown(make_plan(runs, CPU_MEMORY, 2), runs)
    assert "30 runs in 30 cohorts" in text
    assert "... and 10 more cohorts" in text


def test_a_plan_says_where_one_run_alone_exceeds_the_memory() -> None:
    runs = runs_of({"seed": 0}, {"seed": 1})
    for budget, there in ((2**20, True), (CPU_MEMORY, False)):
        text = shown(make_plan(runs, budget, 2), runs, width=200)
        assert ("Some runs need more than 1 MiB each (up to 3.16 MiB)" in text) == there
        assert "what it is" not in text


def test_cohorts_are_told_apart_by_what_differs_between_them() -> None:
    runs = runs_of(
        {"model.depth": 5, "model.norm": "batch", "seed": 3},
        {"model.depth": 20, "seed": 4},
        {"model.name": "rnn", "data.name": "adding", "optim.name": "adam"},
    )
    first, second, third = described(runs, (0, 1, 2))
    assert first == "mlp, depth 5, batch, digits, sgd"
    assert second == "mlp, depth 20, no norm, digits, sgd"
    assert third.startswith("rnn, depth 1, no norm, adding, ")
    assert described(runs, (0,)) == [""]


def test_the_speed_of_a_sweep_is_kept_for_the_next_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    pieces = make_plan(
        runs_of(*({"model.depth": depth, "train.steps": 20000} for depth in (5, 6, 20))), CPU_MEMORY, 2
    ).pieces
    alone = sum(piece.effort for piece in pieces)
    assert speed.measured("cpu") is None
    assert speed.seconds(pieces, 1, None) == pytest.approx(speed.START_SECONDS + alone / speed.USUAL)
    speed.remember("cpu", pieces, 1, speed.START_SECONDS + speed.LEAST_SECONDS / 2)
    assert speed.measured("cpu") is None
    # A small sweep on a machine that was busy, or with an instrument, tells no speed either.
    speed.remember("cpu", make_plan(runs_of({}), CPU_MEMORY, 2).pieces, 1, 60.0)
    assert speed.measured("cpu") is None
    speed.remember("cpu", pieces, 1, speed.START_SECONDS + 10.0)
    assert speed.measured("cpu") == pytest.approx(alone / 10)
    assert speed.seconds(pieces, 1, speed.measured("cpu")) == pytest.approx(speed.START_SECONDS + 10)
    # Two workers: the deepest beside the two others, which are done sooner.
    assert speed.seconds(pieces, 2, speed.measured("cpu")) == pytest.approx(
        speed.START_SECONDS + 10 * max(pieces[0].effort, alone - pieces[0].effort) / alone
    )
    (tmp_path / "gradlab" / "speed.json").write_text(json.dumps([1]), encoding="utf-8")
    assert speed.measured("cpu") is None


def test_a_plan_says_by_what_it_tells_seconds(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def said(*words: str) -> str:
        return " ".join(gradlab_("sweep", "--plan", "seed=0,1", "model.depth=5,6", *words).out.split())

    assert "on a usual machine (none was measured here)." in said()
    there = ("launch=slurm", "launch.workers=2")
    assert "were 2 workers there as fast as a usual machine, and no job waited." in said(*there)
    pieces = make_plan(runs_of({"train.steps": 50_000}), CPU_MEMORY, 2).pieces
    speed.remember("cpu", pieces, 1, speed.START_SECONDS + 10.0)
    assert ", as fast as this machine was last." in said()
    assert "were 2 workers there as fast as this machine was last, and no job waited." in said(*there)


def test_keys_without_effect_are_named_before_anything_runs(gradlab_: Gradlab, tmp_path: Path) -> None:
    planned = gradlab_("sweep", "--plan", "seed=0,1", "model.slope=0.3")
    assert planned.out.splitlines()[-1] == "Note: model.slope has no effect here."
    dry = gradlab_("run", "--dry-run", "clip.threshold=2")
    assert dry.err == "Note: clip.threshold has no effect here.\n"
    assert "Note" not in dry.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("steps", "noted"),
    [
        ("train.steps=20", "Note: optim.warmup=20 of train.steps=20: the learning rate rises to the end."),
        (
            "train.steps=21,5",
            "Note: optim.warmup=20 of train.steps=5: the learning rate rises to the end, in some runs.",
        ),
        ("train.steps=21", None),
        ("train.steps=0", None),
    ],
)
def test_a_run_that_ends_within_its_warmup_is_noted(gradlab_: Gradlab, steps: str, noted: str | None) -> None:
    said = " ".join(gradlab_("sweep", "--plan", "seed=0,1", "optim.warmup=20", steps).out.split())
    assert said.endswith(noted) if noted else "Note" not in said
