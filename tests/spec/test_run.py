"""A run's spec: what is resolved, what is refused, and an id that follows every key of the contract."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.data import function
from gradlab.data.facts import described
from gradlab.spec.choices import ACTIVATIONS
from gradlab.spec.keys import DEFAULTS, KEYS, allowed_keys, unknown_key
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import OUTSIDE_DIGEST, build
from gradlab.spec.unused import unused

HERE = str(Path(__file__))
OWN: dict[str, Value] = {"model.name": "module", "model.target": f"{HERE}:network", "model.source": "1" * 64}
TABLE: dict[str, Value] = {"data.name": "file", "data.path": "gone.csv", "data.source": "1" * 64}
MADE: dict[str, Value] = {"data.name": "function", "data.target": f"{HERE}:batches", "data.source": "1" * 64}
"""What is the user's own, of runs made before: nobody opens it."""


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of the user's own may run, whatever other tests have allowed."""
    monkeypatch.setattr(function, "_ALLOWED", [])


ATTENTION: dict[str, Value] = {"model.name": "transformer", "data.name": "digits"}

OTHER: dict[str, tuple[dict[str, Value], Value]] = {
    "seed": ({}, 1),
    "model.name": ({}, "residual_mlp"),
    "model.depth": ({}, 11),
    "model.width": ({}, 65),
    "model.activation": ({}, "tanh"),
    "model.slope": ({}, 0.02),
    "model.init": ({}, "he_uniform"),
    "model.gain": ({}, 1.1),
    "model.weight_var": ({}, 2.0),
    "model.bias_var": ({}, 0.1),
    "model.norm": ({}, "rms"),
    "model.pool": ({"model.name": "cnn"}, "3+5"),
    "model.block": ({"model.name": "resnet"}, "fixup"),
    "model.branch_scale": ({"model.name": "residual_mlp"}, 0.5),
    "model.capsule_width": ({"model.name": "capsule"}, 4),
    "model.routing": ({"model.name": "capsule"}, 2),
    "model.squash_eps": ({"model.name": "capsule"}, 0.0),
    "model.forget_bias": ({"model.name": "lstm"}, 1.0),
    "model.chrono": ({"model.name": "lstm"}, True),
    "model.attention": ({"model.name": "seq2seq"}, "dot"),
    "model.heads": (ATTENTION, 2),
    "model.norm_place": (ATTENTION, "post"),
    "model.skip": (ATTENTION, False),
    "model.feed_forward": (ATTENTION, 2),
    "model.causal": (ATTENTION, True),
    "model.qk_norm": (ATTENTION, True),
    "model.attention_scale": (ATTENTION, 1.0),
    "model.output": ({}, "softmax"),
    "model.parametrization": ({}, "ntk"),
    "model.base_width": ({}, 32),
    "model.base_depth": ({"model.name": "residual_mlp", "model.parametrization": "mup"}, 5),
    "model.dropout": ({}, 0.5),
    "model.groups": ({}, 8),
    "model.norm_order": ({}, "behind"),
    "model.target": (OWN, f"{HERE}:another"),
    "model.source": (OWN, "0" * 64),
    "data.name": ({}, "gaussian_mixture"),
    "data.batch_size": ({}, 65),
    "data.seed": ({}, 1),
    "data.standardise": ({}, False),
    "data.input_scale": ({}, 2.0),
    "data.target_scale": ({}, 2.0),
    "data.bad_every": ({}, 50),
    "data.length": ({"data.name": "adding"}, 51),
    "data.features": ({"data.name": "gaussian_mixture"}, 65),
    "data.ask": ({"model.name": "lstm", "data.name": "moving_digits"}, "digit"),
    "data.permuted": ({"model.name": "lstm", "data.name": "sequential_digits"}, True),
    "data.label": (TABLE, "a"),
    "data.heldout": (TABLE, 0.5),
    "data.task": (TABLE, "classification"),
    "data.target": (MADE, f"{HERE}:another"),
    "data.source": (MADE, "0" * 64),
    "optim.name": ({}, "adam"),
    "optim.lr": ({}, 0.11),
    "optim.momentum": ({}, 0.5),
    "optim.nesterov": ({"optim.momentum": 0.5}, True),
    "optim.weight_decay": ({}, 0.1),
    "optim.l1": ({}, 0.1),
    "optim.beta1": ({}, 0.8),
    "optim.beta2": ({}, 0.8),
    "optim.eps": ({}, 1e-6),
    "optim.dampening": ({}, 0.5),
    "optim.amsgrad": ({}, True),
    "optim.maximize": ({}, True),
    "optim.schedule": ({}, "cosine"),
    "optim.warmup": ({}, 10),
    "optim.end_factor": ({}, 0.1),
    "optim.decay": ({}, 0.5),
    "optim.decay_every": ({}, 10),
    "clip.mode": ({}, "norm"),
    "clip.threshold": ({}, 2.0),
    "clip.output_threshold": ({}, 2.0),
    "train.steps": ({}, 201),
    "train.rounding": ({"train.precision": "bfloat16"}, "stochastic"),
    "train.loss_scale": ({"train.precision": "float16"}, "dynamic"),
    "train.precision": ({}, "float64"),
    "train.loss": ({}, "hinge"),
    "train.source": (OWN | {"train.loss": f"{HERE}:loss", "train.source": "1" * 64}, "0" * 64),
    "pretrain.mode": ({}, "layerwise"),
    "pretrain.steps": ({}, 50),
    "pretrain.lr": ({}, 0.1),
    "pretrain.corruption": ({}, 0.5),
    "probe.every": ({}, 11),
    "probe.instrument": ({}, "gradient_log"),
}
"""For each key another value than its default, and what it needs beside it."""


def refused(values: dict[str, Value]) -> str:
    with pytest.raises(SpecError) as caught:
        described(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_is_tried() -> None:
    assert set(OTHER) == set(KEYS) - set(OUTSIDE_DIGEST)


@pytest.mark.parametrize("key", sorted(OTHER))
def test_the_id_changes_with_every_key(key: str) -> None:
    beside, value = OTHER[key]
    spec = described({**beside, key: value})
    assert spec.id != described(dict(beside)).id
    assert spec.flat()[key] == value


def test_the_ids_of_all_these_are_different() -> None:
    ids = {described({**beside, key: value}).id for key, (beside, value) in OTHER.items()}
    assert len(ids) == len(OTHER)


def test_the_id_does_not_depend_on_the_order_of_the_keys_or_on_saying_a_default() -> None:
    values: dict[str, Value] = {"model.depth": 3, "optim.lr": 0.5, "clip.mode": "norm", "seed": 4, "data.seed": 2}
    expected = build(values).id
    items = list({**allowed_keys("mlp", "digits"), **values}.items())
    for seed in range(5):
        random.Random(seed).shuffle(items)
        assert build(dict(items)).id == expected


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"model.init": "he"}, {"model.init": "he_normal"}),
        ({"model.init": "xavier"}, {"model.init": "xavier_normal"}),
        ({"model.activation": "leaky"}, {"model.activation": "leaky_relu"}),
        ({"optim.lr": 1}, {"optim.lr": 1.0}),
        ({"data.batch_size": "full"}, {"data.batch_size": 1437}),
        ({"model.activation": "prelu"}, {"model.activation": "prelu", "model.slope": 0.25}),
        ({"model.name": "linear_chain"}, {"model.name": "linear_chain", "data.features": 64}),
        ({"optim.name": "adamw"}, {"optim.name": "adamw", "optim.weight_decay": 0.01}),
        ({"train.precision": "Float64"}, {"train.precision": "float64"}),
    ],
)
def test_the_id_is_of_the_resolved_values(one: dict[str, Value], same: dict[str, Value]) -> None:
    assert build(one).id == build(same).id
    assert build(one) == build(same)


def test_the_id_does_not_depend_on_where_the_data_lie(idx200: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.symlink_to(idx200)
    values: dict[str, Value] = {"data.name": "mnist", "data.root": str(idx200)}
    spec = described(values)
    assert spec.id == described({**values, "data.root": str(there)}).id
    assert spec.id == described({"data.name": "mnist"}).id
    assert described({"data.name": "mnist", "data.mirror": "http://localhost/"}).id == spec.id
    assert (spec.facts.train, spec.facts.heldout, spec.facts.shape) == (160, 40, (28, 28))


def test_full_is_the_training_part_of_these_files(idx200: Path) -> None:
    values: dict[str, Value] = {"data.name": "mnist", "data.root": str(idx200), "data.batch_size": "full"}
    assert described(values).data.batch_size == 160
    assert "160 samples" in refused({**values, "data.batch_size": 161})


def test_the_id_is_the_same_in_another_process() -> None:
    code = "from gradlab.spec.run import build; print(build({'model.depth': 3, 'optim.lr': 0.3}).id)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == build({"model.depth": 3, "optim.lr": 0.3}).id
    assert len(said) == 16
    assert int(said, 16) >= 0


def test_every_run_has_every_column() -> None:
    for values in ({}, {"model.name": "linear_chain"}, {"model.name": "rnn", "data.name": "adding"}):
        assert list(build(dict(values)).flat()) == list(KEYS)


def test_what_a_choice_lacks_is_null() -> None:
    chain = build({"model.name": "linear_chain"})
    assert (chain.model.activation, chain.model.init, chain.model.norm) == (None, None, None)
    assert (chain.data.name, chain.data.features, chain.data.length) == ("linear_teacher", 64, None)


@pytest.mark.parametrize(
    ("values", "shape", "outputs", "loss"),
    [
        ({}, (8, 8), 10, "cross_entropy"),
        ({"data.name": "mnist"}, (28, 28), 10, "cross_entropy"),
        ({"data.name": "gaussian_mixture", "data.features": 5}, (5,), 10, "cross_entropy"),
        ({"data.name": "linear_teacher", "data.features": 7}, (7,), 7, "mean_squared_error"),
        ({"model.name": "linear_chain", "model.width": 3}, (3,), 3, "mean_squared_error"),
        ({"model.name": "rnn", "data.name": "adding", "data.length": 9}, (9, 2), 1, "mean_squared_error"),
    ],
)
def test_facts(values: dict[str, Value], shape: tuple[int, ...], outputs: int, loss: str) -> None:
    facts = build(values).facts
    assert (facts.shape, facts.outputs, facts.loss) == (shape, outputs, loss)


def test_layers_count_the_read_out_of_an_rnn() -> None:
    assert build({"model.depth": 4}).layers == 4
    assert build({"model.name": "rnn", "model.depth": 2}).layers == 3
    assert build({"model.name": "rnn"}).model.depth == 1


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_slope_starts_where_its_activation_says(activation: str) -> None:
    assert build({"model.activation": activation}).model.slope == (0.25 if activation == "prelu" else 0.01)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({"model.norm": "batch", "data.batch_size": 1}, "at least 2 samples"),
        ({"model.name": "residual_mlp", "model.depth": 1}, "at least 2 layers"),
        ({"model.name": "rnn", "model.norm": "batch"}, "none, layer, rms"),
        ({"model.name": "rnn", "data.name": "linear_teacher"}, "digits, fashion_mnist, mnist, cifar10, adding"),
        ({"model.name": "linear_chain", "data.name": "digits"}, "width = inputs = outputs"),
        ({"model.name": "linear_chain", "data.features": 5}, "model.width=64"),
        ({"model.name": "linear_chain", "model.init": "he"}, "has no key 'model.init'"),
        ({"model.init": "torch_default", "model.bias_var": 0.1}, "draws its own biases"),
        ({"optim.nesterov": True}, "optim.momentum above 0"),
        ({"data.features": 5}, "data 'digits' has no key 'data.features'"),
        ({"data.name": "digits", "data.root": "x"}, "data 'digits' has no key 'data.root'"),
        ({"seed": True}, "seed=true"),
        ({"seed": 1.0}, "seed=1.0"),
        ({"seed": 2**63}, "64 bits"),
        ({"optim.lr": 10**400}, "64 bits"),
        ({"optim.lr": float("nan")}, "finite"),
        ({"optim.lr": True}, "optim.lr=true"),
        ({"data.standardise": 1}, "expected true or false"),
        ({"data.name": "mnist", "data.root": 5}, "expected a text or null"),
        ({"train.precision": "float8"}, "train.precision='float8': expected 'float32' or 'float64'"),
        ({"model.activation": None}, "unknown activation 'null'"),
        ({"clip.threshold": 0.0}, "clip.threshold=0.0: expected a finite number above 0"),
        ({"sed": 1}, "did you mean 'seed'?"),
        ({"model.dept": 1}, "did you mean 'model.depth'?"),
    ],
)
def test_what_no_run_can_have(values: dict[str, Value], fragment: str) -> None:
    assert fragment in refused(values)


def test_zero_is_a_value() -> None:
    spec = build({"optim.lr": 0, "train.steps": 0, "model.weight_var": 0, "model.gain": 0})
    assert (spec.optim.lr, spec.train.steps, spec.model.weight_var, spec.model.gain) == (0.0, 0, 0.0, 0.0)


def test_an_unknown_key_names_the_nearest_or_those_of_its_section() -> None:
    assert str(unknown_key("threshold", KEYS)) == "unknown key 'threshold'; did you mean 'clip.threshold'?"
    keys = ", ".join(f"train.{name}" for name in ("steps", "precision", "loss_scale", "rounding", "loss", "source"))
    assert str(unknown_key("train.zzz", KEYS)) == f"unknown key 'train.zzz'; keys: {keys}"
    sections = ("model", "data", "optim", "clip", "train", "pretrain", "probe")
    assert str(unknown_key("zzz", KEYS)).endswith(f"keys: seed, {', '.join(f'{one}.*' for one in sections)}")


def test_unused_keys_do_nothing_in_their_run() -> None:
    idle = unused(build({}))
    assert {"clip.threshold", "optim.beta1", "model.slope", "data.target_scale"} <= idle
    assert not {"optim.momentum", "optim.lr", "model.depth"} & idle
    assert "clip.threshold" not in unused(build({"clip.mode": "norm"}))
    assert "optim.beta1" not in unused(build({"optim.name": "adam"}))
    assert "optim.momentum" in unused(build({"optim.name": "adam"}))
    assert "model.slope" not in unused(build({"model.activation": "leaky"}))
    assert "data.target_scale" not in unused(build({"data.name": "linear_teacher"}))


def test_defaults_are_values_that_their_keys_take() -> None:
    assert set(DEFAULTS) <= set(KEYS)
    assert build(dict(DEFAULTS)).id == build({}).id
