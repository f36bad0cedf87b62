"""Large tables as folders of files: equal to single files, read in parts, and what is missing is noticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import gradlab
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec, build
from gradlab.store import documents, merging, parts, pieces
from gradlab.store.columns import INSTRUMENTS, LAYERS, RUNS, STEPS
from gradlab.store.folder import Folder
from gradlab.store.parts import Parts
from gradlab.store.pieces import TABLES, drop_pieces, save_piece
from gradlab.store.record import Tables
from gradlab.store.tables import finished_runs, load_tables, merge

SIZE = 12


def few(monkeypatch: pytest.MonkeyPatch, *, large: int = 10, part: int = 12, batch: int = 6) -> None:
    """Tables of more than ten rows are large, and their files have about twelve."""
    monkeypatch.setattr(parts, "LARGE", large)
    monkeypatch.setattr(parts, "PART", part)
    monkeypatch.setattr(merging, "BATCH", batch)


def planned(root: Path, count: int = SIZE) -> tuple[Folder, list[RunSpec]]:
    """A folder whose runs have their pieces, mixed, of 0 to 4 rows each in steps and layers."""
    runs = [build({"seed": seed}) for seed in range(count)]
    root.mkdir()
    folder = Folder(root)
    documents.write_inputs(folder, "name: run\n", (), runs)
    documents.write_manifest(
        folder, {"schema": 1, "state": "done", "runs": count, "swept": ["seed"], "started": "2026-01-01T00:00:00"}
    )
    for index in range(3):
        save_piece(folder, index, piece(runs[index::3]))
    return folder, runs


def piece(runs: list[RunSpec]) -> Tables:
    """Every seed has so many rows: seed % 5."""
    ids = [(run.id, run.seed, step) for run in runs for step in range(run.seed % 5)]
    names, seeds, steps = zip(*ids, strict=True)
    values = np.array(seeds) + np.array(steps) / 10

    def table(schema: pa.Schema, **columns: object) -> pa.Table:
        rows = len(columns["run_id"])  # type: ignore[arg-type]
        arrays = [pa.array(columns.get(field.name, [None] * rows), field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    return Tables(
        table(
            RUNS,
            run_id=[run.id for run in runs],
            state=["finished"] * len(runs),
            verdict=["healthy"] * len(runs),
            seed=[run.seed for run in runs],
        ),
        table(STEPS, run_id=names, step=steps, loss=values),
        table(LAYERS, run_id=names, step=steps, axis=["depth"] * len(ids), layer=steps, name=names, grad_norm=values),
        INSTRUMENTS.empty_table(),
    )


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Folder, Folder, list[RunSpec]]:
    """The same result with single files and with folders, without its pieces."""
    one, runs = planned(tmp_path / "one")
    merge(one)
    few(monkeypatch)
    several, _ = planned(tmp_path / "several")
    merge(several)
    for folder in (one, several):
        drop_pieces(folder)
    return one, several, runs


def test_a_large_table_is_a_folder_with_the_same_rows(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    one, several, runs = both
    assert [file.name for file in sorted(several.table("steps").iterdir())] == [
        "000000000-000000008.parquet",
        "000000009-000000011.parquet",
    ]
    assert sorted(path.name for path in several.root.iterdir() if path.name.startswith(".")) == []
    for name in ("runs", "steps", "layers"):
        assert one.table(name).is_file()
        single = pq.read_table(one.table(name))
        assert pa.concat_tables(pq.read_table(part.file) for part in Parts(several.table(name), name).parts) == single
        assert ds.dataset(several.table(name)).to_table() == single, "what pyarrow finds by itself"
        assert load_tables(several.root)[name] == load_tables(one.root)[name] == single
    assert finished_runs(several, [run.id for run in runs])
    assert not finished_runs(several, [run.id for run in runs[1:]])


def test_frames_of_either_form_are_the_same(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    alone, parted = (gradlab.load(folder.root) for folder in both[:2])
    for name in TABLES:
        assert getattr(alone, name).equals(getattr(parted, name))
        assert alone.dataset(name).to_table() == parted.dataset(name).to_table()
    ids = [both[2][place].id for place in (11, 3)]
    some = [frames.read("steps", ["step", "loss"], ids) for frames in (alone, parted)]
    assert some[0].equals(some[1])
    assert some[0]["loss"].tolist() == [3.0, 3.1, 3.2, 11.0], "in the order of the grid"
    assert list(some[0].columns) == ["step", "loss"]


def test_of_a_few_runs_only_their_files_are_opened(
    both: tuple[Folder, Folder, list[RunSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, several, runs = both
    frames = gradlab.load(several.root)
    opened: list[str] = []
    original = pieces.open_table

    def seen(path: Path, name: str) -> object:
        opened.append(f"{name} {path.name}")
        return original(path, name)

    monkeypatch.setattr(parts, "open_table", seen)
    assert frames.read("layers", ["grad_norm"], [runs[11].id])["grad_norm"].tolist() == [11.0]
    assert [file for file in opened if "layers" in file] == ["layers 000000009-000000011.parquet"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("step", None, None), r"no table 'step' of a result; did you mean 'steps'\?"),
        (("steps", ["los"], None), r"no column 'los' in steps; did you mean 'loss'\?"),
        (("steps", None, ["0123"]), r"no run '0123' in this result"),
    ],
)
def test_what_there_is_not_is_refused(
    asked: tuple[str, list[str] | None, list[str] | None],
    words: str,
    both: tuple[Folder, Folder, list[RunSpec]],
) -> None:
    for folder in both[:2]:
        with pytest.raises(SpecError, match=words):
            gradlab.load(folder.root).read(*asked)


def test_a_missing_file_is_noticed(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    _, several, runs = both
    first = Parts(several.table("layers"), "layers").parts[0].file
    first.unlink()
    with pytest.raises(SpecError, match=r"layers\.parquet: the file that begins with run 0 is missing"):
        gradlab.load(several.root)
    assert not finished_runs(several, [run.id for run in runs])


def test_the_last_file_is_missed_too(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    _, several, runs = both
    Parts(several.table("layers"), "layers").parts[-1].file.unlink()
    with pytest.raises(SpecError, match=r"layers\.parquet: the file that begins with run 9 is missing"):
        gradlab.load(several.root)
    assert not finished_runs(several, [run.id for run in runs])


def test_tables_in_the_place_of_others_leave_nothing_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged as files, as folders of many and of few, and as files again."""
    folder, _ = planned(tmp_path / "out")
    merge(folder)
    expected = pq.read_table(folder.table("steps"))
    for large, part in ((10, 1), (10, 100), (1000, 1)):
        few(monkeypatch, large=large, part=part)
        merge(folder)
        assert folder.table("steps").is_dir() == (large == 10)
        assert load_tables(folder.root)["steps"] == expected
        assert not list(folder.root.glob(".*"))


def test_a_merge_that_breaks_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = planned(tmp_path / "out")
    few(monkeypatch)
    merge(folder)
    before = {file: file.read_bytes() for file in folder.table("layers").iterdir()}
    original = merging.in_order

    def broken(*asked: object) -> Iterator[pa.Table]:
        yield from list(original(*asked))[:2]  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(merging, "in_order", broken)
        with pytest.raises(OSError, match="No space left"):
            merge(folder)
    assert {file: file.read_bytes() for file in folder.table("layers").iterdir()} == before
    assert not list(folder.root.glob(".*"))


def test_a_merge_that_is_killed_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = planned(tmp_path / "whole")
    few(monkeypatch)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    merge(whole)
    expected = dict(load_tables(whole.root).items())
    assert len(list(whole.table("layers").iterdir())) > 1
    for kind, place in (("first", -1), ("again", 0)):
        ended = False
        while not ended:
            place += 2
            folder = Folder(tmp_path / f"{kind}-{place}")
            shutil.copytree(whole.root, folder.root)
            if kind == "first":
                for name in TABLES:
                    parts.clear(folder.table(name))
            ended = not killed_at(place, folder, monkeypatch)
            assert dict(load_tables(folder.root).items()) == expected, (kind, place)
            merge(folder)
            drop_pieces(folder)
            assert dict(load_tables(folder.root).items()) == expected, (kind, place)
        assert place > 8


def killed_at(place: int, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Merges, and from the change of the disk at this ``place`` on changes none any more; whether it came so far."""
    changes = 0

    class KilledError(BaseException):
        """No clean-up follows this one: it would change the disk, too."""

    def counted(change: Callable[..., object]) -> Callable[..., object]:
        def changed(*asked: object, **named: object) -> object:
            nonlocal changes
            changes += 1
            if changes >= place:
                raise KilledError
            return change(*asked, **named)

        return changed

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "rmdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        try:
            merge(folder)
        except KilledError:
            return True
    return False


def test_stretches_are_all_rows_run_after_run(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    for folder in both[:2]:
        tables = load_tables(folder.root)
        # Of 12 runs with 21 rows.
        found = list(tables.stretches(9))
        assert [len(one["runs"]) for one in found] == [5, 5, 2]
        for name in TABLES:
            assert pa.concat_tables([one[name] for one in found]) == tables[name]
        assert found[1]["layers"]["layer"].to_pylist() == [n for seed in range(5, 10) for n in range(seed % 5)]


def test_stretches_of_rows_in_another_order_are_refused(both: tuple[Folder, Folder, list[RunSpec]]) -> None:
    one, *_ = both
    table = pq.read_table(one.table("layers"))
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), one.table("layers"))
    with pytest.raises(SpecError, match="layers: expected rows in the order of the runs"):
        list(load_tables(one.root).stretches(5))


def test_a_sweep_that_is_still_at_work_is_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, runs = planned(tmp_path / "out")
    whole = gradlab.load(folder.root)
    few(monkeypatch)
    lazy = gradlab.load(folder.root)
    for name in TABLES:
        assert getattr(whole, name).equals(getattr(lazy, name))
    assert lazy.read("steps", ["loss"], runs[7].id)["loss"].tolist() == [7.0, 7.1]
    assert [lazy.dataset(name).count_rows() for name in TABLES] == [12, len(whole.steps), len(whole.layers), 0]
