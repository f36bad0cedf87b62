"""The benchmarks' own arithmetic, and that the stacked peer trains what the loop trains."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
import torch

from benchmarks import compiled
from benchmarks.architectures import COHORTS, cohort, measure
from benchmarks.ensemble import train as train_ensemble
from benchmarks.hydra_peer import Clock, work_seconds
from benchmarks.limit import Training, operations, say
from benchmarks.loop import digits, train
from benchmarks.settings import BATCH, STEPS, Setting, ensembles, plane, settings


def test_the_grid_has_432_different_runs() -> None:
    assert len(settings(1)) == len(set(settings(1))) == 432


def test_the_twelfth_is_stratified() -> None:
    part = settings(12)
    assert set(part) < set(settings(1))
    assert set(Counter((run.depth, run.activation, run.norm) for run in part).values()) == {1}
    for axis in ("depth", "activation", "norm"):
        assert len(set(Counter((getattr(run, axis), run.clip) for run in part).values())) == 1


def test_three_of_the_twelfth_have_each_depth_norm_and_clip() -> None:
    three = settings(144)
    assert set(three) < set(settings(12))
    for axis in ("depth", "norm", "clip"):
        assert len({getattr(run, axis) for run in three}) == len(three) == 3


def test_ensembles_hold_the_grid_by_architecture() -> None:
    assert {run for members in ensembles(1) for run in members} == set(settings(1))
    for members in ensembles(1):
        assert len({(run.depth, run.activation, run.norm) for run in members}) == 1


def test_a_third_of_the_ensembles_is_stratified() -> None:
    chosen = [members[0] for members in ensembles(3)]
    assert len({(run.depth, run.activation) for run in chosen}) == len(chosen) == 12
    assert set(Counter(run.norm for run in chosen).values()) == {4}


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_a_member_of_an_ensemble_is_what_the_loop_trains(norm: str) -> None:
    data = digits()
    members = next(group for group in ensembles(1) if (group[0].depth, group[0].norm) == (5, norm))
    stacked = train_ensemble(members, data, steps=6)
    for number, setting in enumerate(members):
        alone = train(setting, data, steps=6)
        assert [losses[number] for losses in stacked.losses] == pytest.approx(alone.losses, rel=1e-3)
        for together, norms in zip(stacked.norms, alone.norms, strict=True):
            assert [layer[number] for layer in together] == pytest.approx(norms, rel=1e-2)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # of torch's own compiler
def test_the_compiled_loop_trains_what_the_loop_trains() -> None:
    data, setting = digits(), Setting(depth=2, norm="batch", clip="norm")
    found, alone = compiled.train(setting, data, steps=7, backend="aot_eager"), train(setting, data, steps=7)
    assert found.record == alone
    assert (found.graphs, found.refused) == (3, 0)


def test_a_fused_update_is_the_same_but_for_rounding() -> None:
    data, setting = digits(), Setting(depth=3)
    losses = [train(setting, data, steps=6, fused=fused).losses for fused in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_grid_counts_1_5_teraflop() -> None:
    rows = Counter(dict.fromkeys((5, 10, 20), 144 * (STEPS + 1)))
    per_row = {depth: BATCH * (4 * 64 * 64 + (depth - 2) * 6 * 64 * 64 + 6 * 64 * 10) for depth in rows}
    assert operations(rows, 64) == sum(rows[depth] * per_row[depth] for depth in rows)
    assert 1.4e12 < operations(rows, 64) < 1.6e12


def test_work_is_the_mean_of_the_processes() -> None:
    clocks = [Clock(1, 0.0, 1.0), Clock(2, 0.5, 3.5), Clock(1, 1.5, 2.0)]
    assert work_seconds(clocks) == 2.5


def test_the_sentence_is_of_the_median_share() -> None:
    trainings = [Training(seconds, 10.0, 3) for seconds in (40.0, 12.5, 20.0)]
    assert say(trainings, 160e9).startswith("training phase: 20.0 s, limit 10.0 s, 50 %")


def test_the_plane_is_square() -> None:
    variances = [override.partition("=")[2].split(",") for override in plane(100) if "_var" in override]
    assert [len(set(values)) for values in variances] == [100, 100]


@pytest.mark.parametrize("name", COHORTS)
def test_the_loop_of_an_architecture_is_given_what_its_cohort_is(name: str) -> None:
    found = cohort(COHORTS[name])
    network, task = COHORTS[name].network(found.runs[0]), found.task
    answers = network(task.inputs[task.order[0]])
    targets, outputs = task.targets[task.order[0]], found.runs[0].facts.outputs
    assert answers.shape == (targets.shape if targets.is_floating_point() else (*targets.shape, outputs))
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert trained == pytest.approx(found.layout.size, rel=0.05)  # torch's recurrences have two biases


def test_a_cohort_and_its_loop_are_timed() -> None:
    text = measure("rnn", COHORTS["rnn"], torch.get_num_threads(), 1, time.process_time)
    assert re.match(r"rnn +[0-9.]+ +[+-][0-9]+% +[+-][0-9]+% +[0-9.]+ +[0-9.]+ +[0-9.]+ x", text)
