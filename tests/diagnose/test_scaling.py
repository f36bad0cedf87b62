"""Power laws of synthetic sweeps: their exponents, their errors, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradlab.diagnose.scaling import Law, power_law, sentences
from gradlab.store.columns import SCHEMAS

WIDTHS = (32, 64, 128, 256)


def test_exponent_and_error_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(WIDTHS, 3).astype(float)
    y = 2.0 * x**0.48 * np.exp(0.1 * rng.standard_normal(len(x)))
    law = power_law(x.tolist(), y.tolist())
    (slope, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    assert law is not None
    assert (law.exponent, law.error) == pytest.approx((slope, np.sqrt(covariance[0, 0])), rel=1e-9)
    assert not law.flat
    assert power_law([32, 64], [1, 2]) is None
    assert power_law([32, 64, 128], [1.0, 0.0, float("nan")]) is None


def test_an_exponent_is_flat_within_a_tenth_or_where_its_error_hides_it() -> None:
    assert Law(0.09, 0.001).flat
    assert not Law(0.11, 0.001).flat
    assert Law(0.3, 0.2).flat


def sweep(law: dict[str, float], best: dict[str, float]) -> tuple[list[dict[str, Any]], pa.Table]:
    """Runs whose output's change grows like width^law, and whose best learning rate goes like width^best."""
    rows: list[dict[str, Any]] = []
    instruments: list[dict[str, Any]] = []
    for name, exponent in law.items():
        for width in WIDTHS:
            for rate in (1.0, 0.5, 0.25, 0.125):
                key = f"{name}-{width}-{rate}"
                miss = np.log(rate * (width / 32) ** -best[name])
                row = {"run_id": key, "seed": 0, "state": "finished", "loss_final": 0.1 + float(miss**2)}
                rows.append(row | {"model.parametrization": name, "model.width": width, "optim.lr": rate})
                for step in (5, 10):
                    changes = (0.5, 1.0, width**exponent)
                    instruments += [
                        {"run_id": key, "step": step, "instrument": "coordinates", "quantity": "signal_change"}
                        | {"index": layer, "value": change * step / 10}
                        for layer, change in enumerate(changes, start=1)
                    ]
    return rows, pa.Table.from_pylist(instruments, schema=SCHEMAS["instruments"])


def test_a_sweep_over_widths_says_what_moves_and_what_does_not() -> None:
    rows, instruments = sweep({"standard": 0.5, "mup": 0.01}, {"standard": -1.0, "mup": 0.0})
    swept = ["model.parametrization", "model.width", "optim.lr", "seed"]
    changes, rates, flat, still = sentences(rows, swept, instruments)
    assert changes == (
        "model.parametrization=standard: with the width, at optim.lr=1 (the best at model.width=32), the change of "
        "signals by training: flat (width^0.00±0.00) in the first layer; flat (width^0.00±0.00) in the last hidden "
        "one; grows like width^0.50±0.00 at the output."
    )
    assert rates.startswith("model.parametrization=standard: the best optim.lr shrinks like width^-1.00±0.00: 1 at 32")
    assert flat.endswith("flat (width^0.01±0.00) at the output.")
    assert still == "model.parametrization=mup: the best optim.lr is 1 at every width."


def test_of_many_settings_it_is_counted_where_the_best_rate_stays() -> None:
    names = {f"kind{number}": 0.0 for number in range(5)}
    rows, instruments = sweep(names, names | {"kind3": -1.0})
    swept = ["model.parametrization", "model.width", "optim.lr"]
    *changes, last = sentences(rows, swept, instruments)
    assert len(changes) == 4
    assert last == "The best optim.lr is the same at every width in 4 of 5 settings of the other keys."


def test_nothing_is_said_without_the_instrument_or_of_two_widths() -> None:
    rows, instruments = sweep({"mup": 0.0}, {"mup": 0.0})
    assert sentences(rows, ["model.width"], instruments.slice(0, 0)) == []
    few = [row for row in rows if row["model.width"] < 100]
    assert sentences(few, ["model.width", "optim.lr"], instruments) == []
