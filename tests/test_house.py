"""docs/house.md tells the truth: its rooms are the tree's, in the order that is held, and every path in it is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")


def test_the_rooms_are_those_of_the_tree_in_their_order() -> None:
    rooms = re.findall(r"^\| `gradlab/(\w+)/` \|", PAGE, flags=re.MULTILINE)
    assert rooms == [room for room in ORDER if (ROOT / "gradlab" / room).is_dir()]


def test_every_path_is_there() -> None:
    walk = PAGE[PAGE.index("## A run's walk") : PAGE.index("## Where to put what")]
    paths = re.findall(r"`((?:gradlab|configs|tests)/[^`]*)`", PAGE)
    paths += [f"gradlab/{path}" for path in re.findall(r"`(\w+(?:/\w+)*(?:\.py|/))`", walk)]
    assert len(paths) > 60
    assert not [path for path in paths if not (ROOT / path).exists()]
