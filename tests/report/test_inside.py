"""What the page holds: numbers that come back as they were, thinned where they are too many, and what is vendored."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from gradlab.report import cure, inside, packed
from gradlab.report.tables import Result, read
from gradlab.spec.named import Value
from tests.synthetic import grid, write_result

ROOT = Path(__file__).resolve().parents[2]
AXES: dict[str, list[Value]] = {
    "model.depth": [4, 20],
    "model.activation": ["sigmoid", "relu"],
    "optim.lr": [0.01, 0.1],
}
EXPLORER = ROOT / "gradlab" / "report" / "explorer"


def unpacked(text: str) -> tuple[dict[str, Any], bytes]:
    whole = zlib.decompress(base64.b64decode(text))
    (length,) = struct.unpack("<I", whole[:4])
    return json.loads(whole[4 : 4 + length]), whole[4 + length :]


def values(head: dict[str, Any], numbers: bytes, block: str, name: str, run: int) -> np.ndarray | None:
    """As `Block.values` of data.js reads them: (P, K); NaN where null, and where nan."""
    one = head["blocks"][block]
    (at, size), (begin, length) = (one["quantities"][name][part] for part in ("codes", "scales"))
    scales = np.frombuffer(numbers[begin : begin + length], dtype="<f4").reshape(-1, 2)
    shapes = [
        (0, 0) if np.isnan(low) else (len(one["places"][place]), len(one["steps"][step]))
        for step, place, (low, _) in zip(one["step"], one["place"], scales, strict=True)
    ]
    if not shapes[run][0]:
        return None
    ahead = sum(places * steps for places, steps in shapes[:run])
    halves = np.frombuffer(numbers[at : at + size], dtype=np.uint8).reshape(2, -1).astype(np.uint16)
    codes = (halves[0] + 256 * halves[1])[ahead : ahead + shapes[run][0] * shapes[run][1]].reshape(shapes[run])
    codes = np.cumsum(codes, axis=1, dtype=np.uint16)
    size_, sign = (codes & packed.LAST).astype(float), np.where(codes & packed.SIGN, -1.0, 1.0)
    low, high = scales[run].astype(float)
    found = sign * 10 ** (low + (size_ - packed.FIRST) / (packed.LAST - packed.FIRST) * (high - low))
    for code, meant in ((packed.NULL, np.nan), (packed.ZERO, 0.0), (packed.NAN, np.nan), (packed.INF, np.inf)):
        found = np.where(size_ == code, meant * (sign if code == packed.INF else 1), found)
    return np.asarray(found)


def result_of(folder: Path, **wishes: Any) -> Result:
    axes: dict[str, list[Value]] = {
        "model.depth": [4, 20],
        "model.activation": ["sigmoid", "relu"],
        "optim.lr": [0.01, 0.1],
    }
    return read([write_result(folder / "result", grid(axes), **wishes)])


def homes(result: Result, folder: Path) -> dict[str, Path]:
    return dict.fromkeys(result.ids, folder / "result")


def test_every_number_comes_back_to_two_thousandths(tmp_path: Path) -> None:
    result = result_of(tmp_path, diverge={3: 30}, fail={5: "no"}, zeros=True)
    head, numbers = unpacked(inside.written(result, homes(result, tmp_path), cure.cure(result)))
    compared = 0
    for block, name in (
        ("steps", "loss"),
        ("steps", "grad_norm_clipped"),
        ("depth", "signal_grad_norm"),
        ("depth", "dead"),
    ):
        table = result.tables["steps" if block == "steps" else "layers"]
        for run, run_id in enumerate(result.ids):
            own = table.filter(pc.equal(table["run_id"], run_id))
            found = values(head, numbers, block, name, run)
            if not own.num_rows or own[name].null_count == own.num_rows:
                assert found is None
                continue
            assert found is not None
            steps = head["blocks"][block]["steps"][head["blocks"][block]["step"][run]]
            places = head["blocks"][block]["places"][head["blocks"][block]["place"][run]]
            for row in own.to_pylist():
                cell = found[places.index(row.get("layer", 0)), steps.index(row["step"])]
                meant = np.nan if row[name] is None else row[name]
                np.testing.assert_allclose(cell, meant, rtol=2e-3)
                compared += 1
    assert compared > 5000
    assert head["theory"]["depth"]["places"] == 21


def test_signs_zeros_and_what_is_not_finite_have_codes_of_their_own() -> None:
    given = np.array([0.0, -0.5, 1e-30, 1e30, np.inf, -np.inf, np.nan, 3.0])
    run, step = np.zeros(8, dtype=np.int64), np.arange(8)
    found = packed.shapes(run, step, np.zeros(8, dtype=np.int64), 2)
    codes, scales = packed.packed(given, np.arange(8) != 7, found)
    halves = np.frombuffer(codes, dtype=np.uint8).reshape(2, -1).astype(np.uint16)
    back = np.cumsum(halves[0] + 256 * halves[1], dtype=np.uint16)
    assert [int(code) for code in back[[0, 4, 5, 6, 7]]] == [1, 3, 3 | packed.SIGN, 2, 0]
    assert [int(code) for code in back[[2, 3]]] == [packed.FIRST, packed.LAST]
    assert back[1] & packed.SIGN
    assert np.isnan(scales[1]).all()


def test_a_grid_that_is_too_large_is_thinned_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(tmp_path)
    whole, _ = unpacked(inside.written(result, homes(result, tmp_path), None))
    assert whole["notes"] == []
    monkeypatch.setattr(inside, "MOST_CELLS", 10_000)
    head, _ = unpacked(inside.written(result, homes(result, tmp_path), None))
    (said,) = head["notes"]
    steps, layers = (head["blocks"][name]["steps"][0] for name in ("steps", "depth"))
    assert f"at most {len(steps)} of their steps and {len(layers)} of the recorded steps" in said
    assert (steps[0], steps[-1], layers[0], layers[-1]) == (0, 200, 0, 200)
    assert "steps.csv" in said
    monkeypatch.setattr(inside, "MOST_CELLS", 1_000)
    head, numbers = unpacked(inside.written(result, homes(result, tmp_path), None))
    kept = sum(step >= 0 for step in head["blocks"]["steps"]["step"])
    assert 0 < kept < result.size
    assert f"Of {result.size} runs the first {kept} have their curves" in head["notes"][1]
    assert values(head, numbers, "depth", "signal_grad_norm", kept - 1) is not None
    assert len(head["told"]) == result.size


def test_of_very_many_runs_the_short_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(tmp_path)
    head, _ = unpacked(inside.written(result, homes(result, tmp_path), None))
    assert head["again"][0] == "gradlab run model.depth=4 model.activation=sigmoid optim.lr=0.01"
    monkeypatch.setattr(inside, "MOST_COMMANDS", 3)
    head, _ = unpacked(inside.written(result, homes(result, tmp_path), None))
    assert head["again"][0] == f"gradlab run --from {tmp_path / 'result'} {result.ids[0]}"
    monkeypatch.setattr(inside, "MOST_TOLD", 5)
    head, _ = unpacked(inside.written(result, homes(result, tmp_path), None))
    assert len(head["told"]) == len(head["cures"]) == 5
    assert "sentences and commands of the first 5 runs" in head["notes"][0]


def test_what_is_vendored_is_what_its_record_says() -> None:
    record = tomllib.loads((EXPLORER / "uplot" / "VENDORED.toml").read_text(encoding="utf-8"))
    for name, digest in record["sha256"].items():
        assert hashlib.sha256((EXPLORER / "uplot" / name).read_bytes()).hexdigest() == digest
    assert f"(v{record['version']})" in (EXPLORER / "uplot" / "uPlot.iife.min.js").read_text(encoding="utf-8")[:80]
    # The types that its callers are checked by are of the same version.
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert wanted["uplot"] == record["version"]


def test_every_script_of_the_page_is_checked_and_small() -> None:
    from gradlab.report.page import EXPLORER as PARTS

    own = [name for name in PARTS["js"] if not name.startswith("uplot/")]
    assert json.loads((EXPLORER / "tsconfig.json").read_text(encoding="utf-8"))["files"] == own
    assert sorted(own) == sorted(path.name for path in EXPLORER.glob("*.js"))
    for name in own:
        text = (EXPLORER / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) < 400
        assert "innerHTML" not in text
        assert "</" not in text
