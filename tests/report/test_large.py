"""Results whose tables are too large to be read whole: the same where nothing is left out, and honest where it is."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gradlab
from gradlab.report import tables, write_report
from gradlab.report.cells import write_csv
from gradlab.report.groups import varying
from gradlab.report.tables import read
from gradlab.spec.named import Value
from gradlab.store import parts
from gradlab.store.columns import LAYERS
from gradlab.store.parts import Parts, write_parts
from tests.commands import call, inline
from tests.synthetic import grid, write_result

Capture = pytest.CaptureFixture[str]

AXES: dict[str, list[Value]] = {"model.activation": ["sigmoid", "relu"], "optim.lr": [0.1, 0.2, 0.4], "seed": [0, 1]}


def in_folders(source: Path, name: str) -> Path:
    """A copy of a result whose tables are folders of files, of four runs or so each."""
    out = Path(shutil.copytree(source, source.with_name(name)))
    ids = pq.read_table(source / "runs.parquet")["run_id"].to_pylist()
    for file in out.glob("*.parquet"):
        table = pq.read_table(file)
        file.unlink()
        owner = table["run_id"].to_numpy()
        batches = [table.filter(np.isin(owner, ids[start : start + 4])) for start in range(0, len(ids), 4)]
        write_parts(file, table.schema, batches, {run_id: place for place, run_id in enumerate(ids)})
    return out


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(parts, "PART", 1)
    one = write_result(tmp_path / "one", grid(AXES), diverge={9: 3}, fail={4: "out of luck"})
    # With their verdicts, as a sweep leaves them.
    pq.write_table(read([one]).runs, one / "runs.parquet")
    return one, in_folders(one, "two")


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From here on the tables are large, and five runs are drawn."""

    def lower() -> None:
        monkeypatch.setattr(parts, "LARGE", 20)
        monkeypatch.setattr(tables, "MOST_DRAWN", 5)
        monkeypatch.setattr(tables, "LEAST_DRAWN", 1)
        monkeypatch.setattr("gradlab.export.contents.AT_A_TIME", 1200)
        monkeypatch.setattr("gradlab.terminal.verdicts.AT_A_TIME", 1200)

    return lower


@pytest.mark.usefixtures("unpainted")
def test_the_report_of_folders_of_files_is_that_of_files(both: tuple[Path, Path], tmp_path: Path) -> None:
    assert all((both[1] / f"{name}.parquet").is_dir() for name in ("runs", "steps", "layers"))
    alone, apart = (write_report([source], tmp_path / source.name / "report") for source in both)
    assert [file.name for file in alone.files] == [file.name for file in apart.files]
    for first, other in zip(alone.files, apart.files, strict=True):
        if first.suffix == ".csv":
            assert first.read_bytes() == other.read_bytes()
    pages = [report.page.read_text(encoding="utf-8") for report in (alone, apart)]
    # What the page's script reads is packed, and holds the folder's name.
    told = [re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL) for page in pages]
    assert told[0].replace(str(both[0]), "") == told[1].replace(str(both[1]), "")


@pytest.mark.usefixtures("unpainted")
def test_what_is_counted_is_of_all_runs_and_what_is_drawn_of_some(
    both: tuple[Path, Path], tmp_path: Path, large: Callable[[], None]
) -> None:
    every, ids = write_report([both[0]], tmp_path / "all"), sorted(read([both[0]]).ids)
    whole = tmp_path / "all"
    large()
    out = tmp_path / "drawn"
    some = write_report([both[1]], out)
    assert every.notes == ()
    assert some.notes[0].startswith("Of 12 runs 5, drawn by chance, have their steps and layers in the figures")
    for name in ("runs.csv", "verdicts.csv", "effects.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for name in ("steps.csv", "layers.csv"):
        expected, found = (_by_run(folder / name) for folder in (whole, out))
        assert set(found) == set(ids[:5]) & set(expected), "the smallest digests"
        assert all(found[run_id] == expected[run_id] for run_id in found)
    page = some.page.read_text(encoding="utf-8")
    assert "Of 12 runs 10 finished, 1 diverged and 1 failed." in page
    assert some.notes[0] in page
    # A run that diverged is shown, whether it was drawn or not.
    assert "Diverged: 1 of 12 runs" in page
    assert "Diverged: 1 of 12 runs" in every.page.read_text(encoding="utf-8")
    maps = [file.name for file in every.files if "_map" in file.name]
    assert maps
    assert {file.name for file in some.files} >= set(maps)


def _by_run(file: Path) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for run_id, *rest in list(csv.reader(lines))[1:]:
            found.setdefault(run_id, []).append(rest)
    return found


def test_several_results_are_told_as_one(tmp_path: Path, large: Callable[[], None]) -> None:
    """Keys that are one number in each, and a run that failed in the first and was run again in the second."""
    runs = grid({"optim.lr": [0.1, 0.2], "seed": [0, 1]}, {"model.depth": 6})
    first = write_result(tmp_path / "first", runs, fail={2: "out of luck"})
    second = write_result(tmp_path / "second", [runs[2], *grid({"optim.lr": [0.1, 0.2]}, {"model.depth": 8})])
    for folder in (first, second):
        pq.write_table(read([folder]).runs, folder / "runs.parquet")
    small = read([first, second])
    large()
    found = read([first, second])
    assert found.every.ids == small.ids
    assert found.size == 5 < small.size == 6
    assert found.every.state.tolist() == small.state.tolist() == ["finished"] * 6
    for key in ("model.depth", "optim.lr", "loss_final", "verdict"):
        assert found.every.columns[key] == small.columns[key]
    assert varying(found.every) == varying(small)
    one, other = (Path(write_csv(result, tmp_path)[0]).read_bytes() for result in (small, found))
    assert one == other


@pytest.mark.usefixtures("unpainted")
def test_a_run_that_is_asked_for_is_read_whoever_was_drawn(
    both: tuple[Path, Path], tmp_path: Path, large: Callable[[], None]
) -> None:
    large()
    last = max(read([both[1]]).every.ids)
    report = write_report([both[1]], tmp_path / "asked", runs={last: both[1]})
    assert report.notes == ()
    assert set(_by_run(tmp_path / "asked/steps.csv")) == {last}


def test_export_and_verdict_tell_of_every_run(
    both: tuple[Path, Path], large: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    first = call(["export", "one", "--to", "csv"], monkeypatch, capsys, tmp_path)
    judged = call(["verdict", "one", "--json"], monkeypatch, capsys, tmp_path)
    said = call(["verdict", "one", "--fail-on", "diverged"], monkeypatch, capsys, tmp_path)
    large()
    other = call(["export", "two", "--to", "csv"], monkeypatch, capsys, tmp_path)
    assert first.status == other.status == 0
    for name in ("runs.csv", "steps.csv", "layers.csv"):
        assert (both[0] / "export/csv" / name).read_bytes() == (both[1] / "export/csv" / name).read_bytes()
    again = call(["verdict", "two", "--json"], monkeypatch, capsys, tmp_path)
    assert again.status == judged.status == 0
    assert json.loads(again.out)["runs"] == json.loads(judged.out)["runs"]
    assert again.out == judged.out.replace('"one"', '"two"')
    told = call(["verdict", "two", "--fail-on", "diverged"], monkeypatch, capsys, tmp_path)
    assert (told.status, told.out) == (said.status, said.out) == (3, said.out)


def test_a_sweep_ends_and_is_resumed_with_large_tables(
    large: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    inline(monkeypatch)
    words = ["sweep", "model.depth=2,3", "seed=range(3)", "model.width=8", "train.steps=4", "--no-report"]
    small = call([*words, "-o", "small"], monkeypatch, capsys, tmp_path)
    large()
    found = call([*words, "-o", "large"], monkeypatch, capsys, tmp_path)
    assert (small.status, found.status) == (0, 0)
    assert (tmp_path / "large/steps.parquet").is_dir()
    assert found.out.replace("large", "small").splitlines()[3:-1] == small.out.splitlines()[3:-1]
    assert gradlab.load(tmp_path / "large").steps.equals(gradlab.load(tmp_path / "small").steps)
    again = call(["sweep", "--resume", "large", "--no-report"], monkeypatch, capsys, tmp_path)
    assert again.out.startswith("Nothing is missing in large: 6 of 6 runs are done.")
    Parts(tmp_path / "large/layers.parquet", "layers").parts[0].file.unlink()
    again = call(["sweep", "--resume", "large", "--no-report"], monkeypatch, capsys, tmp_path)
    assert "6 of 6 runs are missing" in again.out
    assert gradlab.load(tmp_path / "large").layers.equals(gradlab.load(tmp_path / "small").layers)


def test_of_a_large_table_a_few_row_groups_are_in_memory(both: tuple[Path, Path], large: Callable[[], None]) -> None:
    """A layers table of 12 times 20,000 rows, 33 MB: neither a run of it nor its sum needs more than two runs' rows."""
    ids = read([both[1]]).ids
    shutil.rmtree(both[1] / "layers.parquet")
    count, draw = 20_000, np.random.default_rng(0)

    def rows(run_id: str) -> pa.Table:
        kinds = {pa.string(): [run_id] * count, pa.int64(): np.arange(count), pa.float64(): draw.random(count)}
        return pa.table({field.name: pa.array(kinds[field.type]) for field in LAYERS}, schema=LAYERS)

    write_parts(both[1] / "layers.parquet", LAYERS, map(rows, ids), {run_id: place for place, run_id in enumerate(ids)})
    # In a process of its own, whose pool of memory has held nothing else.
    script = f"""
import gradlab, pyarrow as pa
from gradlab.store import parts, tables
parts.LARGE = 20
frames = gradlab.load({str(both[1])!r})
assert len(frames.read("layers", ["signal_grad_norm"], [{ids[7]!r}])) == {count}
of_one = pa.default_memory_pool().max_memory()
for some in tables.load_tables(frames.path).stretches(1):
    assert some["layers"].num_rows == {count}
print(of_one, pa.default_memory_pool().max_memory())
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    of_one, of_all = map(int, ended.stdout.split())
    own = rows(ids[0]).nbytes
    assert of_one < 2 * own
    assert of_all < 6 * own
