"""The time scale of a gated state: exact where there is no other path, and no more than a part of it where there is."""

from __future__ import annotations

import math

import pytest
import torch

from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.gates import kept, time_scale
from gradlab.theory.predict import predict, profile
from tests.members import measured


@pytest.mark.parametrize("bias", [0.0, 1.0, 2.0])
def test_along_the_cell_alone_an_lstm_forgets_by_its_forget_bias(bias: float) -> None:
    """torch.nn.LSTMCell whose gates hear nothing of h: dc_T/dc_0 = sigma(b_f)^T."""
    cell = torch.nn.LSTMCell(1, 5).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih[5:10] = bias
    c = start = torch.ones(1, 5, dtype=torch.float64, requires_grad=True)
    h = torch.zeros_like(c)
    for _ in range(20):
        h, c = cell(torch.zeros(1, 1, dtype=torch.float64), (h, c))
    (slope,) = torch.autograd.grad(c.sum(), start)
    assert slope[0, 0].item() == pytest.approx(math.exp(-20 / time_scale(bias)), rel=1e-12)
    assert slope[0, 0].item() == pytest.approx(kept(bias) ** 20, rel=1e-12)


def test_paths_through_the_gates_add_to_it() -> None:
    """With torch's weights the measured rate is above what the cell keeps: 0.63 and 0.85 against 0.5 and 0.73."""
    common: dict[str, Value] = {"model.name": "lstm", "data.name": "adding", "data.length": 100, "train.steps": 0}
    rows = [common | {"data.batch_size": 32, "model.forget_bias": bias, "seed": 5} for bias in (0.0, 1.0)]
    for member, settings, wanted in zip(measured(*rows), rows, (0.63, 0.85), strict=True):
        said = predict(build(settings))
        assert said.kept is not None
        assert said.rate is None
        assert member.run["rate"] > 1.1 * said.kept
        assert member.run["rate"] == pytest.approx(wanted, rel=0.05)
        assert member.run["rate_theory"] is None


def test_what_is_known_is_said_and_what_is_not() -> None:
    said = predict(build({"model.name": "lstm", "model.forget_bias": 1.0}))
    assert said.kept == pytest.approx(0.731, rel=1e-3)
    assert said.time_scale == pytest.approx(3.19, rel=1e-2)
    assert "σ(b_f) = 0.731 is kept a step, 1/e after 3.19; 100 steps leave 2.5e-14" in said.note
    assert "theory here has none" in said.note
    chrono = predict(build({"model.name": "gru", "model.chrono": True, "data.name": "adding", "data.length": 200}))
    assert chrono.kept is None
    assert "1.44 to about 199 steps" in chrono.note
    assert profile(build({"model.name": "gru"})) is None
    assert predict(build({"model.name": "seq2seq"})).note == "no theory of 'seq2seq' is known here"
    assert [kept(-1e4), kept(1e4)] == [0.0, 1.0]
    assert time_scale(-1e4) == pytest.approx(1e-4)
