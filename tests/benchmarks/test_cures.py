"""The table of cures: every setting is a run, and a row says what came of it."""

from __future__ import annotations

import pytest

from benchmarks.cures import SICK, main, row
from gradlab.cure.trials import patient
from gradlab.grid.compose import compose_any
from tests.cure.test_ranking import SICK as BEFORE
from tests.cure.test_ranking import Made, cure_of


@pytest.mark.parametrize("name", SICK)
def test_every_setting_is_one_run(name: str) -> None:
    assert patient(compose_any(SICK[name])).cure is not None


def test_a_row_names_what_heals_and_what_only_helps() -> None:
    made = [Made((name,), cost, (final,) * 3) for name, cost, final in (("a", 1, 0.5), ("b", 4, 0.1), ("c", 2, 1.99))]
    found = cure_of(BEFORE, *made)
    for one in found:
        one.change.update(override=f"x={one.name}")  # type: ignore[attr-defined]
    told = row("momentum", found)
    assert "| vanishing, 2 | `x=a`<br>`x=b` | 1<br>4 | 0.5<br>0.1 | 2 and 0 of 3 |" in told
    nothing = cure_of(BEFORE, Made(("a",), 1, (2.0,) * 3))
    assert "| nothing |  |  | 0 and 0 of 1 |" in row("momentum", nothing)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(SystemExit, match="did you mean 'momentum'"):
        main(["momentun"])
