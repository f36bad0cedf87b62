"""The page in a real browser: what a reader does to it, with the mouse and with the keyboard alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from gradlab.report import write_report
from gradlab.spec.named import Value
from gradlab.store.columns import INSTRUMENTS
from tests.conftest import dotted
from tests.synthetic import grid, write_result

AXES: dict[str, list[Value]] = {
    "model.depth": [5, 10],
    "model.activation": ["sigmoid", "tanh", "relu"],
    "optim.lr": [0.01, 0.1],
    "seed": [0, 1],
}
LABELS = [
    "<script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "=1+1",
    "مرحبا بالعالم",
    "√(σw²/2)",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no headless browser: neither chromium nor google-chrome is on PATH")
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens a page; a console error, an uncaught exception or a request of its own fails the test."""
    wrong: list[str] = []
    contexts = []

    def opened(page: Path, address: str = "", *, script: str = "", **wishes: Any) -> Any:
        context = chromium.new_context(viewport={"width": wishes.pop("width", 1280), "height": 900}, **wishes)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        allowed = (page.as_uri(), "data:", "blob:")
        tab.on("request", lambda asked: None if asked.url.startswith(allowed) else wrong.append(asked.url))
        if script:
            tab.add_init_script(script)
        tab.goto(page.as_uri() + address)
        if wishes.get("java_script_enabled", True):
            tab.wait_for_function("document.documentElement.dataset.ready")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(tmp_path_factory.mktemp("sweep") / "result", grid(AXES), diverge={3: 30, 23: 4})


@pytest.fixture(scope="module")
def sweep(result: Path) -> Path:
    with dotted():
        return write_report([result], result.parent / "report").page


def ids(result: Path) -> list[str]:
    return [str(one) for one in pq.read_table(result / "runs.parquet")["run_id"].to_pylist()]


def chip(tab: Any, key: str, label: str) -> Any:
    return (
        tab.locator("fieldset")
        .filter(has=tab.get_by_text(key, exact=True))
        .get_by_role("button", name=label, exact=True)
    )


def column(tab: Any, name: str) -> list[str]:
    heads = tab.locator("#table thead th").all_inner_texts()
    place = next(at for at, head in enumerate(heads) if head.strip(" ▲▼") == name)
    return [str(text) for text in tab.locator(f"#table tbody tr td:nth-child({place + 1})").all_inner_texts()]


def count(tab: Any) -> str:
    return str(tab.locator("#count").inner_text())


def address(tab: Any, *parts: str) -> str:
    """The page's address, which follows what is chosen a moment later, once it tells all of ``parts``."""
    tab.wait_for_function("parts => parts.every((part) => location.hash.includes(part))", arg=list(parts))
    return str(tab.evaluate("location.hash"))


def test_a_filter_is_followed_by_figures_table_and_address(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep)
    assert count(tab) == "24 of 24 runs"
    chip(tab, "model.activation", "relu").click()
    chip(tab, "model.depth", "10").click()
    assert count(tab) == "4 of 24 runs"
    assert set(column(tab, "activation")) == {"relu"}
    assert set(column(tab, "depth")) == {"10"}
    assert "4 runs" in tab.locator("#figure-group-loss .area").get_attribute("aria-label")
    again = open_page(sweep, address(tab, "is.model.activation=relu", "is.model.depth=10"))
    assert count(again) == "4 of 24 runs"
    assert chip(again, "model.depth", "10").get_attribute("aria-pressed") == "true"
    again.get_by_role("button", name="Show all").click()
    assert count(again) == "24 of 24 runs"


def test_a_brush_makes_a_group(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep)
    tab.locator("#figure-scatter").scroll_into_view_if_needed()
    box = tab.locator("#figure-scatter .u-over").bounding_box()
    tab.mouse.move(box["x"] + 2, box["y"] + 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 2, steps=4)
    tab.mouse.up()
    found = re.fullmatch(r"24 of 24 runs, (\d+) in the group", count(tab))
    assert found
    grouped = int(found[1])
    assert 0 < grouped < 24
    assert tab.locator("#table tr.chosen").count() == grouped
    assert f"{grouped} runs" in tab.locator("#figure-group-profile .area").get_attribute("aria-label")
    assert count(open_page(sweep, address(tab, "box="))) == count(tab)
    tab.locator("#figure-scatter").get_by_role("button", name="Reset").click()
    assert count(tab) == "24 of 24 runs"


def test_a_group_stays_what_it_is_when_an_axis_is_switched(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, "#box=0,Infinity,0,0.5&picked=")
    grouped = count(tab)
    assert re.fullmatch(r"24 of 24 runs, \d+ in the group", grouped)
    for side in ("x", "y", "x"):
        tab.locator(f"#figure-scatter .log-{side}").click()
        assert count(tab) == grouped
    entry = tab.locator("#figure-scatter .legend button").first
    entry.focus()
    entry.press("Enter")
    assert count(tab) != grouped, "what the legend hides is in no box"
    assert entry.evaluate("one => one === document.activeElement")


def test_what_is_hovered_is_named_by_the_keys_in_which_it_differs(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, "#is.model.depth=5&is.model.activation=tanh&is.optim.lr=0.01&is.seed=1")
    assert count(tab) == "1 of 24 runs"
    area = tab.locator("#figure-scatter .area")
    area.focus()
    tab.keyboard.press("ArrowRight")
    tip = area.locator(".tip").inner_text()
    assert tip.startswith("seed=1, depth=5, activation=tanh, lr=0.01")


def test_any_run_is_opened_and_its_steps_are_walked_through(sweep: Path, result: Path, open_page: Open) -> None:
    tab = open_page(sweep)
    run = ids(result)[8]
    tab.locator(f"#table [title='Open {run}']").click()
    assert tab.evaluate("document.activeElement.textContent") == "A run opened"
    facts = tab.locator(".facts")
    assert run in facts.inner_text()
    assert "gradlab run" in facts.inner_text()
    assert "gradlab cure" not in facts.inner_text()
    slider = tab.locator("#step")
    layers = pq.read_table(result / "layers.parquet")
    own = layers.filter(pc.equal(layers["run_id"], run)).to_pylist()
    for key, step in (("Home", 0), ("ArrowRight", 10), ("End", 200)):
        slider.press(key)
        assert slider.get_attribute("aria-valuetext") == f"step {step}"
        said = tab.locator("#figure-profile .area").get_attribute("aria-label")
        delta = {row["layer"]: row["signal_grad_norm"] for row in own if row["step"] == step}
        told = re.search(r"measured: (\S+) at layer 0, (\S+) at 5", said)
        assert told
        assert [float(value) for value in told.groups()] == pytest.approx([delta[0], delta[5]], rel=2e-3)
    legend = tab.locator("#figure-profile .legend")
    assert "theory of step 0, from δ of this step" in legend.inner_text()
    slider.press("Home")
    assert "theory, step 0" in legend.inner_text()
    # Where it met the measured line last, it meets it again.
    assert tab.evaluate("carried([1, 10, 30, null], [2, 10.01, 99, 3], [4, 20, 5, 6])") == [2, 20, 60, None]
    assert tab.evaluate("carried([1, 10], [1, 10], [1, 0])") is None
    tab.get_by_label("show").select_option("update_ratio")
    assert "‖ΔW‖/‖W‖" in tab.locator("#figure-heat-run h3").inner_text()
    tab.go_back()
    assert tab.locator(".facts code").first.inner_text() != run
    tab.get_by_label("run", exact=True).select_option("3")
    assert f"gradlab cure --from {result} {ids(result)[3]}" in facts.inner_text()


def test_two_runs_are_compared(sweep: Path, result: Path, open_page: Open) -> None:
    one, other = ids(result)[0], ids(result)[7]
    tab = open_page(sweep, f"#run={one}")
    tab.get_by_label("beside").select_option("7")
    rows = [row.split("\t")[0] for row in tab.locator("#differs tbody tr").all_inner_texts()]
    assert {"seed", "model.activation", "optim.lr"} <= set(rows)
    assert "model.depth" not in rows
    assert tab.locator("#figure-heat-other").is_visible()
    assert {one, other} == set(tab.locator(".facts h3 code").all_inner_texts())
    legend = tab.locator("#figure-profile .legend").inner_text()
    assert one[:8] in legend
    assert other[:8] in legend
    address(tab, f"with={other}")


def test_two_runs_of_the_table_are_compared(sweep: Path, result: Path, open_page: Open) -> None:
    tab = open_page(sweep)
    compare = tab.get_by_role("button", name="Compare the two")
    for place in (2, 5):
        assert compare.is_hidden()
        tab.locator("#table tbody input").nth(place).click()
    compare.click()
    shown = [ids(result)[place] for place in (2, 5)]
    assert tab.locator(".facts h3 code").all_inner_texts() == shown


def test_the_keyboard_alone_filters_brushes_opens_and_slides(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep)

    def walk_to(condition: str) -> None:
        for _ in range(150):
            tab.keyboard.press("Tab")
            if tab.evaluate(f"(() => {{ const here = document.activeElement; return Boolean({condition}); }})()"):
                return
        raise AssertionError(f"never reached: {condition}")

    walk_to("here.classList.contains('chip') && here.textContent === 'tanh'")
    tab.keyboard.press("Space")
    assert count(tab) == "8 of 24 runs"
    walk_to("here.classList.contains('area') && here.closest('#figure-scatter')")
    tab.keyboard.press("ArrowRight")
    assert "activation=tanh" in tab.locator("#live").inner_text()
    walk_to("here.matches('#table input')")
    tab.keyboard.press("Space")
    assert count(tab).endswith("1 in the group")
    walk_to("here.matches('#table td button')")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "A run opened"
    walk_to("here.id === 'step'")
    tab.keyboard.press("End")
    assert tab.locator("#step").get_attribute("aria-valuetext") != "step 0"


def test_axes_zoom_legends_and_copies(sweep: Path, open_page: Open) -> None:
    stub = "window.copied = []; navigator.clipboard.writeText = async (text) => { window.copied.push(text); };"
    tab = open_page(sweep, script=stub)
    figure = tab.locator("#figure-group-loss")
    assert figure.locator(".log-y").inner_text() == "y: log"
    figure.locator(".log-y").click()
    assert figure.locator(".log-y").inner_text() == "y: linear"
    address(tab, "switched=group-loss.y")

    def rows() -> list[str]:
        figure.get_by_role("button", name="CSV").click()
        return str(tab.evaluate("window.copied.at(-1)")).splitlines()

    whole = rows()
    assert whole[0] == "line,step,loss"
    entry = figure.locator(".legend button").first
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert len(rows()) < len(whole)
    entry.click()
    figure.locator(".area").press("+")
    assert 1 < len(rows()) < len(whole)
    figure.locator(".area").press("0")
    assert len(rows()) == len(whole)
    figure.get_by_role("button", name="Table").click()
    assert figure.locator(".numbers tbody tr").count() == 300


def test_the_address_holds_how_closely_a_figure_is_looked_at(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, script="navigator.clipboard.writeText = async (text) => { window.copied = text; };")

    def seen(tab: Any) -> str:
        tab.locator("#figure-group-loss").get_by_role("button", name="CSV").click()
        return str(tab.evaluate("window.copied"))

    whole = seen(tab)
    tab.locator("#figure-group-loss .area").press("+")
    tab.locator("#figure-group-loss .legend button").first.click()
    closely = seen(tab)
    assert len(closely) < len(whole)
    place = address(tab, "zoom.group-loss=", "off.group-loss=")
    again = open_page(sweep, place, script="navigator.clipboard.writeText = async (text) => { window.copied = text; };")
    assert seen(again) == closely
    again.locator("#figure-group-loss .area").press("0")
    again.wait_for_function("!location.hash.includes('zoom.')")


def test_without_a_clipboard_what_is_copied_is_saved(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, script="Object.defineProperty(navigator, 'clipboard', { value: undefined });")
    for name, begins in (("CSV", b"run,"), ("PNG", b"\x89PNG")):
        with tab.expect_download() as waiting:
            tab.locator("#figure-scatter").get_by_role("button", name=name).click()
        assert Path(waiting.value.path()).read_bytes().startswith(begins)
    with tab.expect_download() as waiting:
        tab.locator("#figure-heat-run").get_by_role("button", name="PNG").click()
    with Image.open(Path(waiting.value.path())) as picture:
        plot, ramp = tab.locator("#figure-heat-run canvas").bounding_box(), np.asarray(picture)[-30:]
        assert picture.height > plot["height"] + 40, "with its heading and what the colours mean"
        assert len(np.unique(ramp.reshape(-1, ramp.shape[-1]), axis=0)) > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_for_a_light_and_for_a_dark_page(sweep: Path, open_page: Open, scheme: str) -> None:
    tab = open_page(sweep, color_scheme=scheme)
    corner = (
        "(() => { const canvas = document.querySelector('#figure-scatter canvas');"
        "return canvas.getContext('2d').getImageData(2, 2, 1, 1).data[0]; })()"
    )
    assert (tab.evaluate(corner) > 128) == (scheme == "light")
    colours = (
        "(() => { const canvas = document.querySelector('#figure-heat-run canvas');"
        "const seen = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "const pixels = Array.from({length: seen.length / 4}, (_, at) => seen.slice(4 * at, 4 * at + 3).join());"
        "return new Set(pixels).size; })()"
    )
    assert tab.evaluate(colours) > 10
    tab.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    tab.wait_for_function(f"({corner} > 128) === {json.dumps(scheme == 'dark')}")


def test_what_an_instrument_gave_stands_in_the_opened_run(tmp_path: Path, open_page: Open) -> None:
    result = write_result(tmp_path / "result", [{"seed": 0}, {"seed": 1}])
    run_ids = ids(result)
    given = [
        {"run_id": run_ids[1], "step": step, "instrument": "jacobian_spectrum", "quantity": name, "index": index}
        | {"value": scale * (step + 1.0)}
        for step in (0, 10)
        for name, index, scale in (("singular_value", 1, 1e3), ("singular_value", 2, 1.0), ("spread", None, -2.0))
    ]
    pq.write_table(pa.Table.from_pylist(given, schema=INSTRUMENTS), result / "instruments.parquet")
    with dotted():
        page = write_report([result], tmp_path / "report").page
    tab = open_page(page)
    tab.locator(f"#table [title='Open {run_ids[1]}']").click()
    curve, course = (tab.locator(f"#figure-given-{at}") for at in (0, 1))
    tab.locator("#step").press("Home")
    assert curve.locator("h3").inner_text() == "singular value, step 0"
    assert "singular value, step 0. From 1 to 11000 over all its records" in curve.locator(".area").get_attribute(
        "aria-label"
    )
    assert course.locator("h3").inner_text() == "spread by step"
    assert tab.evaluate("shownData.blocks['instrument singular_value'].raw.index").startswith("k, from the largest")
    tab.locator("#step").press("End")
    assert curve.locator("h3").inner_text() == "singular value, step 200"
    curve.get_by_role("button", name="Table").click()
    numbers = curve.locator(".numbers td").all_inner_texts()
    assert {"11000", "11"} <= set(numbers), numbers
    tab.get_by_role("button", name="Previous").click()
    assert curve.is_hidden()


def test_on_paper_it_is_light_and_whole_and_has_no_controls(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page')") == "#fbfbfa"
    assert tab.evaluate("getComputedStyle(document.querySelector('#runs .scroll')).maxHeight") == "none"
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for place in ("nav", ".tools", ".bar", ".filters", "#step", "#table"):
        assert tab.locator(place).first.is_hidden(), place


@pytest.mark.parametrize("width", [420, 2560])
def test_it_fits_narrow_and_wide_windows(sweep: Path, open_page: Open, width: int) -> None:
    tab = open_page(sweep, width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("#figure-scatter canvas").bounding_box()["width"] > 300


def test_a_label_stays_text(tmp_path: Path, open_page: Open) -> None:
    result = write_result(tmp_path / "result", grid({"seed": list(range(5))}))
    runs = pq.read_table(result / "runs.parquet")
    # As of trainings that were watched: their networks have names and arguments of their own.
    runs = runs.set_column(runs.column_names.index("model.name"), "model.name", pa.nulls(len(LABELS), pa.string()))
    pq.write_table(runs.append_column("model.args.kind", pa.array(LABELS)), result / "runs.parquet")
    with dotted():
        page = write_report([result], tmp_path / "report").page
    stub = "navigator.clipboard.writeText = async (text) => { window.copied = text; };"
    tab = open_page(page, script=stub)
    assert set(column(tab, "model.args.kind")) == set(LABELS)
    chip(tab, "model.args.kind", LABELS[0]).click()
    assert count(tab) == "1 of 5 runs"
    again = open_page(page, address(tab, "is.model.args.kind"), script=stub)
    assert column(again, "model.args.kind") == [LABELS[0]]
    again.get_by_role("button", name="Show all").click()
    again.get_by_label("run", exact=True).select_option("2")
    again.get_by_label("beside").select_option("1")
    assert LABELS[1] in again.locator("#differs").inner_text()
    assert again.evaluate("csv([['=1+1', -1, '-1']])") == "'=1+1,-1,-1\n"
    assert [one.evaluate("window.owned") for one in (tab, again)] == [None, None]


@pytest.mark.parametrize(
    "address",
    [
        "#run=zzz&x=nothing&is.no=1&is.seed=77&is.verdict=no&box=1,2&in.seed=a,b&in.optim.lr=2,1&in.state=0,1&step=x&axis=constructor&along=time&zoom.scatter=1,1,1,1&off.no=1",
        "#figures",
    ],
)
def test_an_address_that_means_nothing_is_left_alone(sweep: Path, open_page: Open, address: str) -> None:
    assert count(open_page(sweep, address)) == "24 of 24 runs"


def test_without_its_script_the_page_has_its_figures_and_tables(sweep: Path, open_page: Open) -> None:
    tab = open_page(sweep, java_script_enabled=False)
    assert not tab.locator("#explore").is_visible()
    assert tab.locator("#figures img").count() > 5
    assert tab.locator("#runs tbody tr").count() == 12


def test_of_a_sweep_with_recurrent_networks_delta_is_drawn_by_layer_or_by_time_step(
    tmp_path: Path, open_page: Open
) -> None:
    result = write_result(tmp_path / "result", [{}, {"model.name": "rnn", "data.name": "digits"}])
    with dotted():
        tab = open_page(write_report([result], tmp_path / "report").page)
    area = tab.locator("#figure-group-profile .area")
    assert tab.locator("#figure-group-profile h3").inner_text() == "δ by layer, at step 0"
    assert "2 runs." in area.get_attribute("aria-label")
    tab.get_by_label("δ by", exact=True).select_option("time")
    assert "1 of 2 runs: the others have none" in area.get_attribute("aria-label")
    address(tab, "along=time")


@pytest.mark.parametrize(
    ("values", "wishes", "axis"),
    [
        ({}, {}, "layer"),
        ({"model.name": "rnn", "data.name": "digits"}, {}, "time step"),
        ({}, {"diverge": {0: 0}}, "layer"),
    ],
)
def test_a_single_run_is_open_from_the_start(
    tmp_path: Path, open_page: Open, values: Mapping[str, Value], wishes: Mapping[str, Any], axis: str
) -> None:
    result = write_result(tmp_path / "result", [values], **wishes)
    with dotted():
        tab = open_page(write_report([result], tmp_path / "report").page)
    assert tab.locator("#explore h2").inner_text() == "The run, step by step"
    assert f"by {axis} and step" in tab.locator("#figure-heat-run h3").inner_text()
    steps = tab.evaluate("[...figures].find((one) => one.id === 'heat-run').plot.axes[0]._values")
    assert not [step for step in steps if float(step) < 0], "no tick where no step is"
    assert not tab.locator("#figure-scatter").count()
