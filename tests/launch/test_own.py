"""Networks and data of the user's own from the command line: sweeps, tables, and code that runs where it is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gradlab.store.tables import load
from tests.commands import Gradlab

NETS = """
import numpy as np
from torch import nn


def net(depth=2, sizes=(4,)):
    layers, inside = [], 3
    for width in [*sizes, *[4] * (depth - 2)]:
        layers += [nn.Linear(inside, width), nn.ReLU()]
        inside = width
    return nn.Sequential(*layers, nn.Linear(inside, 2))


def focal(output, target):
    logs = output.log_softmax(1).gather(1, target[:, None])
    return -((1 - logs.exp()) ** 2 * logs).mean()


def clouds(apart=1.0):
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 2
    points = rng.normal(size=(60, 3)) + apart * kind[:, None]
    return (points[20:], kind[20:]), (points[:20], kind[:20])
"""

OWN = ("model=module", "model.target=nets.py:net", "data=function", "data.target=nets.py:clouds", "data.batch_size=8")
QUICK = ("train.steps=4", "probe.every=2", "--no-report")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code of somebody's own."""
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_arguments_are_swept_and_are_columns(gradlab_: Gradlab, folder: Path) -> None:
    swept = ("model.args.depth=2,4", "data.args.apart=0.5,3", "optim.lr=0.1")
    ended = gradlab_("sweep", *OWN, *swept, *QUICK, "-o", "grid")
    assert (ended.status, ended.err) == (0, "")
    assert "nets.py:clouds: 40 samples to train on, 20 held out; inputs of 3; targets are classes" in ended.out
    found = load(folder / "grid")
    assert found.runs["model.args.depth"].tolist() == [2, 2, 4, 4]
    assert found.runs["data.args.apart"].tolist() == [0.5, 3.0, 0.5, 3.0]
    assert found.runs["model.source"].nunique() == 1
    assert found.runs["seen"].notna().all()
    assert found.layers.groupby("run_id")["layer"].max().loc[found.runs["run_id"]].tolist() == [2, 2, 4, 4]
    assert np.isfinite(found.runs["vanishing_ratio"]).sum() >= 2


def test_lists_are_arguments_too(gradlab_: Gradlab, folder: Path) -> None:
    ended = gradlab_("run", *OWN, "model.args.sizes=[5,6]", *QUICK, "-o", "one")
    assert (ended.status, ended.err) == (0, "")
    assert load(folder / "one").layers["name"].drop_duplicates().tolist() == ["input", "0", "2", "4"]


def test_a_loss_may_be_one_s_own(gradlab_: Gradlab, folder: Path) -> None:
    ended = gradlab_("run", *OWN, "train.loss=nets.py:focal", *QUICK, "-o", "one")
    assert (ended.status, ended.err) == (0, "")
    assert gradlab_("run", *OWN, *QUICK, "-o", "two").status == 0
    own, usual = (load(folder / name).runs for name in ("one", "two"))
    assert 0 < own["loss_first"][0] < usual["loss_first"][0]
    assert own["accuracy"].isna().all()


def test_a_result_runs_its_code_only_where_that_is_allowed(gradlab_: Gradlab, folder: Path) -> None:
    assert gradlab_("run", *OWN, *QUICK, "-o", "one").status == 0
    run_id = load(folder / "one").runs["run_id"][0]
    again = ("run", "--from", "one", run_id, "optim.lr=0.2", "--no-report")
    refused = gradlab_(*again, "-o", "two")
    assert refused.status == 2
    assert "nets.py:net, nets.py:clouds; to run that code add --allow-code" in " ".join(refused.err.split())
    assert not (folder / "two").exists()
    assert gradlab_(*again, "--allow-code", "-o", "two").status == 0
    (folder / "nets.py").write_text(f"{NETS}\n# another\n", encoding="utf-8")
    refused = gradlab_(*again, "--allow-code", "-o", "three")
    assert refused.status == 2
    assert "has changed" in refused.err


def test_a_report_runs_none_of_it(gradlab_: Gradlab, folder: Path) -> None:
    assert gradlab_("run", *OWN, *QUICK, "-o", "one").status == 0
    (folder / "nets.py").write_text("raise RuntimeError('nobody asked')\n", encoding="utf-8")
    ended = gradlab_("report", "one")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("model.args.dpth=3",), "has no argument 'dpth'; did you mean 'depth'?"),
        (("data.args.apart=far",), "nets.py:clouds(apart='far'): "),
        (("model.target=nets.py:nte",), "did you mean 'net'?"),
        (("model.args.sizes=[7]", "model.output=softmax", "train.loss=hige"), "did you mean 'hinge'?"),
        (("model.depth=3",), "has no key 'model.depth'"),
        (("train.loss=nets.py:fokal",), "did you mean 'focal'?"),
        (("data.target=null",), "data=function: expected data.target="),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    further: tuple[str, ...], message: str, gradlab_: Gradlab, folder: Path
) -> None:
    given = [word for word in OWN if word.partition("=")[0] not in {one.partition("=")[0] for one in further}]
    ended = gradlab_("run", *given, *further, *QUICK, "-o", "one")
    assert ended.status == 2
    assert message in " ".join(ended.err.split())
    assert not (folder / "one").exists()


def test_what_one_value_of_a_sweep_cannot_have_is_said_before_anything_is_written(
    gradlab_: Gradlab, folder: Path
) -> None:
    (folder / "nets.py").write_text(NETS.replace("nn.ReLU()", "nn.Identity()"), encoding="utf-8")
    ended = gradlab_("sweep", *OWN, "model.activation=own,tanh", *QUICK, "-o", "grid")
    assert ended.status == 2
    assert "has no activation that is a module of torch.nn" in " ".join(ended.err.split())
    assert not (folder / "grid").exists()


def test_small_networks_are_trained_as_one_and_numbers_are_the_same(gradlab_: Gradlab, folder: Path) -> None:
    sweep = ("sweep", *OWN, *QUICK, "seed=range(8)", "train.precision=float64")
    ended = gradlab_(*sweep, "-o", "one")
    assert (ended.status, ended.err) == (0, "")
    assert "nets.py:net: trained as one between records (launch.stacked)" in ended.out
    assert json.loads((folder / "one" / "manifest.json").read_text())["pieces"][0]["stacked"] is True
    ended = gradlab_(*sweep, "launch.stacked=no", "-o", "two")
    assert "launch.stacked" not in ended.out
    one, two = (load(folder / name) for name in ("one", "two"))
    assert one.runs["run_id"].tolist() == two.runs["run_id"].tolist()
    np.testing.assert_allclose(one.steps["loss"], two.steps["loss"], rtol=1e-8)


def test_why_networks_are_not_trained_as_one_is_said(gradlab_: Gradlab, folder: Path) -> None:
    with (folder / "nets.py").open("a") as file:
        file.write("\n\ndef noisy():\n    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))\n")
    data = [part for part in OWN if not part.startswith("model.target")]
    noisy = ("model.target=nets.py:noisy", "seed=0,1", "launch.stacked=yes")
    ended = gradlab_("sweep", *data, *QUICK, *noisy, "-o", "one")
    assert (ended.status, ended.err) == (0, "")
    assert "nets.py:noisy: trained one after the other: it draws random numbers" in ended.out


def test_a_loss_is_part_of_what_a_run_is(gradlab_: Gradlab, folder: Path) -> None:
    (folder / "losses.py").write_text(NETS, encoding="utf-8")
    run = ("run", *OWN, "train.loss=losses.py:focal", *QUICK)
    for name in ("one", "again"):
        assert gradlab_(*run, "-o", name).status == 0
    (folder / "losses.py").write_text(NETS.replace("** 2", "** 3"), encoding="utf-8")
    assert gradlab_(*run, "-o", "two").status == 0
    one, again, two = (load(folder / name).runs for name in ("one", "again", "two"))
    assert one["run_id"][0] == again["run_id"][0] != two["run_id"][0]
    assert one["train.source"][0] != two["train.source"][0]
    ended = gradlab_("run", "--from", "one", one["run_id"][0], "--allow-code", "-o", "three")
    assert ended.status == 2
    assert "losses.py:focal: has changed since one was made" in " ".join(ended.err.split())


def test_theory_says_what_can_be_known_of_a_network(gradlab_: Gradlab, folder: Path) -> None:
    ended = gradlab_("theory", *OWN, "model.args.depth=2,5")
    assert (ended.status, ended.err) == (0, "")
    said = " ".join(ended.out.split())
    assert "nets.py:net depth=2" in said
    assert "weight fan-in σw² σb² 0 3 " in said
    assert "relu, σb²=" in said
    with (folder / "nets.py").open("a") as file:
        file.write("\n\nclass Mine(nn.Module):\n    def __init__(self):\n        super().__init__()\n")
        file.write("        self.a = nn.Linear(3, 2)\n    def forward(self, x):\n        return self.a(x)\n")
    ended = gradlab_("theory", "model=module", "model.target=nets.py:Mine", *OWN[2:])
    assert (ended.status, ended.err) == (0, "")
    assert "No rate: what its forward does is not known: a rate is said of an nn.Sequential." in ended.out
