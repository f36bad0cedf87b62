"""Initial weights: their distributions, and that they come from the seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gradlab.models import MODELS
from gradlab.nn.initializers import INITS, initial_parameters
from gradlab.nn.slots import Layout, Role
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build

WIDE: dict[str, Value] = {"model.depth": 3, "model.width": 200}
"""Matrices (200, 64), (200, 200), (10, 200)."""

SQUARE: dict[str, Value] = {"model.depth": 2, "model.width": 4, "model.init": "orthogonal"}

FANS = {1: (64, 200), 2: (200, 200), 3: (200, 10)}

VARIANCES: dict[str, Callable[[int, int], float]] = {
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_normal": lambda fan_in, _: 2 / fan_in,
    "he_uniform": lambda fan_in, _: 2 / fan_in,
    "lecun_normal": lambda fan_in, _: 1 / fan_in,
    "lecun_uniform": lambda fan_in, _: 1 / fan_in,
    "torch_default": lambda fan_in, _: 1 / (3 * fan_in),
    "zeros": lambda *_: 0.0,
}


def inits_of(model: str) -> list[str]:
    """The inits that an architecture may have."""
    return [name for name, init in choices.INITS.items() if model in init.models or not init.models]


def layout_of(run: RunSpec) -> Layout:
    return MODELS[run.model.name].layout(run.model, run.facts)


def initial(
    *settings: dict[str, Value], dtype: torch.dtype = torch.float64
) -> list[dict[tuple[int, Role], torch.Tensor]]:
    """The initial parameters of members of one cohort, by layer and role."""
    runs = [build(values) for values in settings]
    layout = layout_of(runs[0])
    flat = initial_parameters(layout, runs, dtype)
    return [
        {
            (slot.layer, slot.role): row[columns].view(slot.shape)
            for slot, columns in zip(layout.slots, layout.columns, strict=True)
        }
        for row in flat
    ]


def test_the_names_are_the_named_choices() -> None:
    assert list(INITS) == list(choices.INITS)


@pytest.mark.parametrize("name", VARIANCES)
def test_moments(name: str) -> None:
    (found,) = initial(WIDE | {"model.init": name})
    for layer, fans in FANS.items():
        weights = found[layer, Role.WEIGHT]
        wanted = VARIANCES[name](*fans)
        assert weights.shape == fans[::-1]
        # The variance of n draws is known to sqrt(2/n), their mean to sqrt(var/n).
        assert float(weights.var(correction=0)) == pytest.approx(wanted, rel=4 * math.sqrt(2 / weights.numel()))
        assert abs(float(weights.mean())) <= 4 * math.sqrt(wanted / weights.numel())
        if name != "torch_default":
            assert not found[layer, Role.BIAS].any()


@pytest.mark.parametrize("name", [name for name in INITS if name.endswith("normal")])
def test_normal_inits_are_normal(name: str) -> None:
    (found,) = initial(WIDE | {"model.init": name})
    weights = found[2, Role.WEIGHT].flatten()
    standard = weights / weights.std()
    assert float(standard.pow(4).mean()) == pytest.approx(3, abs=0.15)
    for z, share in ((1.0, 0.6827), (2.0, 0.9545)):
        assert float((standard.abs() < z).double().mean()) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", ["xavier_uniform", "he_uniform", "lecun_uniform", "torch_default"])
def test_uniform_inits_fill_their_interval_evenly(name: str) -> None:
    (found,) = initial(WIDE | {"model.init": name})
    weights = found[2, Role.WEIGHT].flatten()
    bound = math.sqrt(3 * VARIANCES[name](*FANS[2]))
    assert 0.999 * bound < float(weights.abs().max()) <= bound
    counts = torch.histc(weights, bins=10, min=-bound, max=bound) / weights.numel()
    assert counts.numpy() == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_torch_default_has_torch_s_bounds_and_biases() -> None:
    (found,) = initial(WIDE | {"model.init": "torch_default"})
    for layer, (fan_in, fan_out) in FANS.items():
        module = torch.nn.Linear(fan_in, fan_out)
        bound = 1 / math.sqrt(fan_in)
        for role, theirs in ((Role.WEIGHT, module.weight), (Role.BIAS, module.bias)):
            assert float(theirs.detach().abs().max()) <= bound
            assert 0.6 * bound < float(found[layer, role].abs().max()) <= bound


@pytest.mark.parametrize("depth", [1, 2])
def test_torch_default_of_a_recurrent_layer_is_bounded_by_its_width(depth: int) -> None:
    (found,) = initial({"model.name": "rnn", "model.depth": depth, "model.width": 40, "model.init": "torch_default"})
    bound = 1 / math.sqrt(40)
    for layer in range(1, depth + 1):
        for role in (Role.WEIGHT, Role.RECURRENT, Role.BIAS):
            assert 0.8 * bound < float(found[layer, role].abs().max()) <= bound


def test_orthogonal_matrices_are_orthogonal() -> None:
    (found,) = initial(WIDE | {"model.init": "orthogonal"})
    for layer, (fan_in, fan_out) in FANS.items():
        matrix = found[layer, Role.WEIGHT]
        gram = matrix.T @ matrix if fan_out >= fan_in else matrix @ matrix.T
        torch.testing.assert_close(gram, torch.eye(min(fan_in, fan_out)).double(), rtol=0, atol=1e-12)
    assert float(found[2, Role.WEIGHT].trace()) == pytest.approx(0, abs=5)  # no preferred direction: its sd is 1


def test_orthogonal_matrices_have_no_preferred_sign() -> None:
    found = initial(*(SQUARE | {"seed": seed} for seed in range(200)))
    corners = torch.stack([member[1, Role.WEIGHT][0, 0] for member in found])
    assert 70 < int((corners > 0).sum()) < 130


def test_the_seed_alone_decides_the_draw() -> None:
    common: dict[str, Value] = WIDE | {"model.bias_var": 0.1}
    one, again, other = initial(common, common | {"optim.lr": 0.5, "clip.mode": "norm"}, common | {"seed": 1})
    for key, value in one.items():
        assert torch.equal(value, again[key])
        if key[1] in (Role.WEIGHT, Role.BIAS):
            assert not torch.equal(value, other[key])


@pytest.mark.parametrize(
    ("scaled", "factor"),
    [
        ({"model.gain": 3.0}, 3.0),
        ({"model.init": "lecun_normal"}, math.sqrt(1 / 2)),
        ({"model.init": "zeros"}, 0.0),
        ({"model.weight_var": 1.0}, math.sqrt(1 / 2)),
        ({"model.weight_var": 4.5, "model.gain": 2.0}, 3.0),
        ({"model.weight_var": 2.0, "model.init": "orthogonal"}, 1.0),
        ({"model.gain": -1.0, "model.norm": "none"}, -1.0),
    ],
    ids=str,
)
def test_scales_multiply_the_same_draw(scaled: dict[str, Value], factor: float) -> None:
    plain, found = initial(WIDE | {"seed": 7}, WIDE | {"seed": 7} | scaled)
    for layer in FANS:
        wanted = plain[layer, Role.WEIGHT] * factor
        torch.testing.assert_close(found[layer, Role.WEIGHT], wanted, rtol=1e-14, atol=0)
        assert not found[layer, Role.BIAS].any()


def test_the_gain_multiplies_orthogonal_and_torch_s_matrices_but_no_bias() -> None:
    for name in ("orthogonal", "torch_default"):
        plain, found = initial(WIDE | {"model.init": name}, WIDE | {"model.init": name, "model.gain": 2.0})
        torch.testing.assert_close(found[2, Role.WEIGHT], 2 * plain[2, Role.WEIGHT], rtol=1e-15, atol=0)
        assert torch.equal(found[2, Role.BIAS], plain[2, Role.BIAS])


def test_bias_variance() -> None:
    (found,) = initial(WIDE | {"model.bias_var": 0.25})
    biases = torch.cat([found[1, Role.BIAS], found[2, Role.BIAS]])
    assert float(biases.var()) == pytest.approx(0.25, rel=4 * math.sqrt(2 / 400))


@pytest.mark.parametrize("name", ["mlp", "residual_mlp", "rnn"])
def test_company_changes_no_bit(name: str) -> None:
    common: dict[str, Value] = {
        "model.name": name,
        "model.width": 12,
        "model.norm": "layer",
        "model.activation": "prelu",
    }
    members = [common | {"seed": seed, "model.init": init} for seed in (0, 1) for init in inits_of(name)]
    for member, settings in zip(initial(*members), members, strict=True):
        (alone,) = initial(settings)
        assert all(torch.equal(value, alone[key]) for key, value in member.items())


def test_float32_weights_are_the_float64_ones_rounded() -> None:
    (wide,), (narrow,) = initial(WIDE), initial(WIDE, dtype=torch.float32)
    assert all(torch.equal(value.float(), narrow[key]) for key, value in wide.items())


def test_gains_begin_at_one_shifts_at_zero_slopes_at_their_key() -> None:
    (found,) = initial(WIDE | {"model.norm": "batch", "model.activation": "prelu", "model.gain": 5.0})
    assert torch.equal(found[1, Role.GAIN], torch.ones(200).double())
    assert torch.equal(found[1, Role.SHIFT], torch.zeros(200).double())
    assert found[1, Role.SLOPE].tolist() == [0.25]
    (given,) = initial(WIDE | {"model.activation": "prelu", "model.slope": 0.1})
    assert given[1, Role.SLOPE].tolist() == [0.1]


def test_a_linear_chain_is_its_gain_times_the_identity() -> None:
    (found,) = initial({"model.name": "linear_chain", "model.depth": 3, "model.width": 5, "model.gain": 1.5})
    assert set(found) == {(layer, Role.WEIGHT) for layer in (1, 2, 3)}
    assert all(torch.equal(value, 1.5 * torch.eye(5).double()) for value in found.values())


def test_identity_recurrences_and_what_reads_into_them() -> None:
    """Le et al. 2015, section 4: the identity from step to step, all else normal with a deviation of 0.001."""
    (found,) = initial({"model.name": "rnn", "model.depth": 2, "model.width": 80, "model.init": "identity"})
    for layer in (1, 2):
        assert torch.equal(found[layer, Role.RECURRENT], torch.eye(80).double())
        assert float(found[layer, Role.WEIGHT].std()) == pytest.approx(1e-3, rel=0.1)
        assert not found[layer, Role.BIAS].any()
    assert float(found[3, Role.WEIGHT].std()) == pytest.approx(1e-3, rel=0.1)


def test_identity_without_time_is_that_of_square_matrices() -> None:
    (found,) = initial(WIDE | {"model.init": "identity", "model.gain": 0.5})
    assert torch.equal(found[2, Role.WEIGHT], 0.5 * torch.eye(200).double())
    assert float(found[1, Role.WEIGHT].std()) == pytest.approx(0.5 / 8, rel=0.02)
    assert float(found[3, Role.WEIGHT].std()) == pytest.approx(0.5 / math.sqrt(200), rel=0.05)


def test_fixup_begins_with_branches_and_a_read_out_of_zero() -> None:
    """Zhang et al. 2019, section 4: a branch of one layer has its last layer at 0, as the read-out is."""
    (he, fixup) = initial(*(WIDE | {"model.name": "residual_mlp", "model.init": init} for init in ("he", "fixup")))
    assert torch.equal(fixup[1, Role.WEIGHT], he[1, Role.WEIGHT])
    assert not fixup[2, Role.WEIGHT].any()
    assert not fixup[3, Role.WEIGHT].any()
