"""What is foretold of a network of the user's own, from its weights as drawn, is what is measured of it."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from gradlab.engine.drawn import Drawn, drawn_of
from gradlab.spec.named import Value
from gradlab.terminal.theory import show_drawn
from gradlab.theory.predict import predict_setting, profile_of
from tests.engine import networks
from tests.engine.test_lent import allowed, spec, trained

__all__ = ["allowed"]

HERE = str(Path(__file__))


def stack(act: str = "Tanh", depth: int = 16, width: int = 128) -> nn.Module:
    """Linear layers and one activation, in sequences within a sequence."""
    layers = [nn.Sequential(nn.Linear(*pair), getattr(nn, act)()) for pair in pairwise([64, *[width] * (depth - 1)])]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


def convolutions(channels: int = 32) -> nn.Module:
    """The same of convolutions around whose images nothing is put."""
    body = [
        part
        for pair in pairwise([1, *[channels] * 6])
        for part in (nn.Conv2d(*pair, 3, padding=1, padding_mode="circular"), nn.ReLU())
    ]
    return nn.Sequential(nn.Unflatten(1, (1, 8)), *body, nn.Flatten(), nn.Linear(64 * channels, 10))


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 10))


def two_kinds() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 10))


def bare() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Tanh(), nn.Tanh(), nn.Linear(8, 10))


def strided() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))


def uneven() -> nn.Module:
    net = stack()
    assert isinstance(net, nn.Sequential)
    for part in net[5].parameters():
        part.data *= 2
    return net


def of(name: str, **more: Value) -> Drawn:
    return drawn_of(spec({"model.target": f"{HERE}:{name}", "train.steps": 0, **more}))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("stack", {}),
        ("stack", {"model.init": "xavier_normal"}),
        ("stack", {"model.args.act": "ReLU", "model.init": "he_normal"}),
        ("convolutions", {"model.init": "he_normal", "model.gain": 0.7}),
    ],
)
def test_the_rate_that_is_foretold_is_measured(name: str, more: dict[str, Value]) -> None:
    seen = of(name, **more).seen
    assert seen is not None
    course = profile_of(seen)
    assert course is not None
    foretold = course.log10_ratio(1)
    runs = [spec({"model.target": f"{HERE}:{name}", "train.steps": 0, **more, "seed": seed}) for seed in range(8)]
    record = trained(*runs)
    deltas = record.layers[0].values[record.columns.index("signal_grad_rms"), :, 1:]
    measured = np.log10(deltas[:, 0] / deltas[:, -2]).mean()
    layers = deltas.shape[1] - 2
    assert abs(measured - foretold) / layers < 0.01  # 2.3 % a layer
    assert predict_setting(seen).rate == pytest.approx(10 ** (foretold / layers), rel=0.1)


def test_weights_are_known_by_name_with_their_variances() -> None:
    more: dict[str, Value] = {"model.init": "he_normal", "model.gain": 0.5}
    found = of("stack", **more)
    assert [one.name for one in found.weights][:2] == ["1.0", "2.0"]
    assert [one.fan_in for one in found.weights][:2] == [64, 128]
    assert [one.sw2 for one in found.weights] == pytest.approx([0.5] * 16, rel=0.1)
    assert {one.sb2 for one in found.weights} == {0.0}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("normed", "no plain stack of linear layers"),
        ("two_kinds", "no plain stack of linear layers"),
        ("bare", "not every layer is followed by one activation"),
        ("strided", "strides or groups"),
        ("uneven", "drawn with different variances"),
    ],
)
def test_of_what_is_no_plain_stack_it_is_said_why_no_rate_is(name: str, why: str) -> None:
    found = of(name)
    assert found.seen is None
    assert why in found.why_not
    assert found.weights


@pytest.mark.parametrize(("name", "said"), [("Lazy", "no shape before a batch"), ("Complex", "turn")])
def test_what_has_no_shape_yet_and_what_is_complex_is_shown(name: str, said: str) -> None:
    run = spec({"model.target": f"{networks.__file__}:{name}"})
    out = Console(file=io.StringIO(), width=100)
    show_drawn(out, [(run, drawn_of(run))])
    assert said in out.file.getvalue()  # type: ignore[attr-defined]
