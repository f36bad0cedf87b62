"""The top of the page: what is wrong, where it gathers, since when, why, and what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

from gradlab.report.answers import answers, well
from gradlab.report.tables import read
from gradlab.report.verdicts import examples
from gradlab.spec.named import Value
from tests.report.test_verdicts import stored
from tests.synthetic import grid, write_result


def test_a_sweep_is_told_by_its_gravest_illnesses(tmp_path: Path) -> None:
    axes: dict[str, list[Value]] = {"model.activation": ["sigmoid", "relu"], "optim.lr": [0.1, 0.2]}
    source = write_result(tmp_path / "an out", grid(axes, {"model.depth": 20}), diverge={3: 2})
    stored(source, ["vanishing", "vanishing", "healthy", "diverged"])
    result = read([source])
    diverged, vanishing = answers(result, examples(result), dict.fromkeys(result.ids, source))
    assert diverged.title == "Diverged: 1 of 4 runs."
    assert [name for name, _ in diverged.rows][:1] == ["such as"]
    assert diverged.rows[0][1].startswith(f"activation=relu, lr=0.2 (run {result.ids[3]}): diverged at step 2")
    assert diverged.heal == f"gradlab cure --from {shlex.quote(str(source))} {result.ids[3]}"
    assert vanishing.title == "Vanishing: 2 of 4 runs, all 2 with activation=sigmoid."
    told = dict(vanishing.rows)
    assert told["since"] == "step 0"
    assert told["cause"].startswith("activation: ")
    assert "vanishing" not in told["such as"]
    assert well(result) == ""


def test_a_single_run_is_told_by_every_verdict(tmp_path: Path) -> None:
    source = write_result(tmp_path / "out", [{"model.activation": "sigmoid", "model.depth": 20}])
    result = read([source])
    told = answers(result, examples(result), dict.fromkeys(result.ids, source))
    assert told[0].title.startswith("Vanishing: δ of layer 1 is ")
    assert {"since", "cause", "judged by"} <= dict(told[0].rows).keys()
    assert [one.heal for one in told] == [None] * (len(told) - 1) + [f"gradlab cure --from {source} {result.ids[0]}"]
