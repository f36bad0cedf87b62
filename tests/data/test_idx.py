"""IDX files: what is read, and what is refused with one line."""

from __future__ import annotations

import gzip
import re
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gradlab.data.dataset import DataError
from gradlab.data.facts import described
from gradlab.data.idx import NAMES, header_sizes, read_folder, read_idx
from gradlab.data.loaders import load
from gradlab.spec.named import SpecError

TRAIN_IMAGES, TRAIN_LABELS, HELDOUT_IMAGES, HELDOUT_LABELS = NAMES


def _idx(array: NDArray[np.uint8]) -> bytes:
    """The file, written from the format's description."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _folder(folder: Path, train: int = 6, heldout: int = 4, rows: int = 3, columns: int = 5) -> Path:
    """Four plain files of drawn bytes."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for count, images, labels in ((train, TRAIN_IMAGES, TRAIN_LABELS), (heldout, HELDOUT_IMAGES, HELDOUT_LABELS)):
        (folder / images).write_bytes(_idx(rng.integers(0, 256, (count, rows, columns), dtype=np.uint8)))
        (folder / labels).write_bytes(_idx(rng.integers(0, 10, count, dtype=np.uint8)))
    return folder


@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 3, 2), (1, 1, 1, 5)])
def test_reads_what_was_written_plain_and_gzipped(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    plain, packed = tmp_path / "plain", tmp_path / "packed.gz"
    plain.write_bytes(_idx(array))
    packed.write_bytes(gzip.compress(_idx(array)))
    for path in (plain, packed):
        np.testing.assert_array_equal(read_idx(path), array)
        assert read_idx(path).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "starts with nothing"),
        (b"\0\0", "starts with 0000"),
        (b"\x89PNG\r\n\x1a\n", "starts with 89504e47"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "starts with 00000d01"),
        (b"\0\0\x08\0", "header ends after 4 bytes"),
        (b"\0\0\x08\3\0\0\0\1\0\0", "header ends after 10 bytes"),
        (_idx(np.zeros((2, 3), dtype=np.uint8))[:-1], "2x3 = 6 bytes, and 5 follow"),
        (_idx(np.zeros((2, 3), dtype=np.uint8)) + b"\0", "2x3 = 6 bytes, and more follow"),
        (b"\0\0\x08\3" + b"\xff" * 12 + b"\0", "and 1 follow"),
    ],
)
def test_broken_files_are_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    for name, stored in (("file", content), ("file.gz", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(stored)
        with pytest.raises(DataError, match=re.escape(complaint)) as caught:
            read_idx(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_more_than_its_header_says_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(_idx(np.zeros((2, 3), dtype=np.uint8)) + bytes(2**26), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"2x3 = 6 bytes, and more follow"):
        read_idx(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**23


def test_a_header_that_says_too_much_is_refused(tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / TRAIN_IMAGES).write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**30 + 1, 1, 1))
    with pytest.raises(
        DataError, match=r"data\.root=.*train-images-idx3-ubyte says .*1073741825x1x1 bytes; expected at"
    ):
        header_sizes(str(tmp_path))


def _cut(packed: bytes) -> bytes:
    return packed[:-20]


def _flip(packed: bytes) -> bytes:
    return packed[:-30] + bytes(byte ^ 0xFF for byte in packed[-30:-10]) + packed[-10:]


def _no_gzip(_packed: bytes) -> bytes:
    return b"<html>not found</html>"


@pytest.mark.parametrize("damage", [_cut, _flip, _no_gzip])
def test_damaged_gzip_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path, idx200: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(damage((idx200 / f"{TRAIN_IMAGES}.gz").read_bytes()))
    with pytest.raises(DataError, match=r"cannot read .*images\.gz: |images\.gz is torn: .* and more follow") as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing: No such file"):
        read_idx(tmp_path / "nothing")


def test_sizes_come_from_the_headers(tmp_path: Path, idx200: Path) -> None:
    assert header_sizes(str(_folder(tmp_path))) == (6, 4, 3, 5)
    assert header_sizes(str(idx200)) == (160, 40, 28, 28)


def test_sizes_do_not_need_the_bodies(tmp_path: Path) -> None:
    """A full set is 55 MB: a plan of many runs must not read it."""
    folder = _folder(tmp_path)
    (folder / TRAIN_IMAGES).write_bytes((folder / TRAIN_IMAGES).read_bytes()[:16])
    assert header_sizes(str(folder)) == (6, 4, 3, 5)
    with pytest.raises(DataError, match="torn"):
        read_folder(str(folder))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path / "images")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert header_sizes("~/images") == (6, 4, 3, 5)
    assert len(read_folder("~/images").train_inputs) == 6


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_one_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(SpecError, match=rf"data\.root=.*no file {name}"):
        described({"data.name": "mnist", "data.root": str(folder)})


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_a_broken_header_is_refused(name: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    for content, stored in ((b"\0\0\x08", name), (b"no gzip", f"{name}.gz")):
        (folder / name).unlink(missing_ok=True)
        (folder / stored).write_bytes(content)
        with pytest.raises(SpecError, match=rf"data\.root=.*{name}") as caught:
            header_sizes(str(folder))
        assert "\n" not in str(caught.value)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(SpecError, match=r"data\.root=.*no such folder"):
            header_sizes(str(root))


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = _folder(tmp_path / "other", train=7, heldout=3, rows=2)
    for name, complaint in (
        (TRAIN_LABELS, f"{TRAIN_LABELS} has 7 labels for 6 images"),
        (HELDOUT_LABELS, f"{HELDOUT_LABELS} has 3 labels for 4 images"),
        (HELDOUT_IMAGES, "training images are 3x5, held-out images 2x5"),
    ):
        folder = _folder(tmp_path / "folder")
        shutil.copy(other / name, folder / name)
        with pytest.raises(SpecError, match=re.escape(complaint)):
            header_sizes(str(folder))


@pytest.mark.parametrize(
    ("name", "shape"), [(TRAIN_IMAGES, (6, 15)), (TRAIN_LABELS, (6, 1)), (HELDOUT_IMAGES, (0, 3, 5))]
)
def test_wrong_dimensions_are_refused(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / name).write_bytes(_idx(np.zeros(shape, dtype=np.uint8)))
    with pytest.raises(SpecError, match=r"expected . dimensions, none of them 0"):
        header_sizes(str(folder))


def test_an_eleventh_class_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / HELDOUT_LABELS).write_bytes(_idx(np.array([0, 1, 10, 2], dtype=np.uint8)))
    with pytest.raises(DataError, match=r"a label is 10; expected classes 0\.\.9"):
        read_folder(str(folder))


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_root_is_read_as_stored(name: str, idx200: Path) -> None:
    data = load(described({"data.name": name, "data.root": str(idx200), "data.standardise": False}).data)
    raw = gzip.decompress((idx200 / f"{TRAIN_IMAGES}.gz").read_bytes())
    np.testing.assert_array_equal(data.train_inputs.ravel(), np.frombuffer(raw, dtype=np.uint8, offset=16))
    assert np.bincount(data.train_targets.astype(np.int64)).tolist() == [16] * 10
    assert np.bincount(data.heldout_targets.astype(np.int64)).tolist() == [4] * 10


def test_memory_is_that_of_the_numbers(tmp_path: Path) -> None:
    """Standardising is done in place: the float64 images and their bytes, and no third array."""
    folder = _folder(tmp_path, train=20_000, heldout=100, rows=10, columns=10)
    spec = described({"data.name": "mnist", "data.root": str(folder)}).data
    tracemalloc.start()
    load(spec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * 20_100 * 100 * 8


@pytest.mark.parametrize(("folder", "train", "heldout"), [("fashion_mnist_4k", 3843, 600), ("mnist_10k", 8500, 1500)])
def test_real_data_is_read(folder: str, train: int, heldout: int, real_data: Path) -> None:
    run = described({"data.name": "mnist", "data.root": str(real_data / folder), "data.standardise": False})
    data = load(run.data)
    assert (run.facts.train, run.facts.heldout, run.facts.shape) == (train, heldout, (28, 28))
    assert data.train_inputs.shape == (train, 28, 28)
    assert data.heldout_targets.shape == (heldout,)
    assert (data.train_inputs.min(), data.train_inputs.max()) == (0, 255)
    assert set(data.train_targets.tolist()) == set(range(10))


def test_fixture_is_part_of_real_data(real_data: Path, idx200: Path) -> None:
    small, large = read_folder(str(idx200)), read_folder(str(real_data / "fashion_mnist_4k"))
    for images, among in ((small.train_inputs, large.train_inputs), (small.heldout_inputs, large.heldout_inputs)):
        known = {image.tobytes() for image in among}
        assert all(image.tobytes() in known for image in images)
