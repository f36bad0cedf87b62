"""The report's page: how large it is, how soon it can be asked, and how long its answers take, in headless Chromium.

    python -m benchmarks.page [--repeats 5] [RESULT]

RESULT is a finished sweep; by default the reference grid of 432 runs is trained. It is reported as it is, and once
more as twelve seeds of itself (5,184 runs): its numbers, with noise of a thousandth in each seed, under other ids.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Browser, sync_playwright

from benchmarks.timing import sweep
from gradlab.report import write_report

COPIES = 12
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# A click until the frame after it has been painted, in ms: the first chip of each key, there and back.
FILTER = """async () => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const times = [];
  for (const one of document.querySelectorAll('fieldset')) for (const _ of [0, 1]) {
    const chip = one.querySelector('button');
    if (!chip) continue;
    const start = performance.now();
    chip.click();
    await painted();
    times.push(performance.now() - start);
  }
  return times;
}"""
OPEN = """async () => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const start = performance.now();
  document.querySelector('#table tbody tr:nth-child(7) td button').click();
  await painted();
  return performance.now() - start;
}"""
SLIDE = """async () => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const slider = document.querySelector('#step'), times = [];
  for (let at = 1; at <= Math.min(10, Number(slider.max)); at += 1) {
    const start = performance.now();
    slider.value = String(at);
    slider.dispatchEvent(new Event('input'));
    await painted();
    times.push(performance.now() - start);
  }
  return times;
}"""


def replicated(source: Path, out: Path, copies: int) -> Path:
    """``source`` as ``copies`` seeds of itself."""
    out.mkdir()
    for name in ("runs", "steps", "layers"):
        whole = pq.read_table(source / f"{name}.parquet")
        pq.write_table(pa.concat_tables([_copy(whole, number) for number in range(copies)]), out / f"{name}.parquet")
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"runs": int(manifest["runs"]) * copies}
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return out


def _copy(table: pa.Table, number: int) -> pa.Table:
    draw = np.random.default_rng(number)
    for place, field in enumerate(table.schema):
        column = table[field.name]
        if field.name == "run_id":
            table = table.set_column(
                place, field, pa.array([f"{text[:-2]}{number:02x}" for text in column.to_pylist()])
            )
        elif field.name == "seed":
            table = table.set_column(place, field, pa.array([number] * table.num_rows, pa.int64()))
        elif pa.types.is_floating(field.type) and "." not in field.name:
            noise = np.exp(draw.normal(0, 1e-3, table.num_rows))
            values = pa.array(column.to_numpy() * noise, mask=column.is_null().to_numpy())
            table = table.set_column(place, field, values)
    return table


def measured(page: Path, browser: Browser, repeats: int) -> Mapping[str, list[float]]:
    """Milliseconds: until the page can be asked, of a filter, of opening a run, of a step of the slider."""
    times: dict[str, list[float]] = {"ready": [], "filter": [], "open": [], "slide": []}
    for _ in range(repeats):
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        tab = context.new_page()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.documentElement.dataset.ready", timeout=120_000)
        times["ready"].append(float(tab.evaluate("Number(document.documentElement.dataset.ready)")))
        times["filter"] += tab.evaluate(FILTER)
        times["open"].append(tab.evaluate(OPEN))
        times["slide"] += tab.evaluate(SLIDE)
        context.close()
    return times


def line(label: str, page: Path, seconds: float, times: Mapping[str, list[float]]) -> None:
    """One row of the table: medians, and the least of those that other work on the machine disturbs."""
    size = page.stat().st_size / 1e6
    held = len(page.read_text(encoding="utf-8").partition('<script id="held"')[2].partition("</script>")[0]) / 1e6
    told = "".join(f"{statistics.median(found):>9.0f} ({min(found):.0f})" for found in times.values())
    print(f"{label:<14}{seconds:>8.1f} s{size:>8.2f} MB{held:>8.2f} MB{told}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    asked: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as session:
        folder = Path(name)
        result = asked.result or folder / "grid"
        if asked.result is None:
            sweep(["-e", "reference-grid"], result, folder)
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = session.chromium.launch(executable_path=program, args=["--no-sandbox"])
        print(f"{'runs':<14}{'report':>10}{'page':>11}{'data':>11}    median (least) ms: ready, filter, open, slide")
        for source in (result, replicated(result, folder / "seeds", COPIES)):
            start = time.perf_counter()
            page = write_report([source], folder / f"report-{source.name}").page
            seconds = time.perf_counter() - start
            line(
                f"{pq.read_metadata(source / 'runs.parquet').num_rows:,}",
                page,
                seconds,
                measured(page, browser, asked.repeats),
            )
        browser.close()


if __name__ == "__main__":
    main()
