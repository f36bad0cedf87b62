"""The end of a command in words: the per-layer table, what happened to a run, the best and worst of a sweep."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.cells import cell_len
from rich.console import Console

from gradlab.diagnose import DEFAULTS, limits
from gradlab.spec.named import Value
from gradlab.store.columns import RUNS
from gradlab.store.sources import Merged
from gradlab.store.tables import load_tables
from gradlab.terminal.illnesses import found
from gradlab.terminal.ranks import Run
from gradlab.terminal.summary import PLAIN_ROWS, exact_zeros, sentence, show_run, show_sweep, thinned
from tests.synthetic import grid, write_result

FINISHED: Run = {
    **dict.fromkeys(RUNS.names),
    "state": "finished",
    "model.name": "mlp",
    "steps": 200,
    "loss_first": 2.8,
    "loss_last": 0.0611,
    "loss_final": 0.0581,
    "loss_heldout": 0.116,
    "accuracy": 0.9667,
    "rate": 0.235,
    "vanishing_ratio": 7.37e-31,
}


def shown(write: object) -> str:
    """What a function writes to a terminal of 80 columns, as plain lines."""
    assert callable(write)
    out = Console(file=io.StringIO(), width=80, highlight=False)
    write(out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def layer_rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line[:5].strip().isdigit()]


GROWTH = "At step 0, δ is multiplied by {} on its way to the input {}."

SENTENCES: dict[str, tuple[Run, str]] = {
    "vanishes": (
        {},
        "Finished 200 steps: loss 2.8 -> 0.0581 (held out 0.116, accuracy 96.7%). "
        + GROWTH.format("0.235 per layer", "(layer 1 over L-1: 7.37e-31)"),
    ),
    "regression explodes": (
        {"rate": 1.6, "vanishing_ratio": 40.0, "accuracy": None},
        "Finished 200 steps: loss 2.8 -> 0.0581 (held out 0.116). "
        + GROWTH.format("1.6 per layer", "(layer 1 over L-1: 40)"),
    ),
    "rnn": (
        {"model.name": "rnn", "rate": 1.001, "vanishing_ratio": 1.05},
        "Finished 200 steps: loss 2.8 -> 0.0581 (held out 0.116, accuracy 96.7%). "
        + GROWTH.format("1 per time step", "(step 1 over T: 1.05)"),
    ),
    "no step": (
        {"steps": 0, "loss_last": 2.8, "loss_heldout": None, "accuracy": None, "rate": None},
        "Measured at the initial weights: loss 2.8.",
    ),
    "one step": (
        {"steps": 1, "rate": None, "accuracy": None, "loss_heldout": None},
        "Finished 1 step: loss 2.8 -> 0.0581.",
    ),
    "diverged": (
        {"state": "diverged", "steps": 2, "diverged_at": 2, "diverged_layer": 3, "rate": None},
        "Diverged at step 2, first in layer 3; the loss was 2.8 at step 0.",
    ),
    "diverged at once": (
        {"state": "diverged", "steps": 0, "diverged_at": 0, "loss_first": float("nan"), "rate": None},
        "Diverged at step 0; the loss was nan at step 0.",
    ),
    "failed": ({"state": "failed", "error": "ValueError: it broke"}, "Crashed: ValueError: it broke."),
}


@pytest.mark.parametrize(("change", "said"), SENTENCES.values(), ids=SENTENCES)
def test_what_happened(change: Run, said: str) -> None:
    assert sentence(FINISHED | change) == said


def test_the_verdicts_of_a_run_stand_below_by_the_thresholds_given(tmp_path: Path) -> None:
    values: dict[str, Value] = {"model.depth": 50, "model.activation": "sigmoid", "train.steps": 20}
    tables = load_tables(write_result(tmp_path / "out", [values]))
    text = shown(lambda out: show_run(out, tables))
    assert "Verdict vanishing: δ of layer 1 is" in text
    assert max(map(cell_len, text.splitlines())) <= 80
    lenient = shown(lambda out: show_run(out, tables, limits({"vanishing_ratio": 0.0})))
    assert "Verdict healthy, has not learned yet: no threshold is crossed" in lenient.replace("\n", " ").replace(
        "  ", " "
    )


def test_a_run_says_first_what_is_wrong_since_when_and_what_to_do(tmp_path: Path) -> None:
    values: dict[str, Value] = {"model.depth": 20, "model.activation": "sigmoid", "train.steps": 20}
    folder = write_result(tmp_path / "a sick one", [values])
    text = shown(lambda out: show_run(out, load_tables(folder), root=folder))
    lines = text.splitlines()
    assert lines[0].startswith("Verdict vanishing: δ of layer 1 is ")
    assert "  since   step 0" in lines
    assert f"  to do   gradlab cure '{folder}'" in lines
    assert text.index("  cause   activation: ") < text.index("  to do ") < text.index("Finished 20 steps")
    assert text.index("Finished 20 steps") < text.index("hidden") if "hidden" in text else text.index("layer 1")
    well = shown(lambda out: show_run(out, load_tables(write_result(tmp_path / "well", [{}])), root=tmp_path))
    assert "to do" not in well


def test_a_sweep_says_first_what_is_wrong_where_since_when_and_what_to_do(tmp_path: Path) -> None:
    values = grid({"model.activation": ["sigmoid", "relu"], "optim.lr": [0.1, 0.2]}, {"model.depth": 20})
    folder = write_result(tmp_path / "out", values, diverge={3: 2})
    tables = load_tables(folder)
    verdicts = ["vanishing", "vanishing", "healthy", "diverged"]
    tables = Merged.of({**tables, "runs": changed(tables["runs"], verdict=verdicts)})
    wrong = found(tables, ["model.activation", "optim.lr"], DEFAULTS)
    text = shown(lambda out: show_sweep(out, tables["runs"], ["model.activation", "optim.lr"], wrong, folder))
    lines = text.splitlines()
    ids = tables["runs"]["run_id"].to_pylist()
    assert [one.name for one in wrong] == ["diverged", "vanishing"]
    assert lines[2:4] == [
        "diverged: 1 of 4 runs.",
        f"  such as activation=relu lr=0.2 (run {ids[3]}): diverged at step 2: the",
    ]
    assert "vanishing: 2 of 4 runs, all 2 with activation=sigmoid." in lines
    assert "  since   step 0" in lines
    assert f"  to do   gradlab cure --from {folder} {wrong[1].example['run_id']}" in lines
    assert wrong[1].example["run_id"] in ids[:2]
    assert text.index("to do") < text.index("Best and worst")
    assert max(cell_len(line) for line in lines if "to do" not in line) <= 80


def test_the_verdicts_of_a_sweep_are_counted(tmp_path: Path) -> None:
    tables = load_tables(write_result(tmp_path / "out", grid({"seed": [0, 1, 2]})))
    runs = tables["runs"]
    column = pa.array(["vanishing+underflow", "healthy", "vanishing"])
    runs = runs.set_column(runs.column_names.index("verdict"), "verdict", column)
    assert "Verdicts: 2 vanishing, 1 underflow, 1 healthy." in shown(lambda out: show_sweep(out, runs, ["seed"]))


def test_thinning_keeps_two_rows_at_either_end() -> None:
    for count in range(1, 60):
        kept = thinned([f"hidden_{layer}" for layer in range(count)], 20)
        assert len(kept) == min(count, 20)
        assert {0, count - 1, min(1, count - 1), max(0, count - 2)} <= set(kept)
        assert kept == sorted(set(kept))


@pytest.mark.parametrize("most", [6, 8, 12, 20])
def test_of_a_network_of_blocks_whole_blocks_are_shown(most: int) -> None:
    """Of each the same sub-layers, the first and the last block among them; one that fits in nowhere is cut."""
    inner = ("attn.qkv", "attn.out", "mlp.0", "mlp.2")
    kinds = {
        2: [
            "input",
            "read_in",
            *(f"{kind}_{block}" for block in range(1, 13) for kind in ("attention", "feed_forward")),
        ],
        4: ["input", "embed", *(f"blocks.{block}.{kind}" for block in range(12) for kind in inner)],
    }
    for size, names in kinds.items():
        kept = thinned([*names, "read_out"], most)
        assert kept[:2] == [0, 1]
        assert kept[-1] == len(names)
        assert len(kept) <= most
        if most - 3 < 2 * size:
            assert kept == thinned([str(row) for row in range(len(names) + 1)], most)
            continue
        blocks = {(row - 2) // size for row in kept[2:-1]}
        assert kept[2:-1] == [2 + block * size + part for block in sorted(blocks) for part in range(size)]
        assert {0, 11} <= blocks


def test_a_long_network_is_thinned_and_says_so(tmp_path: Path) -> None:
    values: dict[str, Value] = {"model.depth": 50, "model.activation": "sigmoid", "train.steps": 20}
    tables = load_tables(write_result(tmp_path / "out", [values]))
    text = shown(lambda out: show_run(out, tables))
    rows = layer_rows(text)
    assert len(rows) == PLAIN_ROWS
    assert rows[0][:2] == ["0", "input"]
    assert [row[0] for row in (*rows[:2], *rows[-2:])] == ["0", "1", "49", "50"]
    assert "12 of 51 rows are shown" in text
    assert max(map(cell_len, text.splitlines())) <= 80
    first = tables["layers"].filter(
        pc.and_(pc.equal(tables["layers"]["step"], 0), pc.equal(tables["layers"]["layer"], 0))
    )
    assert float(rows[0][2]) == pytest.approx(first["signal_grad_norm"][0].as_py(), rel=5e-3)


def test_every_column_says_at_which_step(tmp_path: Path) -> None:
    tables = load_tables(write_result(tmp_path / "out", [{"model.depth": 3, "train.steps": 25, "probe.every": 10}]))
    text = shown(lambda out: show_run(out, tables))
    lines = text.splitlines()
    place = next(place for place, line in enumerate(lines) if line.split()[:1] == ["layer"])
    heading, steps = lines[place - 1].split(), lines[place].split()
    assert heading[:4] == ["δ", "δ", "∇W", "ΔW/W"]
    assert steps[:5] == ["layer", "@0", "@25", "@25", "@20"]
    assert "of 4 rows" not in text


def test_a_recurrent_network_has_a_table_along_time(tmp_path: Path) -> None:
    values: dict[str, Value] = {"model.name": "rnn", "data.name": "digits", "train.steps": 10}
    text = shown(lambda out: show_run(out, load_tables(write_result(tmp_path / "out", [values]))))
    assert sum(line.split()[:1] in (["layer"], ["step"]) for line in text.splitlines()) == 2
    assert "per time step" in text


def test_a_dead_network_is_told_from_one_whose_norms_underflow() -> None:
    names = ("step", "axis", "layer", "signal_grad_norm", "grad_zero")
    rows = [(0, "depth", 0, 0.0, None), *((0, "depth", layer, 0.0, 1.0) for layer in (1, 2, 3, 5))]
    rows += [(0, "depth", 4, 0.0, 0.5), (0, "depth", 6, 0.1, 1.0), (5, "depth", 6, 0.0, 1.0), (0, "time", 1, 0.0, None)]
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})
    depth = "At step 0, δ is exactly 0 in layers 1..3, 5."
    assert exact_zeros(table, float64=True) == [depth]
    assert exact_zeros(table, float64=False) == [depth, "At step 0, δ is exactly 0 in time step 1."]
    assert exact_zeros(table.slice(5, 3), float64=False) == []


def test_a_failed_run_has_no_table(tmp_path: Path) -> None:
    tables = load_tables(write_result(tmp_path / "out", [{}], fail={0: "E: [red]no[/red]"}))
    assert shown(lambda out: show_run(out, tables)) == "Crashed: E: [red]no[/red].\n"


AXES: dict[str, list[Value]] = {
    "model.depth": [5, 10, 20],
    "model.activation": ["sigmoid", "tanh", "relu", "leaky_relu"],
    "model.init": ["xavier_normal", "he_normal"],
    "model.norm": ["none", "batch", "layer"],
    "optim.lr": [0.01, 0.1],
    "clip.mode": ["none", "norm", "value"],
}


def test_best_and_worst_of_432_runs_fit_80_columns(tmp_path: Path) -> None:
    runs = load_tables(write_result(tmp_path / "out", grid(AXES), rule=True))["runs"]
    text = shown(lambda out: show_sweep(out, runs, list(AXES)))
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert len(lines) <= 28
    assert lines[2].split() == ["loss", "accuracy", "verdict", "run"]
    best = min((row for row in runs.to_pylist() if row["state"] == "finished"), key=lambda row: row["loss_final"])
    assert float(lines[3].split()[0]) == pytest.approx(best["loss_final"], rel=5e-3)
    assert lines[3].split()[-1] == best["run_id"]
    assert lines[4].split()[:2] == [f"depth={best['model.depth']}", f"activation={best['model.activation']}"]
    states = runs["state"].to_pylist()
    assert f"{states.count('finished')} finished, {states.count('diverged')} diverged, 0 failed of 432" in text


def test_runs_of_the_same_figures_share_a_line(tmp_path: Path) -> None:
    """A clip by norm that never acts gives the numbers of no clip at all."""
    values = [{"clip.mode": mode, "optim.lr": lr} for lr in (0.001, 0.002) for mode in ("none", "norm")]
    runs = load_tables(write_result(tmp_path / "out", values))["runs"]
    text = shown(lambda out: show_sweep(out, runs, ["optim.lr", "clip.mode"]))
    assert text.count("none|norm") == 2
    assert "4 finished" in text


def test_many_swept_keys_fold_into_one_column(tmp_path: Path) -> None:
    swept = [*AXES, "model.bias_var", "model.weight_var", "data.batch_size", "optim.momentum"]
    runs = load_tables(write_result(tmp_path / "out", [{"seed": 0}, {"model.depth": 5}]))["runs"]
    text = shown(lambda out: show_sweep(out, runs, swept))
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "batch_size=64" in text
    assert "clip=none" in text


def test_a_sweep_in_which_nothing_finished(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "out", [{"seed": n} for n in range(3)], diverge={0: 2}, fail={1: "E", 2: "E"})
    text = shown(lambda out: show_sweep(out, load_tables(folder)["runs"], ["seed"]))
    assert text == "0 finished, 1 diverged, 2 failed of 3 runs.\n2 failed: E\n"


def changed(runs: pa.Table, **columns: Sequence[object]) -> pa.Table:
    """The runs with some columns as a test wants them."""
    for name, values in columns.items():
        field = runs.schema.field(name)
        runs = runs.set_column(runs.column_names.index(name), field, pa.array(values, field.type))
    return runs


def test_a_setting_is_one_row_with_its_mean_its_spread_its_verdict_and_a_run_to_look_at(tmp_path: Path) -> None:
    values = grid({"optim.lr": [0.01, 0.1, 1.0], "seed": [0, 1, 2]})
    runs = load_tables(write_result(tmp_path / "out", values, diverge={6: 3}))["runs"]
    # One lucky seed of the first setting is the lowest loss of all; a setting that diverges for a seed is no best one.
    loss = [0.01, 0.5, 0.6, 0.2, 0.3, 0.1, None, 0.001, 0.002]
    names = ["healthy", "vanishing", "vanishing", *["healthy"] * 3, "diverged", "healthy", "healthy"]
    runs = changed(runs, loss_final=loss, verdict=names, accuracy=[0.9, 0.8, 0.7, 0.9, 0.9, 0.9, None, 0.99, 0.99])
    lines = shown(lambda out: show_sweep(out, runs, ["optim.lr", "seed"])).splitlines()
    assert lines[:2] == ["8 finished, 1 diverged, 0 failed of 9 runs.", "Verdicts: 1 diverged, 2 vanishing, 6 healthy."]
    lines = lines[2:]
    ids = runs["run_id"].to_pylist()
    assert lines[0] == "Best and worst of 3 settings by the final loss:"
    assert lines[1].split() == ["loss", "accuracy", "verdict", "run", "lr"]
    assert lines[2].split() == ["0.2", "±0.1", "90.0%", "±0.0", "healthy", ids[3], "0.1"]
    assert lines[3].split() == ["0.37", "±0.32", "80.0%", "±10.0", "vanishing", "2/3", ids[1], "0.01"]
    assert lines[4].split() == ["0.0015", "±7.1e-04", "99.0%", "±0.0", "healthy", "2/3", ids[7], "1"]


def test_what_was_never_trained_is_ranked_by_its_gradient(tmp_path: Path) -> None:
    values = grid({"model.init": ["xavier_normal", "he_normal"], "train.steps": [0]})
    runs = changed(load_tables(write_result(tmp_path / "out", values))["runs"], vanishing_ratio=[1e-3, 2.0])
    text = shown(lambda out: show_sweep(out, runs, ["model.init"]))
    rows = [line for line in text.splitlines() if "_normal" in line]
    assert "loss" not in text
    assert [row.split()[-1] for row in rows] == ["he_normal", "xavier_normal"]
    assert rows[0].split()[0] == "2"
