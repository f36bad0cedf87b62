"""Expectations as experiments write them: what is understood, and one line for what is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradlab.expect.bound import Among, Bound
from gradlab.expect.form import check_rows, measures, parse
from gradlab.expect.measure import Fit, Place
from gradlab.spec.named import SpecError
from gradlab.spec.run import build

RATE: dict[str, Any] = {"column": "rate"}


def one(**entry: object) -> list[dict[str, object]]:
    return [{"what": "it holds", "value": RATE, **entry}]


def bound(**entry: object) -> Bound:
    (found,) = parse(one(**entry))
    assert found.bound is not None
    assert found.relation is None
    return found.bound


@pytest.mark.parametrize(
    ("entry", "low", "high", "strict", "text"),
    [
        ({"near": 1, "within": 0.25}, 0.75, 1.25, False, "1 ± 0.25"),
        ({"near": -2.0, "within_percent": 50}, -3, -1, False, "-2 ± 50 %"),
        ({"between": [2, 3.5]}, 2, 3.5, False, "2 to 3.5"),
        ({"above": 4}, 4, math.inf, True, "above 4"),
        ({"below": 4}, -math.inf, 4, True, "below 4"),
        ({"above": 1, "below": 2}, 1, 2, True, "above 1 and below 2"),
        ({"equals": 3}, 3, 3, False, "3"),
    ],
)
def test_every_bound(entry: dict[str, object], low: float, high: float, strict: bool, text: str) -> None:
    assert bound(**entry) == Bound(low, high, strict, text)


def test_the_ends_of_a_bound() -> None:
    assert bound(near=1, within=0.25).holds(1.25)
    assert not bound(above=4).holds(4)
    assert bound(above=4).holds(math.inf)
    assert not bound(between=[0, 1]).holds(math.nan)
    assert not bound(above=4).holds(math.nan)
    assert not bound(above=4).holds(None)


def test_a_measure_in_full() -> None:
    value = {
        "table": "layers",
        "column": "weight_grad_norm",
        "where": {"model.init": ["he", "xavier_normal"], "clip.threshold": 2, "state": "finished"},
        "step": "last",
        "layer": [5, "last-1"],
        "fit": "rate",
        "along": "layer",
        "over": "mean",
    }
    (found,) = parse([{"what": " two words ", "value": value, "above": 0, "source": "a book"}])
    measure = found.value
    assert (found.what, found.source) == ("two words", "a book")
    # Aliases and whole numbers become what the column holds.
    assert measure.where == (
        ("model.init", ("he_normal", "xavier_normal")),
        ("clip.threshold", (2.0,)),
        ("state", ("finished",)),
    )
    assert measure.step == (Place(0, True), Place(0, True))
    assert measure.layer == (Place(5), Place(1, True))
    assert measure.fit == Fit("rate", "layer")
    assert str(measure) == (
        "mean of rate of weight_grad_norm on layer at step last, layers 5 to last-1, "
        "model.init=he_normal|xavier_normal, clip.threshold=2, state=finished"
    )


def test_what_is_left_out_takes_its_default() -> None:
    (found,) = parse(one(above=0))
    assert (found.value.table, found.value.over, found.value.where) == ("runs", "median", ())
    (found,) = parse([{"what": "x", "value": {"column": "state", "is": "diverged"}, "equals": 1}])
    assert (found.value.test, found.value.over) == (Among(("diverged",)), "share")


def test_a_relation_and_a_ratio() -> None:
    (found,) = parse(one(divided_by={"column": "accuracy"}, less_than={"column": "loss_last"}))
    assert found.relation is not None
    assert found.relation.less
    assert found.bound is None
    assert [measure.column for measure in measures(found)] == ["rate", "accuracy", "loss_last"]


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({}, "expected a list"),
        (["rate"], "expect 1: expected a mapping, given rate"),
        ([{"value": RATE, "above": 1}], "expected what: a line"),
        ([{"what": "x", "above": 1}], "expected value:"),
        (one(), "expected one of near, between"),
        (one(near=1), "expected within or within_percent"),
        (one(near=1, within=0.1, within_percent=1), "expected within or within_percent"),
        (one(near=1, within=-1), "within: -1; expected a number of at least 0"),
        (one(near="one", within=1), "near: expected a number, given one"),
        (one(above=1, within=1), "within belongs to near, not to above"),
        (one(above=1, equals=1), "given above and equals"),
        (one(between=[2, 1]), "[2, 1] is empty"),
        (one(between=2), "expected [low, high]"),
        (one(above=True), "above: expected a number, given true"),
        (one(abov=1), "expect 1: unknown key 'abov'; did you mean 'above'?"),
        (one(less_than={"column": "rat"}), "less_than: unknown column 'rat'; did you mean 'rate'?"),
        (one(divided_by=2, above=1), "divided_by: expected a mapping, given 2"),
        (one(above=1, source=3), "source: expected a text"),
    ],
)
def test_a_wrong_expectation_gets_one_line(given: object, fragment: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse(given)
    assert fragment in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ({}, "expected column: one of the table runs"),
        ({"column": "rate", "colum": 1}, "unknown key 'colum'; did you mean 'column'?"),
        ({"column": "rate", True: 1}, "unknown key 'True'"),
        ({"column": "rate", "table": "layer"}, "unknown table 'layer'; did you mean 'layers'?"),
        ({"column": "rate", "over": "mode"}, "unknown over 'mode'"),
        ({"column": "state"}, "column state holds texts; expected is:"),
        ({"column": "rate", "over": "share"}, "over: share: expected is:"),
        ({"column": "state", "is": {"above": 1}}, "is: column state holds texts"),
        ({"column": "rate", "layer": 1}, "the table runs has no layer"),
        ({"column": "loss", "table": "steps", "layer": 1}, "the table steps has no layer"),
        ({"column": "rate", "where": {"model.int": "he"}}, "did you mean 'model.init'?"),
        ({"column": "rate", "where": {"model.init": "hee"}}, "where: unknown init 'hee'"),
        ({"column": "rate", "where": {"model.depth": 0}}, "model.depth=0: expected an integer of at least 1"),
        ({"column": "rate", "where": {"seed": [[1]]}}, "seed: expected one value or a list"),
        ({"column": "act_std", "table": "layers", "layer": "first"}, "layer: 'first': expected a number"),
        ({"column": "act_std", "table": "layers", "layer": -1}, "layer: -1: expected a number of at least 0"),
        ({"column": "act_std", "table": "layers", "layer": [1, 2, 3]}, "layer: expected one, or [first, last]"),
        ({"column": "act_std", "table": "layers", "axis": "tme"}, "unknown axis 'tme'; did you mean 'time'?"),
        ({"column": "rate", "fit": "slope"}, "expected fit and along together"),
        ({"column": "rate", "fit": "line", "along": "model.depth"}, "unknown fit 'line'"),
        ({"column": "rate", "fit": "slope", "along": "layer"}, "unknown along 'layer'"),
        ({"column": "rate", "fit": "slope", "along": "model.depth", "over": "mean"}, "is one number already"),
        ({"column": "loss", "table": "steps", "fit": "slope", "along": "step", "is": 1}, "without a fit"),
    ],
)
def test_a_wrong_measure_gets_one_line(value: dict[Any, Any], fragment: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse([{"what": "x", "value": value, "above": 1}], "mine")
    assert fragment in str(refused.value)
    assert str(refused.value).startswith("mine 1: value: ")


def test_settings_that_no_run_has_are_refused() -> None:
    runs = [build({"model.depth": depth, "seed": seed}) for depth, seed in ((5, 0), (10, 1))]
    for where, fragment in (
        ({"model.depth": 6}, "no run of this grid has model.depth=6"),
        ({"model.depth": 5, "seed": 1}, "no run of this grid has model.depth=5 and seed=1"),
    ):
        with pytest.raises(SpecError, match=fragment):
            check_rows(parse([{"what": "x", "value": {**RATE, "where": where}, "above": 1}]), runs)
    kept = {"model.depth": [5, 6], "seed": 0, "state": "finished"}
    check_rows(parse([{"what": "x", "value": {**RATE, "where": kept}, "above": 1}]), runs)
