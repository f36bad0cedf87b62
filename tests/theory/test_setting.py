"""What theory sees of a run is what the engine draws."""

from __future__ import annotations

import pytest
import torch

from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec import choices
from gradlab.spec.choices import ACTIVATIONS, INITS
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.passage import PASSAGES
from gradlab.theory.predict import predict
from gradlab.theory.setting import WEIGHT_VARIANCES, setting

WIDE: dict[str, Value] = {"model.depth": 3, "model.width": 300, "data.name": "gaussian_mixture", "data.features": 150}


def test_every_init_and_architecture_has_its_theory() -> None:
    assert set(WEIGHT_VARIANCES) == set(INITS) - {"lsuv"}
    told_otherwise = {"lstm", "gru", "seq2seq", "transformer", "capsule"}  # by what their gates keep, or in a sentence
    own = {name for name, entry in choices.MODELS.items() if not entry.free}
    assert set(PASSAGES) == own - told_otherwise
    for name in told_otherwise:
        assert predict(build({"model.name": name, "data.name": choices.MODELS[name].data})).note


@pytest.mark.parametrize("further", [{}, {"model.gain": 0.5}, {"model.weight_var": 1.7, "model.gain": 2.0}])
@pytest.mark.parametrize("init", [name for name, init in INITS.items() if not init.models and name != "identity"])
def test_variances_are_those_of_the_initial_weights(init: str, further: dict[str, Value]) -> None:
    run = build({**WIDE, "model.init": init, **further})
    layout = MODELS["mlp"].layout(run.model, run.facts)
    flat = initial_parameters(layout, [run], torch.float64)[0]
    seen = setting(run)
    for slot, columns in zip(layout.slots, layout.columns, strict=True):
        if slot.layer == 3:
            continue
        expected = {1: seen.sw2_first, 2: seen.sw2}[slot.layer] / slot.fan_in
        if slot.role is Role.WEIGHT:
            assert flat[columns].square().mean().item() == pytest.approx(expected, rel=0.03)
        elif slot.layer == 2:
            assert flat[columns].square().mean().item() == pytest.approx(seen.sb2, rel=0.25)


@pytest.mark.parametrize("init", ["torch_default", "xavier_normal", "he_uniform"])
def test_the_matrices_of_a_recurrent_network(init: str) -> None:
    run = build({"model.name": "rnn", "model.width": 300, "model.init": init, "data.name": "digits"})
    layout = MODELS["rnn"].layout(run.model, run.facts)
    flat, seen = initial_parameters(layout, [run], torch.float64)[0], setting(run)
    for slot, columns in zip(layout.slots[:2], layout.columns[:2], strict=True):
        sw2 = seen.sw2 if slot.role is Role.RECURRENT else seen.sw2_first
        assert flat[columns].square().mean().item() * slot.fan_in == pytest.approx(sw2, rel=0.05)
    assert (seen.steps, seen.inputs, seen.depth) == (8, 8, 1)


@pytest.mark.parametrize(
    "hidden", ["seed", "optim.lr", "train.steps", "data.seed", "probe.every", "data.batch_size", "clip.threshold"]
)
def test_what_theory_does_not_see(hidden: str) -> None:
    assert setting(build({hidden: 7})) == setting(build({}))


def test_what_theory_sees_in_part() -> None:
    """The batch size behind batch norm alone, the slope where the activation has one, the precision in rms norm."""
    norm: dict[str, Value] = {"model.norm": "batch"}
    assert setting(build({**norm, "data.batch_size": 7})) != setting(build(norm))
    assert setting(build({"model.slope": 0.7})) == setting(build({}))
    leaky: dict[str, Value] = {"model.activation": "leaky_relu"}
    assert setting(build({**leaky, "model.slope": 0.7})) != setting(build(leaky))
    for norm_name, same in (("rms", False), ("layer", True)):
        one, other = (build({"model.norm": norm_name, "train.precision": p}) for p in ("float32", "float64"))
        assert (setting(one) == setting(other)) == same


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes(name: str) -> None:
    slope = setting(build({"model.activation": name})).phi.slope
    assert slope == {"leaky_relu": 0.01, "prelu": 0.25}.get(name, 0.0)
