"""Theory of group norm, weight norm, and norms behind the activation, beside measured networks."""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.predict import predict
from tests.members import measured

DEEP: dict[str, Value] = {"model.depth": 14, "model.width": 200, "train.steps": 0, "data.batch_size": 64}
BEHIND: dict[str, Value] = {"model.norm_order": "behind", "model.bias_var": 0.1}


@pytest.mark.parametrize(
    ("own", "within"),
    [
        ({"model.norm": "weight", "model.activation": "tanh", "model.weight_var": 2.0}, 0.01),
        ({"model.norm": "group", "model.activation": "tanh"}, 0.02),
        ({**BEHIND, "model.norm": "layer", "model.activation": "tanh"}, 0.01),
        ({**BEHIND, "model.norm": "layer", "model.activation": "relu"}, 0.02),
        ({**BEHIND, "model.norm": "rms", "model.activation": "relu"}, 0.02),
        ({**BEHIND, "model.norm": "rms", "model.activation": "tanh", "model.dropout": 0.2}, 0.01),
    ],
)
def test_rates_are_those_of_wide_networks(own: dict[str, Value], within: float) -> None:
    settings = [DEEP | own | {"seed": seed} for seed in range(6)]
    found = float(np.median([member.run["rate"] for member in measured(*settings)]))
    assert predict(build(settings[0])).fitted == pytest.approx(found, rel=within)


def test_what_no_theory_is_known_of_is_said() -> None:
    said = {
        name: predict(build(own)).note
        for name, own in {
            "pixels": {"model.name": "cnn", "model.norm": "group"},
            "behind": {"model.norm": "batch", "model.norm_order": "behind"},
            "stream": {"model.name": "residual_mlp", "model.norm": "layer", "model.norm_order": "behind"},
        }.items()
    }
    assert said["pixels"].startswith("a norm over pixels depends on how alike they are")
    assert said["behind"] == "a batch norm behind the activation of 'mlp' is not followed by theory here"
    assert "layer norm behind the activation of 'residual_mlp'" in said["stream"]


def test_the_sentence_says_where_the_norm_stands() -> None:
    assert predict(build({**BEHIND, "model.norm": "rms"})).note.startswith("relu, then rms norm, σb²=0.1: ")
    assert predict(build({"model.norm": "group"})).note.startswith("relu behind group norm, σb²=0: ")
