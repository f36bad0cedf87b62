"""A config file looked through before anything composes it: a folder of configs may come from anybody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from gradlab.spec.named import SpecError

MOST_BYTES = 1_000_000

DEEPEST = 50
"""Lists and mappings inside each other."""

MOST_NODES = 100_000
"""Values of a file, those that an alias stands for counted each time."""

QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C, ten times as fast, where PyYAML was built with it."""

RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
"""An interpolation that calls something: `${oc.env:HOME}`. `${model.width}` names another value."""


def check(file: Path) -> None:
    """Raises `SpecError` for what no config needs: aliases without end, calls, deep nests, a byte order mark."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise SpecError(f"{size:,} bytes; expected a config of at most {MOST_BYTES:,}")
    raw = file.read_bytes()
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise SpecError("begins with a byte order mark; expected UTF-8 without one")
    refuse_calls(raw.decode("utf-8", "replace"))
    try:
        _check_size(raw, QUICK)
    except yaml.YAMLError:
        # What is wrong is told in the words of the parser that reads the file afterwards.
        _check_size(raw, yaml.SafeLoader)


def refuse_calls(content: object) -> None:
    """Raises `SpecError` where a text in ``content`` calls something when it is interpolated."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for entry in content:
            refuse_calls(entry)
    elif isinstance(content, str) and (found := RESOLVER.search(content)) is not None:
        raise SpecError(
            f"{found[0]}...}} is not followed from a file, which may be somebody else's and would learn what is on "
            "this machine; give the value on the command line"
        )


def _check_size(raw: bytes, loader: Any) -> None:
    """Counts the values as if each alias were written out, from the events of the parser alone."""
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(raw, loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in opened]:
                raise SpecError(f"*{event.anchor} stands inside of what it names")
            count += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(opened) > DEEPEST:
            raise SpecError(f"more than {DEEPEST} lists and mappings inside each other")
        if count > MOST_NODES:
            raise SpecError(f"more than {MOST_NODES:,} values, its aliases written out")
