"""seq2seq: a member equals plain torch, nn.GRU's cells and attention written out, and accuracy is of whole answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlab.data.batches import batches
from gradlab.engine.answers import dictated, wholly_right
from gradlab.engine.cohort import prepare
from gradlab.engine.playing import rehearse
from gradlab.models import seq2seq
from gradlab.nn.kernels import calls
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured, on_each_engine
from tests.models.gated import Layer, gru_step
from tests.oracles import Seen, expected

BASE: dict[str, Value] = {
    "model.name": "seq2seq",
    "train.precision": "float64",
    "train.steps": 20,
    "probe.every": 7,
    "data.batch_size": 6,
}
COPY: dict[str, Value] = {"data.name": "copy_memory", "data.length": 23}
WAYS: tuple[dict[str, Value], ...] = (
    {"optim.lr": 0.3, "seed": 1},
    {"optim.lr": 0.1, "optim.momentum": 0.9, "clip.mode": "norm", "clip.threshold": 0.4, "model.init": "orthogonal"},
    {"optim.lr": 0.2, "model.init": "xavier", "model.bias_var": 0.3, "model.gain": 1.5, "clip.mode": "layerwise"},
)


class Translator(nn.Module):
    """The plain network, one at a time: every state is seen."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.run, self.along = run, run.model.depth
        self.layers = [Layer(run, layer) for layer in range(1, run.layers + 1)]
        self.stages = nn.ModuleList(self.layers)
        self.called = dict(zip(seq2seq.names(run.model), self.layers, strict=True))
        self.entropies: list[Tensor] = []

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forget(self) -> None:
        """Nothing has running statistics."""

    def parameter(self, layer: str, role: str) -> Tensor:
        return self.called[layer].get_parameter(role)

    def forward(self, x: Tensor) -> list[Seen]:
        model, facts = self.run.model, self.run.facts
        read, depth, seen = facts.steps - facts.positions, model.depth, {}
        self.entropies = []
        source = self.parameter("source_embedding", "weight")[x[:, :read]].transpose(0, 1)
        target = self.parameter("target_embedding", "weight")[x[:, read:]].transpose(0, 1)
        seen["source_embedding"] = Seen([source], None, [source])
        seen["target_embedding"] = Seen([target], None, [target])
        inputs, ends = list(source), []
        for layer in range(1, depth + 1):
            name, h, gates, hs = f"encoder_{layer}", source.new_zeros(len(x), model.width), [], []
            for one in inputs:
                (h, _), opened = gru_step(self.called[name], one, (h, h))
                hs.append(h)
                gates.append(opened)
            seen[name] = Seen(hs, None, hs, gates)
            inputs = hs
            ends.append(h)
        memory = torch.stack(inputs, 1)
        states, outputs, contexts, mixed = ends, [], [], []
        found: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in ends]
        for y in target:
            if model.attention == "additive":
                context = self.additive(states[-1], memory)
                contexts.append(context)
                y = y @ self.parameter("decoder_1", "weight").T + context @ self.parameter("decoder_1", "second").T
            else:
                y = y @ self.parameter("decoder_1", "weight").T
            states = list(states)
            for layer in range(depth):
                stage = self.called[f"decoder_{layer + 1}"]
                driven = y if layer == 0 else states[layer - 1] @ stage.get_parameter("weight").T
                states[layer], opened = driven_step(stage, driven, states[layer])
                found[layer][0].append(states[layer])
                found[layer][1].append(opened)
            outputs.append(states[-1])
        for layer, (hs, gates) in enumerate(found, start=1):
            seen[f"decoder_{layer}"] = Seen(hs, None, hs, gates)
        if model.attention == "additive":
            seen["attention"] = Seen(contexts, None, contexts)
        if model.attention == "dot":
            mixed = [torch.stack([self.dot(h, memory) for h in outputs])]
            seen["attention"] = Seen(mixed, None, mixed)
            outputs = list(mixed[0])
        output = self.called["read_out"].linear(torch.stack(outputs, 1))
        seen["read_out"] = Seen([output], None, [output])
        return [seen[name] for name in seq2seq.names(model)]

    def additive(self, state: Tensor, memory: Tensor) -> Tensor:
        keys = memory @ self.parameter("attention", "weight").T + self.parameter("attention", "bias")
        bent = torch.tanh(keys + (state @ self.parameter("attention", "second").T).unsqueeze(1))
        return self.read(bent @ self.parameter("attention", "score")[0], memory)

    def dot(self, state: Tensor, memory: Tensor) -> Tensor:
        context = self.read((memory @ state.unsqueeze(-1)).squeeze(-1), memory)
        mixed = self.called["attention"].linear(context) + state @ self.parameter("attention", "second").T
        return torch.tanh(mixed)

    def read(self, scores: Tensor, memory: Tensor) -> Tensor:
        distribution = torch.distributions.Categorical(logits=scores)
        self.entropies.append(distribution.entropy() / math.log(memory.shape[1]))
        return (distribution.probs.unsqueeze(1) @ memory).squeeze(1)


def driven_step(stage: Layer, driven: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a GRU whose inputs' part is given, written out."""
    recurrent = h @ stage.get_parameter("recurrent").T
    r, z, n = (driven + stage.get_parameter("bias")).chunk(3, -1)
    again = recurrent.chunk(3, -1)
    r, z = torch.sigmoid(r + again[0]), torch.sigmoid(z + again[1])
    n = torch.tanh(n + r * (again[2] + stage.get_parameter("recurrent_bias")))
    return (1 - z) * n + z * h, torch.cat((r, z), -1)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("attention", ["none", "additive", "dot"])
def test_a_member_equals_one_plain_network(attention: str, depth: int) -> None:
    fixed = BASE | COPY | {"model.attention": attention, "model.depth": depth, "model.width": 4 + depth}
    cohort = [fixed | way for way in WAYS]
    further = ("signal_grad_rms", "grad_rms", "attention_entropy")
    for settings, *either in zip(cohort, *on_each_engine(*cohort), strict=True):
        wanted = expected(settings, Translator)
        for found in either:
            assert found.run["state"] == "finished"
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-14, skip=further)) == []
            assert [row["axis"] for row in found.layers].count("time") == 13 * len(found.recorded)


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_entropy_is_that_of_the_weights_and_roots_are_of_the_norms(attention: str) -> None:
    settings = BASE | COPY | {"model.attention": attention, "model.width": 8, "train.steps": 0, "model.gain": 3.0}
    (found,) = measured(settings)
    run = build(settings)
    plain, data = Translator(run), content(run.data)
    order = torch.from_numpy(batches(run.data, len(data.train_inputs), 1)[0])
    plain(torch.from_numpy(data.train_inputs)[order])
    (row,) = [row for row in found.layers if row["name"] == "attention"]
    assert row["attention_entropy"] == pytest.approx(float(torch.stack(plain.entropies).mean().detach()), rel=1e-9)
    assert 0 < row["attention_entropy"] < 1
    for row in found.layers:
        assert (row["attention_entropy"] is None) == (row["name"] != "attention")
        assert (row["saturated"] is None) == (row["name"] not in ("encoder_1", "decoder_1"))
        if row["axis"] == "depth" and row["name"] == "read_out":
            assert row["signal_grad_rms"] == pytest.approx(row["signal_grad_norm"] / (6 * 10 * 8) ** 0.5)
            assert row["grad_rms"] == pytest.approx(row["grad_norm"] / (8 * 8 + 8) ** 0.5)


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("attention", ["none", "additive", "dot"])
def test_a_step_is_written_down_with_and_without_record(attention: str) -> None:
    runs = [build(BASE | COPY | {"model.attention": attention, "seed": seed}) for seed in range(2)]
    found = rehearse(prepare(runs, content(runs[0].data), torch.device("cpu"))).values()
    assert [step is None for step in found] == [calls.kernels(torch.float64) is None] * 2


@pytest.mark.usefixtures("either_engine")
def test_decoding_is_greedy_and_only_a_whole_date_is_right() -> None:
    runs = [build({"model.name": "seq2seq", "model.width": 8, "seed": seed}) for seed in range(2)]
    cohort = prepare(runs, content(runs[0].data), torch.device("cpu"))
    inputs = cohort.task.heldout_inputs[:5].expand(2, -1, -1).clone()
    answers = dictated(cohort.architecture, cohort.network, inputs)
    plains = [Translator(run) for run in runs]
    for member, plain in enumerate(plains):
        given = cohort.task.heldout_inputs[:5].clone()
        for place in range(10):
            likely = plain(given)[-1].h[0][:, place].argmax(-1)
            assert (answers[member, :, place] == likely).all()
            if place < 9:
                given[:, 31 + place] = likely
    classes = answers[0].clone()
    classes[2, 4] += 1
    assert wholly_right(answers[:1], classes).tolist() == [4.0]
    assert wholly_right(answers[:1], answers[0]).tolist() == [5.0]
    loss, accuracy = cohort.way.evaluate(cohort.task)
    assert accuracy is not None
    assert (accuracy == 0).all(), "what has learned nothing has no date right"
    assert loss.shape == (2,)


def test_it_says_which_data_have_a_source_and_an_answer() -> None:
    with pytest.raises(SpecError, match=r"copy_memory.*dates"):
        build({"model.name": "seq2seq", "data.name": "digits"})
    with pytest.raises(SpecError, match=r"model\.attention='adaptive': expected 'none' or 'additive' or 'dot'"):
        build({"model.name": "seq2seq", "model.attention": "adaptive"})
    _: Any = build({"model.name": "lstm", "data.name": "dates"})
