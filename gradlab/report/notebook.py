"""What a notebook shows of a result: its frames as a table, and the report's figures one by one."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab.report.answers import Answer, answers, of_cure
from gradlab.report.cure import cure
from gradlab.report.findings import Table, runs_table, sentences
from gradlab.report.tables import Result, read
from gradlab.report.verdicts import examples
from gradlab.spec.named import nearest
from gradlab.store.pieces import TABLES
from gradlab.store.sources import Merged
from gradlab.store.tables import Frames

if TYPE_CHECKING:
    from gradlab.report.figures.style import Plot

MOST_ROWS = 20
"""Of the table that a cell shows; the frame has them all."""


class Figures(Mapping[str, "Plot"]):
    """The report's figures by name, each with its title, its caption and matplotlib's ``figure``; a cell shows all."""

    def __init__(self, plots: Mapping[str, Plot]) -> None:
        self._plots = dict(plots)

    def __getitem__(self, name: str) -> Plot:
        """Raises `KeyError` for a figure that these runs do not have."""
        return self._plots[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plots)

    def __len__(self) -> int:
        return len(self._plots)

    def __repr__(self) -> str:
        return f"Figures({', '.join(self._plots)})"

    def _repr_html_(self) -> str:
        return "".join(
            f"<figure><figcaption><b>{escape(one.title)}</b></figcaption>"
            f'<img src="data:image/png;base64,{_png(one)}" alt="{escape(one.title)}">'
            f"<figcaption>{escape(one.caption)}</figcaption></figure>"
            for one in self._plots.values()
        )


def _png(plot: Plot) -> str:
    from gradlab.report.figures.style import styled

    picture = BytesIO()
    with styled():
        plot.figure.savefig(picture, format="png")
    return base64.b64encode(picture.getvalue()).decode("ascii")


class Loaded(Frames):
    """The frames of a result that lies at ``path``; a cell shows what is wrong, what came out and the table of runs."""

    def __init__(self, tables: Merged, path: Path) -> None:
        super().__init__(tables)
        self.path = path

    def __repr__(self) -> str:
        rows = ", ".join(f"{count:,} {name}" for name in TABLES if (count := self._tables.rows(name)))
        return f"Loaded({str(self.path)!r}: {rows or 'no rows'})"

    def _repr_html_(self) -> str:
        if not self._tables.rows("runs"):
            return f"<p><code>{escape(str(self.path))}</code> holds no finished run yet.</p>"
        result = read([self.path])
        clear, healing = examples(result), cure(result)
        homes = {one.run_id: self.path for one in clear}
        top = answers(result.every, clear, homes) if healing is None else of_cure(result, healing)
        told = [*map(_answer, top), *(f"<p>{escape(one)}</p>" for one in sentences(result))]
        return f"<p><code>{escape(str(self.path))}</code></p>{''.join(told)}{_html(runs_table(result))}"

    def plot(self, *names: str, color: str | None = None, facet: str | None = None) -> Figures:
        """The report's figures, or those called ``names``; ``color`` and ``facet`` are keys, as of `gradlab report`.

        Raises `ValueError` for a figure that these runs do not have, and `SpecError` for a key that does not vary.
        """
        from gradlab.report.figures.all_figures import plots
        from gradlab.report.figures.style import styled
        from gradlab.report.groups import check_asked, early_keys, map_keys

        result: Result = read([self.path])
        check_asked(result, {"facet": facet, "color": color})
        with styled():
            found = {
                one.name: one
                for one in plots(result, map_keys(result, None, None), early_keys(result, None, None), color, facet)
            }
        for name in names:
            if name not in found:
                raise ValueError(
                    f"no figure {name!r} of these runs{nearest(name, found) or ';'} available: {', '.join(found)}"
                )
        return Figures({name: found[name] for name in names} if names else found)


def _answer(one: Answer) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in one.rows)
    heal = f"<dt>to do</dt><dd><code>{escape(one.heal)}</code></dd>" if one.heal else ""
    return f"<p><b>{escape(one.title)}</b></p>" + (f"<dl>{rows}{heal}</dl>" if rows or heal else "")


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows[:MOST_ROWS])
    more = (
        f"<p>{MOST_ROWS} of {len(table.rows)} rows; <code>.runs</code> has all.</p>"
        if len(table.rows) > MOST_ROWS
        else ""
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"
