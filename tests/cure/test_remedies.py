"""The table of remedies: each a real change that the run can have, typed again as the very same run."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pyarrow as pa
import pytest

from gradlab.cure.changes import APPLIED, COSTS, Treated, cost, overrides, treated
from gradlab.cure.remedies import MENDS, REMEDIES
from gradlab.cure.trials import norms_seen
from gradlab.cure.values import END_TO_END, variance_of_targets
from gradlab.data.facts import described
from gradlab.diagnose.causes import CAUSES
from gradlab.diagnose.thresholds import DEFAULTS
from gradlab.grid.compose import compose_run
from gradlab.spec.keys import allowed_keys
from gradlab.spec.named import Value
from gradlab.spec.run import build
from gradlab.theory.predict import predict, profile

SICK: dict[str, dict[str, Value]] = {
    "sigmoid": {"model.depth": 30, "model.activation": "sigmoid", "model.init": "xavier"},
    "prelu": {"model.depth": 8, "model.activation": "prelu", "model.gain": 0.5, "optim.name": "adamw"},
    "clipped": {"clip.mode": "layerwise", "clip.threshold": 1e-3, "clip.output_threshold": 1e-2},
    "large weights": {"model.weight_var": 4.0, "model.bias_var": 0.05, "model.activation": "tanh"},
    "raw inputs": {"data.standardise": False, "data.input_scale": 30.0},
    "batch norm": {"model.norm": "batch", "model.depth": 50},
    "few samples": {"model.norm": "batch", "data.batch_size": 4, "model.width": 96},
    "wide": {"model.width": 256, "optim.name": "adam", "optim.lr": 0.03},
    "one sample": {"data.batch_size": 1},
    "residual": {"model.name": "residual_mlp", "model.depth": 20},
    "rnn": {"model.name": "rnn", "model.activation": "tanh"},
    "lstm": {"model.name": "lstm", "data.name": "adding"},
    "seq2seq": {"model.name": "seq2seq", "model.attention": "none"},
    "convolutions": {"model.name": "cnn", "model.activation": "tanh"},
    "blocks": {"model.name": "resnet", "model.depth": 8},
    "huge targets": {"data.name": "linear_teacher", "data.target_scale": 300.0},
    "much momentum": {"optim.momentum": 0.99, "model.output": "softmax"},
    "a cycle": {"optim.schedule": "one_cycle", "optim.lr": 3.0},
    "transformer": {"model.name": "transformer", "model.norm_place": "post", "model.attention_scale": 1.0},
    "capsules": {"model.name": "capsule", "model.squash_eps": 0.0},
    "chain": {"model.name": "linear_chain", "model.gain": 0.5},
    "half precision": {"train.precision": "float16", "optim.name": "adam"},
    "mixed precision": {"train.precision": "mixed_float16", "train.loss_scale": 1024},
}


NORMS = {"0.1": 7.5, "0.5": 2.25, "0.9": 0.125}
"""What a tenth, half and nine tenths of a sick run's steps exceed."""


def typed(values: dict[str, Value]) -> list[str]:
    """Values as overrides, the model first, so that its keys are known."""
    return overrides(values).split()


def names_for(spec_name: str) -> set[str]:
    spec = build(SICK[spec_name])
    return {name for name, remedy in REMEDIES.items() if treated(spec, [remedy]) is not None}


def test_every_remedy_has_a_kind_with_a_cost_and_a_source() -> None:
    assert all(name == remedy.name and remedy.kind in COSTS for name, remedy in REMEDIES.items())
    assert all(remedy.summary and remedy.source for remedy in REMEDIES.values())
    assert {remedy.kind for remedy in REMEDIES.values()} == set(COSTS)
    assert set(APPLIED) <= set(COSTS)


def test_numbers_of_the_recipe_are_cheapest_and_sizes_dearest() -> None:
    order = ["learning rate", "init", "activation", "norm", "architecture", "depth"]
    assert sorted(order, key=COSTS.__getitem__) == order
    assert cost([REMEDIES["tanh"], REMEDIES["he"]]) == COSTS["activation"] + COSTS["init"]


def test_gradients_may_change_as_far_as_the_diagnosis_allows() -> None:
    assert DEFAULTS["exploding_ratio"] == END_TO_END
    assert DEFAULTS["vanishing_ratio"] == pytest.approx(1 / END_TO_END)


def test_what_is_typed_again_is_the_same_run() -> None:
    typed_again = set()
    for sick, (name, remedy) in itertools.product(SICK, REMEDIES.items()):
        if name not in typed_again and (after := treated(build(SICK[sick]), [remedy], NORMS)) is not None:
            assert compose_run(typed(changed(sick, after))).runs[0].id == after.spec.id, (sick, name)
            typed_again.add(name)
    # What is advised depends on the norms of every layer.
    assert typed_again == set(REMEDIES) - {"clip-advised"}


def changed(sick: str, after: Treated) -> dict[str, Value]:
    """The settings with the change, without keys that are no more."""
    known = allowed_keys(after.spec.model.name, after.spec.data.name)
    return {key: value for key, value in {**SICK[sick], **after.change}.items() if key in known}


@pytest.mark.parametrize("sick", SICK)
def test_a_treated_run_is_that_with_its_change(sick: str) -> None:
    spec = build(SICK[sick])
    for remedy in REMEDIES.values():
        after = treated(spec, [remedy], NORMS)
        if after is None:
            continue
        assert after.spec.id != spec.id, remedy.name
        assert build(changed(sick, after)).id == after.spec.id, remedy.name
        before, now = spec.flat(), after.spec.flat()
        lacking = {key for key in now if None in (before[key], now[key])}
        assert {key for key in now if now[key] != before[key]} - lacking <= set(after.change), remedy.name


def test_only_what_a_run_can_have_and_does_not_have_yet() -> None:
    assert {
        "xavier",
        "standardise",
        "clip-off",
        "clip-wider",
        "momentum",
        "norm-off",
        "gain",
        "branch-scale",
    }.isdisjoint(names_for("sigmoid") - {"momentum"})
    assert "momentum" in names_for("sigmoid")
    assert {"adam", "momentum"}.isdisjoint(names_for("prelu"))
    assert {"clip-off", "clip-wider", "clip-norm"} <= names_for("clipped")
    assert {"standardise"} <= names_for("raw inputs")
    assert "norm-off" in names_for("batch norm")
    assert "group" in names_for("few samples") - names_for("batch norm")
    assert "mup" in names_for("wide") - names_for("sigmoid")
    assert "batch" not in names_for("one sample") | names_for("batch norm") | names_for("rnn")
    assert "residual" not in names_for("residual") | names_for("rnn") | names_for("chain")
    assert "branch-scale" in names_for("residual")
    assert {"pre-norm", "deepnorm", "qk-norm", "zero-branches", "attention-scale"} <= names_for("transformer")
    assert {"pre-norm", "deepnorm", "qk-norm", "zero-branches", "attention-scale"}.isdisjoint(names_for("residual"))
    assert {"gain", "lr/10"} <= names_for("chain")
    assert {"he", "tanh", "twice-as-wide", "batch"}.isdisjoint(names_for("chain"))
    gates = {"forget-bias", "chrono"}
    assert gates <= names_for("lstm")
    assert "orthogonal" in names_for("lstm")
    assert {"gru", "lstm", "identity"} <= names_for("rnn")
    assert {"gru", "lstm", "identity", "tanh", "layer"}.isdisjoint(names_for("lstm"))
    assert "attention" in names_for("seq2seq")
    assert "squash-eps" in names_for("capsules")
    assert {"squash-eps", "layer", "residual"}.isdisjoint(names_for("seq2seq"))
    assert gates.isdisjoint(names_for("rnn") | names_for("seq2seq") | names_for("sigmoid"))


def test_gates_take_elman_s_place_with_the_keys_that_they_have() -> None:
    after = treated(build(SICK["rnn"] | {"model.depth": 2, "model.weight_var": 3.0}), [REMEDIES["lstm"]])
    assert after is not None
    assert after.spec == build({"model.name": "lstm", "model.depth": 2, "model.forget_bias": 1.0})
    assert set(after.change) >= {"model.name", "model.init", "model.weight_var"}
    assert "model.activation" not in after.change


def test_the_critical_variance_is_that_of_theory() -> None:
    spec = build(SICK["large weights"])
    after = treated(spec, [REMEDIES["critical"]])
    assert after is not None
    # Schoenholz et al. 2016: tanh is critical at 1.7610 beside a bias variance of 0.05.
    assert after.change == {"model.weight_var": pytest.approx(1.7610, abs=1e-3)}
    assert predict(after.spec).rate == pytest.approx(1.0, abs=1e-3)
    assert treated(after.spec, [REMEDIES["critical"]]) is None


ORTHOGONAL: dict[str, tuple[dict[str, Value], float]] = {
    "relu": ({}, math.sqrt(2)),
    "leaky": ({"model.activation": "leaky_relu", "model.slope": 0.2}, math.sqrt(2 / 1.04)),
    "tanh": ({"model.activation": "tanh", "model.bias_var": 0.05}, 1.05),
    "sigmoid is critical at 103": ({"model.activation": "sigmoid"}, math.sqrt(103.0)),
    "the scale does not matter behind a norm": ({"model.norm": "layer"}, 1.0),
    "recurrent": ({"model.name": "rnn", "model.activation": "tanh"}, 1.0),
}


@pytest.mark.parametrize("case", ORTHOGONAL)
def test_orthogonal_weights_have_the_activation_s_gain_and_no_biases(case: str) -> None:
    settings, gain = ORTHOGONAL[case]
    after = treated(build({**settings, "model.depth": 2 if case == "recurrent" else 20}), [REMEDIES["orthogonal"]])
    assert after is not None
    assert (after.spec.model.init, after.spec.model.bias_var) == ("orthogonal", 0.0)
    assert after.spec.model.gain == pytest.approx(gain, rel=1e-3)


def test_biases_can_be_left_out() -> None:
    after = treated(build(SICK["large weights"]), [REMEDIES["no-biases"]])
    assert after is not None
    assert after.change == {"model.bias_var": 0.0}
    assert treated(build({}), [REMEDIES["no-biases"]]) is None


def test_the_usual_learning_rate_is_that_of_the_optimizer() -> None:
    for optimizer, rate in (("sgd", 0.01), ("adagrad", 0.01), ("adam", 0.001), ("adamw", 0.001), ("rmsprop", 0.001)):
        after = treated(build({"optim.name": optimizer, "optim.lr": 7.0}), [REMEDIES["lr-usual"]])
        assert after is not None
        assert after.change == {"optim.lr": rate}
    assert treated(build({"optim.lr": 0.01}), [REMEDIES["lr-usual"]]) is None


def test_as_many_layers_as_gradients_pass() -> None:
    after = treated(build(SICK["sigmoid"]), [REMEDIES["reach"]])
    assert after is not None
    deeper = build({**SICK["sigmoid"], "model.depth": after.spec.model.depth + 1})
    reached, beyond = profile(after.spec), profile(deeper)
    assert reached is not None
    assert beyond is not None
    assert abs(reached.log10_ratio(1)) < math.log10(END_TO_END) < abs(beyond.log10_ratio(1))
    assert treated(build({"model.depth": 30}), [REMEDIES["reach"]]) is None, "He's gradients pass any depth"


def test_the_branches_are_scaled_by_the_depth() -> None:
    after = treated(build(SICK["sigmoid"]), [REMEDIES["residual"], REMEDIES["half-depth"]])
    assert after is not None
    assert after.spec.model.branch_scale == pytest.approx(30**-0.5, rel=1e-3)
    assert after.spec.model.depth == 15


def test_each_remedy_sees_what_those_before_it_made_of_the_run() -> None:
    sick = build(SICK["sigmoid"])
    after = treated(sick, [REMEDIES["critical"], REMEDIES["relu"]])
    assert after is not None
    assert after.change == {"model.activation": "relu", "model.weight_var": 2.0}
    assert treated(sick, [REMEDIES["lr/10"], REMEDIES["lr*10"]]) is None, "together they change nothing"
    slower = treated(sick, [REMEDIES["lr/10"], REMEDIES["adam"]])
    assert slower is not None
    assert slower.change["optim.lr"] == pytest.approx(1e-4)
    assert treated(sick, [REMEDIES["batch"], REMEDIES["critical"]]) is None, "no critical variance behind batch norm"


def test_the_page_tells_every_remedy_and_its_cost() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cure.md").read_text(encoding="utf-8")
    for kind, price in COSTS.items():
        names = ", ".join(f"`{name}`" for name, remedy in REMEDIES.items() if remedy.kind == kind)
        assert f"| {kind} | {price} | {names} |" in page


def test_remedies_by_cause_name_causes_and_remedies_that_there_are() -> None:
    assert set(MENDS) <= set(CAUSES)
    assert set().union(*MENDS.values()) <= set(REMEDIES)


def test_an_activation_of_the_output_is_taken_off_where_there_is_one() -> None:
    after = treated(described({"model.output": "softmax"}), [REMEDIES["bare-output"]])
    assert after is not None
    assert after.change == {"model.output": "none"}
    assert treated(described({}), [REMEDIES["bare-output"]]) is None


def applying(**values: Value) -> set[str]:
    """The remedies that change a run with ``values``, a double underscore for each dot."""
    spec = described({key.replace("__", "."): value for key, value in values.items()})
    return {name for name, remedy in REMEDIES.items() if treated(spec, [remedy]) is not None}


def test_nothing_is_tried_that_cannot_apply() -> None:
    hidden = {"tanh", "elu", "gelu", "batch", "layer", "rms"}
    assert hidden.isdisjoint(applying(model__depth=1))
    assert hidden <= applying(model__depth=2)
    assert {"batch", "standardise"}.isdisjoint(applying(data__name="point"))


def test_momentum_and_decay_are_taken_back_where_they_act() -> None:
    assert {"calmer-momentum", "no-decay"}.isdisjoint(applying())
    spec = described({"optim.momentum": 0.99, "optim.weight_decay": 0.5})
    for name, change in (("calmer-momentum", {"optim.momentum": 0.9}), ("no-decay", {"optim.weight_decay": 0.0})):
        after = treated(spec, [REMEDIES[name]])
        assert after is not None
        assert after.change == change


def change_of(name: str, **values: Value) -> dict[str, Value] | None:
    """What a remedy changes in a run with ``values``, a double underscore for each dot; None where it is not tried."""
    spec = described({key.replace("__", "."): value for key, value in values.items()})
    after = treated(spec, [REMEDIES[name]], NORMS)
    return None if after is None else dict(after.change)


def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_on_a_cosine() -> None:
    assert change_of("warmup", train__steps=200) == {"optim.warmup": 20}
    assert change_of("warmup", train__steps=19) is None
    assert change_of("warmup", optim__warmup=5) is None
    assert change_of("warmup", optim__schedule="one_cycle") is None
    assert change_of("cosine") == {"optim.schedule": "cosine"}
    assert change_of("cosine", optim__schedule="cosine", optim__end_factor=0.5) == {"optim.end_factor": 0.0}
    assert change_of("cosine", optim__schedule="cosine") is None


def test_thresholds_are_norms_that_were_seen() -> None:
    assert change_of("clip-tenth") == {"clip.mode": "norm", "clip.threshold": 7.5}
    assert change_of("clip-most", clip__mode="norm") == {"clip.threshold": 0.125}
    assert change_of("clip-half", clip__mode="norm", clip__threshold=2.25) is None
    assert {"clip-tenth", "clip-half", "clip-most"}.isdisjoint(applying()), "of a run that nobody has seen"


def test_the_norms_are_those_of_the_sick_run_s_updates() -> None:
    """Those that are finite and not 0, over all its seeds; the last row makes no update; before a divergence begins."""
    norms = [*map(float, range(1, 11)), math.inf, 0.0, 1e9, 1e6, 5.5, 1e20, 1e30]
    ids = ["a"] * 6 + ["b"] * 7 + ["other"] + ["lost"] * 3
    after = [*norms[:12], None, *norms[13:]]
    losses = [*[1.0] * 14, 2.0, 3.0, math.nan]
    steps = pa.table({"run_id": ids, "loss": losses, "grad_norm": norms, "grad_norm_clipped": after})
    runs = pa.table({"run_id": ["a", "b", "other", "lost"], "state": ["finished"] * 3 + ["diverged"]})
    tables = {"runs": runs, "steps": steps}
    wanted = {"0.1": pytest.approx(9.1), "0.5": pytest.approx(5.5), "0.9": pytest.approx(1.9)}
    assert norms_seen(tables, ["a", "b"]) == wanted
    assert norms_seen(tables, ["lost"]) == dict.fromkeys(wanted, 5.5)
    assert norms_seen(tables, ["nobody"]) == {}


def test_inits_that_are_for_some_architectures_are_tried_in_these() -> None:
    assert change_of("lsuv", model__bias_var=0.1) == {"model.init": "lsuv", "model.bias_var": 0.0}
    assert change_of("lsuv", model__name="rnn") is None
    assert change_of("fixup") is None
    assert change_of("fixup", model__name="residual_mlp", model__gain=2.0) == {"model.init": "fixup", "model.gain": 1.0}
    assert change_of("identity", model__name="rnn") == {"model.init": "identity"}
    assert change_of("identity") is None


def test_convolutions_get_skips_and_blocks_of_their_papers() -> None:
    skips = {"model.name": "resnet", "model.depth": 22, "model.branch_scale": 0.3162}
    found = change_of("residual", model__name="cnn", model__depth=20)
    assert found is not None
    assert {key: found[key] for key in skips} == skips
    assert change_of("residual", model__name="cnn", model__pool="3") is None, "a stream has one size"
    delta = {"model.init": "delta_orthogonal", "model.gain": 1.05}
    assert change_of("delta-orthogonal", model__name="cnn", model__activation="tanh") == delta
    assert change_of("delta-orthogonal") is None
    assert change_of("rezero", model__name="resnet") == {"model.block": "rezero"}
    assert change_of("rezero", model__name="residual_mlp") is None
    normed = change_of("fixup", model__name="resnet", model__norm="batch")
    assert normed == {"model.block": "fixup", "model.norm": "none"}
    assert change_of("half-depth", model__name="resnet", model__depth=18) == {"model.depth": 10}
    assert change_of("branch-scale", model__name="resnet", model__depth=18) == {"model.branch_scale": 0.3536}


def test_targets_get_unit_variance_where_they_are_real_and_vary() -> None:
    spec = described({"data.name": "linear_teacher", "data.target_scale": 300.0})
    after = treated(spec, [REMEDIES["unit-targets"]])
    assert after is not None
    assert math.sqrt(variance_of_targets(spec.data)) * after.spec.data.target_scale == pytest.approx(1, rel=1e-3)
    assert treated(after.spec, [REMEDIES["unit-targets"]]) is None
    assert change_of("unit-targets") is None, "classes have no scale"
    assert change_of("unit-targets", data__name="silence", model__name="rnn", model__width=1) is None
    assert change_of("unit-targets", data__name="linear_teacher", data__target_scale=0.0) is None
    assert change_of("unit-targets", data__name="linear_teacher", data__target_scale=9.0, train__loss="huber") is None


def test_half_precision_alone_has_remedies_of_the_format() -> None:
    kinds = {name for name, remedy in REMEDIES.items() if remedy.kind == "precision"}
    assert kinds.isdisjoint(applying())
    assert kinds & applying(train__precision="float16", optim__name="adam") == kinds
    assert kinds & applying(train__precision="float16") == kinds - {"eps-half"}
    assert kinds & applying(train__precision="bfloat16") == {"by-chance", "single-copies", "float32"}
    assert kinds & applying(train__precision="mixed_float16") == {"loss-scale", "bfloat16", "float32"}
    assert kinds & applying(train__precision="mixed_float16", train__loss_scale="dynamic") == {"bfloat16", "float32"}
    assert change_of("bfloat16", train__precision="mixed_float16", train__loss_scale="8") == {
        "train.precision": "mixed_bfloat16",
        "train.loss_scale": "1",
    }
    assert change_of("eps-half", train__precision="bfloat16", optim__name="adam") is None, "1e-8 is none of its zeros"


def test_what_is_advised_is_tried_where_the_norms_say_so() -> None:
    sick = described({})
    after = treated(sick, [REMEDIES["clip-advised"]], {**NORMS, "zclip": 2.5})
    assert after is not None
    assert after.change == {"clip.mode": "zclip", "clip.threshold": 2.5}
    assert treated(sick, [REMEDIES["clip-advised"]], NORMS) is None
