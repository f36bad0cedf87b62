"""Data of the user's own in files: how they are understood, and the first fault of a bad one, in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from gradlab.data.dataset import DataError
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec
from tests.members import differences, measured

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(40, 3))
NAMES = np.array(["ada", "bob"])[(NUMBERS[:, 0] > 0).astype(int)]


def run(path: Path, **keys: Value) -> RunSpec:
    given = {f"data.{name}": value for name, value in keys.items()}
    return described({"data.name": "file", "data.path": str(path), "data.batch_size": 8, "model.depth": 2, **given})


def csv(path: Path, lines: list[str]) -> Path:
    file = path / "mine.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def table(path: Path, labels: Any = NAMES) -> Path:
    rows = [",".join([*map(repr, map(float, row)), str(label)]) for row, label in zip(NUMBERS, labels, strict=True)]
    return csv(path, ["a,b,c,kind", *rows])


def images(path: Path, size: tuple[int, int] = (4, 6)) -> Path:
    for kind in ("cat", "dog"):
        (path / "photos" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = RNG.integers(0, 256, (*size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path / "photos" / kind / f"{number}.png")
    return path / "photos"


def parquet(path: Path) -> Path:
    columns = {name: NUMBERS[:, place] for place, name in enumerate("abc")}
    pq.write_table(pa.table({**columns, "kind": NAMES}), path / "mine.parquet")
    return path / "mine.parquet"


def npz(path: Path) -> Path:
    np.savez(path / "mine.npz", x=NUMBERS, y=(NUMBERS[:, 0] > 0).astype(int))
    return path / "mine.npz"


def safetensors(path: Path) -> Path:
    save_file({"x": NUMBERS.astype(np.float32), "y": (NUMBERS[:, 0] > 0).astype(np.int64)}, path / "mine.safetensors")
    return path / "mine.safetensors"


@pytest.mark.parametrize("write", [table, parquet, npz, safetensors])
def test_the_same_numbers_in_every_form_are_the_same_data(write: Callable[[Path], Path], tmp_path: Path) -> None:
    spec = run(write(tmp_path), standardise=False)
    data, wanted = load(spec.data), load(run(table(tmp_path), standardise=False).data)
    assert (spec.facts.shape, spec.facts.outputs, spec.facts.loss) == ((3,), 2, "cross_entropy")
    assert (spec.facts.train, spec.facts.heldout) == (32, 8)
    np.testing.assert_allclose(data.train_inputs, wanted.train_inputs, rtol=1e-6)
    np.testing.assert_array_equal(data.heldout_targets, wanted.heldout_targets)
    shares = [np.bincount(part, minlength=2) / len(part) for part in (data.train_targets, data.heldout_targets)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.1)


def test_images_are_channels_first_in_their_arrays_and_classes_are_folders(tmp_path: Path) -> None:
    spec = run(images(tmp_path), batch_size=2)
    assert (spec.facts.shape, spec.facts.outputs, spec.facts.turned) == ((4, 6, 3), 2, True)
    assert load(spec.data).train_inputs.shape[1:] == (3, 4, 6)
    assert spec.facts.told is not None
    assert "inputs of 3x4x6" in spec.facts.told
    assert "2 classes (cat, dog)" in spec.facts.told


def seen_as(path: Path, model: str, x: Any) -> RunSpec:
    np.savez(path / "mine.npz", x=x, y=np.arange(len(x)) % 2)
    given: dict[str, Value] = {"model.name": model, "data.name": "file", "data.path": str(path / "mine.npz")}
    return described({**given, "data.batch_size": 4})


@pytest.mark.parametrize("model", ["cnn", "resnet", "capsule"])
def test_arrays_are_images_where_the_axis_of_the_channels_is_clear(model: str, tmp_path: Path) -> None:
    x = RNG.normal(size=(12, 6, 5, 3))
    for given, shape in ((x, (6, 5, 3)), (np.moveaxis(x, -1, 1), (6, 5, 3)), (x[..., 0], (6, 5))):
        assert seen_as(tmp_path, model, given).facts.shape == shape


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((8, 3, 6, 3)), r"samples of 3x6x3; 'cnn' takes \(rows, columns\), or such an image with 1, 3 or 4"),
        (np.ones((8, 9, 6, 5)), r"samples of 9x6x5; 'cnn' takes \(rows, columns\), or such an image with 1, 3 or 4"),
        (np.ones((8, 6, 5), dtype=np.int64), r"whole numbers, which may be words; 'cnn' takes floats, or pixels of"),
    ],
)
def test_arrays_that_are_no_clear_images_are_refused(x: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        seen_as(tmp_path, "cnn", x)


def test_images_that_are_gone_are_missed_by_name(tmp_path: Path) -> None:
    spec = seen_as(tmp_path, "cnn", np.ones((8, 6, 5)) * RNG.normal(size=(8, 1, 1)))
    (tmp_path / "mine.npz").unlink()
    with pytest.raises(SpecError, match=r"mine\.npz: cannot be looked at here, and 'cnn' needs its shape"):
        described({key: value for key, value in spec.flat().items() if value is not None})


def test_images_of_either_order_are_the_same_to_a_cnn(tmp_path: Path) -> None:
    x = RNG.normal(size=(40, 6, 5, 3))
    found = []
    for place, given in enumerate((x, np.moveaxis(x, -1, 1))):
        (tmp_path / str(place)).mkdir()
        flat = seen_as(tmp_path / str(place), "cnn", given).flat()
        own: dict[str, Value] = {"model.depth": 3, "model.width": 4, "train.steps": 4, "probe.every": 2}
        found += measured({key: value for key, value in flat.items() if value is not None} | own)
    assert list(differences(found[0], found[1])) == []


def test_a_folder_may_say_what_is_held_out(tmp_path: Path) -> None:
    photos = images(tmp_path)
    (tmp_path / "both").mkdir()
    photos.rename(tmp_path / "both" / "train")
    images(tmp_path).rename(tmp_path / "both" / "val")
    spec = run(tmp_path / "both", batch_size=2)
    assert (spec.facts.train, spec.facts.heldout) == (12, 12)


def test_a_column_of_fractions_is_a_regression(tmp_path: Path) -> None:
    spec = run(table(tmp_path, NUMBERS[:, 0] * 2.5))
    assert (spec.facts.loss, spec.facts.outputs) == ("mean_squared_error", 1)
    assert "regression" in str(spec.facts.told)


@pytest.mark.parametrize(
    ("labels", "task", "loss"),
    [
        (np.arange(40), "auto", "mean_squared_error"),
        (np.arange(40) % 3, "auto", "cross_entropy"),
        (np.arange(40) % 3, "regression", "mean_squared_error"),
        ((np.arange(40) % 3) * 1.0, "classification", "cross_entropy"),
    ],
)
def test_the_task_is_guessed_or_said(labels: Any, task: str, loss: str, tmp_path: Path) -> None:
    assert run(table(tmp_path, labels), task=task).facts.loss == loss


def test_the_label_may_be_any_column(tmp_path: Path) -> None:
    file = csv(tmp_path, ["kind,a,b", *(f"{'xy'[n % 2]},{n},{n * n}" for n in range(20))])
    assert run(file, label="kind").facts.outputs == 2


def test_the_id_is_that_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    first = run(table(tmp_path))
    (tmp_path / "mine.csv").rename(tmp_path / "other.csv")
    assert run(tmp_path / "other.csv").id == first.id
    assert run(table(tmp_path, NAMES[::-1])).id != first.id


def test_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    spec = run(table(tmp_path))
    table(tmp_path, NAMES[::-1])
    with pytest.raises(DataError, match=r"mine\.csv: has changed since this run was made"):
        load(spec.data)
    with pytest.raises(SpecError, match="has changed"):
        described({key: value for key, value in spec.flat().items() if value is not None})


GOOD = [f"{n},{n * 2},{'xy'[n % 2]}" for n in range(10)]

FAULTS: dict[str, tuple[list[str], str]] = {
    "a text": (["a,b,k", *GOOD, "1,n/a,x"], r"mine\.csv: line 12, column 'b': 'n/a'; expected a number"),
    "nothing": (["a,b,k", "1,,x", *GOOD], r"line 2, column 'b': empty; expected a number"),
    "no number": (["a,b,k", *GOOD, "nan,1,x"], r"line 12, column 'a': nan; expected a finite number"),
    "too large": (["a,b,k", *GOOD, "1e999,1,x"], r"line 12, column 'a': inf; expected a finite number"),
    "an empty line": (["a,b,k", "", *GOOD, "", "1,n/a,x"], r"line 14, column 'b': 'n/a'; expected a number"),
    "no names": (
        ["0.5,2,1", *(f"{n},1,0" for n in range(9))],
        r"line 1 holds numbers \(0\.5, 2, 1\); expected the names",
    ),
    "semicolons": (["a;b;k", *(f"{n};1;x" for n in range(9))], r"columns stand apart by ';'; expected commas"),
    "one class": (["a,b,k", *(f"{n},1,x" for n in range(9))], r"label 'k': one class only \(x\); expected at least 2"),
    "one row": (["a,b,k", "1,2,x"], r"1 rows of 3 columns; expected 2 of each at least"),
    "two names": (["a,a,k", *GOOD], r"two columns are called 'a'"),
    "equal numbers": (
        ["a,b", *(f"{n},1.5" for n in range(9))],
        r"is 1\.5 in every sample; expected numbers that differ",
    ),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_the_first_fault_is_named(name: str, tmp_path: Path) -> None:
    lines, message = FAULTS[name]
    with pytest.raises(DataError, match=message) as refused:
        run(csv(tmp_path, lines), batch_size=2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": NUMBERS}, r"no array 'y'; expected x and y; it has: x"),
        ({"x": NUMBERS, "y": np.zeros(3)}, r"x \(40, 3\), y \(3,\); expected \(samples, \.\.\.\) of both"),
        ({"x": NUMBERS, "y": np.arange(40) % 3 - 1}, r"label y: class -1; expected 0 or more"),
        ({"x": np.full((4, 2), np.inf), "y": np.arange(4) % 2}, r"x\[0, 0\]: inf; expected a finite number"),
        ({"x": NUMBERS.astype(str), "y": np.arange(40) % 2}, r"x is of the type <U\d+; expected numbers"),
        (
            {"x": NUMBERS, "y": np.arange(40) % 2, "x_heldout": NUMBERS[:, :2], "y_heldout": np.arange(40) % 2},
            r"inputs to train on are of 3, held out of 2; expected alike",
        ),
        (
            {"x": NUMBERS, "y": NUMBERS[:, 0], "x_heldout": NUMBERS, "y_heldout": np.full(40, np.nan)},
            r"held-out sample 0, label y: nan; expected a finite",
        ),
        ({"x": NUMBERS * 1j, "y": np.arange(40) % 2}, r"it holds complex numbers; 'mlp' takes floats"),
        ({"x": NUMBERS, "y": np.where(np.arange(40) == 7, np.nan, 1.0)}, r"sample 7, label y: nan; expected a finite"),
    ],
)
def test_faults_of_arrays_are_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(SpecError, match=message):
        run(tmp_path / "mine.npz", batch_size=2)


def test_numbers_of_two_bytes_are_read_from_safetensors(tmp_path: Path) -> None:
    rounded = torch.tensor(NUMBERS, dtype=torch.bfloat16)
    save_tensors({"x": rounded, "y": torch.arange(40) % 2}, tmp_path / "mine.safetensors")
    found = load(run(tmp_path / "mine.safetensors", batch_size=2, standardise=False).data)
    parts = np.concatenate([found.train_inputs, found.heldout_inputs])
    assert set(map(tuple, parts)) == set(map(tuple, rounded.double().numpy()))


def test_faults_of_images_are_named(tmp_path: Path) -> None:
    photos = images(tmp_path)
    Image.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(photos / "dog" / "7.png")
    with pytest.raises(DataError, match=r"7\.png: 3x3 pixels of 1 channel; expected 4x6 pixels of 3 channels"):
        run(photos, batch_size=2)
    (photos / "dog" / "7.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"7\.png: cannot be read as an image"):
        run(photos, batch_size=2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data.path": "nowhere.csv"}, r"data\.path=nowhere\.csv: no such file or folder"),
        ({"data.path": "mine.txt"}, r"expected \.csv, \.parquet, \.npz, \.safetensors, or a folder of images"),
        ({"data.path": "mine.csv", "data.label": "kindd"}, r"no such column in mine\.csv; did you mean 'kind'\?"),
        ({"data.path": "mine.csv", "data.heldout": 0.99}, r"data\.heldout=0\.99: of 40 samples"),
        ({"data.path": "mine.csv", "data.batch_size": 33}, r"the training part of 'file' has 32 samples"),
        ({}, r"data=file: expected data\.path=FILE"),
        ({"data.path": None}, r"data=file: expected data\.path=FILE"),
    ],
)
def test_keys_are_checked(
    keys: dict[str, Value], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(SpecError, match=message):
        described({"data.name": "file", "data.batch_size": 8, **keys})
