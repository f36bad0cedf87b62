"""What is said of the width equals what one small step of real networks does, where no lower order is in the way."""

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
from gradlab.theory.widths import EXPONENTS
from tests.members import content

WIDTHS = (32, 64, 128, 256)


@pytest.mark.parametrize(("name", "adaptive"), [("mup", False), ("mup", True), ("ntk", False)])
def test_exponents_are_those_of_one_small_step(name: str, adaptive: bool) -> None:
    optimizer: dict[str, Value] = {"optim.name": "sgd", "optim.lr": 1e-4}
    if adaptive:
        optimizer = {"optim.name": "adam", "optim.lr": 1e-6, "optim.eps": 1e-20}
    laws: list[tuple[float, list[float]]] = []
    for width in WIDTHS:
        own: dict[str, Value] = {"model.depth": 4, "model.activation": "tanh", "model.init": "lecun"}
        own |= {"model.width": width, "train.steps": 1, "train.precision": "float64", "data.batch_size": 1}
        own |= {"model.parametrization": name, "probe.instrument": "coordinates"}
        runs = [build(own | optimizer | {"seed": seed}) for seed in range(16)]
        tables = tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))
        rows = [row for row in tables.instruments.to_pylist() if row["quantity"] == "signal_change"]
        laws += [(width, [row["value"] for row in rows if row["run_id"] == run.id]) for run in runs]
    told = EXPONENTS[name, adaptive]
    for place, wanted in ((0, told.first), (2, told.hidden), (3, told.output)):
        law = power_law([width for width, _ in laws], [values[place] for _, values in laws])
        assert law is not None
        assert law.exponent == pytest.approx(float(wanted), abs=0.1)


def test_a_parametrization_s_exponents_are_said() -> None:
    out = Console(file=io.StringIO(), width=200)
    show(out, [build({"model.parametrization": "mup", "optim.name": "adam"})], [])
    show(out, [build({"model.width": width}) for width in (32, 64)], ["model.width"])
    show(out, [build({"model.depth": depth}) for depth in (5, 6)], ["model.depth"])
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert "mup under adam: early changes of signals go with the width to the power of 0 in the first layer" in said
    assert said.count("standard under sgd") == 1
    assert "1/2 in hidden ones, 1 at the output: the wider a network, the smaller its best learning rate" in said
