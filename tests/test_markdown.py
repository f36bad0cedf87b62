"""Markdown: every relative link and every anchor leads somewhere, and what it tells a reader to type is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "gradlab/**/*.md", "configs/**/*.md", "tests/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
IDS = [str(path.relative_to(ROOT)) for path in FILES]

FENCE = re.compile(r"^(?P<fence>```+|~~~+)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*?$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
CALLS = re.compile(r"^```python\n.*?^```", re.MULTILINE | re.DOTALL)
"""Blocks of Python, whose keyword arguments are no words of a shell."""
LINKS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\s*\)"),  # [text](target), ![text](target "title")
    re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?([^\s>]+)", re.MULTILINE),  # [label]: target
    re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)=[\"']([^\"']+)", re.IGNORECASE),
)
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
NAMED_ANCHOR = re.compile(r"<a\b[^>]*?\b(?:id|name)=[\"']([^\"']+)", re.IGNORECASE)


def links(text: str) -> list[str]:
    """The targets of all links and pictures, in the order of the patterns; what stands in code is none."""
    prose = CODE.sub("", FENCE.sub("", text))
    return [target for pattern in LINKS for target in pattern.findall(prose)]


def anchors(text: str) -> set[str]:
    """The anchors of a page: GitHub's of its headings, a second equal one with ``-1``, and named ones."""
    prose = FENCE.sub("", text)
    found: set[str] = set(NAMED_ANCHOR.findall(prose))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(prose):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return found


def problem(page: Path, target: str, root: Path = ROOT) -> str | None:
    """What is wrong with a link of ``page``, if anything; links into the web are not followed."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
        return None
    path, _, anchor = target.partition("#")
    end = (page.parent / path).resolve() if path else page
    if not end.is_relative_to(root):
        return f"{target}: leads out of the project"
    if not end.exists():
        return f"{target}: no such file"
    if anchor and end.suffix == ".md" and anchor not in anchors(end.read_text(encoding="utf-8")):
        return f"{target}: no such heading"
    return None


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md"} <= set(IDS)


@pytest.mark.parametrize("page", FILES, ids=IDS)
def test_no_dead_links(page: Path) -> None:
    found = links(page.read_text(encoding="utf-8"))
    problems = [text for target in found if (text := problem(page, target)) is not None]
    assert not problems, "\n".join(problems)


def test_the_readme_names_only_targets_of_the_makefile() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = "\n".join(match["body"] for match in FENCE.finditer(readme))
    targets = set(re.findall(r"^\s*(?:\$ )?make ([a-z]+)", code, re.MULTILINE))
    assert {"run", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", rules, re.MULTILINE))


def unquoted(text: str) -> list[str]:
    """Sweeps such as ``seed=range(5)`` that a shell would take apart: what a reader copies must stand in quotes."""
    return re.findall(r"(?<![\w.\"'])[~+]*[a-z_]+(?:\.[a-z_0-9]+)?=[a-z]+\([^\s\"'`]+", text)


def test_no_example_of_a_shell_has_parentheses_without_quotes() -> None:
    said = [
        (path, node.value)
        for folder in ("gradlab", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    pages = [(path, CALLS.sub("", path.read_text(encoding="utf-8"))) for path in FILES]
    pages += [(path, path.read_text(encoding="utf-8")) for path in (*ROOT.glob("configs/**/*.yaml"), ROOT / "Makefile")]
    wrong = [f"{path.relative_to(ROOT)}: {word}" for path, text in (*pages, *said) for word in unquoted(text)]
    assert not wrong, "\n".join(wrong)


def test_a_sweep_without_quotes_is_seen() -> None:
    assert unquoted("gradlab sweep seed=range(5) 'seed=range(5)' \"optim.lr=choice(1,2)\"") == ["seed=range(5)"]
    assert unquoted("`+model.depth=glob(*)` seed=0,1 f(x) a=b") == ["+model.depth=glob(*)"]


def test_links_and_anchors_are_seen(tmp_path: Path) -> None:
    text = (
        "# What `it` is, exactly\n## Twice\n## Twice\n"
        "[a](b.md) ![p](c.png 'title') [d](#twice-1) `[no](code.md)`\n\n[ref]: e.md#x\n<img src=\"f.svg\">\n"
        "```sh\n[no](fence.md)\n# no heading\n```\n"
    )
    assert links(text) == ["b.md", "c.png", "#twice-1", "e.md#x", "f.svg"]
    assert anchors(text) == {"what-it-is-exactly", "twice", "twice-1"}
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    assert problem(page, "#twice-1", tmp_path) is None
    assert problem(page, "#thrice", tmp_path) is not None
    assert problem(page, "https://example.org/", tmp_path) is None
    assert problem(page, "b.md", tmp_path) == "b.md: no such file"
    assert problem(page, "../b.md", tmp_path) == "../b.md: leads out of the project"
