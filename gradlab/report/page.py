"""The report of one or several result folders: CSV files, figures and one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from gradlab.report import cure, effect_words, effects, findings, foretold, verdicts
from gradlab.report.expectations import expected
from gradlab.report.groups import check_asked, early_keys, log_outcomes, map_keys, varying
from gradlab.report.tables import Result, read, write_csv

PIXELS_PER_INCH = 92
"""Of figures on the page: one scale for all, so that their letters are of one size."""


@dataclass(frozen=True)
class Report:
    """What was written: every file, the page among them, and what a reader of the terminal should know."""

    files: tuple[Path, ...]
    page: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: its words, its PNG as a data address and the files beside the page."""

    title: str
    caption: str
    png: str
    svg: str
    data: str
    width: int


@dataclass(frozen=True)
class Chosen:
    """The keys of the maps, of those at step 0, and of the colours and panels of all other figures, if asked for."""

    keys: Sequence[str]
    early: Sequence[str]
    colour: str | None
    facet: str | None


def get_ready() -> None:
    """Imports what `write_report` needs, a second of it: for who has something to wait for."""
    # pandas, because Arrow asks whether an array is a series.
    import pandas as pd  # noqa: F401

    import gradlab.report.figures.all_figures  # noqa: F401


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    x: str | None = None,
    y: str | None = None,
    facet: str | None = None,
    color: str | None = None,
) -> Report:
    """Writes index.html, the figures as PNG and SVG, and the tables as CSV into ``out``.

    ``x`` and ``y`` are the keys of the heat maps; by default those that the experiment names, else the two swept keys
    that explain most of final loss and vanishing ratio, of the map at step 0 two that can matter there.
    ``facet`` and ``color`` are the keys of the panels and of the colours of all figures over layers and steps; by
    default those that explain most. Several folders
    are read as one. The figures, effects.csv and cure.csv of an earlier report are removed from ``out``, and no other
    file.
    Raises `SpecError`, before anything is written, for a folder without a result and for a key that does not exist or
    does not vary.
    """
    result = read(paths)
    if x is None and y is None:
        x, y = _planned(result)
    pair = effects.strongest_pair(result, log_outcomes(result).values()) if x is None and y is None else None
    keys, early = pair or map_keys(result, x, y), early_keys(result, x, y)
    check_asked(result, {"--facet": facet, "--color": color})
    healing = cure.cure(result)
    # The changes of a cure are no grid: their effects are what its own table says.
    found = effects.analyses(result) if healing is None else []
    out.mkdir(parents=True, exist_ok=True)
    tables = (
        *(*write_csv(result, out), verdicts.write_counts(result, out)),
        *(*effect_words.write_effects(found, out), *cure.write_cure(healing, out)),
    )
    figures, pictures = _figures(result, Chosen(keys, early, color, facet), out)
    page = out / "index.html"
    page.write_text(_render(result, found, healing, pictures, [file.name for file in tables]), encoding="utf-8")
    return Report((page, *figures, *tables), page, result.notes)


def _planned(result: Result) -> tuple[str | None, str | None]:
    """The keys of the heat maps that the experiment of a single folder names, where they vary."""
    (manifest, *others), able = result.manifests.values(), varying(result)
    named = {} if others else manifest.get("maps") or {}
    x, y = (key if (key := named.get(side)) in able else None for side in ("x", "y"))
    return x, y


def _figures(result: Result, chosen: Chosen, out: Path) -> tuple[list[Path], list[Picture]]:
    # matplotlib takes half a second to import: only a report that draws pays for it.
    from gradlab.report.figures.all_figures import NAMES, plots
    from gradlab.report.figures.style import save, styled

    for name in NAMES:
        for suffix in ("png", "svg"):
            (out / f"{name}.{suffix}").unlink(missing_ok=True)
    files: list[Path] = []
    pictures: list[Picture] = []
    with styled():
        for plot in plots(result, chosen.keys, chosen.early, chosen.colour, chosen.facet):
            png, svg = save(plot, out)
            files += [png, svg]
            width = round(plot.figure.get_size_inches()[0] * PIXELS_PER_INCH)
            data = base64.b64encode(png.read_bytes()).decode("ascii")
            pictures.append(
                Picture(plot.title, plot.caption, png.name, svg.name, f"data:image/png;base64,{data}", width)
            )
    return files, pictures


def _render(
    result: Result,
    found: Sequence[effects.Analysis],
    healing: cure.Cure | None,
    pictures: Sequence[Picture],
    tables: Sequence[str],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gradlab.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = [str(manifest.get("name", path.name)) for path, manifest in result.manifests.items()]
    return environment.get_template("page.html.j2").render(
        title=", ".join(dict.fromkeys(names)),
        folders=[
            (name, str(path), findings.provenance(manifest))
            for name, (path, manifest) in zip(names, result.manifests.items(), strict=True)
        ],
        size=result.size,
        varying=[(key, findings.value_list(result, key)) for key in varying(result)],
        base=findings.base(result),
        sentences=[
            *(*cure.sentences(healing), *findings.sentences(result)),
            *(*(foretold.sentences(result) if healing is None else []), *effect_words.sentences(found)),
        ],
        cures=cure.best(healing),
        cures_heading=cure.heading(healing),
        changes=cure.table(healing),
        expected=expected(result),
        effects=effect_words.table(found),
        effects_notes=effect_words.notes(found),
        notes=[*result.notes, *verdicts.outdated(result)],
        pictures=pictures,
        runs=findings.runs_table(result),
        layers=findings.layers_tables(result) if result.size == 1 else [],
        verdicts=[
            (example.setting, example.verdict.told, verdicts.thresholds(example.verdict))
            for example in verdicts.examples(result)
        ],
        verdict_counts=verdicts.table(result) if result.size > 1 else None,
        tally=verdicts.tally(result) if result.size > 1 else "",
        tables=tables,
    )
