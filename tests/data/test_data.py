"""Every task as a run meets it: shapes, content, standardisation, the order of the batches."""

from __future__ import annotations

import hashlib
import lzma
import math
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from gradlab.data.batches import batches, with_bad_batches
from gradlab.data.characters import FILE
from gradlab.data.dataset import DataError, Dataset, standardised
from gradlab.data.facts import described
from gradlab.data.loaders import LOADERS, load
from gradlab.spec.choices import DATA
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from tests.images import cifar_images

MANY = [name for name, entry in DATA.items() if entry.train > 1]
"""The data of more than one sample."""


@cache
def _cifar() -> Path:
    return cifar_images(Path(mkdtemp()))


def _run(name: str, idx200: Path, **keys: Value) -> RunSpec:
    """A run on ``name``, its images read from the fixture where they are not embedded or drawn."""
    folder = _cifar() if name == "cifar10" else idx200
    root: dict[str, Value] = {"data.root": str(folder)} if "root" in DATA[name].keys else {}
    return described(
        {
            "model.name": "lstm" if DATA[name].vocabulary else "mlp",
            "data.name": name,
            "data.batch_size": min(16, DATA[name].train),
            **root,
            **{f"data.{key}": v for key, v in keys.items()},
        }
    )


def _arrays(data: Dataset) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
    return data.train_inputs, data.train_targets, data.heldout_inputs, data.heldout_targets


def test_loaders_are_the_named_choices() -> None:
    assert list(LOADERS) == list(DATA)


@pytest.mark.parametrize("name", [name for name, entry in DATA.items() if not entry.own])
def test_arrays_are_those_of_the_facts(name: str, idx200: Path) -> None:
    run = _run(name, idx200)
    data, facts = load(run.data), run.facts
    assert data.train_inputs.shape == (facts.train, *facts.shape)
    assert data.heldout_inputs.shape == (facts.heldout, *facts.shape)
    assert data.train_inputs.dtype == data.heldout_inputs.dtype == (np.int64 if facts.vocabulary else np.float64)
    for inputs in (data.train_inputs, data.heldout_inputs):
        if facts.vocabulary:
            assert (inputs.min() >= 0, inputs.max() < facts.vocabulary) == (True, True)
    if facts.loss == "cross_entropy":
        places = (facts.positions,) if facts.positions else ()
        assert data.train_targets.shape == (facts.train, *places)
        assert data.heldout_targets.shape == (facts.heldout, *places)
        assert data.train_targets.dtype == data.heldout_targets.dtype == np.int64
        for targets in (data.train_targets, *([] if facts.positions else [data.heldout_targets])):
            assert sorted(set(targets.ravel().tolist())) == list(range(facts.outputs))
    else:
        assert data.train_targets.shape == (facts.train, facts.outputs)
        assert data.heldout_targets.shape == (facts.heldout, facts.outputs)
        assert data.train_targets.dtype == data.heldout_targets.dtype == np.float64
    assert all(np.isfinite(array).all() for array in _arrays(data))


@pytest.mark.parametrize(
    ("key", "name", "value", "shape"),
    [
        ("features", "gaussian_mixture", 7, (7,)),
        ("features", "linear_teacher", 1, (1,)),
        ("length", "adding", 2, (2, 2)),
        ("length", "adding", 101, (101, 2)),
        ("length", "copy_memory", 21, (21,)),
        ("length", "tones", 10, (10, 16)),
        ("length", "moving_digits", 5, (5, 144)),
    ],
)
def test_sizes_follow_their_keys(key: str, name: str, value: int, shape: tuple[int, ...], idx200: Path) -> None:
    run = _run(name, idx200, **{key: value})
    data = load(run.data)
    assert run.facts.shape == shape
    assert data.train_inputs.shape[1:] == data.heldout_inputs.shape[1:] == shape
    assert data.train_targets.shape[1:] == (
        (run.facts.outputs,) if run.facts.loss == "mean_squared_error" else (10,) if run.facts.positions else ()
    )


@pytest.mark.parametrize("name", MANY)
def test_content_does_not_depend_on_order_or_scales(name: str, idx200: Path) -> None:
    first = load(_run(name, idx200).data)
    other = load(_run(name, idx200, seed=7, batch_size=3, input_scale=5.0, target_scale=2.0).data)
    for one, two in zip(_arrays(first), _arrays(other), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["gaussian_mixture", "linear_teacher", "spectral_teacher"])
def test_content_does_not_depend_on_the_threads(name: str) -> None:
    """A piece may train in a process with one thread and again in one with many: same bits, BLAS or not."""
    program = (
        "import hashlib; from gradlab.data.loaders import load; from gradlab.data.facts import described;"
        f"data = load(described({{'data.name': {name!r}, 'data.features': 200}}).data);"
        "print(*(hashlib.md5(a.tobytes()).hexdigest() for a in (data.train_inputs, data.train_targets)))"
    )
    printed = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        printed.add(
            subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True).stdout
        )
    assert len(printed) == 1


@pytest.mark.parametrize("name", [name for name in MANY if not DATA[name].vocabulary])
def test_standardised_inputs_use_the_training_part_alone(name: str, idx200: Path) -> None:
    stored = load(_run(name, idx200, standardise=False).data)
    data = load(_run(name, idx200, standardise=True).data)
    mean, deviation = stored.train_inputs.mean(), stored.train_inputs.std()
    np.testing.assert_allclose(data.train_inputs, (stored.train_inputs - mean) / deviation, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(data.heldout_inputs, (stored.heldout_inputs - mean) / deviation, rtol=1e-11, atol=1e-11)
    assert abs(data.train_inputs.mean()) < 1e-11
    assert abs(data.train_inputs.std() - 1) < 1e-11
    np.testing.assert_array_equal(data.train_targets, stored.train_targets)
    np.testing.assert_array_equal(data.heldout_targets, stored.heldout_targets)


def test_equal_inputs_cannot_be_standardised() -> None:
    flat, targets = np.full((4, 2), 3.0), np.zeros(4, dtype=np.int64)
    with pytest.raises(DataError, match=r"data\.standardise"):
        standardised(Dataset(flat, targets, flat.copy(), targets))


def test_digits_are_those_of_scikit_learn() -> None:
    origin = load_digits()
    data = load(described({"data.standardise": False}).data)

    def rows(images: NDArray[np.float64], labels: NDArray[np.int64]) -> list[tuple[float, ...]]:
        return sorted(map(tuple, np.column_stack([images.reshape(len(images), -1), labels]).tolist()))

    images = np.concatenate([data.train_inputs, data.heldout_inputs])
    labels = np.concatenate([data.train_targets, data.heldout_targets])
    assert rows(images, labels.astype(np.int64)) == rows(origin.images, origin.target)


def test_digits_split_is_the_documented_rule() -> None:
    origin = load_digits()
    data = load(described({"data.standardise": False}).data)
    by_class = [sample for digit in range(10) for sample in np.flatnonzero(origin.target == digit).tolist()]
    heldout = sorted(by_class[::5])
    train = sorted(set(range(1797)) - set(heldout))
    np.testing.assert_array_equal(data.heldout_inputs, origin.images[heldout])
    np.testing.assert_array_equal(data.heldout_targets, origin.target[heldout])
    np.testing.assert_array_equal(data.train_inputs, origin.images[train])
    np.testing.assert_array_equal(data.train_targets, origin.target[train])
    shares = np.bincount(data.heldout_targets.astype(np.int64)) - np.bincount(origin.target) / 5
    assert np.abs(shares).max() < 1


def test_adding_marks_one_number_in_each_half_and_gives_their_sum() -> None:
    for length in (2, 7, 50):
        data = load(described({"data.name": "adding", "data.length": length, "data.standardise": False}).data)
        inputs = np.concatenate([data.train_inputs, data.heldout_inputs])
        targets = np.concatenate([data.train_targets, data.heldout_targets])
        numbers, marks = inputs[..., 0], inputs[..., 1]
        assert np.isin(marks, (0.0, 1.0)).all()
        assert (marks[:, : length // 2].sum(axis=1) == 1).all()
        assert (marks[:, length // 2 :].sum(axis=1) == 1).all()
        assert (marks.sum(axis=0) > 0).all()
        assert numbers.min() >= 0
        assert numbers.max() < 1
        np.testing.assert_allclose(targets[:, 0], (numbers * marks).sum(axis=1), rtol=1e-15)


def test_guessing_the_mean_of_adding_costs_a_sixth() -> None:
    targets = load(described({"data.name": "adding"}).data).train_targets
    # The sum of two uniform numbers has fourth central moment 1/15: the variance of 20,000 of them is good to 0.0014.
    assert targets.mean() == pytest.approx(1.0, abs=4 * math.sqrt(1 / 6 / 20_000))
    assert targets.var() == pytest.approx(1 / 6, abs=4 * math.sqrt((1 / 15 - 1 / 36) / 20_000))


def test_linear_teacher_is_one_linear_map_for_both_parts() -> None:
    data = load(described({"data.name": "linear_teacher", "data.features": 64, "data.standardise": False}).data)
    teacher, *_ = np.linalg.lstsq(data.train_inputs, data.train_targets, rcond=None)
    np.testing.assert_allclose(data.heldout_inputs @ teacher, data.heldout_targets, atol=1e-10)
    assert teacher.var() == pytest.approx(1 / 64, rel=4 * math.sqrt(2) / 64)
    assert data.train_inputs.var() == pytest.approx(1, rel=0.02)


def test_gaussian_mixture_has_ten_clouds_of_unit_noise() -> None:
    data = load(described({"data.name": "gaussian_mixture", "data.features": 100, "data.standardise": False}).data)
    clouds = [data.train_inputs[data.train_targets == c] for c in range(10)]
    centres = np.array([cloud.mean(axis=0) for cloud in clouds])
    noise = np.concatenate([cloud - cloud.mean(axis=0) for cloud in clouds])
    assert noise.var() == pytest.approx(1, rel=0.02)
    assert centres.var() == pytest.approx(1, rel=0.2)
    nearest = np.square(data.heldout_inputs[:, None] - centres).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, data.heldout_targets)


def test_drawn_content_is_the_same_for_ever() -> None:
    """The first number of each drawn task: a changed generator would change every stored result."""
    first = {
        name: float(load(described({"data.name": name, "data.standardise": False}).data).train_inputs.ravel()[0])
        for name in ("gaussian_mixture", "linear_teacher", "adding")
    }
    assert first == pytest.approx(
        {"gaussian_mixture": 1.9268922278843417, "linear_teacher": 0.7677902568360041, "adding": 0.7385614030027874},
        rel=1e-14,
    )


def test_batches_cover_each_epoch_once_and_drop_the_remainder() -> None:
    spec = described({"data.batch_size": 10}).data
    rows = batches(spec, train=47, count=11)
    assert rows.shape == (11, 10)
    assert rows.dtype == np.int64
    for epoch in (rows[:4], rows[4:8]):
        assert len(set(epoch.ravel().tolist())) == 40
    assert len(set(rows[8:].ravel().tolist())) == 30
    assert rows.min() >= 0
    assert rows.max() < 47
    assert not np.array_equal(rows[:4], rows[4:8])
    # What one epoch drops is drawn anew in the next: over many epochs no sample stays away.
    assert len(set(batches(spec, train=47, count=80).ravel().tolist())) == 47


@pytest.mark.parametrize(("size", "train"), [("full", 1437), (1, 1437), (1437, 1437), (719, 1437)])
def test_batches_of_every_size(size: int | str, train: int) -> None:
    spec = described({"data.batch_size": size}).data
    per_epoch = train // spec.batch_size
    rows = batches(spec, train, 2 * per_epoch)
    assert rows.shape == (2 * per_epoch, spec.batch_size)
    for epoch in (rows[:per_epoch], rows[per_epoch:]):
        assert len(set(epoch.ravel().tolist())) == per_epoch * spec.batch_size


def test_batches_depend_on_the_data_seed_alone() -> None:
    rows = batches(described({"data.batch_size": 8}).data, 100, 30)
    np.testing.assert_array_equal(rows, batches(described({"data.batch_size": 8, "seed": 5}).data, 100, 30))
    assert not np.array_equal(rows, batches(described({"data.batch_size": 8, "data.seed": 1}).data, 100, 30))


@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 29])
def test_a_step_has_its_batch_however_many_follow(count: int) -> None:
    spec = described({"data.batch_size": 8}).data
    np.testing.assert_array_equal(batches(spec, 100, count), batches(spec, 100, 40)[:count])


def test_order_is_the_same_for_ever() -> None:
    assert batches(described({"data.batch_size": 5}).data, 1437, 2).tolist() == [
        [960, 880, 1160, 1143, 226],
        [270, 12, 101, 419, 1030],
    ]


def test_data_import_no_torch() -> None:
    program = "import sys, gradlab.data; assert not {'torch', 'pooch', 'requests', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_digits_and_first_batch_are_quick() -> None:
    """Generous bounds (they are 5 ms and 2 ms on a laptop), so that only a change of kind fails."""
    spec = described({}).data
    begin = time.process_time()
    load(spec)
    batches(spec, 60_000, 1)
    assert time.process_time() - begin < 0.2


def test_the_interval_is_a_grid_with_the_points_between_held_out() -> None:
    data = load(described({"data.name": "interval"}).data)
    assert data.train_inputs[[0, -1], 0].tolist() == [-2, 2]
    np.testing.assert_allclose(np.diff(data.train_inputs[:, 0]), 4 / 255, rtol=1e-12)
    np.testing.assert_allclose(data.heldout_inputs[0, 0], -2 + 2 / 255, rtol=1e-12)
    np.testing.assert_allclose(data.train_targets, np.sin(np.pi * data.train_inputs), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("features", [1, 4, 100])
def test_the_spectral_teacher_has_whitened_inputs_and_its_singular_values(features: int) -> None:
    data = load(described({"data.name": "spectral_teacher", "data.features": features}).data)
    x, y = data.train_inputs, data.train_targets
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(features), atol=1e-12)
    teacher = y.T @ x / len(x)
    np.testing.assert_allclose(teacher, teacher.T, atol=1e-10)
    np.testing.assert_allclose(np.linalg.eigvalsh(teacher), np.arange(1, features + 1), rtol=1e-10)
    np.testing.assert_allclose(data.heldout_targets, data.heldout_inputs @ teacher.T, atol=1e-10)


def test_too_many_features_cannot_be_whitened() -> None:
    with pytest.raises(DataError, match=r"data\.features=256: 256 inputs are whitened"):
        load(described({"data.name": "spectral_teacher", "data.features": 256}).data)


def _characters(**keys: Value) -> Dataset:
    return load(described({"model.name": "rnn", "data.name": "characters"} | keys).data)


@pytest.mark.parametrize("length", [2, 64, 20_000])
def test_characters_are_windows_of_one_text_and_none_is_in_both_parts(length: int) -> None:
    text = lzma.decompress(FILE.read_bytes()).decode("ascii")
    letters, split = sorted(set(text)), text.index("Chapter 21\n")
    data = _characters(**{"data.length": length})
    parts = (
        (data.train_inputs, data.train_targets, text[:split]),
        (data.heldout_inputs, data.heldout_targets, text[split:]),
    )
    for inputs, targets, part in parts:
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
        windows = ["".join(letters[number] for number in [*inputs[at], targets[at, -1]]) for at in (0, 1, 77, -1)]
        assert all(window in part for window in windows)
        assert part.startswith(windows[0])
        assert part.endswith(windows[-1])


def test_the_text_is_the_one_whose_source_is_told() -> None:
    text = lzma.decompress(FILE.read_bytes())
    told = FILE.with_name("characters.md").read_text(encoding="utf-8")
    assert hashlib.sha256(text).hexdigest() in told
    assert text.startswith(b"Chapter 1\n\n\nIt is a truth universally acknowledged")
    assert f"{len(text):,} characters of {len(set(text))} kinds" in told


def test_guessing_a_character_by_how_often_each_occurs_costs_3_nats() -> None:
    shares = np.bincount(_characters().train_targets.ravel(), minlength=74) / 256_000
    assert -(shares[shares > 0] * np.log(shares[shares > 0])).sum() == pytest.approx(3.10, abs=0.005)


def test_a_sequence_of_nothing_and_a_number() -> None:
    silence, point = load(described({"data.name": "silence"}).data), load(described({"data.name": "point"}).data)
    assert silence.train_inputs.shape == (1, 50, 1)
    assert not silence.train_inputs.any()
    assert silence.train_targets.tolist() == silence.heldout_targets.tolist() == [[0.7]]
    assert (point.train_inputs.tolist(), point.train_targets.tolist()) == ([[1.0]], [[0.0]])


def test_bad_batches_have_their_inputs_and_the_largest_answer() -> None:
    spec = described({"data.batch_size": 8, "data.bad_every": 3}).data
    data, order = load(spec), batches(spec, 1437, 7)
    spoiled, places = with_bad_batches(spec, data, order)
    bad = [2, 5]
    good, kept = np.delete(order, bad, axis=0), np.delete(places, bad, axis=0)
    assert np.array_equal(kept, good), "the others stay"
    assert np.array_equal(spoiled.train_inputs[places], data.train_inputs[order])
    assert np.array_equal(spoiled.train_targets[kept], data.train_targets[good])
    assert np.array_equal(spoiled.train_targets[places[bad]], np.full((2, 8), 9))
    assert np.array_equal(spoiled.train_targets[:1437], data.train_targets)
    for steps in (2, 7):
        plain = described({"data.batch_size": 8, "data.bad_every": 3 if steps == 2 else 0}).data
        assert with_bad_batches(plain, data, order[:steps])[0] is data, "none has come yet, or none is asked for"
