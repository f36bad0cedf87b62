"""Runs that are reported by their ids: found, compared, and told how they are run again and healed."""

from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from gradlab.grid.compose import compose_run
from gradlab.report import picked, write_report
from gradlab.report.figures.all_figures import plots_of_runs
from gradlab.report.figures.style import styled
from gradlab.report.tables import read
from gradlab.spec.named import SpecError, Value
from tests.synthetic import grid, write_result

AXES: dict[str, list[Value]] = {
    "model.activation": ["sigmoid", "relu", "prelu"],
    "optim.lr": [0.01, 0.1],
    "seed": [0, 1],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(tmp_path_factory.mktemp("picked") / "re sult", grid(AXES), diverge={3: 30}, fail={5: "no room"})


@pytest.fixture(scope="module")
def ids(source: Path) -> list[str]:
    return read([source]).ids


def test_the_beginning_of_an_id_finds_its_run_in_the_order_of_the_grid(source: Path, ids: list[str]) -> None:
    found = picked.find([source], [ids[7][:9], ids[2].upper(), ids[7]])
    assert found == {ids[2]: source, ids[7]: source}


def test_an_unknown_id_gets_the_nearest_and_a_short_one_what_it_may_mean(source: Path, ids: list[str]) -> None:
    wrong = ids[4][:6] + ("0" if ids[4][6] != "0" else "1")
    with pytest.raises(SpecError, match=rf"--run {wrong}: no run with this id; the nearest are {ids[4]}, "):
        picked.find([source], [wrong])
    with pytest.raises(SpecError, match=r"--run : 12 runs with such an id; give more of it: "):
        picked.find([source], [""])
    with pytest.raises(SpecError, match="--run is given 9 times; expected at most 8 runs"):
        picked.find([source], ids[:9])


@pytest.mark.usefixtures("unpainted")
def test_the_page_of_several_runs_has_their_differences_and_the_commands_that_make_each(
    source: Path, ids: list[str], tmp_path: Path
) -> None:
    chosen = picked.find([source], [ids[0], ids[3], ids[5], ids[10]])
    report = write_report([source], tmp_path / "out", runs=chosen)
    text = unescape(report.page.read_text(encoding="utf-8"))
    beside = text.partition("<h2>Side by side</h2>")[2].partition("</table>")[0]
    keys = re.findall(r'<tr[^>]*><td class="text">([^<]*)</td>', beside)
    assert keys == ["seed", "model.activation", "model.slope", "optim.lr"]
    assert ids[1] not in text
    again = [shlex.split(line) for line in re.findall(r"<code[^>]*>(gradlab run [^<]*)</code>", text)]
    assert [compose_run(words[2:]).runs[0].id for words in again] == list(chosen)
    heal = [shlex.split(line) for line in re.findall(r"<code[^>]*>(gradlab cure [^<]*)</code>", text)]
    assert heal == [["gradlab", "cure", "--from", str(source), run_id] for run_id in list(chosen)[:-1]]
    assert "healthy: no threshold" in text.partition(f"<code>{list(chosen)[-1]}</code>")[2], (
        "what is well needs no cure"
    )
    names = {file.name for file in report.files}
    assert {"loss_by_step.png", "gradient_norm_by_step.svg", "updates_by_layer_and_step.png"} <= names
    assert not any("_map" in name for name in names)


def test_a_run_has_one_colour_in_all_figures(source: Path, ids: list[str]) -> None:
    result = picked.only(read([source]), [ids[0], ids[2], ids[9]])
    # The first two differ in their learning rate alone, and at step 0 are one line.
    assert [ids[0], ids[2]] == [one for one in result.ids if "sigmoid" in str(grid(AXES)[ids.index(one)].values())]
    colours: dict[str, set[str]] = {}
    with styled():
        for plot in plots_of_runs(result, picked.facets(result)):
            for line in (line for axes in plot.figure.axes for line in axes.get_lines()):
                if len(line.get_xdata()) > 1 and "by_layer_" in plot.name and "step" not in plot.name:  # type: ignore[arg-type]
                    colours.setdefault(plot.name, set()).add(str(line.get_color()))
    start, end = colours["signal_by_layer_start"], colours["signal_by_layer_end"]
    assert len(end & start) == 2
    assert len(end - start) == 1


@pytest.mark.usefixtures("unpainted")
def test_a_single_run_tells_how_it_is_run_again(source: Path, ids: list[str], tmp_path: Path) -> None:
    report = write_report([source], tmp_path / "out", runs=picked.find([source], [ids[4]]))
    text = unescape(report.page.read_text(encoding="utf-8"))
    (line,) = re.findall(r"<code[^>]*>(gradlab run [^<]*)</code>", text)
    assert compose_run(shlex.split(line)[2:]).runs[0].id == ids[4]
    assert "<h2>Layers</h2>" in text


@pytest.mark.usefixtures("unpainted")
def test_no_file_is_written_through_a_link(source: Path, ids: list[str], tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious.csv"
    precious.write_text("mine", encoding="utf-8")
    out.mkdir()
    (out / "runs.csv").symlink_to(precious)
    (out / "layers.csv").hardlink_to(precious)
    write_report([source], out, runs=picked.find([source], [ids[4]]))
    assert precious.read_text(encoding="utf-8") == "mine"
    assert not (out / "runs.csv").is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
