"""What `gradlab docs` prints: where the documentation lies and its pages, or the text of one."""

from __future__ import annotations

from gradlab.grid.search_path import shipped
from gradlab.spec.named import SpecError, nearest


def listed() -> str:
    """The folder, then each page with its title."""
    folder = shipped("docs")
    titles = {page.name: page.read_text(encoding="utf-8").partition("\n")[0] for page in sorted(folder.glob("*.md"))}
    return "\n".join([str(folder), *(f"{name:20} {title.removeprefix('# ')}" for name, title in titles.items())])


def text(name: str) -> str:
    """The page called ``name``, with or without .md. Raises `SpecError` with the nearest where there is none."""
    pages = {page.stem: page for page in sorted(shipped("docs").glob("*.md"))}
    stem = name.removesuffix(".md")
    if stem not in pages:
        raise SpecError(f"unknown page {name!r}{nearest(stem, pages) or ';'} available: {', '.join(pages)}")
    return pages[stem].read_text(encoding="utf-8").rstrip("\n")
