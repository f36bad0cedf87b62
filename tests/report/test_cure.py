"""The report of a cure on made tables: which figures and files there are, and which are removed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gradlab.report import inside
from gradlab.report.answers import of_cure
from gradlab.report.cure import Cure, best, cure, sentences, table, write_cure
from gradlab.report.figures.all_figures import plots
from gradlab.report.figures.cure import LOOKS, cure_plots
from gradlab.report.figures.style import save, styled
from gradlab.report.groups import in_words
from gradlab.report.tables import read
from gradlab.spec.named import Value
from gradlab.terminal.results import lines
from tests.cure.test_ranking import SICK, Made, cure_of
from tests.synthetic import write_result


def write_facts(folder: Path, members: list[list[str]]) -> None:
    """Makes a cure of the result in ``folder``: its first runs as they were, the others as changes."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    changes = [
        {
            "remedies": [f"remedy-{place}"] if place else [],
            "kinds": ["init"] if place else [],
            "cost": 2 * place,
            "change": {},
            "override": f"seed={place}",
            "command": f"gradlab run seed={place}",
            "summaries": ["a remedy"],
            "sources": ["Somebody 1998"],
            "members": ids,
            "theory": {"rate": 1.0, "single_rate": True, "log10_ratio": 0.0, "note": "level", "source": "Nobody 2000"},
        }
        for place, ids in enumerate(members)
    ]
    manifest["cure"] = {"round": 2, "seeds": [0, 1], "changes": changes}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_an_ordinary_result_is_no_cure(tmp_path: Path) -> None:
    result = read([write_result(tmp_path / "out", [{"seed": 0}, {"seed": 1}])])
    assert cure(result) is None
    assert (sentences(None), best(None), table(None), list(cure_plots(None))) == ([], [], None, [])


def test_an_earlier_table_is_removed(tmp_path: Path) -> None:
    (tmp_path / "cure.csv").write_text("old", encoding="utf-8")
    assert write_cure(None, tmp_path) == ()
    assert not (tmp_path / "cure.csv").exists()


def test_a_run_of_a_cure_is_named_by_its_change(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "out", [{"seed": seed, "optim.lr": lr} for lr in (0.1, 0.2) for seed in (0, 1)])
    ordinary = read([folder])
    assert in_words(ordinary, 2, ["optim.lr"]) == "lr=0.2"
    write_facts(folder, [list(ordinary.ids[:2]), list(ordinary.ids[2:])])
    assert [in_words(read([folder]), run, ["optim.lr"]) for run in (1, 2)] == ["as it was", "remedy-1"]
    assert lines(tmp_path)[0].swept == "1 change"


def test_a_cure_is_read_from_the_manifest(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "out", [{"seed": seed, "optim.lr": lr} for lr in (0.1, 0.2) for seed in (0, 1)])
    ids = [str(run_id) for run_id in read([folder]).columns["run_id"]]
    write_facts(folder, [ids[:2], ids[2:]])
    found = cure(read([folder]))
    assert found is not None
    assert [one.name for one in found.tried] == ["remedy-1"]
    shown = table(found)
    assert shown is not None
    assert [row[0] for row in shown.rows] == ["remedy-1"]
    assert len(shown.head) == len(shown.numeric) == len(shown.rows[0])
    as_best = best(Cure(found.before, found.tried, found.tried))
    assert [(one.override, one.command, one.what) for one in as_best] == [("seed=1", "gradlab run seed=1", "a remedy")]
    write_result(other := tmp_path / "other", [{"seed": 9}])
    assert cure(read([folder, other])) is None, "of several folders there is none"


def test_its_page_begins_with_what_was_wrong_and_the_smallest_change(tmp_path: Path) -> None:
    sick: dict[str, Value] = {"model.depth": 20, "model.activation": "sigmoid"}
    folder = write_result(
        tmp_path / "out", [sick | {"optim.lr": lr, "seed": seed} for lr in (0.1, 0.2) for seed in (0, 1)]
    )
    ids = read([folder]).ids
    write_facts(folder, [ids[:2], ids[2:]])
    found = cure(result := read([folder]))
    assert found is not None
    *_, told = of_cure(result, Cure(found.before, found.tried, found.tried))
    assert told.title.startswith("Vanishing: δ of layer 1 is ")
    assert dict(told.rows)["cure"].startswith("seed=1: a remedy; loss ")
    assert told.heal == "gradlab run seed=1"
    assert of_cure(result, Cure(found.before, found.tried, ()))[-1].heal is None
    change, came_to = inside.changes(result, found)
    assert [change["labels"][code] for code in change["code"]] == ["as it was"] * 2 + ["remedy-1"] * 2
    assert came_to["labels"][came_to["code"][2]] == found.tried[0].state


def test_equal_profiles_are_one_line() -> None:
    """A learning rate leaves δ at step 0 as it was."""
    found = cure_of(SICK, Made(("slower",), 1, (0.1, 0.11, 0.12), rate=0.1), Made(("level",), 2, (0.01, 0.011, 0.012)))
    with styled():
        profiles = next(plot for plot in cure_plots(Cure(found[0], tuple(found[1:]), tuple(found[1:]))))
        labels = [text.get_text() for text in profiles.figure.legends[0].get_texts()]
    assert labels == ["as it was = slower", "level"]


@pytest.mark.parametrize("diverged", [False, True])
def test_every_state_is_drawn(diverged: bool, tmp_path: Path) -> None:
    rate = math.nan if diverged else 1.0
    found = cure_of(
        SICK,
        Made(("heals",), 1, (0.1, 0.11, 0.12)),
        Made(("helps",), 2, (0.1, 0.11, 0.12), "exploding"),
        Made(("unclear",), 2, (0.1, 2.0, 0.3)),
        Made(("nothing",), 3, (2.0,) * 3, rate=0.0),
        Made(("harms",), 3, (1e20, 2e20, 3e20), rate=rate),
        Made(("crashed",), 3, (6.0, 7.0, 8.0), state="failed"),
    )
    healing = Cure(found[0], tuple(found[1:]), (found[1],))
    with styled():
        gains_or_profiles = {plot.name: plot for plot in cure_plots(healing)}
        assert set(gains_or_profiles) == {"cure_profiles", "cure_gains"}
        axes = gains_or_profiles["cure_gains"].figure.axes[0]
        assert [text.get_text() for text in axes.texts] == ["heals"]
        labels = [text.get_text() for text in gains_or_profiles["cure_gains"].figure.legends[0].get_texts()]
        assert labels == [state for state in LOOKS if state != "steadies"]  # the run as it was did not diverge
        heights = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
        assert np.isfinite(heights).all()
        for plot in gains_or_profiles.values():
            assert all(path.stat().st_size > 0 for path in save(plot, tmp_path))


def test_the_figures_of_a_cure_set_changes_beside_each_other_and_map_nothing(tmp_path: Path) -> None:
    settings: list[dict[str, Value]] = [{"optim.lr": 0.1}, {"optim.lr": 0.2}, {"optim.lr": 0.2, "model.gain": 1.1}]
    folder = write_result(tmp_path / "out", [{**one, "seed": seed} for one in settings for seed in (0, 1)])
    ids = [str(run_id) for run_id in read([folder]).columns["run_id"]]
    write_facts(folder, [ids[:2], ids[2:4], ids[4:]])
    with styled():
        drawn = {plot.name: plot for plot in plots(read([folder]), (), ())}
    assert not [name for name in drawn if name.endswith(("_map", "_by_key", "_start", "effects"))]
    loss = drawn["loss_by_step"]
    assert loss.caption.startswith(
        "Of 2 changes 2 are drawn, beside the run as it was. The mean over each step's batch, before its update. "
        "Each line is the median of 2 runs"
    )
    (legend,) = loss.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["as it was", "remedy-1", "remedy-2"]
    assert len(loss.figure.axes) == 1
