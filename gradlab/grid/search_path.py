"""The folders that hold config groups, gradlab's own first, and the names of the files there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradlab.spec import elsewhere
from gradlab.spec.choices import NOUNS
from gradlab.spec.keys import GROUPS
from gradlab.spec.named import SpecError, Value, canonical, nearest
from gradlab.spec.plugins import names_of


def shipped(folder: str) -> Path:
    """A folder that travels with the package: `configs` or `docs`."""
    package = Path(__file__).resolve().parents[1]
    # An editable install leaves a stale copy inside the package, so the repository's folder goes first.
    beside = package.parent / folder
    return beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else package / folder


def search_path(config_dirs: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that hold config groups, gradlab's own first."""
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise SpecError(f"--config-dir {folder}: no such folder; expected one with model/, data/, experiment/, ...")
    return (shipped("configs"), *(Path(folder).resolve() for folder in config_dirs))


def options_of(group: str, dirs: Sequence[Path]) -> list[str]:
    """The names of a group's files, in all folders, and those that plugins bring."""
    files = {file.stem for folder in dirs for file in (folder / group).glob("*.yaml") if file.is_file()}
    return sorted(files.union(names_of(GROUPS[group]) if group in GROUPS else ()))


def option(group: str, given: Value, dirs: Sequence[Path]) -> str:
    """One of them; raises `SpecError` with the nearest where there is none of this name."""
    names = options_of(group, dirs)
    shown = "null" if given is None else canonical(str(given), names)
    if shown not in names:
        noun = "launcher" if group == "launch" else NOUNS.get(GROUPS.get(group, ""), group)
        near = nearest(shown, names, elsewhere.VALUES.get(GROUPS.get(group, "")))
        raise SpecError(f"unknown {noun} {shown!r}{near or ';'} available: {', '.join(names)}")
    return shown
