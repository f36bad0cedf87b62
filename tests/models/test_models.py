"""Architectures: their names, their matrices as the plan counts them, and that they are equal to no company."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch

from gradlab.models import MODELS, module
from gradlab.nn.losses import LOSSES, OBJECTIVES
from gradlab.nn.slots import MATRICES, Layout
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from tests.members import measured
from tests.models.test_convolutions import PlainImages
from tests.oracles import Plain

pytestmark = pytest.mark.usefixtures("either_engine")

SHAPES: tuple[dict[str, Value], ...] = (
    {},
    {"model.depth": 2, "model.width": 7},
    {"model.depth": 6, "model.width": 3, "model.norm": "layer", "model.activation": "prelu"},
    {"model.depth": 4, "model.width": 9, "model.norm": "rms"},
)


STACKED = ("mlp", "residual_mlp", "linear_chain", "rnn")
"""Those that `oracles.Plain` writes out; each other one has a file of its own."""

PLAIN: dict[str, type[Plain]] = {
    **dict.fromkeys(("mlp", "residual_mlp", "linear_chain", "rnn"), Plain),
    **dict.fromkeys(("cnn", "resnet"), PlainImages),
}
"""Torch's networks; of the others the test, too, is in a file of their own."""


def cases(names: Iterable[str] = STACKED) -> list[RunSpec]:
    runs = [
        build({"model.name": name, **shape})
        for name in names
        if name != "linear_chain"
        for shape in SHAPES
        if {key.removeprefix("model.") for key in shape} <= set(choices.MODELS[name].keys)
    ]
    runs += [build({"model.name": "linear_chain", "model.depth": depth, "model.width": 5}) for depth in (1, 4)]
    runs += [build({"model.name": "rnn", "data.name": "adding", "data.length": 9})]
    return [*runs, build({"model.name": "mlp", "model.depth": 1}), build({"model.norm": "batch", "model.depth": 4})]


def layout_of(run: RunSpec) -> Layout:
    return MODELS[run.model.name].layout(run.model, run.facts)


def test_the_names_are_the_named_choices() -> None:
    assert list(MODELS) == list(choices.MODELS)
    assert {*LOSSES, *OBJECTIVES, "binary_cross_entropy"} == set(choices.LOSSES)
    assert {entry.loss for entry in choices.DATA.values()} <= set(LOSSES)
    assert set(module.ACTIVATIONS) == set(choices.ACTIVATIONS)


@pytest.mark.parametrize("run", cases(), ids=lambda run: f"{run.model.name}-{run.model.depth}-{run.model.norm}")
def test_the_plan_s_matrices_are_the_layout_s(run: RunSpec) -> None:
    layout = layout_of(run)
    matrices = choices.MODELS[run.model.name].matrices(run.model, run.facts)
    assert len(matrices) == len(layout.names) == run.layers
    for layer, (fan_in, fan_out, uses) in enumerate(matrices, start=1):
        own = [slot for slot in layout.slots if slot.layer == layer and slot.role in MATRICES]
        assert sum(slot.size for slot in own) == fan_in * fan_out
        assert uses == (64 if own[0].taps > 1 else run.facts.shape[0] if len(own) == 2 else 1)


@pytest.mark.parametrize("run", cases(PLAIN), ids=lambda run: f"{run.model.name}-{run.model.depth}-{run.model.norm}")
def test_parameters_are_those_of_the_plain_network(run: RunSpec) -> None:
    layout, plain = layout_of(run), PLAIN[run.model.name](run)
    for columns, matrix, stage in zip(layout.layers, layout.matrices, plain.layers, strict=True):
        assert columns.stop - columns.start == sum(parameter.numel() for parameter in stage.parameters())
        assert matrix.stop - matrix.start == sum(parameter.numel() for parameter in stage.matrices)
    assert layout.size == sum(parameter.numel() for parameter in plain.parameters())


@pytest.mark.parametrize("run", cases(), ids=lambda run: f"{run.model.name}-{run.model.depth}-{run.model.norm}")
def test_layers_tile_the_columns_in_order(run: RunSpec) -> None:
    layout = layout_of(run)
    assert [columns.start for columns in layout.layers] == [0, *(columns.stop for columns in layout.layers[:-1])]
    assert layout.layers[-1].stop == layout.size == sum(math.prod(slot.shape) for slot in layout.slots)
    for columns, matrix in zip(layout.layers, layout.matrices, strict=True):
        assert columns.start <= matrix.start < matrix.stop <= columns.stop
    assert len(set(layout.names)) == len(layout.names)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_recurrent_layers_are_torch_nn_rnn_s(nonlinearity: str, depth: int) -> None:
    """The reference of the oracle is written out, so it is itself compared with torch's own."""
    run = build(
        {
            "model.name": "rnn",
            "model.depth": depth,
            "model.width": 6,
            "model.activation": nonlinearity,
            "model.bias_var": 0.2,
            "train.precision": "float64",
        }
    )
    plain = Plain(run)
    theirs = torch.nn.RNN(8, 6, depth, nonlinearity=nonlinearity, batch_first=True).double()
    with torch.no_grad():
        for layer, stage in enumerate(plain.layers[:-1]):
            assert stage.recurrent is not None
            getattr(theirs, f"weight_ih_l{layer}").copy_(stage.linear.weight)
            getattr(theirs, f"weight_hh_l{layer}").copy_(stage.recurrent.weight)
            getattr(theirs, f"bias_ih_l{layer}").copy_(stage.linear.bias)
            getattr(theirs, f"bias_hh_l{layer}").zero_()
    x = torch.randn(4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.stack(plain(x)[-2].h, dim=1)
    torch.testing.assert_close(found, theirs(x)[0], rtol=1e-12, atol=1e-13)


def test_a_branch_of_scale_zero_is_the_identity() -> None:
    settings: dict[str, Value] = {"model.name": "residual_mlp", "model.depth": 12, "model.width": 16, "train.steps": 0}
    (found,) = measured(settings | {"model.branch_scale": 0.0})
    deltas = found.profile("signal_grad_norm")[:-1]
    assert deltas == pytest.approx([deltas[0]] * 11, rel=1e-6)
    assert found.run["rate"] == pytest.approx(1.0, rel=1e-6)
    assert found.run["vanishing_ratio"] == pytest.approx(1.0, rel=1e-6)
