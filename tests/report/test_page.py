"""The page: self-contained, safe, and without an error in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gradlab.report import write_report
from gradlab.spec.named import SpecError, Value
from tests.conftest import dotted
from tests.synthetic import grid, write_result

HOSTILE = "<script>alert('name')</script>"
SMALL: dict[str, list[Value]] = {"model.activation": ["sigmoid", "relu"], "optim.lr": [0.01, 0.1]}


class Loads(HTMLParser):
    """Collects the tags of a page and the addresses that a browser would load or follow."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.loaded.append(value or "")
            elif name == "href":
                self.linked.append(value or "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    source = write_result(
        folder / "result", grid(SMALL), name=HOSTILE, diverge={1: 30}, fail={2: f"ValueError: {HOSTILE}"}
    )
    return write_report([source], folder / "report").page


def parsed(page: Path) -> Loads:
    loads = Loads()
    loads.feed(page.read_text(encoding="utf-8"))
    return loads


def test_a_name_and_an_error_stay_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(&#39;name&#39;)&lt;/script&gt;" in text
    # What the page holds, and what reads it.
    assert parsed(page).tags.count("script") == 2


def test_the_page_loads_nothing(page: Path) -> None:
    loads = parsed(page)
    assert loads.loaded
    assert all(address.startswith("data:") for address in loads.loaded)
    text = re.sub(r"data:image/png;base64,[^\"]*", "", page.read_text(encoding="utf-8"))
    # The library's own notice names its home.
    assert re.findall(r"https?://[^ \"]*", text) == ["https://github.com/leeoniya/uPlot"]


def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for address in parsed(page).linked:
        assert f'id="{address[1:]}"' in text if address.startswith("#") else (page.parent / address).is_file(), address


def test_the_page_says_what_was_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in (
        "gradlab sweep",
        "torch 2.13.0",
        "bench",
        "cpu, 2 cores",
        "sigmoid, relu",
        "Of 4 runs 2 finished, 1 diverged",
    ):
        assert words in text, words
    assert "/opt/bin" not in text


@pytest.mark.usefixtures("unpainted")
def test_a_single_run_shows_its_layers(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", [{"model.depth": 5}], diverge={0: 3})
    text = write_report([source], tmp_path / "report").page.read_text(encoding="utf-8")
    assert "signal_grad_norm, step 3" in text.replace("<wbr>", "")
    assert "The run diverged at step 3, first in layer 5." in text
    assert ">layer 5<" in text
    assert ">inf<" in text


@pytest.mark.usefixtures("unpainted")
def test_a_recurrent_run_shows_its_time_steps(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", [{"model.name": "rnn", "data.name": "digits"}])
    text = write_report([source], tmp_path / "report").page.read_text(encoding="utf-8")
    _, _, table = text.partition("<h2>Time steps</h2>")
    rows = table.partition("</table>")[0]
    assert ">time step<" in rows
    assert rows.count("<tr") == 1 + 8
    assert "<h2>Layers</h2>" in text


@pytest.mark.usefixtures("unpainted")
def test_several_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    sources = [write_result(tmp_path / name, [{"seed": seed}]) for seed, name in enumerate(("first", "second"))]
    text = write_report(sources, tmp_path / "report").page.read_text(encoding="utf-8")
    for source in sources:
        assert f'<h3>run <code class="soft">{source}</code></h3>' in text


def test_importing_and_writing_a_report_never_imports_torch(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", [{"train.steps": 0}])
    code = (
        "import sys; import gradlab.report; assert 'matplotlib' not in sys.modules, 'matplotlib on import'\n"
        "from pathlib import Path; gradlab.report.write_report([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "assert 'torch' not in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path / "report")], check=True, timeout=120)


@pytest.fixture(scope="module")
def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no headless browser: neither chromium nor google-chrome is on PATH")


def test_the_page_opens_without_a_console_error(page: Path, browser: str, tmp_path: Path) -> None:
    # A click on every table head: the script must sort, not only load.
    probe = page.with_name("probe.html")
    clicks = (
        "<script>for (const b of document.querySelectorAll('th button')) { b.click(); b.click(); }"
        "const cells = [...document.querySelectorAll('#runs tbody tr')].map((row) => row.cells[1].textContent);"
        "document.title = 'sorted ' + document.images.length + ' '"
        " + [...document.images].every((image) => image.naturalWidth > 0) + ' ' + cells.length;</script>"
    )
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{clicks}</body>"), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=5000 --dump-dom"
    )
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert re.search(r"<title>sorted \d+ true 4</title>", done.stdout), done.stdout[:300]


def test_the_keys_of_panels_and_colours_can_be_chosen_for_all_figures(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", grid(SMALL))
    looked_at = ("loss_by_step", "update_ratio_by_layer", "signal_by_layer_end")
    with dotted(painted=(*looked_at, "signal_by_layer_start")):
        plain = write_report([source], tmp_path / "plain").page.parent
        chosen = write_report([source], tmp_path / "chosen", facet="optim.lr", color="model.activation").page.parent
    for name in looked_at:
        drawn = [(folder / f"{name}.svg").read_text(encoding="utf-8") for folder in (plain, chosen)]
        assert "<!-- lr = 0.01 -->" in drawn[1]
        assert drawn[0] != drawn[1]
    # At step 0 the learning rate is no panel: nothing there depends on it.
    assert "lr = " not in (chosen / "signal_by_layer_start.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"facet": "optim.lrr"}, "--facet optim.lrr: is no key"),
        ({"color": "model.width"}, "--color model.width: does not vary"),
        ({"facet": "optim.lr", "color": "optim.lr"}, "--facet and --color are both optim.lr"),
    ],
)
def test_a_key_that_cannot_be_shown_is_refused_before_anything_is_written(
    tmp_path: Path, keys: dict[str, Any], words: str
) -> None:
    source = write_result(tmp_path / "result", grid(SMALL))
    with pytest.raises(SpecError, match=words):
        write_report([source], tmp_path / "report", **keys)
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("unpainted")
def test_the_question_of_an_experiment_stands_at_the_top_and_the_words_at_the_foot(tmp_path: Path) -> None:
    source = write_result(tmp_path / "result", [{"seed": 0}])
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    about = {"question": "Does <b> vanish?", "source": "Somebody 2010"}
    manifest |= {"experiment": "mine", "about": about}
    (source / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    text = write_report([source], tmp_path / "report").page.read_text(encoding="utf-8")
    header = text.partition("<header>")[2].partition("</header>")[0]
    assert "Does &lt;b&gt; vanish?" in header
    assert "Somebody 2010" in header
    assert re.findall(r"<dt>([^<]*)</dt>", text.partition('<section id="words">')[2]) == ["δ", "χ₁", "vanishing ratio"]
