"""LSTM and GRU: a member equals a plain network of torch's own cells, those are torch.nn's, and gates begin as told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gradlab.engine.cohort import prepare
from gradlab.engine.playing import rehearse
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.kernels import calls
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured, on_each_engine
from tests.models.gated import Gated
from tests.oracles import expected

BASE: dict[str, Value] = {"train.precision": "float64", "train.steps": 20, "probe.every": 6, "data.batch_size": 9}
ADDING: dict[str, Value] = {"data.name": "adding", "data.length": 7}

WAYS: tuple[dict[str, Value], ...] = (
    {"optim.lr": 0.3, "seed": 1},
    {"optim.lr": 0.1, "optim.momentum": 0.9, "clip.mode": "norm", "clip.threshold": 0.4, "model.init": "orthogonal"},
    {"optim.lr": 0.2, "model.init": "xavier", "model.bias_var": 0.3, "model.gain": 1.5, "clip.mode": "layerwise"},
    {"optim.lr": 0.2, "model.weight_var": 2.0, "model.chrono": True},
)
"""Members of one cohort."""


def cohorts() -> list[Any]:
    found = []
    for name in ("lstm", "gru"):
        for depth, width, data in ((1, 8, ADDING), (2, 5, {"data.name": "digits"}), (3, 16, ADDING)):
            fixed = BASE | data | {"model.name": name, "model.depth": depth, "model.width": width}
            found.append(pytest.param([fixed | way for way in WAYS], id=f"{name}-{depth}-{width}"))
    return found


@pytest.mark.parametrize("cohort", cohorts())
def test_a_member_equals_one_plain_network(cohort: list[dict[str, Value]]) -> None:
    for settings, *either in zip(cohort, *on_each_engine(*cohort), strict=True):
        wanted = expected(settings, Gated)
        for found in either:
            assert found.run["state"] == "finished"
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-14)) == []


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_alone_a_member_is_what_it_is_in_company(name: str) -> None:
    settings = BASE | ADDING | {"model.name": name, "model.width": 8, "optim.name": "adam", "optim.lr": 0.01}
    alone, together = measured(settings), measured(settings | {"seed": 3}, settings)
    assert list(differences(together[1], alone[0], relative=1e-8, absolute=1e-14)) == []


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_plain_network_is_torch_s_own(name: str, depth: int) -> None:
    """nn.LSTM and nn.GRU, trained by torch.optim: their second bias stays at zero where it is redundant."""
    run = build(BASE | ADDING | {"model.name": name, "model.depth": depth, "model.width": 6})
    plain = Gated(run)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
    theirs, read_out = kind(2, 6, depth, batch_first=True).double(), torch.nn.Linear(6, 1).double()
    with torch.no_grad():
        for layer, stage in enumerate(plain.layers[:-1]):
            own = dict(stage.named_parameters())
            getattr(theirs, f"weight_ih_l{layer}").copy_(own["weight"])
            getattr(theirs, f"weight_hh_l{layer}").copy_(own["recurrent"])
            getattr(theirs, f"bias_ih_l{layer}").copy_(own["bias"])
            second = getattr(theirs, f"bias_hh_l{layer}").zero_()
            kept = torch.zeros_like(second)
            if name == "gru":
                second[12:] = own["recurrent_bias"]
                kept[12:] = 1
            second.register_hook(lambda grad, kept=kept: grad * kept)
        read_out.weight.copy_(plain.layers[-1].get_parameter("weight"))
        read_out.bias.copy_(plain.layers[-1].get_parameter("bias"))
    x = torch.randn(20, 4, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(20, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    movers = [
        torch.optim.SGD(plain.parameters(), 0.1),
        torch.optim.SGD([*theirs.parameters(), *read_out.parameters()], 0.1),
    ]
    for inputs, targets in zip(x, y, strict=True):
        for mover in movers:
            mover.zero_grad()
        outputs = plain(inputs)[-1].h[0], read_out(theirs(inputs)[0][:, -1])
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-8, atol=1e-12)
        for output, mover in zip(outputs, movers, strict=True):
            (output - targets).square().mean().backward()
            mover.step()


def biases(settings: dict[str, Value]) -> dict[str, np.ndarray[Any, Any]]:
    """The initial bias of the first layer, by gate."""
    base: dict[str, Value] = {"model.name": "lstm", "model.width": 1000, "model.init": "xavier"}
    run = build(base | settings)
    layout = MODELS[run.model.name].layout(run.model, run.facts)
    flat = initial_parameters(layout, [run], torch.float64)[0]
    places = zip(layout.slots, layout.columns, strict=True)
    (columns,) = [at for slot, at in places if (slot.layer, slot.role) == (1, Role.BIAS)]
    order = "ifgo" if run.model.name == "lstm" else "rzn"
    return dict(zip(order, flat[columns].numpy().reshape(len(order), -1), strict=True))


def test_the_forget_bias_is_added_to_the_forget_gate_alone() -> None:
    assert {gate: set(values) for gate, values in biases({"model.forget_bias": 1.5}).items()} == {
        **{key: {0.0} for key in "igo"},
        "f": {1.5},
    }
    drawn, moved = (biases({"model.init": "torch_default", "model.forget_bias": bias}) for bias in (0.0, 2.0))
    assert moved["f"] == pytest.approx(drawn["f"] + 2)
    assert (moved["i"] == drawn["i"]).all()


def test_chrono_draws_the_logarithm_of_lags_up_to_the_length() -> None:
    task: dict[str, Value] = {"data.name": "adding", "data.length": 101, "model.chrono": True}
    found = biases(task)
    lags = np.exp(found["f"])
    assert (lags.min() >= 1, lags.max() <= 100) == (True, True)
    assert lags.mean() == pytest.approx(50.5, rel=0.05)
    assert lags.std() == pytest.approx(99 / math.sqrt(12), rel=0.05)
    assert (found["i"] == -found["f"]).all()
    assert set(found["g"]) == set(found["o"]) == {0.0}
    assert (biases(task | {"seed": 1})["f"] != found["f"]).any()
    assert (biases(task | {"model.name": "gru"})["z"] >= 0).all()


def test_under_chrono_the_forget_bias_is_no_more() -> None:
    runs = [build({"model.name": "lstm", "model.chrono": True, "model.forget_bias": bias}) for bias in (0.0, 1.0)]
    assert runs[0] == runs[1]
    assert runs[0].model.forget_bias is None
    with pytest.raises(SpecError, match=r"model\.forget_bias=null: expected a finite number"):
        build({"model.name": "lstm", "model.forget_bias": None})


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_each_gate_s_recurrent_matrix_is_orthogonal_by_itself(name: str) -> None:
    run = build({"model.name": name, "model.width": 12, "model.init": "orthogonal"})
    network = prepare([run], content(run.data), torch.device("cpu")).network
    for block in network.parameters[1, Role.RECURRENT][0].double().split(12):
        torch.testing.assert_close(block @ block.T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-6)


def runs_of(name: str) -> list[RunSpec]:
    return [build(BASE | ADDING | {"model.name": name, "model.depth": 2, "seed": seed}) for seed in range(2)]


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_step_is_written_down_with_and_without_record(name: str) -> None:
    runs = runs_of(name)
    found = rehearse(prepare(runs, content(runs[0].data), torch.device("cpu"))).values()
    assert [step is None for step in found] == [calls.kernels(torch.float64) is None] * 2
