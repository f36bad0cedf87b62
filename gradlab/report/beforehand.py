"""What could have been known before training: how well numbers of step 0 rank the runs by their final loss.

Search without training picks a network by such a number (Mellor et al. 2020, arXiv:2006.04647; Abdelfattah et al. 2021,
arXiv:2101.08134). Legend for shapes: R runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradlab.expect.ranks import ranks, spearman, worst_diverged
from gradlab.report.cells import write_cells
from gradlab.report.findings import Table
from gradlab.report.groups import LATER, varying
from gradlab.report.tables import Floats, Ints, Result
from gradlab.store.settings import REPLICATES

LEAST = 10
"""Networks without which a rank correlation says nothing: of 9 one of 0.6 comes by chance in one of ten."""

DRAWS = 2000
"""Of whole networks, for the interval."""

TASK = ("data.name", "data.ask", "data.target", "data.path", "data.task", "data.length", "data.target_scale")
JUDGED = (*TASK, "train.loss", "model.output")
"""Keys between whose values losses cannot be compared."""


@dataclass(frozen=True)
class Score:
    """A number of step 0 and Spearman's correlation of it with the final loss, with the ends of its 95 % interval.

    ``alike``: the mean correlation among runs that are trained alike (nan where all are); ``values`` (R,).
    """

    name: str
    rho: float
    low: float
    high: float
    alike: float
    runs: int
    networks: int
    values: Floats


@dataclass(frozen=True)
class Beforehand:
    """The scores, the strongest first, the final losses (R,) that they rank, and why there are none, if so."""

    scores: tuple[Score, ...]
    loss: Floats
    why_not: str = ""


def beforehand(result: Result) -> Beforehand | None:
    """The ranking of a sweep; None of what has no networks to choose from, or was never trained."""
    loss = worst_diverged(result.number("loss_final"), result.state)
    network = _codes(result, [key for key in varying(result) if not key.startswith(LATER) and key not in REPLICATES])
    known = ~np.isnan(loss)
    if len(np.unique(network[known])) < 3 or result.asked or not result.own.all():
        return None
    several = [key for key in varying(result) if key in JUDGED]
    if several:
        return Beforehand(
            (), loss, f"Losses of different {' and '.join(several)} are not comparable: nothing is ranked."
        )
    if (count := len(np.unique(network[known]))) < LEAST:
        why = f"{count} networks are too few to say how well anything at step 0 ranks their losses; {LEAST} are needed."
        return Beforehand((), loss, why)
    trained = _codes(result, [key for key in varying(result) if key.startswith(LATER)])
    found = [
        one
        for name, values in _numbers(result)
        if (one := _score(name, values, loss, network, trained)) is not None and one.networks >= LEAST
    ]
    return Beforehand(tuple(sorted(found, key=lambda one: -abs(one.rho))), loss)


def _codes(result: Result, keys: list[str]) -> Ints:
    """(R,) the same for runs of the same values of ``keys``."""
    place: dict[tuple[object, ...], int] = {}
    rows = zip(*(result.columns[key] for key in keys), strict=True) if keys else [()] * result.size
    return np.array([place.setdefault(row, len(place)) for row in rows], dtype=np.int64)


def _numbers(result: Result) -> Iterator[tuple[str, Floats]]:
    """What is known of each run before its first update, (R,) each."""
    if "model.depth" in varying(result):
        yield "depth, which needs no look", result.number("model.depth")
    yield "loss", result.number("loss_first")
    yield "gradient norm", _at_first(result, "steps", "grad_norm")
    for name, column in (("δ ratio", "vanishing_ratio"), ("rate of δ", "rate"), ("theory's χ₁", "chi1")):
        with np.errstate(divide="ignore", invalid="ignore"):
            yield f"distance of {name} from 1, |ln|", np.abs(np.log(result.theory(column)))
    table = result.tables["instruments"]
    alone = table.filter(pc.and_(pc.is_null(table["index"]), pc.equal(table["step"], 0)))
    for quantity in pc.unique(alone["quantity"]).to_pylist():
        yield str(quantity), _at_first(result, "instruments", "value", str(quantity))


def _at_first(result: Result, name: str, column: str, quantity: str | None = None) -> Floats:
    table = result.tables[name].filter(pc.field("step") == 0)
    if quantity is not None:
        table = table.filter(pc.field("quantity") == quantity)
    out = np.full(result.size, np.nan)
    out[result.places(table)] = table[column].cast(pa.float64()).to_numpy()
    return out


def _score(name: str, values: Floats, loss: Floats, network: Ints, trained: Ints) -> Score | None:
    there = ~np.isnan(values) & ~np.isnan(loss)
    x, y, network, trained = values[there], loss[there], network[there], trained[there]
    rho = spearman(x, y)
    if np.isnan(rho):
        return None
    low, high = interval(x, y, network)
    groups = [np.flatnonzero(trained == one) for one in np.unique(trained)]
    parts = [(len(group), spearman(x[group], y[group])) for group in groups] if len(groups) > 1 else []
    sound = [(size, part) for size, part in parts if not np.isnan(part) and size >= LEAST]
    alike = float(np.average([part for _, part in sound], weights=[size for size, _ in sound])) if sound else np.nan
    return Score(name, rho, low, high, alike, len(x), len(np.unique(network)), values)


def interval(x: Floats, y: Floats, network: Ints) -> tuple[float, float]:
    """The 95 % interval of Spearman's correlation: runs of one network are drawn together, for they are no news.

    The ranks are those of all runs, so that each draw is a weighted correlation (a bootstrap of clusters).
    """
    a, b = ranks(x), ranks(y)
    code = np.unique(network, return_inverse=True)[1]
    a, b = a - a.mean(), b - b.mean()
    sums = np.stack([np.bincount(code, part) for part in (np.ones_like(a), a, b, a * a, b * b, a * b)], axis=1)
    size = len(sums)
    draws = max(200, min(DRAWS, 20_000_000 // size))
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), draws) @ sums
    n, sa, sb, saa, sbb, sab = drawn.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (n * sab - sa * sb) / np.sqrt((n * saa - sa**2) * (n * sbb - sb**2))
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, (0.025, 0.975)) if found.size else (np.nan, np.nan)
    return float(low), float(high)


def sentences(found: Beforehand | None) -> list[str]:
    """What it comes to, in plain words."""
    if found is None:
        return []
    if not found.scores:
        return [found.why_not] if found.why_not else []
    best, *_ = found.scores
    told = f"{best.name} ranks the final losses best: a rank correlation of {_range(best)}"
    sure = [one for one in found.scores if one.low > 0 or one.high < 0]
    lines = [f"Of what was known at step 0, {told}."]
    if not sure:
        lines.append("No interval is clear of 0: nothing at step 0 foretold which networks learn.")
    return lines


def _range(one: Score) -> str:
    return f"{one.rho:.2f} ({one.low:.2f} to {one.high:.2f} over {one.networks} networks)"


HEAD = ("at step 0", "rank correlation", "95 % from", "to", "among runs trained alike", "runs", "networks")


def table(found: Beforehand | None) -> Table | None:
    """The scores, for the page; None where there are none."""
    if found is None or not found.scores:
        return None
    rows = tuple(
        (
            one.name,
            *(f"{value:.2f}" for value in (one.rho, one.low, one.high)),
            "–" if np.isnan(one.alike) else f"{one.alike:.2f}",
            *(str(count) for count in (one.runs, one.networks)),
        )
        for one in found.scores
    )
    return Table(HEAD, (False, *[True] * 6), rows, "")


def write_beforehand(found: Beforehand | None, out: Path) -> tuple[Path, ...]:
    """Writes beforehand.csv into ``out``, where there is anything to write."""
    if found is None or not found.scores:
        return ()
    columns = {
        "score": [one.name for one in found.scores],
        **{name: [getattr(one, name) for one in found.scores] for name in ("rho", "low", "high", "alike")},
        **{name: [getattr(one, name) for one in found.scores] for name in ("runs", "networks")},
    }
    return (write_cells(pa.table(columns), out / "beforehand.csv"),)
