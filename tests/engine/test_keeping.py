"""A training that is broken off and gone on with gives the tables of one that nobody broke off, bit for bit."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab.data.loaders import load
from gradlab.engine.keeper import NOBODY, Keeper
from gradlab.engine.train import train
from gradlab.spec.choices import CLIPS, INSTRUMENTS, MODELS, OPTIMIZERS, SCHEDULES
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.arrays import Array, Kept, read_arrays, write_arrays
from gradlab.store.columns import SCHEMAS
from gradlab.store.record import Tables, tidy
from tests.engine.test_lent import CASES, allowed, spec
from tests.engine.test_lent_half import MIXED

__all__ = ["allowed"]

BASE: dict[str, Value] = {
    "model.width": 8,
    "model.depth": 3,
    "train.steps": 120,
    "probe.every": 7,
    "data.batch_size": 16,
}
DIVERGING: dict[str, Value] = {"data.name": "linear_teacher", "model.activation": "linear", "optim.lr": 1.0}
"""Slowly: two of three members, in different steps."""

FEW: dict[str, Value] = {"train.steps": 24}
"""Steps of architectures that take long."""

SHORT: dict[str, dict[str, Value]] = {
    "seq2seq": {"data.name": "copy_memory", "data.length": 21},
    "transformer": {"data.length": 6},
}
"""Of those that read a sequence."""

CPU = torch.device("cpu")

SETTINGS: dict[str, dict[str, Value]] = {
    **{
        f"model {name}": {"model.name": name, "model.depth": 4, **({} if name == "mlp" else FEW), **SHORT.get(name, {})}
        for name in MODELS
        if name not in ("rnn", "linear_chain", "module")
    },
    "model rnn": {
        "model.name": "rnn",
        "model.depth": 2,
        "data.name": "adding",
        "data.length": 6,
        "model.norm": "layer",
    },
    "model linear_chain": {"model.name": "linear_chain", "data.name": "linear_teacher", "data.features": 8},
    **{f"norm {name}": {"model.norm": name} for name in ("batch", "layer", "rms", "weight")},
    **{f"optimizer {name}": {"optim.name": name, "optim.momentum": 0.9} for name in OPTIMIZERS},
    **{f"clip {name}": {"clip.mode": name, "clip.threshold": 0.5} for name in CLIPS},
    **{
        f"schedule {name}": {"optim.schedule": name, "optim.warmup": 9, "optim.decay": 0.8, "optim.decay_every": 3}
        for name in SCHEDULES
    },
    "float64 without kernels of its own": {"model.activation": "gelu", "train.precision": "float64"},
    "dropout": {"model.dropout": 0.4},
    "parametrization": {"model.parametrization": "mup", "model.base_width": 4, "optim.momentum": 0.9},
    "a member that diverges": DIVERGING,
    "steps that are not rehearsed": {"train.steps": 8, "probe.every": 3},
}


class KilledError(Exception):
    """Stands for a kill right after a checkpoint was written."""


def company(values: dict[str, Value]) -> list[RunSpec]:
    """Three members of one cohort, of different seeds and learning rates."""
    first = build(BASE | values)
    return [
        build(BASE | values | {"seed": seed, "optim.lr": first.optim.lr * scale})
        for seed, scale in enumerate((0.5, 1.0, 0.01))
    ]


def tables(runs: Sequence[RunSpec], keeper: Keeper = NOBODY, *, stacked: bool = False) -> Tables:
    return tidy(train(runs, load(runs[0].data), CPU, lambda *_: None, keeper, stacked=stacked))


def broken_off(runs: Sequence[RunSpec], at: int, path: Path, *, stacked: bool = False) -> Tables:
    """KilledError after step ``at``, gone on with from the file, killed once more, and gone on with to the end."""
    return killed(runs, (at, (at + runs[0].train.steps) // 2), path, stacked=stacked)


def killed(runs: Sequence[RunSpec], ends: Sequence[int], path: Path, *, stacked: bool = False) -> Tables:
    """Killed after each of these steps, and gone on with from the file every time."""

    def die(kept: Kept) -> None:
        write_arrays(path, kept)
        raise KilledError

    for end in ends:
        keeper = Keeper(load=lambda: read_arrays(path), wanted=partial(operator.eq, end), save=die)
        with asked_after_every_step(), pytest.raises(KilledError):
            tables(runs, keeper, stacked=stacked)
    return tables(runs, Keeper(load=lambda: read_arrays(path)), stacked=stacked)


@contextmanager
def asked_after_every_step() -> Iterator[None]:
    """Otherwise a keeper is asked after so many steps as take a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradlab.engine.train.SPAN_SECONDS", 0.0)
        yield


def assert_equal(one: Tables, other: Tables) -> None:
    for name in SCHEMAS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.schema == theirs.schema
        for column in set(mine.column_names) - {"duration_s"}:
            a, b = mine[column].combine_chunks(), theirs[column].combine_chunks()
            assert a.is_null().equals(b.is_null()), (name, column)
            bits = [np.array(values.drop_null().to_pylist()) for values in (a, b)]
            assert bits[0].tobytes() == bits[1].tobytes(), (name, column)


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_training_that_was_broken_off_is_the_same(setting: str, tmp_path: Path) -> None:
    runs = company(SETTINGS[setting])
    whole = tables(runs)
    at = int(np.random.default_rng(len(setting)).integers(0, runs[0].train.steps - 2))
    assert_equal(broken_off(runs, at, tmp_path / "kept.safetensors"), whole)
    if "diverges" in setting:
        assert set(whole.runs["state"].to_pylist()) == {"finished", "diverged"}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("more", [{}, MIXED], ids=["single", "half"])
def test_networks_of_one_s_own_go_on(stacked: bool, more: dict[str, Value], tmp_path: Path) -> None:
    runs = [spec({**CASES["Convolutional"], **more, "seed": seed, "probe.every": 4}) for seed in (0, 1, 2)]
    whole = tables(runs, stacked=stacked)
    assert_equal(broken_off(runs, 5, tmp_path / "kept.safetensors", stacked=stacked), whole)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_an_instrument_goes_on(name: str, tmp_path: Path) -> None:
    needs: dict[str, Value] = {key: values[0] for key, values in INSTRUMENTS[name].needs.items()}
    values: dict[str, Value] = {"train.steps": 24, "probe.every": 6, "probe.instrument": name, **needs}
    values |= SHORT.get(str(needs.get("model.name")), {})
    # A plane is ten thousand networks.
    own: dict[str, dict[str, Value]] = {"mode_strength": {"model.width": 4}, "loss_plane": {"probe.every": 24}}
    runs = company(values | own.get(name, {}))
    whole = tables(runs)
    assert_equal(broken_off(runs, 9, tmp_path / "kept.safetensors"), whole)
    assert (whole.instruments.num_rows > 0) == (name != "none")


@pytest.mark.parametrize("ends", [(-21, -17, -15, -14, -8), (-7, -3, 4), (-1, 0)])
def test_a_pre_training_goes_on(ends: Sequence[int], tmp_path: Path) -> None:
    """Two layers of 7 steps, then 7 steps of two members whose inputs are noisy, before step 0; one has none."""
    modes = ("layerwise", "denoising", "none", "denoising")
    given: dict[str, Value] = {**BASE, "train.steps": 12, "pretrain.steps": 7, "probe.every": 5}
    runs = [build(given | {"pretrain.mode": mode, "seed": seed}) for seed, mode in enumerate(modes)]
    assert_equal(killed(runs, ends, tmp_path / "kept"), tables(runs))


def test_a_training_that_goes_on_is_not_pre_trained_again(tmp_path: Path) -> None:
    """As is seen by what the bar is told, which a pre-training moves, too."""
    runs = company({"train.steps": 60, "pretrain.mode": "layerwise", "pretrain.steps": 100})
    path, told = tmp_path / "kept", list[tuple[float, int]]()

    def progress(share: float, diverged: int) -> None:
        told.append((share, diverged))

    keeper = Keeper(wanted=lambda t: t == 20, save=partial(write_arrays, path))
    with asked_after_every_step():
        train(runs, load(runs[0].data), CPU, progress, keeper)
    # Of two layers each has 2 + 1/2 layers' work, of three.
    before = 100 * 2 * 2.5 / 3
    shares = [before / 4, before / 2, before * 3 / 4, before, before + 21, before + 61]
    assert [share for share, _ in told] == pytest.approx([share / (before + 61) for share in shares])
    told.clear()
    train(runs, load(runs[0].data), CPU, progress, Keeper(load=lambda: read_arrays(path)))
    assert [share for share, _ in told] == pytest.approx([1.0])


def test_where_members_have_ended_before_the_kill(tmp_path: Path) -> None:
    """At a step whose table was not due, so that its window is played again; and after that."""
    runs = company(DIVERGING | {"probe.every": 50})
    whole = tables(runs)
    ended = [t for t in whole.runs["diverged_at"].to_pylist() if t is not None]
    assert ended
    for at in (ended[0] - 1, ended[0], ended[0] + 1):
        path = tmp_path / f"{at}.safetensors"
        assert_equal(broken_off(runs, at, path), whole)


def test_what_was_kept_of_another_network_is_not_used(tmp_path: Path) -> None:
    runs, others = company({}), company({"model.width": 9})
    seen: list[Kept] = []
    with asked_after_every_step():
        tables(others, Keeper(wanted=lambda t: t == 5, save=seen.append))
    assert_equal(tables(runs, Keeper(load=lambda: seen[0])), tables(runs))


def test_the_file_is_of_the_form_of_safetensors_and_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    arrays: dict[str, Array] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 4)),
        "flags": np.array([True, False]),
        "numbers": np.array([-1, 2**40]),
    }
    write_arrays(path, Kept({"step": 3, "name": "é"}, arrays))
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert size % 8 == 0
    assert header["a"]["dtype"] == "F32"
    first, end = header["a"]["data_offsets"]
    assert np.frombuffer(raw[8 + size + first : 8 + size + end], "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert all(isinstance(value, str) for value in header["__metadata__"].values())
    found = read_arrays(path)
    assert found is not None
    assert found.facts == {"step": 3, "name": "é"}
    assert all(np.array_equal(found.arrays[name], array) for name, array in arrays.items())
    rng = np.random.default_rng(0)
    for place in {0, 8, 40, len(raw) - 1, *rng.integers(0, len(raw), 40).tolist()}:
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert read_arrays(path) is None, place
    for length in (0, 7, 8, 50, len(raw) - 1):
        path.write_bytes(raw[:length])
        assert read_arrays(path) is None
    path.write_bytes(raw + b"\0")
    assert read_arrays(path) is None
    assert read_arrays(tmp_path / "missing") is None
