"""What a cure's changes come to, on tables made of formulas: states, intervals, order and the smallest that heal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradlab.cure.ranking import (
    LEARNED,
    STATES,
    Guess,
    Outcome,
    courses,
    front,
    half_width,
    is_healthy,
    outcomes,
    ranked,
)
from gradlab.cure.words import patient
from gradlab.store.columns import SCHEMAS

STEPS = 20


@dataclass(frozen=True)
class Made:
    """A change with the final losses of its seeds, which all begin at ``first``."""

    remedies: tuple[str, ...]
    cost: int
    finals: Sequence[float]
    verdict: str = "healthy"
    state: str = "finished"
    first: float = 2.0
    rate: float = 1.0


SICK = Made((), 0, (2.0, 2.0, 2.0), "vanishing", rate=0.1)


def cure(*made: Made, skip: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """Facts and tables; runs whose id is in ``skip`` have not ended."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    changes = []
    for place, one in enumerate(made):
        ids = [f"{place}-{seed}" for seed in range(len(one.finals))]
        changes.append({"remedies": list(one.remedies), "kinds": list(one.remedies), "cost": one.cost, "members": ids})
        for run_id, final in zip(ids, one.finals, strict=True):
            if run_id in skip:
                continue
            ran = {"run_id": run_id, "state": one.state, "train.precision": "float32", "clip.mode": "none"}
            rows["runs"].append({**ran, "verdict": one.verdict, "accuracy": 0.5, "rate": one.rate})
            losses = [one.first] * (STEPS - 5) + [final] * 5
            rows["steps"] += [{"run_id": run_id, "step": t, "loss": loss} for t, loss in enumerate(losses)]
            rows["layers"] += [
                {
                    "run_id": run_id,
                    "step": 0,
                    "axis": "depth",
                    "layer": layer,
                    "signal_grad_norm": one.rate ** max(0, 4 - layer),
                }
                for layer in range(6)
            ]
    return {"changes": changes}, {name: pa.Table.from_pylist(rows[name], SCHEMAS[name]) for name in rows}


def cure_of(*made: Made) -> list[Outcome]:
    """What the changes came to."""
    return outcomes(*cure(*made))


def states(*made: Made) -> list[str]:
    return [one.state for one in outcomes(*cure(SICK, *made))[1:]]


def test_states() -> None:
    assert states(
        Made(("a",), 1, (0.1, 0.12, 0.11)),
        Made(("b",), 1, (0.1, 0.12, 0.11), "exploding"),
        Made(("c",), 1, (0.1, 2.0, 0.3)),
        Made(("d",), 1, (2.0, 2.0, 2.0)),
        Made(("e",), 1, (6.0, 7.0, 8.0)),
        Made(("f",), 1, (0.1, 0.12, 0.11), state="failed"),
    ) == ["heals", "helps", "unclear", "no help", "harms", "crashed"]


def test_a_little_is_neither_help_nor_harm() -> None:
    assert states(Made(("a",), 1, (1.96,) * 3), Made(("b",), 1, (2.04,) * 3)) == ["no help", "no help"]


def test_a_cure_must_learn_and_not_only_come_down_from_a_loss_of_its_own_making() -> None:
    barely = 2.0 * (LEARNED + 0.01)
    enough = 2.0 * (LEARNED - 0.01)
    assert states(Made(("a",), 1, (barely,) * 3), Made(("b",), 1, (enough,) * 3)) == ["no help", "heals"]
    assert states(Made(("c",), 1, (barely,) * 3, first=200.0)) == ["no help"]


def test_most_seeds_must_be_healthy() -> None:
    facts, tables = cure(SICK, Made(("a",), 1, (0.1, 0.1, 0.1)))
    verdicts = ["vanishing"] * 3 + ["healthy", "vanishing", "healthy"]
    runs = tables["runs"].set_column(tables["runs"].column_names.index("verdict"), "verdict", pa.array(verdicts))
    found = outcomes(facts, {**tables, "runs": runs})
    assert (found[1].healthy, found[1].state) == (2, "heals")
    assert not is_healthy(found[0])


def test_gains_are_paired_by_seed() -> None:
    """Seeds that differ by orders of magnitude hide nothing where each gains the same."""
    facts, tables = cure(
        Made((), 0, (0.02, 0.2, 2.0), "vanishing", first=40.0), Made(("a",), 1, (0.01, 0.1, 1.0), first=40.0)
    )
    one = outcomes(facts, tables)[1]
    assert one.gains.tolist() == pytest.approx([math.log(2)] * 3)
    assert one.margin == pytest.approx(0.0, abs=1e-12)
    assert one.final == pytest.approx(0.1), "geometric mean"
    assert one.state == "heals"


def test_a_run_that_diverged_has_learned_nothing() -> None:
    one = outcomes(*cure(SICK, Made(("a",), 1, (1e-3,) * 3, "diverged", "diverged", first=4.0)))[1]
    assert one.final == pytest.approx(4.0)
    assert one.state == "harms"
    rescued = outcomes(*cure(Made((), 0, (math.inf,) * 3, "diverged", "diverged"), Made(("a",), 1, (0.5,) * 3)))[1]
    assert rescued.gain == pytest.approx(math.log(2.0 / 0.5))
    assert rescued.state == "heals"


GUESS: Guess = {"loss": 1.0, "accuracy": None}


def guessing(guess: Guess, *made: Made) -> list[Outcome]:
    facts, tables = cure(*made)
    return outcomes({**facts, "guess": guess}, tables)


def test_what_a_guess_reaches_is_not_learned() -> None:
    """A loss that comes down from a thousand to that of one answer to every input has lost a bad beginning."""
    bad = Made((), 0, (1000.0,) * 3, "exploding", first=1000.0)
    made = (Made(("a",), 1, (0.98,) * 3), Made(("b",), 1, (0.7,) * 3))
    assert [one.state for one in guessing(GUESS, bad, *made)[1:]] == ["no help", "heals"]
    right: Guess = {"loss": 1.0, "accuracy": 0.5}
    assert [one.state for one in guessing(right, bad, *made)[1:]] == ["no help", "no help"], "their accuracy is 0.5"
    low: Guess = {"loss": 1.0, "accuracy": 0.1}
    assert [one.state for one in guessing(low, bad, *made)[1:]] == ["heals", "heals"]


def test_a_run_that_only_guesses_is_not_healthy_whatever_its_verdict() -> None:
    guesses, learns = (guessing(GUESS, Made((), 0, (final,) * 3, first=50.0))[0] for final in (0.98, 0.7))
    assert [(one.healthy, one.guesses, is_healthy(one)) for one in (guesses, learns)] == [
        (3, True, False),
        (3, False, True),
    ]
    assert "no better than one answer to every input" in patient(guesses)
    assert "nothing to cure" in patient(learns)
    assert "The loss has not fallen" in patient(guessing(GUESS, Made((), 0, (0.7,) * 3, first=0.6))[0])


def test_a_run_that_diverged_is_a_guess_at_best() -> None:
    lost = Made((), 0, (math.nan,) * 3, "diverged", "diverged", first=1e5)
    found = guessing(GUESS, lost, Made(("a",), 1, (0.1,) * 3), Made(("b",), 1, (math.nan,) * 3, "diverged", "diverged"))
    assert found[0].final == pytest.approx(1.0)
    assert found[0].diverges
    assert found[1].gain == pytest.approx(math.log(10))
    assert found[2].gain == pytest.approx(0.0), "its loss at step 0, 2, is above a guess's, too"
    assert found[2].state == "no help"


def test_what_makes_a_run_diverge_does_harm_and_nothing_harms_one_that_does() -> None:
    lost = Made(("lost",), 1, (1.0,) * 3, "diverged", "diverged", first=2.0)
    assert states(lost) == ["harms"], "although it ends at the loss of the sick run"
    worse = Made(("worse",), 1, (80.0, 81.0, 82.0), "saturated")
    found = cure_of(Made((), 0, (math.nan,) * 3, "diverged", "diverged"), worse, lost)
    assert [one.state for one in found[1:]] == ["steadies", "no help"]
    assert states(worse) == ["harms"]


def test_losses_without_a_logarithm() -> None:
    made = outcomes(
        *cure(Made((), 0, (math.nan,) * 3, "diverged", "diverged", first=math.nan), Made(("a",), 1, (0.0,) * 3))
    )
    assert math.isfinite(made[1].gain)
    assert made[1].state == "heals"


def test_losses_of_targets_at_another_scale_are_told_at_the_old_one() -> None:
    """Targets a hundred times smaller have squared errors 1e4 smaller: 1e-5 is what 0.1 was, and no gain of 1e5."""
    facts, tables = cure(SICK, Made(("a",), 1, (1e-5, 1.2e-5, 1.1e-5), first=2e-4), Made(("b",), 1, (0.1, 0.12, 0.11)))
    facts["changes"][1]["unit"] = 1e-4
    _, scaled, plain = outcomes(facts, tables)
    assert (scaled.first, scaled.final, scaled.gain) == pytest.approx((plain.first, plain.final, plain.gain))
    assert scaled.state == plain.state == "heals"


def test_the_final_loss_is_a_mean_over_the_last_tenth_and_five_steps() -> None:
    _, tables = cure(SICK)
    assert courses(tables)["0-0"].final == pytest.approx(2.0)
    losses = np.arange(STEPS, 0.0, -1.0).tolist() * 3
    steps = tables["steps"].set_column(tables["steps"].column_names.index("loss"), "loss", pa.array(losses))
    found = courses({**tables, "steps": steps})["0-1"]
    assert found.first == STEPS
    assert found.final == pytest.approx(3.0)


def test_the_profile_leaves_out_input_and_output_and_ends_at_one() -> None:
    before = outcomes(*cure(SICK))[0]
    assert before.profile.tolist() == pytest.approx([3 * math.log(0.1), 2 * math.log(0.1), math.log(0.1), 0.0])
    assert before.ends == pytest.approx(1e-3)
    assert before.low.tolist() == before.high.tolist() == before.profile.tolist()


def test_half_width_covers_as_often_as_it_says() -> None:
    """Monte Carlo: of 4,000 samples of five normal numbers 95 % hold the mean in their interval."""
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    covered = np.mean([abs(sample.mean()) <= half_width(sample) for sample in draws])
    assert covered == pytest.approx(0.95, abs=0.012)
    assert half_width(np.array([1.0])) == math.inf


def test_the_order_is_state_cost_and_what_is_gained_at_the_least() -> None:
    found = outcomes(
        *cure(
            SICK,
            Made(("dear",), 6, (0.01,) * 3),
            Made(("noisy",), 1, (0.05, 0.1, 0.4)),
            Made(("sure",), 1, (0.13, 0.14, 0.15)),
            Made(("nothing",), 1, (2.0,) * 3),
            Made(("helps",), 1, (0.001,) * 3, "exploding"),
        )
    )
    assert [one.name for one in ranked(found)] == ["sure", "noisy", "dear", "helps", "nothing"]
    assert [STATES.index(one.state) for one in ranked(found)] == [0, 0, 0, 1, 4]


def test_the_front_holds_changes_that_are_worth_their_cost() -> None:
    found = outcomes(
        *cure(
            SICK,
            Made(("cheap",), 1, (0.5,) * 3),
            Made(("twin",), 1, (0.6,) * 3),
            Made(("no better",), 3, (0.49,) * 3),
            Made(("better",), 4, (0.1,) * 3),
            Made(("dearest",), 8, (0.2,) * 3),
        )
    )
    assert [one.name for one in front(found)] == ["cheap", "better"]
    assert front(outcomes(*cure(SICK, Made(("a",), 1, (2.0,) * 3)))) == []
    only_helps = outcomes(*cure(SICK, Made(("a",), 1, (0.5,) * 3, "exploding")))
    assert [one.name for one in front(only_helps)] == ["a"]


def test_of_the_smallest_what_takes_the_cause_away_comes_first() -> None:
    """A change of the same cost that gains more beyond doubt follows it; one that gains a little more does not."""
    for other, expected in ((0.49, ["answers"]), (0.1, ["answers", "treats"])):
        facts, tables = cure(SICK, Made(("treats",), 1, (other,) * 3), Made(("answers",), 1, (0.5,) * 3))
        facts["changes"][2]["answers"] = ["input_scale"]
        assert [one.name for one in front(outcomes(facts, tables))] == expected


def test_the_front_compares_pair_by_pair() -> None:
    """A narrower interval is no larger gain, and intervals that overlap may hide one that every seed shows."""
    noisy, calm = Made(("noisy",), 1, (0.1, 0.03, 0.3)), Made(("calm",), 2, (0.11, 0.1, 0.09))
    found = cure_of(SICK, noisy, calm)
    assert found[2].least > found[1].least + 0.1
    assert found[2].gain < found[1].gain + 0.05
    assert [one.name for one in front(found)] == ["noisy"]
    shifted = cure_of(SICK, noisy, Made(("a third less",), 2, (0.067, 0.02, 0.2)))
    assert shifted[2].least < shifted[1].gain + shifted[1].margin
    assert [one.name for one in front(shifted)] == ["noisy", "a third less"]


def test_of_an_interrupted_cure_what_is_over_is_read() -> None:
    made = (SICK, Made(("a",), 1, (0.5,) * 3), Made(("b",), 1, (0.5,) * 3))
    assert [one.name for one in outcomes(*cure(*made, skip=["1-2"]))] == ["as it was", "b"]
    assert outcomes(*cure(*made, skip=["0-0"])) == []


def test_a_seed_that_crashed_is_left_out_of_both_sides() -> None:
    facts, tables = cure(SICK, Made(("a",), 1, (0.5, 0.4, 0.1)))
    state = ["failed", *["finished"] * 5]
    runs = tables["runs"].set_column(tables["runs"].column_names.index("state"), "state", pa.array(state))
    one = outcomes(facts, {**tables, "runs": runs})[1]
    assert one.gains.tolist() == pytest.approx([math.log(2.0 / 0.4), math.log(2.0 / 0.1)])
