"""A change as lines of a training script: what they say runs, and makes what gradlab made of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradlab.cure.changes import Change, changed
from gradlab.cure.script import CLIPS, INITS, OPTIMIZERS, SCHEDULES, lines
from gradlab.data.facts import described
from gradlab.spec import choices
from gradlab.spec.run import RunSpec

HERE = str(Path(__file__).parents[1] / "engine" / "networks.py")


def sick() -> RunSpec:
    return described({"model.name": "module", "model.target": f"{HERE}:Mlp", "model.source": "1" * 64})


def after(change: Change) -> tuple[list[str], dict[str, Any]]:
    """The lines, and what a script knows when they have run."""
    run = changed(sick(), change)
    assert run is not None
    said = lines(run, change)
    inputs, targets = torch.arange(8.0).view(4, 2), torch.ones(4)
    known: dict[str, Any] = {"torch": torch, "model": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))}
    known |= {"inputs": inputs, "train_inputs": inputs, "targets": targets}
    known["optimizer"] = torch.optim.SGD(known["model"].parameters(), lr=0.1)
    known["model"](torch.ones(3, 4)).sum().backward()
    exec("\n".join(said), known)
    return said, known


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_torch_s(name: str) -> None:
    _, known = after({"optim.name": name, "optim.lr": 0.003, "optim.weight_decay": 0.1})
    assert type(known["optimizer"]).__name__ == OPTIMIZERS[name]
    assert known["optimizer"].param_groups[0]["lr"] == 0.003
    assert known["optimizer"].param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("mode", CLIPS)
def test_clipping_changes_the_gradient(mode: str) -> None:
    _, known = after({"clip.mode": mode, "clip.threshold": 0.01})
    assert max(float(one.grad.abs().max()) for one in known["model"].parameters()) <= 0.0101


@pytest.mark.parametrize("init", INITS)
def test_weights_are_drawn_anew(init: str) -> None:
    _, known = after({"model.init": init, "model.gain": 2.0})
    assert known["model"][0].weight.std() > 0.3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_begin_where_they_should(schedule: str) -> None:
    said, known = after({"optim.schedule": schedule, "optim.end_factor": 0.0, "optim.warmup": 20})
    assert "scheduler.step()" in said[0]
    assert known["scheduler"].optimizer is known["optimizer"]
    assert known["warmup"].optimizer is known["optimizer"]


def test_inputs_and_targets_are_scaled() -> None:
    said, known = after({"data.standardise": True, "data.target_scale": 0.5})
    assert len(said) == 2
    assert abs(float(known["inputs"].mean())) < 1e-6
    assert float(known["targets"][0]) == 0.5


@pytest.mark.parametrize(("precision", "scale"), [("mixed_bfloat16", "1"), ("mixed_float16", "dynamic")])
def test_mixed_precision_is_autocast(precision: str, scale: str) -> None:
    said, known = after({"train.precision": precision, "train.loss_scale": scale})
    assert known["model"](torch.ones(3, 4)).dtype == getattr(torch, precision.removeprefix("mixed_"))
    assert ("scaler" in known) is (scale == "dynamic")
    assert len(said) == 1 + (scale == "dynamic")


def test_pure_half_precision_is_a_dtype_and_a_static_scale_is_told() -> None:
    said, known = after({"train.precision": "float16", "train.loss_scale": "1024"})
    assert known["model"][0].weight.dtype == torch.float16
    assert said[1] == "# (1024 * loss).backward(), and every gradient divided by 1024 before it is clipped"


def test_what_torch_has_no_line_for_is_told_in_words() -> None:
    said, _ = after({"model.norm": "layer", "model.activation": "relu", "train.loss": "hinge"})
    assert said == [
        "# every activation of the model: relu",
        "# a layer norm behind every layer of the model but the last",
        "# the loss: hinge",
    ]


def test_every_choice_is_said() -> None:
    assert set(OPTIMIZERS) <= set(choices.OPTIMIZERS)
    # The others look at weights, or at norms gone by: no line of torch does that, and a comment says what to do.
    assert set(CLIPS) == set(choices.CLIPS) - {"none", "agc", "autoclip", "zclip", "skip"}
    spec = described({"clip.mode": "agc"})
    (said,) = lines(spec, {"clip.threshold": 0.01})
    assert said.startswith("# c = 0.01: each unit's gradient to at most c times the norm of its weights (Brock")
    assert set(INITS) <= set(choices.INITS)
    assert set(SCHEDULES) <= set(choices.SCHEDULES)
