"""Verdicts on synthetic columns of known pathology: each is given, alone, and not without its cause."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gradlab.diagnose import DEFAULTS, ORDER, THRESHOLDS, History, Profile, causes, joined, judge, limits, names
from gradlab.diagnose.causes import CAUSES
from gradlab.diagnose.history import Answers
from gradlab.diagnose.meanings import KEYS, VERDICTS
from gradlab.diagnose.tables import JUDGED, histories, with_verdicts
from gradlab.grid.compose import compose_run
from gradlab.spec.named import SpecError
from gradlab.store.tables import load_tables
from tests.commands import call, inline, undrawn
from tests.diagnose.cases import (
    BROKEN,
    CASES,
    FLAT,
    LAYERS,
    STEPS,
    clipping,
    falling,
    losing,
    passed,
    profile,
    rate_of,
    seen,
)
from tests.synthetic import grid, write_result


@pytest.mark.parametrize("case", CASES)
def test_known_pathology(case: str) -> None:
    history, expected = CASES[case]
    assert joined(judge(history)) == expected, [verdict.sentence for verdict in judge(history)]


@pytest.mark.parametrize("case", CASES)
def test_a_verdict_tells_its_numbers_its_threshold_and_where_that_comes_from(case: str) -> None:
    for verdict in judge(CASES[case][0]):
        assert verdict.name in ORDER
        assert verdict.sentence.startswith(verdict.name)
        assert str(verdict) == verdict.sentence
        certain = verdict.name in ("no_gradient", "misspecified", "diverged") or verdict.evidence.get("ratio") == 0
        certain |= verdict.evidence.get("cause") == "equal_weights"
        assert any(character.isdigit() for character in verdict.sentence) or certain or not verdict.evidence
        if verdict.name != "healthy":
            assert verdict.threshold or certain
            assert verdict.source
            assert all(DEFAULTS[key.removeprefix("diagnose.")] == value for key, value in verdict.threshold.items())


def test_verdicts_stand_in_order_and_their_names_can_be_read_back() -> None:
    history, column = CASES["a dead layer stops the gradient"]
    found = judge(history)
    assert names(joined(found)) == tuple(verdict.name for verdict in found) == ("dead", "vanishing")
    assert column == "dead+vanishing"
    assert not any("+" in name for name in ORDER)


@pytest.mark.parametrize(("noise", "expected"), [(0.05, True), (1.0, False)])
def test_a_climb_within_the_noise_of_a_batch_is_none(noise: float, expected: bool) -> None:
    """A low first draw, and a loss whose median stands at 2.5 times it: e^(2 noise) more is asked for."""
    loss = 5.75 * np.exp(np.random.default_rng(8).normal(0, noise, STEPS + 1))
    loss[0] = 2.3
    assert ("oscillating" in joined(judge(losing(loss)))) == expected


def test_vanishing_tells_the_fit() -> None:
    (verdict,) = judge(seen(replace(profile(rate_of(0.5)), independent=True)))
    assert verdict.evidence["rate"] == pytest.approx(0.5, rel=0.05)
    assert 0 < float(verdict.evidence["error"] or 0) < 0.02
    assert verdict.evidence["ratio"] == pytest.approx(0.5**18, rel=0.6)
    assert (verdict.evidence["first"], verdict.evidence["last"]) == (5, 19)
    assert "0.05" in verdict.sentence


def test_layers_that_may_share_something_have_a_rate_without_an_error() -> None:
    (verdict,) = judge(seen(profile(rate_of(0.5))))
    assert verdict.evidence["error"] is None
    assert "±" not in verdict.sentence


def test_a_ratio_without_a_rate_is_told_and_is_no_verdict() -> None:
    steps = np.random.default_rng(2).normal(0.15, 2.0, LAYERS)
    deltas = np.exp(steps.cumsum())
    deltas[0] = deltas[-2] / 1000
    (verdict,) = judge(seen(profile(deltas)))
    assert verdict.name == "healthy"
    assert "no threshold is crossed" not in verdict.sentence
    assert "δ of layer 1 is 0.001 of that of layer 19, beyond the threshold 0.05 of vanishing" in verdict.sentence
    assert "is not below 1 by 2 of its errors" in verdict.sentence


def test_zeros_at_both_ends_are_compared_with_the_output() -> None:
    history, _ = CASES["nothing comes back"]
    (verdict,) = judge(history)
    assert "δ of layer 1 is 0 of that of layer 10, exactly zero up to layer 9" in verdict.sentence


def test_few_steps_and_a_noisy_loss_are_told() -> None:
    (few,) = judge(CASES["few steps say nothing of the loss"][0])
    assert "too few steps to judge its course (29 of 40)" in few.sentence
    (noisy,) = judge(CASES["a loss too noisy to tell"][0])
    assert "too noisy to tell whether it falls" in noisy.sentence
    (plain,) = judge(CASES["healthy"][0])
    assert "too" not in plain.sentence


def test_a_profile_without_one_rate_says_so() -> None:
    layers = np.arange(1.0, 101)
    noise = np.random.default_rng(3).normal(0, 0.003, 100).cumsum()
    (verdict,) = judge(seen(profile(np.exp(1.5 * np.log(layers) + noise))))
    assert verdict.name == "vanishing"
    assert "not at one rate" in verdict.sentence
    assert "diagnose.curvature" in verdict.threshold
    (straight,) = judge(seen(profile(0.9 ** np.arange(99, -1, -1.0))))
    assert "not at one rate" not in straight.sentence


@pytest.mark.parametrize(
    ("quantity", "columns", "loss"),
    [
        ("weights", {"weight_norm": np.array([1.0, np.inf, 1.0]), "act_std": np.full(3, np.nan)}, np.nan),
        ("signal", {"weight_norm": np.ones(3), "act_std": np.array([1.0, np.inf, np.nan])}, np.nan),
        ("loss", {"weight_norm": np.ones(3), "act_std": np.ones(3)}, np.inf),
        ("gradient", {"weight_norm": np.ones(3), "act_std": np.ones(3)}, 1e30),
    ],
)
def test_divergence_names_what_went_first(quantity: str, columns: dict[str, np.ndarray], loss: float) -> None:
    at = {name: np.stack([np.ones(3), columns.get(name, np.full(3, np.nan))]) for name in JUDGED}
    history = History(
        along=(Profile("depth", np.array([0, 5]), np.arange(1, 4), at),),
        state="diverged",
        diverged_at=5,
        diverged_layer=2,
        loss=np.append(falling()[:5], loss),
    )
    (verdict,) = [verdict for verdict in judge(history) if verdict.name == "diverged"]
    assert verdict.evidence["quantity"] == quantity
    assert (verdict.evidence["step"], verdict.evidence["layer"]) == (5, 2)
    verb = "are" if quantity == "weights" else "is"
    place = "" if quantity == "loss" else " of layer 2"
    assert f"diverged at step 5: the {quantity}{place} {verb} the first that {verb} not finite" in verdict.sentence
    assert verdict.evidence["loss_before"] == history.loss[4]


def test_a_diverged_run_is_not_judged_by_the_row_that_is_broken() -> None:
    at = {name: np.stack([np.ones(3), np.full(3, np.nan)]) for name in JUDGED}
    at |= {"dead": np.stack([np.zeros(3), np.ones(3)]), "saturated": np.full((2, 3), np.nan)}
    history = History(
        (Profile("depth", np.array([0, 5]), np.arange(1, 4), at),), "diverged", diverged_at=5, loss=BROKEN
    )
    assert joined(judge(history)) == "diverged"


def test_every_verdict_and_every_threshold_can_be_listed() -> None:
    assert tuple(VERDICTS) == ORDER
    assert list(KEYS) == [entry.key for entry in THRESHOLDS.values()]
    assert {key for choice in VERDICTS.values() for key in KEYS if key in choice.summary} == set(KEYS)
    for history, _ in CASES.values():
        for verdict in judge(history):
            assert all(key in VERDICTS[verdict.name].summary for key in verdict.threshold)


def test_every_threshold_decides() -> None:
    """Each moves some case across when it is loosened beyond reach or tightened to nothing."""

    def told(history: History, changed: dict[str, float]) -> tuple[list[str], bool]:
        sentences = [verdict.sentence for verdict in judge(history, limits(changed))]
        return [line.split(" ")[0] for line in sentences], any("not at one rate" in line for line in sentences)

    curved = np.exp(1.5 * np.log(np.arange(1.0, 101)) + np.random.default_rng(3).normal(0, 0.003, 100).cumsum())
    usual = [(history, told(history, {})) for history in (*(one for one, _ in CASES.values()), seen(profile(curved)))]
    for name, entry in THRESHOLDS.items():
        ends = (0.0, entry.most if math.isfinite(entry.most) else 1e9)
        assert any(told(history, {name: end}) != before for end in ends for history, before in usual), name


def test_thresholds_are_keys_outside_the_run() -> None:
    changed = compose_run(["diagnose.vanishing_ratio=1e-3"])
    assert changed.limits["vanishing_ratio"] == 1e-3
    assert changed.runs[0].id == compose_run([]).runs[0].id
    assert compose_run([]).limits == DEFAULTS
    assert "vanishing_ratio: 0.001" in changed.base


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("diagnose.vanishing_ratio=2", "at least 0 and at most 1"),
        ("diagnose.climb=-1", "at least 0"),
        ("diagnose.climb=fast", "expected a finite number"),
        ("diagnose.vanishing_rato=0.1", "did you mean 'diagnose.vanishing_ratio'"),
        ("diagnose.climb=1,2", "cannot be swept"),
        ("diagnose=1", "is a section"),
    ],
)
def test_a_wrong_threshold_is_refused(override: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        compose_run([override])


def test_tables_without_verdicts_are_judged_row_by_row(tmp_path: Path) -> None:
    values = grid({"model.activation": ["sigmoid", "tanh"], "model.depth": [30], "seed": [0, 1, 2]})
    tables = load_tables(write_result(tmp_path / "out", values, diverge={4: 3}, fail={5: "KeyError: x"}))
    assert tables["runs"]["verdict"].null_count == 6
    found = with_verdicts(tables["runs"], tables["steps"], tables["layers"])["verdict"].to_pylist()
    assert all("vanishing" in names(column) for column in found[:3])
    assert names(found[4])[0] == "diverged"
    assert found[5] is None
    # Runs between each other, and rows of runs that nobody asks for, change nothing.
    order = np.argsort(tables["steps"]["step"].to_numpy(), kind="stable")
    shuffled = with_verdicts(tables["runs"].slice(2), tables["steps"].take(pa.array(order)), tables["layers"])
    assert shuffled["verdict"].to_pylist() == found[2:]


def test_a_verdict_that_is_there_is_kept(tmp_path: Path) -> None:
    tables = load_tables(write_result(tmp_path / "out", grid({"seed": [0, 1]})))
    runs = tables["runs"]
    place = runs.column_names.index("verdict")
    runs = runs.set_column(place, "verdict", pa.array(["dead+vanishing", None]))
    found = with_verdicts(runs, tables["steps"], tables["layers"])["verdict"].to_pylist()
    assert found[0] == "dead+vanishing"
    assert found[1] is not None


def test_thresholds_of_the_command_reach_the_tables_and_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inline(monkeypatch)
    undrawn(monkeypatch)
    line = ["run", "model.depth=8", "model.width=8", "model.activation=sigmoid", "train.steps=0", "-o"]
    for folder, extra, expected in (("strict", [], "vanishing"), ("kind", ["diagnose.vanishing_ratio=0"], "healthy")):
        ended = call([*line, folder, *extra], monkeypatch, capsys, tmp_path)
        assert ended.status == 0
        assert f"Verdict {expected}" in ended.out
        assert load_tables(tmp_path / folder)["runs"]["verdict"].to_pylist() == [expected]
        manifest = json.loads((tmp_path / folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["diagnose"] == (DEFAULTS if not extra else {**DEFAULTS, "vanishing_ratio": 0})


@pytest.mark.parametrize(
    ("final", "guess", "said"),
    [
        (2.29, math.log(10), "; the final loss is not 5% below that of one answer to every input (2.3)"),
        (2.0, math.log(10), None),
        (2.9, None, "; the final loss is not 5% below the loss at step 0 (3)"),
        (2.0, None, None),
    ],
)
def test_a_healthy_run_that_has_not_learned_says_so(final: float, guess: float | None, said: str | None) -> None:
    loss = np.array([3.0, *([final] * 30)])
    (verdict,) = judge(History(along=(), loss=loss, guess=guess))
    assert verdict.name == "healthy"
    assert verdict.sentence.startswith("healthy, has not learned yet: " if said else "healthy: ")
    assert said is None or verdict.sentence.endswith(said)
    assert verdict.evidence["loss_final"] == pytest.approx(final)


CAUSED: dict[str, tuple[str, str, str]] = {
    "one broken layer": ("broken_layer", "sick", "layer 8"),
    "one of another scale": ("broken_layer", "risk", "layer 8"),
    "a part that is cut off": ("cut", "sick", "layer 10"),
    "zeros below the fit": ("cut", "sick", "layer 3"),
    "softmax twice": ("softmax_twice", "sick", "softmax is applied twice"),
    "no activation": ("missing_activation", "sick", "20 layers"),
    "small inputs": ("input_scale", "risk", "0.0001"),
    "attention at one place": ("attention", "risk", "0.1"),
    "overclipped": ("clip", "sick", "100%"),
    "a loss that climbs": ("learning_rate_high", "sick", "climbs"),
    "the same under plain descent": ("init", "risk", "0.6"),
    "a cell that forgets at once": ("recurrence", "risk", "time step 1"),
    "the same in half precision": ("underflow_half", "risk", "float16"),
    "a sigmoid network in half precision": ("underflow_half", "sick", "exactly zero up to layer 4"),
    "eps that is zero": ("eps_half", "sick", "signal"),
    "a sum beyond 65,504": ("overflow_half", "sick", "signal"),
    "weights that do not move": ("rounding", "sick", "stalled"),
    "clipped before unscaling": ("clip_scaled", "sick", "100%"),
}


@pytest.mark.parametrize("case", CAUSED)
def test_a_verdict_names_its_cause_and_what_to_change(case: str) -> None:
    name, grade, said = CAUSED[case]
    verdict = judge(CASES[case][0])[0]
    assert verdict.cause is not None
    assert (verdict.cause.name, verdict.grade) == (name, grade)
    assert said in verdict.sentence
    assert verdict.cause.change == CAUSES[name].summary


def test_every_cause_is_asked_for_somewhere() -> None:
    """A cause is named by a rule of the problem, or asked of a verdict: none stands in the list alone."""
    source = "".join(path.read_text(encoding="utf-8") for path in Path(causes.__file__).parent.glob("*.py"))
    assert all(source.count(f'"{name}"') > 1 for name in CAUSES)


def test_a_doubt_is_told_beside_another_verdict() -> None:
    steps = np.random.default_rng(2).normal(0.15, 2.0, LAYERS)
    deltas = np.exp(steps.cumsum())
    deltas[0] = deltas[-2] / 1000
    (verdict,) = judge(seen(profile(deltas, dead=np.full(LAYERS, 0.9))))
    assert verdict.name == "dead"
    assert "beside it, δ of layer 1 is 0.001 of that of layer 19" in verdict.sentence


def test_what_was_not_judged_is_told() -> None:
    history = replace(passed(), activations={"relu": (3, 3), "sin": (2, 0)}, facts={"unreached": ["pooler.weight"]})
    (verdict,) = judge(history)
    assert "not judged for dead and saturated units: 2 of 2 sin" in verdict.sentence
    assert "no gradient reaches pooler.weight" in verdict.sentence


def test_a_bad_beginning_is_nothing_learned() -> None:
    """From a loss of 20 to 2.2: far below where it began, and what one answer to every input has."""
    history = replace(seen(profile(rate_of(0.5))), loss=falling(2.2) + 18 * 0.5 ** np.arange(STEPS + 1))
    assert judge(history)[0].name == "healthy"
    assert judge(replace(history, guess=math.log(10)))[0].name == "vanishing"


def test_what_most_updates_lose_is_judged_and_not_the_worst_of_them() -> None:
    """Nine in ten updates lose a tenth of their norm, and one loses all but a hundredth."""
    history = clipping(1.0, 0.9)
    after = np.where(np.arange(STEPS + 1) % 10 == 0, 0.01, history.grad_norm_clipped)
    assert [verdict.name for verdict in judge(replace(history, grad_norm_clipped=after))] == ["healthy"]


def test_units_that_come_to_rest_during_the_training_are_dead() -> None:
    one = profile()
    late = np.stack([np.full(LAYERS, 0.3), np.where(np.arange(LAYERS) == 4, 0.95, 0.3)])
    (verdict,) = judge(seen(replace(one, columns={**one.columns, "dead": late})))
    assert (verdict.name, verdict.evidence["layer"], verdict.evidence["step"]) == ("dead", 5, STEPS)


def test_a_dip_near_the_end_is_nothing_learned_and_lost() -> None:
    """A loss that has come down by the middle of a run and is lost again oscillates; of a late dip nothing is known."""
    place = np.arange(STEPS + 1)
    for start, name in ((60, "oscillating"), (170, "healthy")):
        dip = np.where((place >= start) & (place < start + 10), 0.02, 1.0)
        assert judge(losing(FLAT * dip))[0].name == name


@pytest.mark.parametrize(
    ("first", "last", "width", "name"),
    [
        (0.3, 1 - 1e-9, 64, "collapsed"),
        (0.3, 1 - 1e-7, 64, "healthy"),
        (1.0, 1.0, 64, "healthy"),
        (0.3, 1.0, 1, "healthy"),
    ],
)
def test_samples_that_the_layers_make_one_are_collapsed(first: float, last: float, width: int, name: str) -> None:
    """By the mean cosine of two samples; not where they were one already, nor of a single unit."""
    alike = np.linspace(first, last, LAYERS - 1)
    history = seen(profile(act_correlation=np.append(alike, 0.5)))
    (verdict,) = judge(replace(history, spec={"model.width": width}))
    assert verdict.name == name
    assert ("layer 19 differs by" in verdict.sentence) == (name == "collapsed")


def gated(**spec: object) -> History:
    """A gradlab run of gates that forget, and has learned nothing."""
    time = profile(rate_of(0.6, 30), axis="time")
    return replace(losing(FLAT), along=(profile(), time), spec={"model.name": "lstm", **spec})


def late(**columns: np.ndarray) -> Profile:
    """Level at the first recorded step, and at the last with these columns (L,)."""
    one = profile()
    changed = {name: np.stack([one.column(name, 0), column]) for name, column in columns.items()}
    return replace(one, columns={**one.columns, **changed})


LOST = np.array([*np.zeros(6), *np.ones(LAYERS - 6)])
ASLEEP = np.where(np.arange(LAYERS) == 6, 0.99, 0.3)
TOLD: dict[str, tuple[History, str, str]] = {
    "gates that forget": (gated(), "vanishing", "gates"),
    "an Elman network that does": (gated(**{"model.name": "rnn"}), "vanishing", "recurrence"),
    "lost by long steps": (
        replace(losing(FLAT), along=(late(signal_grad_norm=rate_of(0.5)),)),
        "vanishing",
        "learning_rate_high",
    ),
    "lost by weight decay": (
        replace(
            losing(FLAT),
            along=(late(signal_grad_norm=rate_of(0.5), weight_norm=np.full(LAYERS, 0.01)),),
            spec={"optim.weight_decay": 1.0},
        ),
        "vanishing",
        "weight_decay",
    ),
    "lost behind units at rest": (
        replace(losing(FLAT), along=(late(signal_grad_norm=LOST, dead=ASLEEP),)),
        "dead",
        "learning_rate_high",
    ),
    "at rest where the gradient was lost before": (
        replace(
            losing(FLAT),
            along=(
                replace(
                    late(dead=ASLEEP),
                    columns={**late(dead=ASLEEP).columns, "signal_grad_norm": np.stack([rate_of(0.5)] * 2)},
                ),
            ),
        ),
        "dead",
        "init",
    ),
    "inputs out of scale": (
        replace(losing(FLAT), along=(late(dead=ASLEEP),), spec={"data.input_scale": 1e-4}),
        "dead",
        "input_scale",
    ),
    "attention without skips": (replace(losing(FLAT), spec={"model.skip": False}), "stalled", "rank"),
    "an output that has become constant": (
        losing(np.append(FLAT[:-30], np.full(30, 2.302585))),
        "stalled",
        "constant_output",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_the_cause_is_what_was_there_first(case: str) -> None:
    history, name, cause = TOLD[case]
    verdict = judge(history)[0]
    assert verdict.cause is not None, verdict.sentence
    assert (verdict.name, verdict.cause.name) == (name, cause), verdict.told


def test_only_somebody_elses_targets_may_tell_nothing() -> None:
    """The targets of gradlab's own data fit their inputs, and steps that together change nothing have not tried."""
    stuck = replace(losing(2.302 + 0.001 * (FLAT - 2.3)), guess=math.log(10))
    for moved, measured, cause in ((0.05, True, "labels"), (0.05, False, None), (2e-4, True, None)):
        one = profile(update_ratio=np.full(LAYERS, moved))
        (verdict,) = judge(replace(stuck, along=(one,), measured=measured))
        assert verdict.name == "stalled"
        assert (verdict.cause.name if verdict.cause else None) == cause


@pytest.mark.parametrize(
    ("data", "loss", "guess"),
    [
        ("digits", "auto", math.log(10)),
        ("digits", "cross_entropy", math.log(10)),
        ("digits", "mean_squared_error", None),
        ("characters", "auto", 3.10),
        ("adding", "auto", 1 / 6),
    ],
)
def test_a_guess_is_of_the_loss_that_is_trained(data: str, loss: str, guess: float | None, tmp_path: Path) -> None:
    tables = load_tables(write_result(tmp_path / "out", grid({"seed": [0]})))
    runs = tables["runs"]
    for name, value in (("data.name", data), ("train.loss", loss)):
        runs = runs.drop_columns(name).append_column(name, pa.array([value]))
    (history,) = histories(runs, tables["steps"], tables["layers"])
    assert history.guess == guess
    assert history.open_ended == (data == "characters")


@pytest.mark.parametrize(("final", "name"), [(2.2, "collapsed"), (1.5, "healthy")])
def test_no_constant_output_comes_below_a_guess(final: float, name: str) -> None:
    same = {"output_mean": 1.0, "output_std": 0.1, "output_between": 0.0}
    history = replace(losing(np.linspace(2.3, final, 30)), facts=same, measured=True, guess=math.log(10))
    assert judge(history)[0].name == name


@pytest.mark.parametrize(
    ("loss", "right", "name"), [(0.40, 0.103, "collapsed"), (0.40, 0.14, "healthy"), (0.50, 0.103, "healthy")]
)
def test_one_answer_beside_a_loss_that_is_learned_is_a_collapse(loss: float, right: float, name: str) -> None:
    """A capsule that is as long as it can be for every image: its margin costs 0.36, the other nine learn."""
    history = replace(losing(np.linspace(0.9, 0.4, 50)), guess=0.524, answers=Answers(loss, right, 360, 10))
    verdict = judge(history)[0]
    assert (verdict.name, verdict.grade == "sick") == (name, name == "collapsed")
    assert (verdict.cause.name if verdict.cause else None) == ("one_answer" if name == "collapsed" else None)


def test_an_output_behind_branches_that_start_at_zero_is_not_collapsed() -> None:
    same = {"output_mean": 1.0, "output_std": 0.1, "output_between": 0.0}
    zero = np.where(np.arange(LAYERS) == 9, 1.0, 0.0)
    for starts, name in ((zero, "healthy"), (np.zeros(LAYERS), "collapsed")):
        assert judge(replace(passed(starts_at_zero=starts), facts=same))[0].name == name
