"""The plan: who may train together, and how a grid is cut."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, product

import pytest
import torch

from gradlab.data import function
from gradlab.data.facts import described
from gradlab.engine.optim.optimizers import OPTIMIZERS, rates
from gradlab.grid.cohorts import WITHIN, cohort_key, cost, gains, make_plan
from gradlab.spec.choices import MODELS as NAMED_MODELS
from gradlab.spec.choices import OPTIMIZERS as NAMED_OPTIMIZERS
from gradlab.spec.keys import KEYS
from gradlab.spec.named import Value
from gradlab.spec.run import Extent, RunSpec

BASE: dict[str, Value] = {"model.width": 12, "model.depth": 3, "data.name": "gaussian_mixture", "data.features": 12}

OTHER: dict[str, Value] = {
    "seed": 1,
    "model.name": "residual_mlp",
    "model.depth": 4,
    "model.width": 13,
    "model.activation": "tanh",
    "model.slope": 0.3,
    "model.init": "xavier_normal",
    "model.gain": 2.0,
    "model.weight_var": 1.0,
    "model.bias_var": 0.5,
    "model.norm": "layer",
    "data.name": "digits",
    "data.batch_size": 63,
    "data.seed": 1,
    "data.standardise": False,
    "data.input_scale": 2.0,
    "data.target_scale": 2.0,
    "data.bad_every": 50,
    "data.features": 13,
    "optim.name": "adam",
    "optim.lr": 0.2,
    "optim.momentum": 0.5,
    "optim.nesterov": True,
    "optim.weight_decay": 0.5,
    "optim.l1": 0.5,
    "optim.beta1": 0.5,
    "optim.beta2": 0.5,
    "optim.eps": 0.5,
    "optim.dampening": 0.5,
    "optim.amsgrad": True,
    "optim.maximize": True,
    "optim.schedule": "cosine",
    "optim.warmup": 10,
    "optim.end_factor": 0.5,
    "optim.decay": 0.5,
    "optim.decay_every": 10,
    "clip.mode": "norm",
    "clip.threshold": 2.0,
    "clip.output_threshold": 2.0,
    "train.steps": 201,
    "train.precision": "float64",
    "train.loss_scale": "1024",
    "train.rounding": "stochastic",
    "train.loss": "hinge",
    "model.output": "tanh",
    "model.parametrization": "ntk",
    "model.base_width": 32,
    "model.dropout": 0.5,
    "model.groups": 2,
    "model.norm_order": "behind",
    "pretrain.mode": "masked",
    "pretrain.steps": 50,
    "pretrain.lr": 0.1,
    "pretrain.corruption": 0.5,
    "probe.every": 11,
    "probe.instrument": "gradient_log",
}
"""Another value of every key that a run of `BASE` has."""

SOURCE = "1" * 64
OWN: dict[str, Value] = {"model.name": "module", "model.target": "gone.py:Net", "model.source": SOURCE}
TABLE: dict[str, Value] = {"data.name": "file", "data.path": "gone.csv", "data.source": SOURCE}
MADE: dict[str, Value] = {"data.name": "function", "data.target": "gone.py:batches", "data.source": SOURCE}
"""What is the user's own, of runs made before: nobody opens it."""


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of the user's own may run, whatever other tests have allowed."""
    monkeypatch.setattr(function, "_ALLOWED", [])


ATTENTION: dict[str, Value] = {"model.name": "transformer", "data.name": "digits"}

ELSEWHERE: dict[str, tuple[dict[str, Value], Value]] = {
    "model.pool": ({"model.name": "cnn", "model.depth": 4}, "2"),
    "model.block": ({"model.name": "resnet", "model.depth": 4}, "rezero"),
    "model.branch_scale": ({"model.name": "residual_mlp"}, 0.5),
    "model.base_depth": ({"model.name": "residual_mlp", "model.parametrization": "mup"}, 5),
    "model.heads": (ATTENTION, 2),
    "model.norm_place": (ATTENTION, "post"),
    "model.skip": (ATTENTION, False),
    "model.feed_forward": (ATTENTION, 2),
    "model.causal": (ATTENTION, True),
    "model.qk_norm": (ATTENTION, True),
    "model.attention_scale": (ATTENTION, 1.0),
    "model.capsule_width": ({"model.name": "capsule", "model.depth": 3}, 4),
    "model.routing": ({"model.name": "capsule", "model.depth": 3}, 2),
    "model.squash_eps": ({"model.name": "capsule", "model.depth": 3}, 0.0),
    "model.forget_bias": ({"model.name": "lstm", "model.depth": 1}, 1.0),
    "model.chrono": ({"model.name": "lstm", "model.depth": 1}, True),
    "model.attention": ({"model.name": "seq2seq", "model.depth": 1, "data.name": "dates"}, "dot"),
    "data.ask": ({"data.name": "moving_digits"}, "digit"),
    "data.permuted": ({"data.name": "sequential_digits"}, True),
    "data.length": ({"model.name": "rnn", "model.depth": 1, "data.name": "adding"}, 7),
    "data.root": ({"data.name": "mnist"}, "tests/fixtures/idx200"),
    "data.mirror": ({"data.name": "mnist"}, "https://example.org/"),
    "model.target": (OWN, "another.py:Net"),
    "model.source": (OWN, "0" * 64),
    "train.source": ({**OWN, "train.loss": "gone.py:loss", "train.source": SOURCE}, "0" * 64),
    "data.path": (TABLE, "another.csv"),
    "data.label": (TABLE, "kind"),
    "data.heldout": (TABLE, 0.5),
    "data.task": (TABLE, "regression"),
    "data.target": (MADE, "another.py:batches"),
    "data.source": (MADE, "0" * 64),
}


def grid(**axes: tuple[Value, ...]) -> list[RunSpec]:
    """Every combination; ``model__depth`` stands for model.depth."""
    names = [name.replace("__", ".") for name in axes]
    return [described(BASE | dict(zip(names, values, strict=True))) for values in product(*axes.values())]


def test_every_key_is_tried() -> None:
    assert set(OTHER) | set(ELSEWHERE) == set(KEYS)
    assert set(KEYS) >= WITHIN


@pytest.mark.parametrize("key", KEYS)
def test_a_key_may_differ_inside_a_cohort_exactly_if_it_is_named_so(key: str) -> None:
    base, value = ELSEWHERE.get(key, (BASE, OTHER.get(key)))
    if key == "data.name":
        base = {name: given for name, given in base.items() if name != "data.features"}
    if key == "optim.nesterov":
        base = base | {"optim.momentum": 0.5}
    one, other = described(base), described(base | {key: value})
    assert one.flat()[key] != other.flat()[key]
    assert (cohort_key(one) == cohort_key(other)) == (key in WITHIN)


def test_cohorts_are_the_runs_of_equal_keys() -> None:
    runs = grid(
        model__depth=(2, 3),
        optim__lr=(0.1, 0.2, 0.3),
        clip__mode=("value", "none", "norm"),
        optim__name=("sgd", "adam"),
        seed=(0, 1),
    )
    plan = make_plan(runs, budget=2**40, cores=2)
    assert plan.cohorts == len(plan.pieces) == 4
    assert sorted(member for piece in plan.pieces for member in piece.members) == list(range(len(runs)))
    for piece in plan.pieces:
        assert len({cohort_key(runs[member]) for member in piece.members}) == 1
        modes = [runs[member].clip.mode for member in piece.members]
        assert len([mode for mode, _ in groupby(modes)]) == 3
    assert make_plan(runs, budget=2**40, cores=2) == plan


@pytest.mark.parametrize("members", [1, 2, 3.5, 7, 1000])
def test_pieces_fit_the_budget_and_cover_each_run_once(members: float) -> None:
    runs = grid(seed=tuple(range(20)), clip__mode=("none", "norm"))
    budget = cost(runs[0]).shared + int(members * cost(runs[0]).memory)
    plan = make_plan(runs, budget=budget, cores=2)
    assert plan == make_plan(runs, budget=budget, cores=2)
    assert sorted(member for piece in plan.pieces for member in piece.members) == list(range(40))
    sizes = [len(piece.members) for piece in plan.pieces]
    assert max(sizes) <= members
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-40 // int(min(members, 40)))
    for piece in plan.pieces:
        assert piece.memory <= budget
        assert piece.chunks == (len(piece.members),)
        modes = [runs[member].clip.mode for member in piece.members]
        assert len([mode for mode, _ in groupby(modes)]) <= 2


def test_a_run_larger_than_the_budget_is_a_piece_of_its_own() -> None:
    plan = make_plan(grid(seed=(0, 1, 2)), budget=1, cores=2)
    assert [len(piece.members) for piece in plan.pieces] == [1, 1, 1]


def test_the_largest_piece_comes_first_and_indices_count() -> None:
    plan = make_plan(grid(model__depth=(2, 9, 4), seed=(0, 1)), budget=2**40, cores=2)
    work = [piece.work for piece in plan.pieces]
    effort = [piece.effort for piece in plan.pieces]
    assert effort == sorted(effort, reverse=True)
    assert [piece.index for piece in plan.pieces] == [0, 1, 2]
    assert plan.work == sum(work)


def test_a_single_piece_takes_all_cores_and_several_one_each() -> None:
    assert [piece.threads for piece in make_plan(grid(seed=(0, 1)), 2**40, cores=8).pieces] == [8]
    assert {piece.threads for piece in make_plan(grid(model__depth=(2, 3)), 2**40, cores=8).pieces} == {1}


def test_cost_grows_with_what_costs() -> None:
    (small,) = grid(model__depth=(3,))
    for key, value in (
        ("model.depth", 6),
        ("model.width", 30),
        ("data.batch_size", 1024),
        ("train.precision", "float64"),
    ):
        found = cost(described(BASE | {key: value}))
        assert found.memory > cost(small).memory, key
        assert found.work > cost(small).work or key == "train.precision"
        assert found.effort > cost(small).effort or key == "train.precision"
    assert cost(described(BASE | {"train.steps": 400})).work == pytest.approx(2 * cost(small).work, rel=0.01)


@pytest.mark.parametrize("name", NAMED_OPTIMIZERS)
def test_the_buffers_that_the_plan_counts_are_those_that_optimizers_keep(name: str) -> None:
    parameters = torch.zeros(1, 3)
    columns = rates([described({"optim.name": name, "optim.momentum": 0.9})], parameters)
    state = OPTIMIZERS[name].state(parameters, columns)
    assert sum(buffer.numel() for buffer in state.values()) // 3 <= NAMED_OPTIMIZERS[name].buffers


def test_every_model_has_a_cost() -> None:
    for name in NAMED_MODELS:
        found = cost(described(OWN if NAMED_MODELS[name].free else {"model.name": name}))
        assert 0 < found.work < found.effort
        assert found.memory > 0


def test_very_long_runs_are_counted() -> None:
    """The numbers of the samples of all steps, once, and the rows of the tables, of each member."""
    short, long, watched = (
        cost(described({"train.steps": steps, "probe.every": every}))
        for steps, every in ((10**4, 10**4), (10**7, 10**7), (10**7, 10))
    )
    assert long.shared == pytest.approx(1000 * short.shared, rel=1e-3)
    assert long.shared >= 10**7 * 64 * 8
    assert long.memory - short.memory >= (10**7 - 10**4) * 5 * 8
    assert watched.memory - long.memory >= 10**6 * 11 * 11 * 8
    (piece,) = make_plan([described({"train.steps": 10**7})], 2**30, 1).pieces
    assert piece.memory > 2**30


def own(members: int, **size: float | str | bool) -> list[RunSpec]:
    """Runs of a network of one's own of this size, of which nothing is made."""
    extent = replace(Extent(10**4, 100, 4, 1e6, calls=4), **size)  # type: ignore[arg-type]
    module: dict[str, Value] = {"model.name": "module", "model.target": "nets.py:net", "model.source": "0" * 64}
    return [replace(described({**module, "seed": seed}), extent=extent) for seed in range(members)]


@pytest.mark.parametrize(
    ("members", "size", "pieces", "stacked"),
    [
        (32, {"stacks": True}, [8, 8, 8, 8], True),
        (15, {"stacks": True}, [15], True),
        (160, {"stacks": True}, [20] * 8, True),
        (16, {"stacks": False}, [2] * 8, False),
        (1, {"stacks": True}, [1], False),
    ],
)
def test_networks_of_one_s_own_that_train_as_one_stay_together(
    members: int, size: dict[str, bool], pieces: list[int], stacked: bool
) -> None:
    plan = make_plan(own(members, **size), 2**40, cores=2)
    assert [len(piece.members) for piece in plan.pieces] == pieces
    assert {piece.stacked for piece in plan.pieces} == {stacked}


def test_signals_are_held_for_every_network_of_a_stack() -> None:
    stack, apart = (cost(own(1, stacks=stacks)[0]) for stacks in (True, False))
    assert stack.memory - apart.memory == apart.shared - stack.shared > 0


@pytest.mark.parametrize(
    ("members", "work", "wish", "gained"),
    [
        (8, 1e6, "auto", True),
        (7, 1e6, "auto", False),
        (8, 1e9, "auto", False),
        (2, 1e9, "yes", True),
        (1, 1e6, "yes", False),
        (64, 1e6, "no", False),
    ],
)
def test_what_is_trained_as_one_follows_from_how_many_and_how_large(
    members: int, work: float, wish: str, gained: bool
) -> None:
    assert gains(Extent(10**4, 100, 4, work, calls=4), members, wish) is gained
