"""`gradlab.watch`: the training is the same to the last bit, and its tables say what a plain loop would measure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.diagnose.rules import judge
from gradlab.diagnose.tables import histories
from gradlab.spec.named import SpecError
from gradlab.store.tables import load_tables
from gradlab.watching.ears import EARS
from gradlab.watching.watch import Watch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    assert not EARS.listeners


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )


def batch(samples: int = 32) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(samples, 6)
    return inputs, inputs[:, :3].argmax(1)


def loss_of(net: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(net(data[0]), data[1])


def norm_of(parameters: Any) -> float:
    return math.sqrt(sum(float(one.grad.double().square().sum()) for one in parameters if one.grad is not None))


def watched(net: nn.Module, optimizer: torch.optim.Optimizer, out: Path, every: int = 2, **more: Any) -> Watch:
    return gradlab.watch(net, optimizer, every=every, out=out, quiet=True, report=False, **more)


def at(layers: pd.DataFrame, step: int, name: str) -> pd.Series:
    here = (layers["step"] == step) & (layers["axis"] == "depth") & (layers["name"] == name)
    (row,) = (row for _, row in layers[here].iterrows())
    return row


def plain_loop(
    steps: int, seen: Callable[[Tensor], None], net: nn.Module, optimizer: torch.optim.Optimizer
) -> list[float]:
    data, losses = batch(), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(net, data)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        seen(loss)
        losses.append(loss.item())
    return losses


def test_the_training_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        torch.manual_seed(0)
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        if watching:
            with watched(net, optimizer, tmp_path / "out") as seen:
                losses = plain_loop(7, seen.step, net, optimizer)
        else:
            losses = plain_loop(7, lambda _: None, net, optimizer)
        ends.append((losses, [one.clone() for one in net.state_dict().values()]))
    (losses, state), (others, other_state) = ends
    assert losses == others
    assert all(torch.equal(one, other) for one, other in zip(state, other_state, strict=True))
    frames = gradlab.load(tmp_path / "out")
    assert frames.steps["loss"].tolist() == losses
    assert sorted(set(frames.layers["step"])) == [0, 2, 4, 6]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_a_step_is_what_measure_measures(tmp_path: Path) -> None:
    net = network()
    net[3] = nn.Identity()
    data = batch()
    frame = gradlab.measure(net, F.cross_entropy, data).set_index("name")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watched(net, optimizer, tmp_path / "out") as seen:
        loss = loss_of(net, data)
        loss.backward()
        before = norm_of(net.parameters())
        nn.utils.clip_grad_value_(net.parameters(), 0.01)
        after, old = norm_of(net.parameters()), net[0].get_parameter("weight").detach().clone()
        optimizer.step()
        seen.step(loss, accuracy=0.5)
    frames = gradlab.load(tmp_path / "out")
    (step,) = frames.steps.to_dict("records")
    assert step["grad_norm"] == pytest.approx(before, rel=1e-6)
    assert step["grad_norm_clipped"] == pytest.approx(after, rel=1e-6)
    assert (step["clipped"], step["skipped"], step["lr"]) == (True, False, 0.1)
    first = at(frames.layers, 0, "0")
    moved = float((net[0].get_parameter("weight").detach() - old).double().norm() / old.double().norm())
    assert first["update_ratio"] == pytest.approx(moved, rel=1e-6)
    columns = (
        "grad_norm",
        "weight_grad_norm",
        "signal_grad_norm",
        "weight_norm",
        "act_mean",
        "act_std",
        "dead",
        "saturated",
    )
    for name in ("0", "4", "6"):
        row = at(frames.layers, 0, name)
        for column in (*columns, "grad_zero", "signal_grad_rms", "trunk_grad_rms", "stage"):
            assert row[column] == pytest.approx(frame.loc[name, column], rel=1e-6, nan_ok=True), (name, column)
    assert frames.instruments[["quantity", "value"]].to_numpy().tolist() == [["accuracy", 0.5]]
    (run,) = frames.runs.to_dict("records")
    assert (run["optim.name"], run["data.batch_size"], run["train.precision"]) == ("sgd", 32, "float32")


def test_micro_batches_add_up_to_one_batch(tmp_path: Path) -> None:
    """Without what looks at a whole batch (batch norm), four quarters are one batch."""
    rows = []
    for parts in (1, 4):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        inputs, classes = batch()
        with watched(net, optimizer, tmp_path / str(parts)) as seen:
            for part, other in zip(inputs.chunk(parts), classes.chunk(parts), strict=True):
                loss = loss_of(net, (part, other))
                (loss / parts).backward()
                if parts > 1 and other is not classes.chunk(parts)[-1] and len(other):
                    seen.step(loss)
            optimizer.step()
            seen.step(loss)
        frames = gradlab.load(tmp_path / str(parts))
        rows.append((at(frames.layers, 0, "0"), frames.steps.iloc[0], frames.runs.iloc[0]))
    (whole, step, run), (sum_of_parts, other_step, other_run) = rows
    for column in ("signal_grad_norm", "grad_norm", "weight_grad_norm", "act_mean", "act_std", "saturated"):
        assert sum_of_parts[column] == pytest.approx(whole[column], rel=1e-5), column
    assert other_step["grad_norm"] == pytest.approx(step["grad_norm"], rel=1e-5)
    assert run["data.batch_size"] == other_run["data.batch_size"] == 32


def test_two_losses_on_one_pass_add_their_gradients(tmp_path: Path) -> None:
    rows = []
    for apart in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        inputs, classes = batch()
        with watched(net, optimizer, tmp_path / str(apart)) as seen:
            output = net(inputs)
            one, other = F.cross_entropy(output, classes), output.square().mean()
            if apart:
                one.backward(retain_graph=True)
                other.backward()
            else:
                (one + other).backward()
            optimizer.step()
            seen.step(one + other)
        rows.append(at(gradlab.load(tmp_path / str(apart)).layers, 0, "0"))
    for column in ("signal_grad_norm", "signal_grad_rms", "trunk_grad_norm", "grad_norm", "calls"):
        assert rows[1][column] == pytest.approx(rows[0][column], rel=1e-5), column


def test_a_loss_scaler_is_taken_out_again_and_a_skipped_step_is_a_row(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    norms = []
    with watched(net, optimizer, tmp_path / "out", every=1) as seen:
        for turn in range(3):
            optimizer.zero_grad()
            loss = loss_of(net, data)
            scaled = scaler.scale(loss)
            (scaled if turn != 1 else scaled * math.inf).backward()
            scaler.unscale_(optimizer)
            norms.append(norm_of(net.parameters()))
            scaler.step(optimizer)
            scaler.update()
            seen.step(loss)
    steps = gradlab.load(tmp_path / "out").steps
    assert steps["skipped"].tolist() == [False, True, False]
    assert steps["loss_scale"].tolist() == [1024, 1024, 512]
    assert steps["grad_norm"][0] == pytest.approx(norms[0], rel=1e-5)
    assert steps["grad_norm"][2] == pytest.approx(norms[2], rel=1e-5)
    layers = gradlab.load(tmp_path / "out").layers
    parts = [at(layers, 0, name)["grad_norm"] for name in ("0", "4", "6")]
    assert math.hypot(*parts) == pytest.approx(norms[0], rel=1e-5)
    assert gradlab.load(tmp_path / "out").runs["state"].tolist() == ["finished"]


def test_autocast_is_seen_in_its_precision(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watched(net, optimizer, tmp_path / "out") as seen:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(net, data)
        loss.backward()
        optimizer.step()
        seen.step(loss)
    assert gradlab.load(tmp_path / "out").runs["train.precision"].tolist() == ["bfloat16"]


def test_a_closure_is_watched_inside(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net, data)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        return loss

    with watched(net, optimizer, tmp_path / "out") as seen:
        for _ in range(3):
            seen.step(optimizer.step(closure))
    steps = gradlab.load(tmp_path / "out").steps
    assert steps["grad_norm_clipped"].tolist() == pytest.approx([0.1] * 3, rel=1e-4)
    assert (steps["grad_norm"] > 0.1).all()


def test_compiled_code_runs_as_written_on_recorded_steps_alone(tmp_path: Path) -> None:
    calls: list[bool] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_compiling():
                calls.append(True)
            out: Tensor = self.last(torch.tanh(self.first(x)))
            return out

    net, other = Net(), network()
    fast: Any = torch.compile(net, backend="eager")
    optimizer, data = torch.optim.SGD(net.parameters(), lr=0.1), batch()
    # What two runs hold is let go in the order in which they took it.
    with watched(other, torch.optim.SGD(other.parameters(), lr=0.1), tmp_path / "two") as seen:
        seen.also(net, optimizer, "net")
    with watched(fast, optimizer, tmp_path / "out", every=3) as seen:
        for _ in range(6):
            optimizer.zero_grad()
            loss = loss_of(fast, data)
            loss.backward()
            optimizer.step()
            seen.step(loss)
    layers = gradlab.load(tmp_path / "out").layers
    assert len(calls) == 2
    assert layers[layers["layer"] > 0]["name"].tolist() == ["first", "last"] * 2
    assert (layers[layers["layer"] > 0]["signal_grad_norm"] > 0).all()


def test_a_gan_is_two_runs_of_one_folder(tmp_path: Path) -> None:
    """Each half hears its own losses, though the generator's way back runs through the other."""
    generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
    critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    makes = torch.optim.Adam(generator.parameters(), lr=1e-3)
    judges = torch.optim.Adam(critic.parameters(), lr=1e-3)
    told: dict[str, list[float]] = {"critic": [], "generator": []}
    norms: list[float] = []
    with watched(generator, makes, tmp_path / "out", name="generator") as seen:
        other = seen.also(critic, judges, "critic")
        for _ in range(4):
            real, fake = torch.randn(16, 6), generator(torch.randn(16, 4))
            judges.zero_grad()
            first, second = -critic(real).mean(), critic(fake.detach()).mean()
            first.backward()
            second.backward()
            norms.append(norm_of(critic.parameters()))
            judges.step()
            other.step(first + second)
            makes.zero_grad()
            loss = -critic(fake).mean()
            loss.backward()
            makes.step()
            seen.step(loss)
            told["critic"].append(float((first + second).detach()))
            told["generator"].append(float(loss.detach()))
    frames = gradlab.load(tmp_path / "out")
    runs = dict(zip(frames.runs["run_id"], ("generator", "critic"), strict=True))
    for run_id, name in runs.items():
        assert frames.steps[frames.steps["run_id"] == run_id]["loss"].tolist() == pytest.approx(told[name])
    critics = frames.steps[frames.steps["run_id"] == frames.runs["run_id"][1]]
    assert critics["grad_norm"].tolist() == pytest.approx(norms, rel=1e-5)
    rows = frames.layers[(frames.layers["run_id"] == frames.runs["run_id"][1]) & (frames.layers["layer"] > 0)]
    assert rows["calls"].tolist() == [2, 2] * 2


def test_what_breaks_off_is_kept(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def stop(_: Tensor) -> None:
        if optimizer.state_dict() and len(seen._runs[0].course) == 3:
            raise RuntimeError("out of patience")

    with pytest.raises(RuntimeError, match="patience"), watched(net, optimizer, tmp_path / "out") as seen:
        plain_loop(9, stop, net, optimizer)
    frames = gradlab.load(tmp_path / "out")
    assert frames.runs[["state", "error"]].to_numpy().tolist() == [["failed", "RuntimeError: out of patience"]]
    assert len(frames.steps) == 3


def test_a_training_that_breaks_has_diverged(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e30)
    with watched(net, optimizer, tmp_path / "out", every=1) as seen:
        data = batch()
        for _ in range(5):
            optimizer.zero_grad()
            loss = loss_of(net, data)
            loss.backward()
            optimizer.step()
            seen.step(loss)
    frames = gradlab.load(tmp_path / "out")
    (run,) = frames.runs.to_dict("records")
    assert (run["state"], run["verdict"].partition("+")[0]) == ("diverged", "diverged")
    assert len(frames.steps) == run["diverged_at"] + 1 < 5


def test_wrong_use_is_said_in_one_sentence(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="none of the module's parameters"):
        gradlab.watch(net, optimizer)
    with pytest.raises(ValueError, match="at least 1"):
        gradlab.watch(net, torch.optim.SGD(net.parameters(), lr=0.1), every=0)
    with pytest.raises(TypeError, match=r"torch\.optim\.Optimizer"):
        gradlab.watch(net, object())  # type: ignore[arg-type]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(SpecError, match="not empty"),
        watched(net, torch.optim.SGD(net.parameters()), tmp_path / "full"),
    ):
        pass


def test_nothing_trained_leaves_nothing(tmp_path: Path) -> None:
    net = network()
    with watched(net, torch.optim.SGD(net.parameters(), lr=0.1), tmp_path / "out"):
        net(batch()[0])
    assert not (tmp_path / "out").exists()


CAUSES: dict[str, tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], str, str]] = {
    "softmax twice": (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(1)),
        F.cross_entropy,
        "misspecified",
        "softmax is applied twice",
    ),
    "log-probabilities that are none": (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
        F.nll_loss,
        "misspecified",
        "log",
    ),
    "targets of a large scale": (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)),
        lambda output, classes: F.mse_loss(output[:, 0], 1e5 * classes.float()),
        "ill_scaled",
        "scale",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_what_is_wrong_with_output_loss_and_targets_is_named(name: str, tmp_path: Path) -> None:
    net, loss_of_batch, verdict, word = CAUSES[name]
    inputs, classes = batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with watched(net, optimizer, tmp_path / "out", every=10) as seen:
        for _ in range(3):
            optimizer.zero_grad()
            loss = loss_of_batch(net(inputs), classes)
            loss.backward()
            optimizer.step()
            seen.step(loss)
    (row,) = gradlab.load(tmp_path / "out").runs.to_dict("records")
    assert verdict in row["verdict"].split("+")
    facts = json.loads(row["seen"])["facts"]
    assert len(facts["losses"]) == 1
    assert word in sentences(tmp_path / "out")


def sentences(folder: Path) -> str:
    """What the verdicts of a folder say."""
    tables = load_tables(folder)
    (history,) = histories(tables["runs"], tables["steps"], tables["layers"])
    return " ".join(one.told for one in judge(history))
