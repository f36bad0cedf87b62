"""Trainings on a GPU beside those on the processor: on a fake one (`tests.card`), and on a real where there is one.

Nothing in a step may wait for the host: else it is no graph.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.data import function
from gradlab.data.facts import described
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.playing import perform, rehearse
from gradlab.engine.step import advance
from gradlab.engine.train import train, training
from gradlab.engine.ways import Own
from gradlab.grid.cohorts import cost
from gradlab.launch.turns import Turns, Work
from gradlab.nn.kernels.graphs import Graph, capture
from gradlab.nn.products import looked_up_back
from gradlab.spec.choices import CLIPS, NAMED, SCHEDULES
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record, tidy
from tests.card import Card, OnCard, fake_cards
from tests.engine.test_lent import CASES
from tests.members import Member, content, differences, split, trained_with

FIRST = torch.device("cuda:0")

SMALL: dict[str, Value] = {
    "train.steps": 10,
    "train.precision": "float64",
    "probe.every": 4,
    "model.width": 4,
    "model.depth": 3,
    "data.batch_size": 4,
    "optim.lr": 0.01,
}
SEQUENCES: dict[str, Value] = {"data.name": "copy_memory", "data.length": 21}


@pytest.fixture
def card() -> Iterator[Card]:
    with fake_cards() as made:
        yield made


@pytest.fixture(params=["fake", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with fake_cards() if request.param == "fake" else nullcontext():
        yield FIRST


def ready(*settings: dict[str, Value], on: torch.device = FIRST) -> Cohort:
    runs = [described({**SMALL, **values}) for values in settings]
    return prepare(runs, content(runs[0].data), on)


def found(runs: Sequence[RunSpec], device: torch.device, *, stacked: bool = False) -> list[Member]:
    return split(runs, tidy(train(runs, content(runs[0].data), device, lambda *_: None, stacked=stacked)))


def test_a_graph_plays_the_step(gpu: torch.device) -> None:
    settings: dict[str, Value] = {"train.steps": 60, "probe.every": 7, "model.norm": "batch", "optim.momentum": 0.9}
    ways = (("none", "constant"), ("norm", "cosine"), ("value", "plateau"))
    members = [
        {**settings, "seed": seed, "clip.mode": mode, "optim.schedule": schedule}
        for seed, (mode, schedule) in enumerate(ways)
    ]
    made, played = ready(*members, on=gpu), ready(*members, on=gpu)
    rehearsed = rehearse(played)
    assert None not in rehearsed.values()
    assert torch.equal(made.parameters.cpu(), played.parameters.cpu())
    for t in range(5):
        wanted = advance(made, t, record=t % 2 == 0)
        (seen,) = perform(played, range(t, t + 1), range(0, 5, 2), rehearsed, np.arange(3))
        for own, other in ((seen.values[0, 0], wanted.loss), (seen.values[1, 0], wanted.grad_norm)):
            torch.testing.assert_close(own.cpu(), other.double().cpu(), rtol=1e-10, atol=0)
        assert (wanted.measurement is None) == (not seen.tables) == (t % 2 == 1)
        for _, table in seen.tables:
            assert wanted.measurement is not None
            pair = (table.values.cpu(), wanted.measurement.values.cpu())
            torch.testing.assert_close(*pair, rtol=1e-9, atol=1e-14, equal_nan=True)
    torch.testing.assert_close(played.parameters.cpu(), made.parameters.cpu(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.name": "residual_mlp", "model.norm": "layer", "model.activation": "prelu", "optim.name": "adam"},
        {"model.name": "rnn", "model.depth": 2, "model.norm": "rms", "clip.mode": "layerwise"},
        {"model.name": "resnet", "model.depth": 4, "model.norm": "group"},
        {"model.name": "capsule", "model.width": 8},
        {"model.name": "lstm"},
        {"model.name": "seq2seq", "model.attention": "additive", **SEQUENCES},
        {"model.name": "transformer", "model.dropout": 0.2, "model.heads": 2, **SEQUENCES},
        {"model.norm": "weight", "clip.mode": "autoclip", "optim.name": "lamb"},
        {"train.precision": "mixed_bfloat16", "train.loss_scale": "dynamic", "clip.mode": "skip"},
    ],
    ids=lambda settings: str(settings.get("model.name", settings.get("model.norm", "half"))),
)
def test_the_tables_are_those_of_the_processor(
    settings: dict[str, Value], gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "data.name" in settings:  # thousands of sequences are held out, and looked at one place after the other
        monkeypatch.setattr(Own, "evaluate", lambda *_: (np.zeros(2), None))
    runs = [described({**SMALL, **settings, "seed": seed}) for seed in (0, 1)]
    half = "bfloat16" in runs[0].train.precision
    with trained_with("torch"):
        wanted = found(runs, torch.device("cpu"))
    for mine, theirs in zip(found(runs, gpu), wanted, strict=True):
        assert not list(differences(mine, theirs, *((1e-2, 1e-2) if half else (1e-8, 1e-12))))


def every_step() -> Iterator[list[dict[str, Value]]]:
    """Cohorts in whose steps all is done that can be; clip modes and schedules are members of one."""
    yield [{"clip.mode": mode, "seed": seed} for seed, mode in enumerate(CLIPS)]
    yield [{"optim.schedule": schedule, "seed": seed} for seed, schedule in enumerate(SCHEDULES)]
    for name in NAMED["optim.name"]:
        yield [{"optim.name": name}]
    for name in NAMED["model.norm"]:
        over_pixels: dict[str, Value] = {"model.name": "cnn", "model.groups": 2}
        yield [{"model.norm": name, **(over_pixels if name in ("group", "instance") else {})}]


def test_nothing_that_is_done_in_a_step_waits_for_the_host(card: Card) -> None:
    refused = []
    for members in every_step():
        rehearsed = rehearse(ready(*members))
        if None in rehearsed.values():
            refused.append(members)
    assert not refused


def test_the_host_waits_once_a_window(card: Card) -> None:
    """However many steps and records there are in it."""
    waits = []
    for steps in (20, 40):
        runs = [described({**SMALL, "train.steps": steps, "probe.every": 5})]
        before = card.waits
        train(runs, content(runs[0].data), FIRST, lambda *_: None)
        waits.append(card.waits - before)
    assert waits[0] == waits[1]
    assert card.launches == 60


def test_a_step_is_one_launch(card: Card) -> None:
    """However many follow each other, the host asks for nothing else."""
    ways = ("constant", "cosine", "plateau")
    members: list[dict[str, Value]] = [{"optim.schedule": schedule, "clip.mode": "norm"} for schedule in ways]
    cohort = ready(*members)
    rehearsed = rehearse(cohort)
    asked = []
    for steps in (2, 9):
        before, launched = card.asked, card.launches
        perform(cohort, range(steps), (), rehearsed, np.arange(3))
        asked.append(card.asked - before)
        assert card.launches - launched == steps
    assert asked[0] == asked[1]


def test_trainings_side_by_side_are_what_they_are_alone(gpu: torch.device) -> None:
    """Bit for bit: each on a stream of its own, whose products have scratch memory of their own."""
    kinds: tuple[dict[str, Value], ...] = (
        {"model.norm": "batch", "optim.name": "adam"},
        {"model.width": 8, "clip.mode": "norm"},
    )
    cohorts = [[described({**SMALL, **kind, "train.steps": 60, "seed": seed}) for seed in (0, 1)] for kind in kinds]
    turns, alone, found = Turns(gpu), [], dict[int, Record]()

    def work(number: int, runs: Sequence[RunSpec]) -> Work:
        found[number] = yield from training(runs, content(runs[0].data), gpu, lambda *_: None)

    for number, runs in enumerate(cohorts):
        alone.append(train(runs, content(runs[0].data), gpu, lambda *_: None))
        turns.begin(work(number, runs))
    while turns:
        turns.round()
    for number, wanted in enumerate(alone):
        for name in ("loss", "grad_norm", "heldout_loss"):
            np.testing.assert_array_equal(getattr(found[number], name), getattr(wanted, name))
        for mine, theirs in zip(found[number].layers, wanted.layers, strict=True):
            np.testing.assert_array_equal(mine.values, theirs.values)


@pytest.mark.parametrize("case", [("Mlp", False), ("Mlp", True), ("Lstm", False)], ids=str)
def test_networks_of_the_users_own(case: tuple[str, bool], gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function, "_ALLOWED", [True])
    own: dict[str, Value] = {"model.name": "module", "train.steps": 6, "train.precision": "float64", "probe.every": 4}
    runs = [described({**own, "data.batch_size": 8, **CASES[case[0]], "seed": seed}) for seed in (0, 1)]
    wanted = found(runs, torch.device("cpu"), stacked=case[1])
    for mine, theirs in zip(found(runs, gpu, stacked=case[1]), wanted, strict=True):
        assert not list(differences(mine, theirs, 1e-8, 1e-12))


def test_a_table_looked_up_gets_its_gradient_in_one_order(gpu: torch.device) -> None:
    torch.manual_seed(0)
    tokens, grad, before = torch.randint(5, (2, 3, 4)), torch.randn(2, 3, 4, 6), torch.randn(2, 5, 6)
    for more in (False, True):
        wanted, mine = before.clone(), before.to(gpu)
        looked_up_back(wanted, tokens, grad, more=more)
        looked_up_back(mine, tokens.to(gpu), grad.to(gpu), more=more)
        torch.testing.assert_close(mine.cpu(), wanted, rtol=1e-5, atol=1e-6)


def refusing(x: Tensor, how: Callable[[], object]) -> Graph[Tensor] | None:
    """A step that adds one to ``x`` and then does something that a capture may forbid."""

    def step() -> Tensor:
        x.add_(1)
        how()
        return x * 2

    return capture({0: step}, [x])[0]


def test_what_is_captured_is_not_done(gpu: torch.device) -> None:
    x = torch.zeros(3, device=gpu)
    graph = refusing(x, lambda: None)
    assert graph is not None
    assert x.tolist() == [0, 0, 0]
    for turn in (1, 2):
        assert graph.play().tolist() == [2.0 * turn] * 3
    assert x.tolist() == [2, 2, 2]


def test_a_step_that_waits_is_not_captured(gpu: torch.device) -> None:
    x, before = torch.zeros(3, device=gpu), torch.cuda.current_stream()
    assert refusing(x, lambda: float(x.sum())) is None
    assert x.tolist() == [0, 0, 0]
    assert torch.cuda.current_stream() == before
    assert torch.cuda.get_sync_debug_mode() == 0


def test_a_capture_that_breaks_leaves_the_stream_as_it_was(card: Card) -> None:
    x, before = torch.zeros(3, device=FIRST), torch.cuda.current_stream()

    def allocate_elsewhere() -> None:
        if card.capturing is not None:
            card.wait("cudaMalloc")

    assert refusing(x, allocate_elsewhere) is None
    assert x.tolist() == [0, 0, 0]
    assert torch.cuda.current_stream() == before
    assert refusing(x, lambda: None) is not None


def test_a_step_that_waits_once_is_captured(card: Card) -> None:
    x, done = torch.zeros(3, device=FIRST), list[float]()

    def set_up() -> None:
        if not done:
            done.append(float("nan"))
            x.sum().item()

    assert refusing(x, set_up) is not None


@pytest.mark.parametrize(("idle", "emptied"), [(1 << 30, 0), (2 << 30, 1)])
def test_much_idle_memory_is_handed_back_before_a_capture(idle: int, emptied: int, card: Card) -> None:
    card.idle = idle
    assert refusing(torch.zeros(3, device=FIRST), lambda: None) is not None
    assert card.emptied == emptied


def test_no_room_for_a_capture_is_said(card: Card) -> None:
    x = torch.zeros(3, device=FIRST)

    def too_much() -> None:
        if card.capturing is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        refusing(x, too_much)
    assert x.tolist() == [0, 0, 0]


def test_a_step_that_fails_says_so(card: Card) -> None:
    x = torch.zeros(3, device=FIRST)
    with pytest.raises(RuntimeError, match="same device"):
        refusing(x, lambda: x + torch.ones(3))


def test_a_second_card_is_captured_on_its_own_stream() -> None:
    with fake_cards(2) as cards:
        x = torch.zeros(3, device="cuda:1")
        graph = refusing(x, lambda: None)
        assert graph is not None
        assert {stream.device for stream in cards.streams[2:]} == {1}
        assert cards.chosen == 0


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "capsule"])
def test_a_piece_takes_no_more_memory_than_was_planned(name: str, card: Card) -> None:
    runs = [described({"model.name": name, "train.steps": 10, "data.batch_size": 16, "seed": seed}) for seed in (0, 1)]
    data = content(runs[0].data)
    train(runs, data, FIRST, lambda *_: None)
    samples = sum(part.nbytes for part in (data.train_inputs, data.heldout_inputs)) // 2  # which all pieces share
    assert card.peak - samples < 2 * cost(runs[0]).memory


def test_what_did_not_fit_leaves_nothing_behind(card: Card) -> None:
    runs = [described({**SMALL, "seed": seed}) for seed in range(3)]
    data = content(runs[0].data)
    card.room = 400_000
    with pytest.raises(torch.OutOfMemoryError):
        train(runs, data, FIRST, lambda *_: None)
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is OnCard]
