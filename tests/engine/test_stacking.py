"""Networks of the user's own trained as one are what they are one by one; what cannot be is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradlab.data.loaders import load
from gradlab.engine.lent import obstacle_of
from gradlab.engine.task import task_of
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record
from tests.engine.test_lent import CASES, HERE, TRAININGS, allowed, spec, trained

__all__ = ["allowed"]

MORE: dict[str, dict[str, Value]] = {
    name: {"model.target": f"{HERE}:{name}"} for name in ("Odd", "Loop", "Counting", "Hidden", "Choosing")
}
MORE |= {"Tossing": {"model.target": f"{HERE}:Tossing"}, "Sparse": {**CASES["Words"], "model.args.sparse": True}}
REFUSED = {
    "Lstm": "torch.func has no rule for lstm",
    "Cells": "torch.func has no rule for gru_cell",
    "Transformer": "it draws random numbers",
    "Dropping": "it draws random numbers",
    "Tossing": "it draws random numbers",
    "Counting": "it keeps something between its calls that is no buffer",
    "Hidden": "together it is not what it is alone",
    "Choosing": "torch.func: RuntimeError: vmap: It looks like you're",
    "Sparse": "torch.func: ",
}
EVERY: dict[str, dict[str, Value]] = {**CASES, **MORE}
STACKED = sorted(set(EVERY) - set(REFUSED))


def stacked(*runs: RunSpec) -> Record:
    return train(runs, load(runs[0].data), torch.device("cpu"), lambda _t, _d: None, stacked=True)


def three(name: str, **more: Value) -> list[RunSpec]:
    return [
        spec({**EVERY[name], **more, "seed": seed, "optim.lr": lr}) for seed, lr in ((0, 0.05), (1, 0.1), (2, 0.01))
    ]


def why_not(name: str) -> str:
    pair = three(name)[:2]
    task = task_of(pair, load(pair[0].data), torch.float64, torch.device("cpu"))
    return obstacle_of(pair, task)


@pytest.mark.parametrize("more", TRAININGS, ids=["sgd", "adamw-clipped"])
@pytest.mark.parametrize("name", STACKED)
def test_networks_trained_as_one_are_what_they_are_one_by_one(name: str, more: dict[str, Value]) -> None:
    runs = three(name, **more)
    one_by_one, as_one = trained(*runs), stacked(*runs)
    for column in ("loss", "grad_norm", "grad_norm_clipped", "heldout_loss"):
        found, wanted = getattr(as_one, column), getattr(one_by_one, column)
        np.testing.assert_allclose(found, wanted, rtol=1e-8, err_msg=column)
    # A bias before batch norm has a gradient of rounding errors alone: now and then one of them is none.
    columns = [at for at, column in enumerate(as_one.columns) if (name, column) != ("Convolutional", "grad_zero")]
    for found, wanted in zip(as_one.layers, one_by_one.layers, strict=True):
        np.testing.assert_allclose(found.values[columns], wanted.values[columns], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", STACKED)
def test_nothing_stands_in_the_way_of_these(name: str) -> None:
    assert why_not(name) == ""


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_trained_as_one_says_why(name: str) -> None:
    assert why_not(name).startswith(REFUSED[name])


def test_the_same_company_gives_the_same_bits() -> None:
    runs = three("Convolutional")
    np.testing.assert_array_equal(stacked(*runs).loss, stacked(*runs).loss)


@pytest.mark.parametrize("name", ["Repeated", "Convolutional"])
def test_a_member_that_diverges_leaves_the_others_of_a_stack_alone(name: str) -> None:
    runs = [spec({**EVERY[name], "seed": seed, "optim.lr": lr}) for seed, lr in ((0, 0.05), (1, 1e200), (2, 0.1))]
    record, well = stacked(*runs), three(name)
    assert record.diverged_at[1] > 0
    assert record.diverged_at[0] == record.diverged_at[2] == -1
    assert record.diverged_at[1] == trained(*runs).diverged_at[1]
    np.testing.assert_allclose(record.loss[:, 0], stacked(*well).loss[:, 0], rtol=1e-12)


def test_members_of_a_stack_may_scale_their_inputs_differently() -> None:
    runs = [spec({**CASES["Mlp"], "data.input_scale": scale}) for scale in (1.0, 0.1)]
    np.testing.assert_allclose(stacked(*runs).loss, trained(*runs).loss, rtol=1e-8)
