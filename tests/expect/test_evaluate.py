"""Expectations held against tables made by hand: every number is one that can be worked out on paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradlab.expect.evaluate import FAIL, PASS, UNTESTED, Outcome, columns, evaluate, read
from gradlab.expect.form import Expectation, parse
from gradlab.spec.named import SpecError
from gradlab.store.sources import Merged

RUNS = pa.table(
    {
        "run_id": ["a", "b", "c", "d"],
        "state": ["finished", "finished", "finished", "diverged"],
        "model.depth": [1, 2, 4, 4],
        "model.init": ["he_normal", "he_normal", "xavier_normal", "xavier_normal"],
        "accuracy": pa.array([0.5, 0.25, 1.0, None]),
        "loss_last": pa.array([1.0, 2.0, 4.0, math.nan], from_pandas=False),
        "rate": [3.0, 12.0, 48.0, 48.0],
    }
)
DEPTHS = {"a": 1, "b": 2, "c": 4, "d": 4}
LAYERS = pa.Table.from_pylist(
    [
        {
            "run_id": run,
            "step": step,
            "axis": axis,
            "layer": layer,
            "act_std": None if layer == 0 else 10.0 * layer + step,
            "signal_grad_norm": 0.5 ** (depth - layer) * (2.0 if axis == "time" else 1.0),
        }
        for run, depth in DEPTHS.items()
        for step in (0, 3)
        for axis in ("depth", "time")
        for layer in range(depth + 1)
    ]
)
STEPS = pa.table(
    {
        "run_id": ["a"] * 4 + ["b"] * 2,
        "step": [0, 1, 2, 3, 0, 1],
        "loss": [1.0, 2.0, 4.0, 8.0, 1.0, 3.0],
        "clipped": pa.array([True, False, True, None, True, True]),
    }
)
TABLES = {"runs": RUNS, "steps": STEPS, "layers": LAYERS}


def number(value: Mapping[str, Any]) -> float | None:
    (expectation,) = parse([{"what": "x", "value": value, "above": 0}])
    return read(expectation.value, narrow([expectation])).number


def outcome(*, lenient: bool = False, **entry: Any) -> Outcome:
    expectations = parse([{"what": "x", **entry}])
    (found,) = evaluate(expectations, narrow(expectations), lenient=lenient)
    return found


def narrow(expectations: Sequence[Expectation]) -> Merged:
    """The tables as they are read of a large result."""
    return Merged.of(TABLES).narrow(columns(expectations))


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ("median", 0.5),
        ("mean", 1.75 / 3),
        ("min", 0.25),
        ("max", 1.0),
        ("count", 3),
        ("std", float(np.std([0.5, 0.25, 1.0], ddof=1))),
    ],
)
def test_every_way_to_gather_leaves_null_out(over: str, expected: float) -> None:
    assert number({"column": "accuracy", "over": over}) == pytest.approx(expected, rel=1e-15)


def test_rows_without_a_value_are_counted() -> None:
    told = outcome(value={"column": "accuracy"}, above=0.4)
    assert (told.result, told.measured) == (PASS, "0.5 (1 of 4 have none)")


@pytest.mark.parametrize(("over", "measured"), [("min", "0.25 (1 of 4 have none)"), ("max", "1 (1 of 4 have none)")])
def test_a_bound_on_every_row_is_not_met_where_one_has_no_value(over: str, measured: str) -> None:
    """Run d diverged: to say that every run is right on 0.2 and more would be wrong."""
    told = outcome(value={"column": "accuracy", "over": over}, between=[0.2, 1.0])
    assert (told.result, told.measured) == (FAIL, measured)
    ratio = outcome(value={"column": "rate"}, divided_by={"column": "accuracy", "over": over}, above=0)
    assert ratio.result == FAIL
    relation = outcome(value={"column": "rate"}, more_than={"column": "accuracy", "over": over})
    assert relation.result == FAIL
    three = outcome(value={"column": "accuracy", "over": over, "where": {"state": "finished"}}, between=[0.2, 1.0])
    assert three.result == PASS


def test_not_a_number_is_a_value_and_meets_nothing() -> None:
    told = outcome(value={"column": "loss_last", "over": "max"}, above=0)
    assert (told.result, told.measured, told.value) == (FAIL, "nan", None)
    assert number({"column": "loss_last", "where": {"state": "finished"}, "over": "max"}) == 4


def test_shares_and_counts_of_what_is_so() -> None:
    assert number({"column": "state", "is": "diverged"}) == 0.25
    assert number({"column": "state", "is": ["diverged", "finished"]}) == 1
    # A null is no number above a half: the diverged run counts, as one that is not.
    assert number({"column": "accuracy", "is": {"above": 0.4}}) == 0.5
    assert number({"column": "accuracy", "is": {"above": 0.4}, "over": "count"}) == 2
    assert number({"column": "accuracy", "is": None}) == 0.25


def test_runs_are_chosen_by_their_columns() -> None:
    assert number({"column": "accuracy", "where": {"model.init": "he", "model.depth": 2}}) == 0.25
    assert number({"column": "rate", "where": {"model.depth": [1, 2]}, "over": "mean"}) == 7.5


def test_rows_are_chosen_by_step_and_layer() -> None:
    layers = {"table": "layers", "column": "act_std"}
    assert number({**layers, "where": {"model.depth": 4}, "step": 0, "layer": 2}) == 20
    assert number({**layers, "step": 3, "layer": "last", "over": "min"}) == 13
    assert number({**layers, "step": "last", "layer": "last-1", "over": "max"}) == 33
    assert number({**layers, "step": 0, "layer": [2, "last-1"], "over": "max"}) == 30
    assert number({**layers, "step": 0, "layer": [2, 3], "over": "count"}) == 1 + 2 + 2
    steps = {"table": "steps", "column": "loss", "over": "mean"}
    assert number({**steps, "step": [1, "last"]}) == (2 + 4 + 8 + 3) / 4
    assert number({**steps, "step": "last"}) == 5.5
    assert number({"table": "steps", "column": "clipped", "over": "mean"}) == 0.8


def test_the_axes_are_apart() -> None:
    signal = {"table": "layers", "column": "signal_grad_norm", "where": {"model.depth": 2}, "step": 0, "layer": "last"}
    assert number(signal) == 1
    assert number({**signal, "axis": "time"}) == 2


def test_fits_within_each_run() -> None:
    signal = {"table": "layers", "column": "signal_grad_norm", "step": 0, "along": "layer"}
    assert number({**signal, "fit": "growth"}) == pytest.approx(2, rel=1e-12)
    assert number({**signal, "fit": "rate", "over": "max"}) == pytest.approx(0.5, rel=1e-12)
    assert number({"table": "steps", "column": "loss", "fit": "slope", "along": "step", "over": "max"}) == (
        pytest.approx(2.3)
    )


def test_fits_over_the_runs() -> None:
    # rate = 3 depth²
    assert number({"column": "rate", "fit": "power", "along": "model.depth"}) == pytest.approx(2, rel=1e-12)
    depths, rates = np.array([1, 2, 4, 4]), np.array([3, 12, 48, 48])
    expected = np.polyfit(depths, rates, 1)[0]
    assert number({"column": "rate", "fit": "slope", "along": "model.depth"}) == pytest.approx(expected, rel=1e-12)
    signal = {"table": "layers", "column": "signal_grad_norm", "step": 0, "layer": 1}
    assert number({**signal, "fit": "growth", "along": "model.depth"}) == pytest.approx(0.5, rel=1e-12)


def test_nothing_to_fit_is_nothing() -> None:
    where = {"model.depth": 4}
    told = outcome(value={"column": "rate", "where": where, "fit": "slope", "along": "model.depth"}, above=0)
    assert (told.result, told.measured) == (FAIL, "nothing (nothing to fit)")
    assert number({"column": "loss_last", "fit": "power", "along": "model.depth"}) is None


def test_ranks_are_spearmans_and_a_diverged_run_is_the_worst() -> None:
    runs = RUNS.append_column("loss_final", pa.array([4.0, 2.0, 1.0, None]))

    def ranked(**value: Any) -> float | None:
        (expectation,) = parse([{"what": "x", "value": {"along": "loss_final", **value}, "above": 0}])
        return read(expectation.value, {**TABLES, "runs": runs}).number

    # Depths 1, 2, 4, 4 beside losses in the order 3rd, 2nd, 1st, last.
    assert ranked(column="model.depth", fit="rank") == pytest.approx(
        float(np.corrcoef([1, 2, 3.5, 3.5], [3, 2, 1, 4])[0, 1])
    )
    # |ln rate| keeps the order of rates above 1.
    assert ranked(column="rate", fit="level_rank") == ranked(column="rate", fit="rank")
    assert ranked(column="loss_last", fit="rank") == pytest.approx(-1)
    with pytest.raises(SpecError, match="one number already"):
        ranked(column="rate", fit="rank", over="max")


def test_ratios() -> None:
    low, high = {"column": "rate", "where": {"model.depth": 1}}, {"column": "rate", "where": {"model.depth": 4}}
    told = outcome(value=high, divided_by=low, equals=16)
    assert (told.result, told.measured, told.value) == (PASS, "16", 16)
    assert told.computed == "median of rate at model.depth=4; over the median of rate at model.depth=1"
    zero = {"column": "state", "is": "failed"}
    assert outcome(value=high, divided_by=zero, above=0).measured == "nothing (48 over 0)"


def test_relations() -> None:
    low, high = {"column": "rate", "where": {"model.depth": 1}}, {"column": "rate", "where": {"model.depth": 4}}
    told = outcome(value=low, less_than=high)
    assert (told.result, told.expected, told.measured) == (PASS, "less than 48", "3")
    assert told.computed == "median of rate at model.depth=1; against the median of rate at model.depth=4"
    assert outcome(value=low, more_than=high).result == FAIL
    assert outcome(value=low, less_than=low).result == FAIL


def test_rows_that_are_not_there_fail_or_were_not_tested() -> None:
    entry: dict[str, Any] = {"value": {"column": "rate", "where": {"model.depth": 7}}, "above": 0}
    told = outcome(**entry)
    assert (told.result, told.measured, told.value) == (FAIL, "nothing (no such run)", None)
    assert outcome(**entry, lenient=True).result == UNTESTED
    beyond: dict[str, Any] = {"value": {"table": "layers", "column": "act_std", "layer": 9}, "above": 0}
    assert outcome(**beyond).measured == "nothing (no such row)"
    other = {"value": {"column": "rate"}, "less_than": {"column": "rate", "where": {"model.depth": 7}}}
    assert outcome(**other, lenient=True).result == UNTESTED
    # What is there and does not hold fails, altered or not.
    assert outcome(value={"column": "rate"}, below=0, lenient=True).result == FAIL


def test_an_outcome_is_stored_as_plain_data() -> None:
    told = outcome(value={"column": "rate", "over": "min"}, near=3, within_percent=1, source="a book")
    assert told.stored() == {
        "what": "x",
        "expected": "3 ± 1 %",
        "measured": "3",
        "result": "pass",
        "computed": "least of rate",
        "value": 3.0,
        "source": "a book",
    }
