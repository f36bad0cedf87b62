"""Of networks of gradlab's own: how output and loss are posed, what begins at zero, and layers that differ in size."""

from __future__ import annotations

import pytest
import torch

from gradlab.diagnose import judge
from gradlab.diagnose.tables import histories
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.store.record import tidy
from tests.members import content


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"model.output": "softmax"}, "softmax_twice"),
        ({"model.output": "relu"}, "activation_on_logits"),
        ({"train.loss": "negative_log_likelihood"}, "log_probabilities"),
        ({"train.loss": "negative_log_likelihood", "model.output": "log_softmax"}, None),
        ({"train.loss": "mean_squared_error", "model.output": "softmax"}, None),
        ({"model.name": "residual_mlp", "model.init": "fixup"}, None),
    ],
)
def test_how_a_network_of_gradlab_s_own_is_posed_and_begins(keys: dict[str, Value], cause: str | None) -> None:
    run = build({"model.depth": 4, "model.width": 8, "data.batch_size": 16, "train.steps": 1, **keys})
    tables = tidy(train([run], content(run.data), torch.device("cpu"), lambda *_: None))
    (history,) = histories(tables.runs, tables.steps, tables.layers)
    (verdict,) = judge(history)
    assert (verdict.name, verdict.cause and verdict.cause.name) == ("misspecified" if cause else "healthy", cause)


@pytest.mark.parametrize("keys", [{"model.name": "cnn", "model.pool": "3"}, {"model.name": "capsule"}])
def test_layers_of_different_sizes_are_judged_by_the_ratio_that_the_table_of_runs_has(keys: dict[str, Value]) -> None:
    run = build({"model.depth": 4, "model.width": 8, "data.batch_size": 16, "train.steps": 0, **keys})
    tables = tidy(train([run], content(run.data), torch.device("cpu"), lambda *_: None))
    (verdict,) = judge(histories(tables.runs, tables.steps, tables.layers)[0])
    assert verdict.evidence["depth_ratio"] == pytest.approx(tables.runs["vanishing_ratio"][0].as_py())
