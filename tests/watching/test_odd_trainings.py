"""Trainings as people have them: what no optimizer holds, ways back of another kind, networks copied and saved."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.diagnose.tables import histories
from gradlab.store.tables import load_tables
from gradlab.watching.everything import watched_into
from tests.watching.test_watch import at, batch, loss_of, network, norm_of, same_draws, sentences, watched

__all__ = ["same_draws"]


class Tower(nn.Module):
    """Three layers, of which the second is the module's own or lies in a plain list."""

    def __init__(self, listed: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        self.more = [nn.Linear(16, 16)]
        if not listed:
            self.second = self.more[0]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.more[0](self.first(x).relu()).relu())
        return out


@pytest.mark.parametrize("case", ["whole", "two optimizers", "backbone before it", "a part", "a plain list"])
def test_what_no_optimizer_moves_is_told(case: str, tmp_path: Path) -> None:
    net, data = Tower(listed=case == "a plain list"), batch()
    before = nn.Linear(6, 6) if case == "backbone before it" else nn.Identity()
    cases: dict[str, list[nn.Module]] = {"two optimizers": [*net.children()], "a part": [net.last]}
    parts = cases.get(case, [net])
    optimizers = [torch.optim.SGD(part.parameters(), lr=1e-3) for part in parts]
    with watched(net, optimizers[-1], tmp_path):
        for _ in range(3):
            F.cross_entropy(net(before(data[0])), data[1]).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    said, expected = (
        sentences(tmp_path),
        {
            "a part": "51 of the 435 numbers that could learn, and not those of the 4 parameters from first.weight to",
            "a plain list": "rests on 2 parameters that are none of the module's own",
            "backbone before it": "come from another module, 2 of whose parameters no optimizer holds",
        },
    )
    assert expected.get(case, "") in said
    assert ("misspecified" in said) == (case in expected)


def test_what_moves_nothing_never_learned_and_sorted_samples_are_seen(tmp_path: Path) -> None:
    net, (inputs, classes) = network(), batch(192)
    order = classes.argsort()
    body, head = list(net[:-1].parameters()), list(net[-1].parameters())
    groups: list[dict[str, object]] = [{"params": body, "lr": 0.0}, {"params": head}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with watched(net, optimizer, tmp_path / "out", every=1):
        for some in (order[:32], order[-32:]):
            optimizer.zero_grad()
            loss_of(net, (inputs[some], classes[some])).backward()
            optimizer.step()
    facts = json.loads(gradlab.load(tmp_path / "out").runs["seen"][0])["facts"]
    assert facts["alone"] == [0, 2]
    assert facts["resting"][0] == "0.weight"
    assert len(facts["resting"]) == len(body)
    assert facts["never_moved"]


@pytest.mark.parametrize("kind", ["thrown away", "standing still", "together", "one after the other"])
def test_both_sides_of_a_game_are_known_and_other_pairs_are_none(kind: str, tmp_path: Path) -> None:
    maker, judge = nn.Linear(2, 6), network()
    against, still = kind in ("thrown away", "standing still"), kind == "standing still"
    trained = judge if kind == "one after the other" else maker
    ours, theirs = (torch.optim.SGD(one.parameters(), lr=0.01) for one in (trained, judge))
    with watched(trained, ours, tmp_path / "out", every=1) as seen:
        seen.also(judge, theirs, "judge")
        for _ in range(3):
            judge.requires_grad_(not still)
            judge(maker(torch.randn(8, 2))).mean().backward()
            ours.step()
            judge.requires_grad_(True)
            if kind != "together":
                theirs.zero_grad()
                (-judge(torch.randn(8, 6)).mean()).backward()
            theirs.step()
            ours.zero_grad()
            if kind != "thrown away":
                theirs.zero_grad()
    facts = [json.loads(one)["facts"] for one in gradlab.load(tmp_path / "out").runs["seen"]]
    assert [one.get("plays", False) for one in facts] == [against, against]
    assert all(one["kept_gradients"] == 0 for one in facts)


def test_gradients_that_stay_and_parameters_that_were_replaced_are_seen(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, weight_decay=0.1)
    net[-1] = nn.Linear(16, 3)
    for zeroed in ("not", "in place", "behind autograd"):
        with watched(net, optimizer, tmp_path / zeroed):
            for _ in range(5):
                loss_of(net, data).backward()
                optimizer.step()
                for one in net.parameters() if zeroed == "behind autograd" else ():
                    one.grad.data.zero_()  # type: ignore[union-attr]
                optimizer.zero_grad(set_to_none=False) if zeroed == "in place" else None
        facts = json.loads(gradlab.load(tmp_path / zeroed).runs["seen"][0])["facts"]
        assert facts["kept_gradients"] == (1 if zeroed == "not" else 0)
        optimizer.zero_grad()
        assert facts["replaced"]


def test_a_layer_that_is_made_in_each_call_is_told(tmp_path: Path) -> None:
    class Anew(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = nn.Linear(16, 3)(self[0](x).relu())
            return out

    net = Anew(nn.Linear(6, 16))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watched(net, optimizer, tmp_path / "out"):
        loss_of(net, batch()).backward()
        optimizer.step()
    assert "2 parameters that are none of the module's own" in sentences(tmp_path / "out")


def test_an_encoder_behind_a_detach_and_logits_reshaped_are_seen(tmp_path: Path) -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.GRU(6, 16, batch_first=True), nn.GRU(6, 8, batch_first=True)
            self.bridge, self.last = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = self.bridge(self.encoder(x)[1].detach())
            return self.last(self.decoder(x, state)[0]).reshape(len(x), 3, -1)  # type: ignore[no-any-return]

    net = Apart()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watched(net, optimizer, tmp_path / "out"):
        F.cross_entropy(net(torch.randn(8, 5, 6)), torch.randint(3, (8, 5))).backward()
        optimizer.step()
    facts = json.loads(gradlab.load(tmp_path / "out").runs["seen"][0])["facts"]
    assert facts["viewed_from"] == [8, 5, 3]
    assert facts["losses"]["negative_log_likelihood"]["places"]
    assert facts["severed"] == [f"encoder.{name}" for name, _ in net.encoder.named_parameters()]
    assert facts["never_reached"]


def test_a_draw_that_lets_nothing_back_is_seen() -> None:
    class Drawn(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self[1](torch.normal(self[0](x), 1.0))
            return out

    frame = gradlab.measure(Drawn(nn.Linear(6, 16), nn.Linear(16, 3)), F.cross_entropy, batch())
    assert frame.attrs["facts"]["draws"] == ["normal"]


@pytest.mark.parametrize("by", ["autograd.grad", "torch.func"])
def test_a_way_back_that_is_not_heard_is_no_divergence(by: str, tmp_path: Path) -> None:
    net, data = Tower(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    names = [name for name, _ in net.named_parameters()]

    def functional(*given: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, dict(zip(names, given, strict=True)), data[0]), data[1])

    with watched(net, optimizer, tmp_path / "out"):
        for _ in range(3):
            if by == "torch.func":
                places = tuple(range(len(names)))
                found = torch.func.grad(functional, argnums=places)(*(one.detach() for one in net.parameters()))
            else:
                found = torch.autograd.grad(loss_of(net, data), list(net.parameters()))
            for parameter, gradient in zip(net.parameters(), found, strict=True):
                parameter.grad = gradient
            optimizer.step()
    frames = gradlab.load(tmp_path / "out")
    assert frames.runs["state"][0] == "finished"
    assert frames.runs["verdict"].isna().all()
    assert frames.steps["loss"].isna().all()
    assert frames.steps["grad_norm"][2] == pytest.approx(norm_of(net.parameters()), rel=1e-6)


def test_inputs_in_a_mapping_and_a_new_head_are_seen(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 16), nn.Linear(16, 5)

        def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"penalty": given["x"].mean(), "scores": self.head(self.body(given["x"]).relu())}

    net, (inputs, classes) = Named(), batch()
    with watched(net, torch.optim.SGD(net.body.parameters(), lr=0.1), tmp_path / "out") as seen:
        net.head = nn.Linear(16, 3)
        F.cross_entropy(net({"x": inputs})["scores"], classes).backward()
        seen._runs[0].optimizer.step()
    frames = gradlab.load(tmp_path / "out")
    body, head = (at(frames.layers, 0, name) for name in ("body", "head"))
    assert body["dead"] == 0
    assert head["grad_norm"] == pytest.approx(norm_of(net.head.parameters()), rel=1e-6)
    assert frames.runs["data.batch_size"][0] == len(inputs)
    assert json.loads(frames.runs["seen"][0])["facts"]["units"] == 3


def test_micro_batches_are_judged_by_what_a_guess_costs_in_all(tmp_path: Path) -> None:
    net, (inputs, classes) = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with watched(net, optimizer, tmp_path / "out"):
        for _ in range(2):
            for part in range(4):
                some = slice(8 * part, 8 * part + 8)
                (loss_of(net, (inputs[some], classes[some])) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
    tables = load_tables(tmp_path / "out")
    (history,) = histories(tables["runs"], tables["steps"], tables["layers"])
    assert history.guess == pytest.approx(math.log(3))


def test_a_network_can_be_copied_and_saved_whole_at_any_time(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with watched(net, optimizer, tmp_path / "out"):
        loss = loss_of(net, data)
        torch.save(net, tmp_path / "net.pt")
        copied = copy.deepcopy(net)
        loss.backward()
        optimizer.step()
    found = (tmp_path / "net.pt").read_bytes()
    assert b"gradlab" not in found
    for other in (copied, torch.load(tmp_path / "net.pt", weights_only=False)):
        loss_of(other, data).backward()
    assert len(gradlab.load(tmp_path / "out").steps) == 1


def test_what_is_told_is_a_single_number(tmp_path: Path) -> None:
    net, data = network(), batch()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    seen = watched(net, optimizer, tmp_path / "out")
    with pytest.raises(RuntimeError, match="nothing is watched yet"):
        seen.step(1.0)
    with seen:
        loss_of(net, data).backward()
        optimizer.step()
        with pytest.raises(TypeError, match=r"the loss is of shape \(3,\); expected a single number"):
            seen.step(torch.ones(3))
        with pytest.raises(TypeError, match=r"accuracy is None; expected a single number"):
            seen.step(1.0, accuracy=None)  # type: ignore[arg-type]
        seen.step(torch.ones(1), accuracy=0.5)
    assert gradlab.load(tmp_path / "out").steps["loss"].tolist() == [1.0]
    with pytest.raises(ValueError, match=r"every=2\.5; expected an integer"):
        watched(net, optimizer, tmp_path / "other", every=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown optimizer 'adamm'; did you mean 'adam'"):
        gradlab.verdict(gradlab.measure(net, F.cross_entropy, data), optimizer="adamm")


@pytest.mark.parametrize("steps", [1, 4, 60])
def test_an_optimizer_made_anew_goes_on_with_the_run(steps: int, tmp_path: Path) -> None:
    net, data = network(), batch()
    everything = watched_into("script", tmp_path / "out", 2, lambda _: None)
    everything.start()
    for _ in range(3):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(net, data).backward()
            optimizer.step()
    everything.stop()
    _, tables = everything.write("done", {})
    everything.book.close()
    counts = {run: tables.steps["run_id"].to_pylist().count(run) for run in tables.runs["run_id"].to_pylist()}
    assert sorted(counts.values()) == ([60] * 3 if steps == 60 else [3 * steps])
    facts = json.loads(tables.runs["seen"][0].as_py())["facts"]
    assert facts.get("remade", 0) == (0 if steps == 60 else 2)
