"""docs/tables.md defines every column of every table, in its order, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradlab.spec.keys import KEYS
from gradlab.store.columns import MEASURED_COLUMNS, SCHEMAS, SEEN

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_defined(table: str) -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{table}:")]
    rows = re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE)
    defined = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    further = {"runs": (SEEN,), "layers": MEASURED_COLUMNS}.get(table, ())
    assert defined == [*(name for name in SCHEMAS[table].names if name not in KEYS), *further]
