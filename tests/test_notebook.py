"""docs/notebook.md is a notebook: its cells run in order, and what a cell ends in has a face."""

from __future__ import annotations

import ast
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import gradlab
from gradlab.report.notebook import Figures
from tests.commands import Gradlab
from tests.synthetic import write_result

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "notebook.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^```(console|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Texts(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last line where that is one, as a notebook shows it."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if not isinstance(last, ast.Expr):
        return exec(compile(tree, "cell", "exec"), names)
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_cells_of_the_page_run_in_order(gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for kind, code in CELLS:
        if kind == "console":
            assert gradlab_(*shlex.split(code)[2:]).status == 0
        else:
            shown.append(run_cell(code, names))
    result, sick, some, figures, none, verdicts = shown
    assert list(some.columns) == ["run_id", "step", "layer", "signal_grad_norm"]
    assert some["step"].tolist() == [20] * 5
    told = Texts(result._repr_html_()).text
    assert (
        told.index("Vanishing: ")
        < told.index(f"gradlab cure --from {result.path} ")
        < told.index("All 4 runs finished")
    )
    assert set(sick["model.activation"]) == {"sigmoid"}
    assert Texts(figures._repr_html_()).tags.count("img") == 2
    assert none is None
    assert (tmp_path / "loss.pdf").stat().st_size > 1000
    assert verdicts[0].name == "vanishing"
    assert verdicts[0].sentence in Texts(verdicts._repr_html_()).text


def test_what_is_shown_stays_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    folder = write_result(
        tmp_path / "result", [{"seed": seed} for seed in range(3)], fail={1: f"ValueError: {hostile}"}
    )
    html = gradlab.load(folder)._repr_html_()
    assert "script" not in Texts(html).tags
    assert hostile in Texts(html).text


def test_figures_are_found_by_name(tmp_path: Path) -> None:
    loaded = gradlab.load(write_result(tmp_path / "result", [{"seed": seed} for seed in range(2)]))
    every = loaded.plot()
    assert isinstance(every, Figures)
    assert {"loss_by_step", "signal_by_layer_start"} <= set(every)
    assert list(loaded.plot("loss_by_step")) == ["loss_by_step"]
    with pytest.raises(ValueError, match=r"no figure 'loss_by_stepp'.*loss_by_step"):
        loaded.plot("loss_by_stepp")
