"""What is said of the depth equals what one small step of real residual networks does."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from gradlab.diagnose.scaling import power_law
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.record import tidy
from gradlab.terminal.theory import show
from gradlab.theory.depths import exponent
from tests.members import content

DEPTHS = (6, 10, 18, 34, 66)
SMALL: dict[str, dict[str, Value]] = {
    "sgd": {"optim.name": "sgd", "optim.lr": 1e-5},
    "adam": {"optim.name": "adam", "optim.lr": 1e-7, "optim.eps": 1e-20},
}


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("adam", {"model.norm": "layer"}),
        ("adam", {"model.norm": "layer", "model.parametrization": "mup", "model.base_depth": 6}),
        ("sgd", {"model.activation": "tanh", "model.parametrization": "mup", "model.base_depth": 6}),
    ],
)
def test_exponents_are_those_of_one_small_step(optimizer: str, settings: dict[str, Value]) -> None:
    laws: list[tuple[float, float]] = []
    for depth in DEPTHS:
        own: dict[str, Value] = {"model.name": "residual_mlp", "model.width": 32, "model.depth": depth}
        own |= {"train.steps": 1, "train.precision": "float64", "data.batch_size": 1, "model.init": "lecun"}
        own |= {"probe.instrument": "coordinates", **SMALL[optimizer], **settings}
        runs = [build(own | {"seed": seed}) for seed in range(16)]
        tables = tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))
        rows = [row for row in tables.instruments.to_pylist() if row["quantity"] == "signal_change"]
        laws += [(depth, row["value"]) for row in rows if row["index"] == depth - 1]
    law = power_law([depth for depth, _ in laws], [change for _, change in laws])
    assert law is not None
    assert law.exponent == pytest.approx(exponent(build(own)), abs=0.15)


def test_where_it_is_said() -> None:
    out = Console(file=io.StringIO(), width=200)
    plain: dict[str, Value] = {"model.name": "residual_mlp", "model.norm": "layer"}
    scaled: dict[str, Value] = {**plain, "model.parametrization": "mup", "model.base_depth": 6, "optim.name": "adam"}
    show(out, [build(plain | {"model.depth": depth}) for depth in (6, 10)], ["model.depth"])
    show(out, [build(scaled)], [])
    show(out, [build({**plain, "model.norm": "none", "model.depth": depth}) for depth in (6, 10)], ["model.depth"])
    show(out, [build(plain)], [])
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert said.count("the stream") == 2
    assert "standard under sgd: early changes of the stream go with the depth to the power of 1, and its log" in said
    assert "mup under adam: early changes of the stream go with the depth to the power of 0: all depths" in said
