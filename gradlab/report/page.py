"""The report of one or several result folders: CSV files, figures and one self-contained page."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2

from gradlab.report import (
    answers,
    beforehand,
    cure,
    effect_words,
    effects,
    findings,
    foretold,
    inside,
    noise,
    picked,
    verdicts,
)
from gradlab.report.cells import write_csv
from gradlab.report.clipping import clipping
from gradlab.report.expectations import expected
from gradlab.report.groups import check_asked, early_keys, log_outcomes, map_keys, swept, varying
from gradlab.report.layout import Facets
from gradlab.report.tables import Result, read

SOMETIMES = ("effects.csv", "beforehand.csv", "cure.csv", "instruments.csv")
"""Tables that not every result has."""

SCRIPTS = ("data", "axes", "paint", "legend", "figure", "view", "explore", "run", "main")
EXPLORER = {
    "js": ("uplot/uPlot.iife.min.js", *(f"{name}.js" for name in SCRIPTS)),
    "css": ("uplot/uPlot.min.css", "style.css"),
}
"""What the page's script and its looks are made of, in order: they share one scope."""

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
    """The keys of the maps, of those at step 0, and of the colours and panels of all other figures, if asked for.

    ``each``: a colour for each of several runs that were asked for, which have no maps.
    """

    keys: Sequence[str]
    early: Sequence[str]
    colour: str | None
    facet: str | None
    each: Facets | None


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
    runs: Mapping[str, Path] | None = None,
) -> Report:
    """Writes index.html, the figures as PNG and SVG, and the tables as CSV into ``out``.

    ``x`` and ``y`` are the keys of the heat maps; by default those that the experiment names, else the two swept keys
    that explain most of final loss and vanishing ratio, of the map at step 0 two that can matter there.
    ``facet`` and ``color`` are the keys of the panels and of the colours of all figures over layers and steps; by
    default those that explain most. Several folders
    are read as one. ``runs``, by id and with their folders, are reported alone, each beside the others (`picked.find`).
    The figures, effects.csv and cure.csv of an earlier report are removed from ``out``, and no other file. Files are
    written beside ``out`` and renamed into it, so that a link in the place of one leads nowhere.
    Raises `SpecError`, before anything is written, for a folder without a result and for a key that does not exist or
    does not vary.
    """
    result = picked.only(read(paths, runs), runs) if runs else read(paths)
    every = result.every
    if x is None and y is None:
        x, y = _planned(result)
    pair = effects.strongest_pair(every, log_outcomes(every).values()) if x is None and y is None else None
    keys, early = pair or map_keys(every, x, y), early_keys(every, x, y)
    # Maps over the same two keys lie the same way.
    early = tuple(keys) if sorted(early) == sorted(keys) else early
    check_asked(result, {"--facet": facet, "--color": color})
    healing = cure.cure(result)
    # The changes of a cure are no grid: their effects are what its own table says.
    found = effects.analyses(every) if healing is None and not runs else []
    known = beforehand.beforehand(result) if healing is None and not runs else None
    each = picked.facets(result) if runs and result.size > 1 else None
    clear = verdicts.examples(result) if not runs or result.size == 1 else []
    shown = [*result.ids, *(one.run_id for one in clear)]
    everywhere = runs or (picked.homes_of(paths) if every.behind is None else every.behind.homes(shown))
    homes = everywhere if runs or result.size == 1 else {}
    out.mkdir(parents=True, exist_ok=True)
    with _beside(out) as fresh:
        tables = (
            *(*write_csv(result, fresh), verdicts.write_counts(every, fresh)),
            *effect_words.write_effects(found, fresh),
            *beforehand.write_beforehand(known, fresh),
            *cure.write_cure(healing, fresh),
        )
        figures, pictures = _figures(result, Chosen(keys, early, color, facet, each), fresh)
        page = fresh / "index.html"
        held = inside.written(result, everywhere, healing) if (result.state != "failed").any() else ""
        top = answers.answers(every, clear, everywhere) if healing is None else answers.of_cure(result, healing)
        told = _render(result, found, known, healing, pictures, [file.name for file in tables], homes, held, clear, top)
        page.write_text(told, encoding="utf-8")
        # The page last: it shows what is there.
        files = _moved([*figures, *tables, page], out)
    return Report(files, out / page.name, result.notes)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out``, removed at the end."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh)


def _moved(files: Sequence[Path], out: Path) -> tuple[Path, ...]:
    """Renames ``files`` into ``out``, in the place of those of an earlier report."""
    from gradlab.report.figures.all_figures import NAMES

    drawn = {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")}
    for name in {*drawn, *SOMETIMES} - {file.name for file in files}:
        (out / name).unlink(missing_ok=True)
    return tuple(file.replace(out / file.name) for file in files)


def _planned(result: Result) -> tuple[str | None, str | None]:
    """The keys of the heat maps that the experiment of a single folder names, where they vary."""
    (manifest, *others), able = result.manifests.values(), varying(result)
    named = {} if others else manifest.get("maps") or {}
    x, y = (key if (key := named.get(side)) in able else None for side in ("x", "y"))
    return x, y


def _figures(result: Result, chosen: Chosen, out: Path) -> tuple[list[Path], list[Picture]]:
    # matplotlib takes half a second to import: only a report that draws pays for it.
    from gradlab.report.figures.all_figures import plots, plots_of_runs
    from gradlab.report.figures.style import save, styled

    if chosen.each is not None:
        drawn = plots_of_runs(result, chosen.each)
    else:
        drawn = plots(result, chosen.keys, chosen.early, chosen.colour, chosen.facet)
    files: list[Path] = []
    pictures: list[Picture] = []
    with styled():
        for plot in drawn:
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
    known: beforehand.Beforehand | None,
    healing: cure.Cure | None,
    pictures: Sequence[Picture],
    tables: Sequence[str],
    homes: Mapping[str, Path],
    held: str,
    examples: Sequence[verdicts.Example],
    top: Sequence[answers.Answer],
) -> str:
    """``homes``: the folders of runs that are told one by one; ``held``: what the page's script reads of all."""
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
        questions=findings.questions(result),
        size=result.every.size,
        over=[key for key in varying(result.every) if key in {"seed", "probe.instrument", *swept(result.every)}],
        varying=[(key, findings.value_list(result.every, key)) for key in varying(result.every)],
        base=findings.base(result),
        sentences=[
            *(*findings.sentences(result), *noise.sentences(result)),
            *(*foretold.sentences(result), *effect_words.sentences(found)),
        ]
        if healing is None
        else [*cure.sentences(healing), findings.states(result.every)],
        answers=top,
        well=answers.well(result.every) if result.size > 1 and healing is None else "",
        cures=cure.best(healing),
        cures_heading=cure.heading(healing),
        changes=cure.table(healing),
        expected=[] if result.asked else expected(result),
        asked=result.asked,
        each=picked.runs(result, homes) if homes else [],
        differences=picked.differences(result) if result.asked and result.size > 1 else None,
        effects=effect_words.table(found),
        effects_notes=effect_words.notes(found),
        beforehand=beforehand.table(known),
        beforehand_words=beforehand.sentences(known),
        notes=[*result.notes, *findings.mixed(result), *verdicts.outdated(result)],
        pictures=pictures,
        runs=findings.runs_table(result.every),
        layers=findings.layers_tables(result) if result.size == 1 else [],
        verdicts=[
            (example.run_id, example.setting, example.verdict.told, verdicts.thresholds(example.verdict))
            for example in examples
        ],
        verdict_counts=verdicts.table(result.every) if result.size > 1 and not result.asked else None,
        tally=verdicts.tally(result.every) if result.size > 1 else "",
        clipping=clipping(result),
        tables=tables,
        held=held,
        script=_parts("js"),
        style=_parts("css"),
    )


def _parts(suffix: str) -> str:
    """The page's own script, or its looks, with the library that frames its figures: `EXPLORER` in one piece."""
    folder = Path(__file__).with_name("explorer")
    return "\n".join((folder / name).read_text(encoding="utf-8").strip() for name in EXPLORER[suffix])
