"""Half precision: as a network of torch's in it, with a static and a dynamic loss scale, and where it ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradlab.data.batches import batches
from gradlab.engine.precision import FORMATS, chances, rounded
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec import keys
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.descents import optimizer
from tests.members import Member, content, measured

SMALL: dict[str, Value] = {
    "model.depth": 3,
    "model.width": 16,
    "data.batch_size": 32,
    "train.steps": 12,
    "probe.every": 1,
    "optim.lr": 0.5,
    "model.activation": "tanh",
    "model.init": "xavier_normal",
}


def plain(run: RunSpec) -> nn.Sequential:
    """The network of ``run`` at its initial weights, in the dtype of its parameters."""
    layout = MODELS[run.model.name].layout(run.model, run.facts)
    flat = initial_parameters(layout, [run], FORMATS[run.train.precision].parameters)[0]
    parts: list[nn.Module] = []
    for layer in range(1, run.model.depth + 1):
        own = {
            slot.role: flat[columns].view(slot.shape)
            for slot, columns in zip(layout.slots, layout.columns, strict=True)
            if slot.layer == layer
        }
        fan_out, fan_in = own[Role.WEIGHT].shape
        linear = nn.Linear(fan_in, fan_out, dtype=flat.dtype)
        linear.weight.data.copy_(own[Role.WEIGHT])
        linear.bias.data.copy_(own[Role.BIAS])
        parts += [linear, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def trained(run: RunSpec) -> tuple[list[float], list[float], list[bool]]:
    """Losses, scales and skipped updates of a loop written out: single weights, passes in half, torch's scaler."""
    form, told = FORMATS[run.train.precision], run.train.loss_scale
    network, data = plain(run), content(run.data)
    mover, scale, good = optimizer(run, network), 2.0**16 if told == "dynamic" else float(told), 0
    losses, scales, skipped = [], [], []
    for rows in batches(run.data, run.facts.train, run.train.steps):
        x = torch.from_numpy(data.train_inputs[rows]).flatten(1).to(form.passes)
        y = torch.from_numpy(data.train_targets[rows])
        rounded = {name: value.detach().to(form.passes).requires_grad_() for name, value in network.named_parameters()}
        loss = functional.cross_entropy(torch.func.functional_call(network, rounded, (x,)).float(), y)
        (loss * scale).backward()
        gradients = {name: value.grad.float() / scale for name, value in rounded.items() if value.grad is not None}
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients.values())
        losses.append(float(loss.detach()))
        scales.append(scale)
        skipped.append(told == "dynamic" and not finite)
        if skipped[-1]:
            scale, good = scale / 2, 0
            continue
        good += 1
        for name, value in network.named_parameters():
            value.grad = gradients[name].to(value.dtype)
        mover.step()
    return losses, scales, skipped


def course(found: Member, column: str) -> list[float]:
    return [row[column] for row in found.steps[:-1]]


@pytest.mark.parametrize("optim", ["sgd", "adam", "adagrad"])
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_a_training_in_half_precision_is_the_loop_s(precision: str, optim: str) -> None:
    settings = SMALL | {"train.precision": precision, "optim.name": optim, "train.loss_scale": 128}
    settings["optim.lr"] = 0.5 if optim == "sgd" else 0.02
    (found,) = measured(settings)
    near = 0.02 if "bfloat16" in precision else 0.003
    assert course(found, "loss") == pytest.approx(trained(build(settings))[0], rel=near)
    assert set(course(found, "loss_scale")) == {128.0}


def test_a_dynamic_scale_is_halved_at_an_overflow_whose_update_is_left_out() -> None:
    """As torch.amp.GradScaler: inputs so large that 2^16 times the loss has no gradient in float16."""
    settings = SMALL | {"train.precision": "mixed_float16", "train.loss_scale": "dynamic", "optim.lr": 1e-3}
    settings |= {"data.input_scale": 1000.0}
    (found,) = measured(settings)
    skipped = course(found, "skipped")
    assert any(skipped)
    assert not all(skipped)
    assert found.run["state"] == "finished"
    scale = 2.0**16
    for row in found.steps[:-1]:
        assert row["loss_scale"] == scale
        assert math.isfinite(row["grad_norm"]) != row["skipped"]
        moved = [at["update_ratio"] for at in found.layers if at["step"] == row["step"] and at["layer"] > 0]
        assert (max(moved) == 0) == row["skipped"]
        scale = scale / 2 if row["skipped"] else scale


def test_columns_are_of_the_unscaled_gradient() -> None:
    settings = SMALL | {"train.precision": "mixed_float16", "train.steps": 0}
    (plainly,) = measured(settings)
    (scaled,) = measured(settings | {"train.loss_scale": 1024.0})
    for column in ("signal_grad_norm", "grad_norm", "weight_grad_norm"):
        assert scaled.profile(column) == pytest.approx(plainly.profile(column), rel=1e-3)


@pytest.mark.parametrize(("scale", "gone"), [("1", True), ("1024", False), ("dynamic", False)])
def test_float16_loses_the_gradient_of_twelve_sigmoid_layers_and_a_scale_brings_it_back(scale: str, gone: bool) -> None:
    """Micikevicius et al. 2018, arXiv:1710.03740, section 3.2; smallest number 5.96e-8."""
    settings: dict[str, Value] = {
        "model.depth": 12,
        "model.activation": "sigmoid",
        "model.init": "xavier_normal",
        "train.steps": 0,
        "train.precision": "float16",
        "train.loss_scale": scale,
    }
    (found,) = measured(settings)
    first = found.profile("signal_grad_norm")[0]
    assert (first == 0) == gone
    if not gone:
        (single,) = measured(settings | {"train.precision": "float32", "train.loss_scale": "1"})
        assert first == pytest.approx(single.profile("signal_grad_norm")[0], rel=0.1)


def test_adam_s_eps_is_zero_in_float16() -> None:
    """1e-8 is below half the smallest number: 0/0 at the first update of what has no gradient, as in torch."""
    settings = SMALL | {"train.precision": "float16", "optim.name": "adam", "optim.lr": 1e-3}
    lost, kept, single = measured(settings, settings | {"optim.eps": 1e-4}, settings | {"optim.eps": 1e-3})
    assert lost.run["diverged_at"] == 1
    assert (kept.run["state"], single.run["state"]) == ("finished", "finished")
    loss = trained(build(settings))[0]
    assert math.isfinite(loss[0])
    assert math.isnan(loss[1])


def test_bfloat16_weights_do_not_move_at_a_small_learning_rate_and_single_ones_do() -> None:
    settings = SMALL | {"optim.lr": 1e-4, "train.steps": 20}
    (still,) = measured(settings | {"train.precision": "bfloat16"})
    (moving,) = measured(settings | {"train.precision": "mixed_bfloat16"})
    ratios = [[row["update_ratio"] for row in one.layers if row["update_ratio"] is not None] for one in (still, moving)]
    assert max(ratios[0]) < 0.3 * max(ratios[1])
    assert moving.run["loss_last"] < still.run["loss_last"]


@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_norms_are_single_inside(precision: str, norm: str) -> None:
    """A signal of 300 has a square that float16 cannot hold."""
    settings = SMALL | {"model.norm": norm, "train.precision": precision, "model.gain": 300.0, "train.steps": 2}
    (found,) = measured(settings)
    assert found.run["state"] == "finished"


def test_the_words_are_those_of_the_spec() -> None:
    assert set(FORMATS) == set(keys.KEYS["train.precision"].words)
    for given in ("0", "-1", "static", "nan", True):
        with pytest.raises(SpecError, match=r"above 0 or 'dynamic'"):
            build({"train.loss_scale": given})
    assert build({"train.loss_scale": 1.0}).id == build({}).id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_by_chance_takes_one_of_both_neighbours_and_is_right_in_the_mean(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.001, -1.001, 3e-5, -7e-8, 1.0, 0.0, 255.7, 6e-39]])
    near = x.to(dtype)
    ways = [torch.nextafter(near, torch.full_like(near, side)).float() for side in (-math.inf, math.inf)]
    drawn = torch.stack([rounded(x, dtype, chances([build({"seed": 1})], t, x)) for t in range(4000)]).float()
    held = near.float() == x
    assert (drawn[:, held] == x[held]).all(), "what the format holds stays"
    assert ((drawn == near.float()) | (drawn == ways[0]) | (drawn == ways[1])).all()
    step = (ways[1] - ways[0]).abs()
    assert ((drawn.mean(0) - x).abs() <= 0.04 * step).all()
    assert torch.equal(rounded(x, dtype, torch.full_like(x, 0.5))[:, :3], near[:, :3]), "half-way chances are nearest"


def losses(values: dict[str, Value], *company: dict[str, Value]) -> list[float]:
    return [float(str(row["loss"])) for row in measured(*company, values)[-1].steps]


def test_updates_by_chance_are_a_member_s_own_and_reach_what_single_weights_reach() -> None:
    slow: dict[str, Value] = {**SMALL, "train.precision": "bfloat16", "optim.lr": 1e-3, "train.steps": 150}
    by_chance: dict[str, Value] = {**slow, "train.rounding": "stochastic", "clip.mode": "skip", "clip.threshold": 10.0}
    alone = losses(by_chance)
    assert alone == losses(by_chance, {**by_chance, "seed": 5})
    single, nearest = losses({**slow, "train.precision": "mixed_bfloat16"}), losses(slow)
    assert sum(alone[-20:]) == pytest.approx(sum(single[-20:]), rel=0.01)
    assert sum(nearest[-20:]) > 1.01 * sum(single[-20:]), "to the nearest most of it is lost"
