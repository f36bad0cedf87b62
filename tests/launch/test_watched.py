"""`gradlab watch`: a script runs as it is, and ends as it would; `gradlab verdict`: what is wrong with it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import gradlab
from tests.commands import Gradlab, forked, run, spawn, wait_for

TRAIN = """
import sys
from pathlib import Path
print("arguments", sys.argv, __name__, Path(__file__).name)
import torch
from torch import nn
import beside

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(10, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

torch.manual_seed(0)
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
inputs = torch.randn(64, 10)
classes = inputs[:, :3].argmax(1)
for step in range(beside.STEPS):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), classes)
    loss.backward()
    optimizer.step()
    if "wait" in sys.argv and step == 5:
        Path("waits").touch()
        import time
        time.sleep(60)
print("last", loss.item())
import os
os.chdir("/")
if "crash" in sys.argv:
    raise RuntimeError("boom")
sys.exit(7)
"""

GAN = """
import torch
from torch import nn
netG = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
netD = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
optimizers = [torch.optim.Adam(net.parameters()) for net in (netD, netG)]
for step in range(3):
    fake = netG(torch.randn(16, 4))
    netD.zero_grad()
    (-netD(torch.randn(16, 6)).mean()).backward()
    netD(fake.detach()).mean().backward()
    optimizers[0].step()
    netG.zero_grad()
    (-netD(fake).mean()).backward()
    optimizers[1].step()
"""


def script(tmp_path: Path, text: str = TRAIN) -> str:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("STEPS = 12\n", encoding="utf-8")
    (tmp_path / "scripts" / "train.py").write_text(text, encoding="utf-8")
    return "scripts/train.py"


def test_arguments_output_and_exit_status_are_the_script_s(tmp_path: Path) -> None:
    line = ("watch", "--every", "5", "-o", "out", "--no-report", script(tmp_path), "--every", "3", "-q", "--", "-m")
    ended = run(line, tmp_path)
    assert ended.status == 7, ended.err
    first, second, *rest = ended.out.splitlines()
    assert first == "arguments ['scripts/train.py', '--every', '3', '-q', '--', '-m'] __main__ train.py"
    assert second.startswith("last ")
    assert "Finished 12 steps" in "\n".join(rest)
    frames = gradlab.load(tmp_path / "out")
    assert frames.steps["loss"].iloc[-1] == float(second.split()[1])
    assert sorted(set(frames.layers["step"])) == [0, 5, 10]
    assert frames.layers["name"].tolist()[:3] == ["input", "first", "last"]
    told = forked(("verdict", "out", "--json", "--fail-on", "any"), tmp_path)
    assert told.status == 0
    (one,) = json.loads(told.out)["runs"]
    assert (one["name"], one["verdicts"][0]["name"]) == ("model", "healthy")
    assert (
        "out: a training that was watched, which only its own script can run" in forked(("cure", "out"), tmp_path).err
    )


def test_a_crash_is_shown_as_python_shows_it_and_its_tables_are_kept(tmp_path: Path) -> None:
    ended = forked(("watch", "-o", "out", "--no-report", script(tmp_path), "crash"), tmp_path)
    assert ended.status == 1
    trace = [line for line in ended.err.splitlines() if line.startswith(("Traceback", "  File", "RuntimeError"))]
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1].startswith('  File "scripts/train.py", line ')
    assert trace[2:] == ["RuntimeError: boom"]
    frames = gradlab.load(tmp_path / "out")
    assert (frames.runs["state"].tolist(), len(frames.steps)) == (["failed"], 12)
    (tmp_path / "no.py").write_text("x = (\n", encoding="utf-8")
    assert forked(("watch", "no.py"), tmp_path).err.startswith('  File "no.py", line 1\n')


def test_after_ctrl_c_the_tables_up_to_there_are_kept(tmp_path: Path) -> None:
    process = spawn(("watch", "-o", "out", "--no-report", script(tmp_path), "wait"), tmp_path)
    wait_for((tmp_path / "waits").exists)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "KeyboardInterrupt" in err
    assert "Finished 6 steps" in out
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["state"] == "interrupted"
    assert len(gradlab.load(tmp_path / "out").steps) == 6


def test_a_gan_and_a_module_by_its_name(tmp_path: Path) -> None:
    script(tmp_path, GAN)
    ended = forked(("watch", "--no-report", "-m", "scripts.train"), tmp_path)
    assert ended.status == 0, ended.err
    out = tmp_path / "outputs" / "latest"
    frames = gradlab.load(out)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["watched"].values()) == ["netD", "netG"]
    assert frames.runs["steps"].tolist() == [3, 3]
    assert set(frames.layers.groupby("run_id").size()) == {3}


def test_a_script_that_trains_nothing_says_so(tmp_path: Path) -> None:
    ended = forked(("watch", script(tmp_path, "import torch\nprint(torch.ones(2).sum().item())\n")), tmp_path)
    assert (ended.status, ended.out) == (0, "2.0\n")
    assert ended.err.startswith("gradlab: error: no torch.optim.Optimizer was made")
    assert not list((tmp_path / "outputs").glob("*/*"))


def test_wrong_lines_are_refused_before_anything_runs(gradlab_: Gradlab) -> None:
    for line, said in (
        (("watch", "nowhere.py"), "nowhere.py: no such file; expected a script, or -m and the name of a module"),
        (("watch", "--evry", "3", "x.py"), "--evry: no such option; did you mean '--every'?"),
        (("watch",), "no script is given; expected gradlab watch [OPTIONS] SCRIPT.py [ARGS]..., or -m MODULE"),
        (("verdict", "nowhere"), "nowhere: no such folder"),
        (("verdict", ".", "--fail-on", ""), "--fail-on is empty; expected names of verdicts, or any"),
        (("verdict", ".", "--fail-on", "explodin"), "--fail-on explodin: no such verdict; did you mean 'exploding'?"),
    ):
        ended = gradlab_(*line)
        assert (ended.status, ended.err) == (2, f"gradlab: error: {said}\n")
