"""The tables of named choices: complete, findable, and equal to the files of `configs/`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gradlab.spec import elsewhere
from gradlab.spec.choices import (
    ACTIVATIONS,
    ALIASES,
    CLIPS,
    DATA,
    INITS,
    INSTRUMENTS,
    MODELS,
    NAMED,
    NORMS,
    NOUNS,
    OPTIMIZERS,
    PRETRAINING,
    PROBES,
    SCHEDULES,
)
from gradlab.spec.keys import DEFAULTS, KEYS
from gradlab.spec.named import SpecError, Value, folded, lookup, nearest
from gradlab.spec.values import coerce

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def defaults(section: str) -> dict[str, Value]:
    return {key.partition(".")[2]: value for key, value in DEFAULTS.items() if key.startswith(f"{section}.")}


EXPECTED: dict[str, dict[str, dict[str, Value]]] = {
    "model": {name: {"name": name, **entry.keys} for name, entry in MODELS.items()},
    "data": {name: {**defaults("data"), "name": name, **entry.keys} for name, entry in DATA.items()},
    "optim": {name: {**defaults("optim"), "name": name, **entry.defaults} for name, entry in OPTIMIZERS.items()},
    "clip": {name: {**defaults("clip"), "mode": name, **entry.defaults} for name, entry in CLIPS.items()},
}
"""The files of each group, by what the tables and the defaults of the spec say."""


@pytest.mark.parametrize("group", sorted(EXPECTED))
def test_the_files_of_a_group_are_its_choices(group: str) -> None:
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (CONFIGS / group).iterdir()}
    assert files == EXPECTED[group]
    kinds = {name: {key: type(value) for key, value in values.items()} for name, values in files.items()}
    assert kinds == {n: {key: type(v) for key, v in values.items()} for n, values in EXPECTED[group].items()}


def test_the_rest_of_the_config_is_the_defaults() -> None:
    config = yaml.safe_load((CONFIGS / "config.yaml").read_text())
    chosen = {group: name for entry in config.pop("defaults") if entry != "_self_" for group, name in entry.items()}
    assert chosen == {
        "model": "mlp",
        "data": "digits",
        "optim": "sgd",
        "clip": "none",
        "launch": "local",
        "experiment": None,
    }
    assert config == {
        "name": "run",
        "seed": DEFAULTS["seed"],
        "train": defaults("train"),
        "pretrain": defaults("pretrain"),
        "probe": defaults("probe"),
        "launch": {"memory": None, "workers": None, "stacked": "auto"},
        "store": {"weights": False},
    }


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (
            ACTIVATIONS,
            "sigmoid tanh relu leaky_relu prelu elu selu gelu silu softplus hardtanh linear",
        ),
        (
            INITS,
            " ".join(f"{name}_{law}" for name in ("xavier", "he", "lecun") for law in ("normal", "uniform")),
        ),
        (INITS, "orthogonal torch_default zeros lsuv identity fixup"),
        (NORMS, "none batch layer rms"),
        (CLIPS, "none norm value layerwise normalize soft agc autoclip zclip skip"),
        (OPTIMIZERS, "sgd adam adamw rmsprop adagrad nadam radam adamax adadelta lamb lion muon"),
        (SCHEDULES, "constant linear cosine step exponential inverse_sqrt one_cycle plateau"),
        (PRETRAINING, "none layerwise autoencoder denoising masked generative"),
        (MODELS, "mlp residual_mlp linear_chain rnn"),
        (DATA, "digits fashion_mnist mnist gaussian_mixture linear_teacher adding"),
        (INSTRUMENTS, "none jacobian_spectrum gradient_log input_autocorrelation recurrent_jacobian"),
    ],
)
def test_every_promised_name_is_there(table: dict[str, object], names: str) -> None:
    assert set(names.split()) <= set(table)


@pytest.mark.parametrize(
    "table",
    [ACTIVATIONS, INITS, NORMS, CLIPS, OPTIMIZERS, SCHEDULES, PRETRAINING, MODELS, DATA, PROBES, INSTRUMENTS],
    ids=lambda table: next(iter(table)),
)
def test_entries_say_what_they_are_in_one_line(table: dict[str, object]) -> None:
    for name, entry in table.items():
        assert entry.name == name  # type: ignore[attr-defined]
        for text in (entry.summary, entry.source):  # type: ignore[attr-defined]
            assert text
            assert "\n" not in text
            assert len(text) <= 100


def test_keys_and_defaults_of_choices_are_keys_of_a_run() -> None:
    for model in MODELS.values():
        assert {f"model.{key}" for key in model.keys} <= set(KEYS)
        assert model.data in DATA
        assert set(model.norms) <= set(NORMS)
    for data in DATA.values():
        assert {f"data.{key}" for key in data.keys} <= set(KEYS)
    for optimizer in OPTIMIZERS.values():
        assert {f"optim.{key}" for key in (*optimizer.uses, *optimizer.defaults)} <= set(KEYS)
        assert set(optimizer.defaults) <= set(optimizer.uses)
    for schedule in SCHEDULES.values():
        assert {f"optim.{key}" for key in schedule.uses} <= set(KEYS)
    for clip in CLIPS.values():
        assert {f"clip.{key}" for key in clip.uses} <= set(KEYS)
        assert set(clip.defaults) <= set(clip.uses)
    given = [quantity for instrument in INSTRUMENTS.values() for quantity in instrument.gives]
    assert len(set(given)) == len(given), "a quantity says which instrument gave it"
    for instrument in INSTRUMENTS.values():
        assert set(instrument.needs) <= set(KEYS)


def test_every_named_key_has_a_table_and_a_noun() -> None:
    assert set(NAMED) == set(NOUNS) <= set(KEYS)
    for key, aliases in ALIASES.items():
        assert set(aliases.values()) <= set(NAMED[key])
        assert not set(aliases) & set(NAMED[key])


def test_lookup_gives_the_entry_or_the_nearest_name() -> None:
    assert lookup("init", INITS, "he", ALIASES["model.init"]).name == "he_normal"
    with pytest.raises(SpecError, match=r"^unknown activation 'rellu'; did you mean 'relu'\? available: elu, gelu, "):
        lookup("activation", ACTIVATIONS, "rellu")
    with pytest.raises(
        SpecError, match=r"^unknown norm 'qqq'; available: batch, group, instance, layer, none, rms, weight$"
    ):
        lookup("norm", NORMS, "qqq")


def test_what_other_libraries_say_is_told_and_not_taken() -> None:
    for key, meant in elsewhere.VALUES.items():
        table = {*NAMED.get(key, {}), *KEYS[key].words}
        for given, name in meant.items():
            assert name in table
            assert given == folded(given)
            with pytest.raises(SpecError, match=f"{given}'(: expected .*)?; did you mean '{name}'"):
                coerce(key, given)
    assert set(elsewhere.KEYS.values()) <= set(KEYS)
    with pytest.raises(SpecError, match=r"train.precision=16: expected .*; did you mean 'mixed_float16'"):
        coerce("train.precision", 16)


def test_nothing_is_near_to_a_stranger() -> None:
    assert nearest("qqq", ACTIVATIONS) == ""
    assert nearest("sigmoud", ACTIVATIONS) == "; did you mean 'sigmoid'?"
