"""What matters: shares of variance of outcomes that are made of known effects."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gradlab.report import crossed, write_report
from gradlab.report.effect_words import name, notes, sentences, table, write_effects
from gradlab.report.effects import (
    Analysis,
    Effect,
    analyses,
    decompose,
    full_part,
    in_blocks,
    of_blocks,
    strongest_pair,
)
from gradlab.report.figures.effects import effects_plot
from gradlab.report.figures.style import styled
from gradlab.report.groups import Levels, log_outcomes
from gradlab.report.tables import Result
from gradlab.spec.keys import KEYS
from gradlab.spec.named import Value
from tests.synthetic import grid, write_result

Shares = dict[tuple[str, ...], float]


def shares(effects: Sequence[Effect]) -> Shares:
    return {effect.keys or (effect.kind,): effect.share for effect in effects}


def plane(*sizes: int, repeats: int = 1) -> np.ndarray:
    """The levels of a full grid, (K, N)."""
    return np.array([point for point in product(*map(range, sizes)) for _ in range(repeats)]).T


def signs(codes: np.ndarray) -> np.ndarray:
    """Two levels as -1 and 1, whose products are orthogonal and of variance one."""
    return 2.0 * codes - 1


def result_of(rows: Sequence[Mapping[str, object]]) -> Result:
    """A result of the runs table alone, keys and outcomes as ``rows`` say, the rest as a finished run has it."""
    names = {key for row in rows for key in row if key in KEYS}
    usual: dict[str, object] = {"state": "finished", "loss_final": 1.0, "vanishing_ratio": 1.0}
    columns = {key: [row.get(key) for row in rows] for key in (*(key for key in KEYS if key in names),)}
    columns |= {key: [row.get(key, value) for row in rows] for key, value in usual.items()}
    columns["run_id"] = [str(number) for number in range(len(rows))]
    return Result({"runs": pa.table(columns)}, {}, ())


def loss_grid(
    axes: Mapping[str, Sequence[Value]], log_loss: Callable[..., float], **more: Callable[..., object]
) -> Result:
    """A full grid whose final loss is 10 to the ``log_loss`` of the levels' places."""
    rows = []
    for place in product(*(range(len(values)) for values in axes.values())):
        row: dict[str, object] = {key: values[at] for (key, values), at in zip(axes.items(), place, strict=True)}
        row["loss_final"] = 10.0 ** log_loss(*place)
        row |= {column.replace("__", "."): made(*place) for column, made in more.items()}
        rows.append(row)
    return result_of(rows)


def of(found: Sequence[Analysis], outcome: str) -> Analysis:
    (one,) = [one for one in found if one.outcome == outcome]
    return one


# The decomposition itself


def test_orthogonal_effects_have_their_squares_as_shares() -> None:
    codes = plane(2, 2, 2)
    a, b, c = signs(codes)
    values = 5 + 3 * a + 2 * b + 1 * a * c + 4 * b * c + 2 * a * b * c
    effects, replicated = decompose(["a", "b", "c"], codes, values)
    whole = 9 + 4 + 1 + 16 + 4
    found = shares(effects)
    expected = {("a",): 9, ("b",): 4, ("c",): 0, ("a", "b"): 0, ("a", "c"): 1, ("b", "c"): 16, ("higher",): 4}
    assert found.keys() == expected.keys()
    for keys, part in expected.items():
        assert found[keys] == pytest.approx(part / whole, abs=1e-14), keys
    assert not replicated
    total = {effect.keys[0]: effect.total for effect in effects if effect.kind == "main"}
    assert total == pytest.approx({"a": (9 + 1 + 4) / whole, "b": (4 + 16 + 4) / whole, "c": (1 + 16 + 4) / whole})
    assert [effect.share for effect in effects] == sorted(found.values(), reverse=True)


def test_one_key_that_decides_everything() -> None:
    codes = plane(3, 4)
    effects, _ = decompose(["a", "b"], codes, np.array([1.0, 7.0, -2.0])[codes[0]])
    assert shares(effects) == pytest.approx({("a",): 1, ("b",): 0, ("a", "b"): 0}, abs=1e-14)


def test_an_interaction_alone() -> None:
    codes = plane(2, 2)
    effects, _ = decompose(["a", "b"], codes, np.where(codes[0] == codes[1], 1.0, 0.0))
    assert shares(effects) == pytest.approx({("a",): 0, ("b",): 0, ("a", "b"): 1}, abs=1e-14)
    assert [effect.total for effect in effects if effect.kind == "main"] == pytest.approx([1, 1])


def test_shares_add_up_to_one_and_are_those_of_conditional_means() -> None:
    rng = np.random.default_rng(1)
    codes = plane(2, 3, 4)
    values = rng.normal(size=(codes.shape[1],))
    effects, _ = decompose(["a", "b", "c"], codes, values)
    assert sum(effect.share for effect in effects) == pytest.approx(1, rel=1e-12)
    for axis, key in enumerate("abc"):
        # Sobol's first index is Var E[y | x] / Var y, the total one E Var[y | all but x] / Var y.
        inner = [values[codes[axis] == level].mean() for level in range(codes[axis].max() + 1)]
        others = np.delete(codes, axis, axis=0)
        spread = [values[(point == others.T).all(axis=1)].var() for point in np.unique(others.T, axis=0)]
        (main,) = [effect for effect in effects if effect.keys == (key,)]
        assert main.share == pytest.approx(np.var(inner) / values.var(), rel=1e-12)
        assert main.total == pytest.approx(np.mean(spread) / values.var(), rel=1e-12)
    assert sum(effect.freedom for effect in effects) == len(values) - 1


def test_noise_alone_explains_nothing() -> None:
    rng = np.random.default_rng(2)
    codes = plane(3, 4, repeats=40)
    effects, replicated = decompose(["a", "b"], codes, rng.normal(size=(codes.shape[1],)))
    found = shares(effects)
    assert replicated
    assert found[("seeds",)] > 0.97
    assert sum(found.values()) == pytest.approx(1)


def test_without_replicates_noise_would_look_like_effects_and_with_them_it_does_not() -> None:
    """Over many draws of pure noise the raw share of an effect is its degrees of freedom over N - 1; ours is near 0."""
    rng = np.random.default_rng(3)
    codes = plane(3, 3, repeats=2)
    drawn = [shares(decompose(["a", "b"], codes, rng.normal(size=(18,)))[0])[("a",)] for _ in range(400)]
    raw = 2 / 17
    assert np.median(drawn) < 0.2 * raw
    assert np.mean(drawn) < 0.6 * raw


def test_effects_beside_noise_have_the_shares_of_their_variances() -> None:
    rng = np.random.default_rng(4)
    codes = plane(2, 2, repeats=5000)
    a, b = signs(codes)
    values = 2 * a + a * b + rng.normal(size=(codes.shape[1],))
    found = shares(decompose(["a", "b"], codes, values)[0])
    assert found[("a",)] == pytest.approx(4 / 6, abs=0.02)
    assert found[("a", "b")] == pytest.approx(1 / 6, abs=0.02)
    assert found[("seeds",)] == pytest.approx(1 / 6, abs=0.02)
    assert found[("b",)] == pytest.approx(0, abs=1e-3)


def test_a_setting_counts_once_however_often_it_was_run() -> None:
    codes = plane(2, 2)
    values = np.array([0.0, 0.0, 1.0, 1.0])
    often = np.array([0, 0, 0, 1, 2, 3, 3])
    effects, replicated = decompose(["a", "b"], codes[:, often], values[often])
    assert shares(effects) == pytest.approx({("a",): 1, ("b",): 0, ("a", "b"): 0, ("seeds",): 0}, abs=1e-14)
    assert replicated


# Grids with holes


def levels_of(codes: np.ndarray) -> list[Levels]:
    return [
        Levels(str(axis), tuple(map(str, range(code.max() + 1))), code, ordered=True) for axis, code in enumerate(codes)
    ]


def test_a_full_grid_is_kept_whole() -> None:
    codes = plane(3, 2)
    kept = full_part(levels_of(codes), np.ones(6, dtype=bool))
    assert [places.tolist() for places in kept] == [[0, 1, 2], [0, 1]]


def test_the_level_with_the_most_holes_goes() -> None:
    codes = plane(4, 3)
    known = ~((codes[0] == 2) & (codes[1] > 0))
    kept = full_part(levels_of(codes), known)
    assert [places.tolist() for places in kept] == [[0, 1, 3], [0, 1, 2]]


def test_a_single_hole_costs_one_level_of_the_longer_key() -> None:
    codes = plane(5, 2)
    kept = full_part(levels_of(codes), np.arange(10) != 3)
    assert [places.tolist() for places in kept] == [[0, 2, 3, 4], [0, 1]]


def test_nothing_known_is_nothing_kept() -> None:
    codes = plane(2, 2)
    assert [len(places) for places in full_part(levels_of(codes), np.zeros(4, dtype=bool))] == [0, 0]


# The same seeds at every setting


def blocks(seeds: int, *sizes: int, common: float, apart: float, draw: int = 0) -> np.ndarray:
    """Noise (S, n_1, ...): what a seed has at every setting, and what it has at each."""
    rng = np.random.default_rng(draw)
    alike = rng.normal(0, common, (seeds, *[1] * len(sizes)))
    return np.asarray(alike + rng.normal(0, apart, (seeds, *sizes)))


def test_what_is_common_to_a_seed_hides_no_effect_and_makes_none() -> None:
    """As of the vanishing ratio: nearly all of its variance within a setting is the seed's."""
    quiet = blocks(8, 3, 3, common=1.0, apart=0.05)
    values = quiet + 0.1 * np.arange(3)[:, None]
    a, b, *_ = crossed.decompose(values).parts
    assert (a.axes, b.axes) == ((0,), (1,))
    assert a.p == pytest.approx(0.001)
    assert b.p is not None
    assert b.p > 0.05
    effects = {effect.keys or effect.kind: effect for effect in of_blocks(["a", "b"], values)}
    codes, cells = plane(8, 3, 3), values.ravel()
    nested = {effect.keys or effect.kind: effect for effect in decompose(["a", "b"], codes[1:], cells)[0]}
    assert effects["seeds"].share > 0.9
    assert a.square - a.chance == pytest.approx(0.1**2 * 2 / 3, rel=0.4)
    assert effects[("a",)].share > 0
    # Seeds taken as independent draws of each setting would drown the effect in their spread.
    assert nested[("a",)].share == 0.0


@pytest.mark.parametrize("seeds", [2, 5])
def test_chance_is_what_noise_alone_gives(seeds: int) -> None:
    rng = np.random.default_rng(6)
    parts = [crossed.decompose(rng.standard_normal((seeds, 3, 4))).parts for _ in range(400)]
    for place in range(3):
        square, chance = (float(np.mean([getattr(one[place], what) for one in parts])) for what in ("square", "chance"))
        assert chance == pytest.approx(square, rel=0.12)


def test_variances_between_and_within_seeds_are_told_apart() -> None:
    found = [crossed.decompose(blocks(10, 2, 3, common=2.0, apart=0.5, draw=draw)) for draw in range(40)]
    assert np.mean([one.between for one in found]) == pytest.approx(4.0, rel=0.15)
    assert np.mean([one.within for one in found]) == pytest.approx(0.25, rel=0.1)


def test_one_p_in_twenty_is_below_a_twentieth_where_nothing_acts() -> None:
    """Although draws differ in how they take the first key."""
    rng = np.random.default_rng(6)
    found = []
    for draw in range(200):
        values = blocks(5, 3, 4, common=3.0, apart=0.3, draw=draw) + rng.normal(0, 1, (5, 3, 1))
        found.append([part.p for part in crossed.decompose(values).parts[:3]])
    below = (np.array(found, dtype=float) <= 0.05).mean(axis=0)
    # 200 draws know a share of 0.05 to 0.015.
    assert np.all((below > 0.01) & (below < 0.1)), below


@pytest.mark.parametrize(("seeds", "levels", "known"), [(5, 2, False), (6, 2, True), (2, 3, False), (3, 3, True)])
def test_too_few_seeds_have_no_p(seeds: int, levels: int, known: bool) -> None:
    (main,) = crossed.decompose(blocks(seeds, levels, common=1.0, apart=1.0)).parts
    assert (main.p is not None) == known


def test_a_total_is_never_below_its_main_effect() -> None:
    for draw in range(30):
        values = blocks(3, 2, 2, common=1.0, apart=1.0, draw=draw)
        both = (of_blocks(["a", "b"], values), decompose(["a", "b"], plane(3, 2, 2)[1:], values.ravel())[0])
        for effects in both:
            assert all(one.total is not None and one.total >= one.share for one in effects if one.kind == "main")


def test_seeds_that_lack_a_setting_are_no_block() -> None:
    codes, seed = plane(2, 2, 3)[:2], plane(2, 2, 3)[2]
    values = np.arange(12.0)
    whole = in_blocks(codes, seed, values)
    assert whole is not None
    assert whole.shape == (3, 2, 2)
    assert whole[1].ravel().tolist() == [1.0, 4.0, 7.0, 10.0]
    some = in_blocks(codes[:, 1:], seed[1:], values[1:])
    assert some is not None
    assert some.shape == (2, 2, 2)
    assert in_blocks(codes, np.arange(12), values) is None


def test_an_effect_that_may_be_chance_is_told_with_its_p() -> None:
    effects = (Effect("main", ("a",), 0.5, 1, 0.5, 0.001), Effect("main", ("b",), 0.1, 1, 0.1, 0.21))
    assert sentences([Analysis("loss_last", "log final loss", effects, 8, 4, True, "")]) == [
        "Of the variance of log final loss, a explains 50 %, b 10 % (p = 0.21, so perhaps by chance)."
    ]


# Of a result

NO_CHANCE: Shares = {("seeds",): 0.0, ("residual",): 0.0}

AXES: dict[str, Sequence[Value]] = {
    "model.depth": [5, 10],
    "optim.lr": [0.01, 0.1],
    "seed": [0, 1, 2],
}


def test_the_final_loss_is_taken_apart_in_logarithms() -> None:
    result = loss_grid(AXES, lambda depth, lr, seed: 2 * depth + lr + 0 * seed)
    one = of(analyses(result), "loss_final")
    assert shares(one.effects) == pytest.approx(
        {("model.depth",): 0.8, ("optim.lr",): 0.2, ("model.depth", "optim.lr"): 0, **NO_CHANCE}, abs=1e-12
    )
    assert (one.runs, one.settings, one.replicated, one.note) == (12, 4, True, "")


def test_diverged_runs_are_left_out_of_the_loss_and_explained_by_themselves() -> None:
    axes: dict[str, Sequence[Value]] = {"model.depth": [5, 10, 20], "optim.lr": [0.01, 0.1], "seed": [0, 1]}
    result = loss_grid(
        axes,
        lambda depth, lr, seed: math.nan if depth == 2 and lr else float(lr + 0.001 * seed),
        state=lambda depth, lr, _seed: "diverged" if depth == 2 and lr else "finished",
    )
    found = analyses(result)
    loss, diverged = of(found, "loss_final"), of(found, "diverged")
    assert loss.note == (
        "2 of 12 runs have no final loss: they diverged, failed or made no step. "
        "model.depth=20 left out, the other 8 runs make a full grid."
    )
    assert shares(loss.effects)[("optim.lr",)] > 0.99
    # 1 where depth is the third of three and lr the second of two: variance 5/36, of lr 1/36, of depth 2/36.
    expected = {("model.depth",): 0.4, ("optim.lr",): 0.2, ("model.depth", "optim.lr"): 0.4, **NO_CHANCE}
    assert shares(diverged.effects) == pytest.approx(expected)


def test_one_replicate_that_diverged_leaves_no_hole() -> None:
    result = loss_grid(
        AXES,
        lambda depth, _lr, _seed: float(depth),
        state=lambda depth, lr, seed: "diverged" if (depth, lr, seed) == (1, 1, 0) else "finished",
    )
    one = of(analyses(result), "loss_final")
    assert (one.runs, one.settings) == (8, 4)
    assert one.note.endswith("3 runs of seeds that lack a setting are left out.")
    assert shares(one.effects)[("model.depth",)] == pytest.approx(1)


@pytest.mark.parametrize(
    ("size", "words"), [(3, "less than half of these runs make one"), (10, "these runs are far from one")]
)
def test_too_few_settings_for_a_full_grid_are_said_to_be(size: int, words: str) -> None:
    rows: list[dict[str, object]] = [
        {"model.depth": place, "model.width": place, "loss_final": float(place)} for place in range(2, 2 + size)
    ]
    one = of(analyses(result_of(rows)), "loss_final")
    assert one.effects == ()
    assert one.note == f"Effects need a full grid, and {words}."
    assert notes([one]) == [f"Log final loss: {one.note}"]
    assert (sentences([one]), table([one])) == ([], None)


def test_what_acts_later_is_no_replicate_of_the_vanishing_ratio() -> None:
    ratios = {(0, 0): 1e-3, (0, 1): 2e-3, (1, 0): 1e-6, (1, 1): 3e-6}
    axes: dict[str, Sequence[Value]] = {
        "model.depth": [5, 10],
        "model.width": [8, 16],
        "optim.lr": [0.01, 0.1],
        "seed": [0, 1],
    }
    result = loss_grid(
        axes,
        lambda _depth, _width, lr, _seed: float(lr),
        vanishing_ratio=lambda depth, _width, _lr, seed: ratios[depth, seed],
    )
    one = of(analyses(result), "vanishing_ratio")
    # Two seeds of four settings, not sixteen runs: twice as many would halve the variance of chance.
    assert (one.runs, one.settings) == (8, 4)
    assert all("optim.lr" not in effect.keys for effect in one.effects)
    assert one.note == ""


def test_a_ratio_of_zero_has_no_logarithm() -> None:
    axes: dict[str, Sequence[Value]] = {"model.depth": [5, 10, 20], "model.width": [8, 16]}
    result = loss_grid(axes, lambda *_: 0.0, vanishing_ratio=lambda depth, width: [1.0, 0.1 * (1 + width), 0.0][depth])
    one = of(analyses(result), "vanishing_ratio")
    assert one.note.startswith("2 of 6 runs have no vanishing ratio, or one of 0. model.depth=20 left out")


def test_what_does_not_vary_is_not_taken_apart() -> None:
    result = loss_grid(AXES, lambda _depth, lr, _seed: float(lr))
    assert [one.outcome for one in analyses(result)] == ["loss_final"]
    single = loss_grid({"model.depth": [5, 10]}, float)
    assert analyses(single) == []


def test_the_pair_that_explains_most_counts_interactions() -> None:
    axes: dict[str, Sequence[Value]] = {"model.depth": [5, 10], "model.width": [8, 16], "optim.lr": [0.01, 0.1]}

    def loss(depth: int, width: int, lr: int) -> float:
        return 1.0 * lr + 4.0 * (depth == width) + 0.1 * width

    result = loss_grid(axes, loss)
    assert strongest_pair(result, log_outcomes(result).values()) == ("model.width", "model.depth")


def test_divergence_counts_for_the_pair() -> None:
    axes: dict[str, Sequence[Value]] = {"model.depth": [5, 10], "model.width": [8, 16], "optim.lr": [0.01, 0.1]}
    result = loss_grid(
        axes,
        lambda depth, width, _lr: 0.1 * width + 0.05 * depth,
        state=lambda _depth, _width, lr: "diverged" if lr else "finished",
    )
    assert strongest_pair(result, log_outcomes(result).values()) == ("optim.lr", "model.width")


def test_without_a_full_grid_or_a_second_key_there_is_no_pair() -> None:
    rows: list[dict[str, object]] = [{"model.depth": n, "model.width": n, "loss_final": float(n)} for n in range(2, 6)]
    for result in (result_of(rows), loss_grid({"model.depth": [5, 10]}, float)):
        assert strongest_pair(result, log_outcomes(result).values()) is None


# In words, as a table and as a figure


def test_words_and_rows() -> None:
    result = loss_grid(AXES, lambda depth, lr, _seed: 2 * depth + lr)
    found = analyses(result)
    assert sentences(found) == ["Of the variance of log final loss, model.depth explains 80 %, optim.lr 20 %."]
    assert notes(found) == [
        "Log final loss: 12 runs of 4 settings, the same seeds at each; p by permutation within the seeds."
    ]
    made = table(found)
    assert made is not None
    assert made.rows == (
        ("log final loss", "model.depth", "80.0", "80.0", "–"),
        ("log final loss", "optim.lr", "20.0", "20.0", "–"),
    )
    assert name(Effect("interaction", ("a", "b"), 0, 1)) == "a × b"


def test_the_csv_has_every_effect(tmp_path: Path) -> None:
    result = loss_grid(AXES, lambda depth, lr, _seed: 2 * depth + lr)
    (file,) = write_effects(analyses(result), tmp_path)
    with file.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["key"], row["other_key"]) for row in rows} == {
        ("model.depth", ""),
        ("optim.lr", ""),
        ("model.depth", "optim.lr"),
        ("", ""),
    }
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert {row["kind"] for row in rows} == {"main", "interaction", "seeds", "residual"}
    assert write_effects([], tmp_path) == ()
    assert not file.exists()


def test_the_figure_ranks_the_bars() -> None:
    axes: dict[str, Sequence[Value]] = {"model.depth": [5, 10], "model.width": [8, 16], "optim.lr": [0.01, 0.1]}
    result = loss_grid(axes, lambda depth, width, lr: 3.0 * width + lr + 0.5 * (depth == lr))
    with styled():
        plot = effects_plot(analyses(result))
    assert plot is not None
    (panel,) = plot.figure.axes
    widths = [bar.get_width() for bar in panel.patches]  # type: ignore[attr-defined]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) == pytest.approx(100)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["width", "lr", "depth × lr"]
    assert effects_plot([]) is None


@pytest.mark.usefixtures("unpainted")
def test_the_report_of_a_sweep_shows_them(tmp_path: Path) -> None:
    axes: dict[str, list[Value]] = {"model.depth": [5, 10], "optim.lr": [0.01, 0.1], "seed": [0, 1]}
    folder = write_result(tmp_path / "result", grid(axes))
    report = write_report([folder], tmp_path / "report")
    names = {file.name for file in report.files}
    assert {"effects.csv", "effects.png", "effects.svg"} <= names
    page = report.page.read_text(encoding="utf-8")
    assert '<section id="effects">' in page
    assert "Of the variance of log final loss" in page
    alone = write_report([write_result(tmp_path / "one", grid({"seed": [0]}))], tmp_path / "report")
    assert "effects.csv" not in {file.name for file in alone.files}
    assert not (tmp_path / "report" / "effects.png").exists()
    assert '<section id="effects">' not in alone.page.read_text(encoding="utf-8")
