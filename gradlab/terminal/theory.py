"""What `gradlab theory` prints: the prediction of one run as sentences, of a grid as a table. Nothing is trained."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradlab.diagnose.numbers import number
from gradlab.spec.choices import MODELS
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, but_for_seeds
from gradlab.store.atomic import replace
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.ranks import short
from gradlab.theory import depths, widths
from gradlab.theory.formats import told
from gradlab.theory.predict import Prediction, Profile, predict, predict_setting, profile, profile_of
from gradlab.theory.setting import Setting, setting

if TYPE_CHECKING:
    from gradlab.engine.drawn import Drawn

MOST_ROWS = 60
"""Of the table of a grid."""

EVEN = 5e-4
"""From this relative difference on the rate that is fitted over the layers stands beside that of many."""

MOST_NETWORKS, MOST_WEIGHTS = 8, 20
"""Of networks of the user's own, and of the weights of each."""

APART = 1.0
"""From this standard deviation of ln delta on, what a typical draw has is said too: e^(-its square) of the mean."""

FIGURES = ("rate", "χ₁", "ξc", "6ξc", "δ₁/δ", "σw²*", "kept", "1/e")
"""The columns of the table of a grid, beside the swept keys."""

COLUMNS = (
    *("rate_theory", "rate_limit", "chi1", "q_star", "depth_scale", "gradient_scale", "trainable_depth"),
    *("log10_vanishing_ratio", "band", "critical_weight_var", "kept", "time_scale", "note"),
)
"""Of the CSV, beside the swept keys; ``band``: the standard deviation of ln delta of layer 1 between draws."""

LEGEND = (
    "rate: factor of δ = ‖∂loss/∂z‖ a layer toward the input, χ₁ its square; ~ where the layers of this run have no "
    "single rate: that of many layers then (of residual branches the mean). ξc: depth scale; 6ξc: trainable depth. "
    "δ₁/δ: of layer 1 over the last hidden one (time step 1 over T). σw²*: the nearest critical weight variance. "
    "kept: of a gated state a step along its own path, 1/e after so many steps."
)


def show(out: Console, runs: Sequence[RunSpec], swept: Sequence[str], *, most: int | None = MOST_ROWS) -> None:
    """The predictions of ``runs``: a block of sentences where theory sees one setting, else a table.

    Of its rows at most so many are printed.
    """
    rows = distinct(runs, swept)
    if len(rows) == 1:
        if len(runs) > 1:
            out.print(f"{len(runs):,} runs that theory cannot tell apart:")
        formats = {told(run) for run in but_for_seeds(runs)}
        _show_one(out, setting(rows[0][1]), formats.pop() if len(formats) == 1 else "")
    else:
        _show_table(out, rows, len(runs), most)
    for line in [one for along in (widths, depths) for one in along.sentences(but_for_seeds(runs), swept)]:
        out.print(escape(line), soft_wrap=True)


def show_drawn(out: Console, networks: Sequence[tuple[RunSpec, Drawn]]) -> None:
    """What can be known of networks of the user's own: their weights as drawn; of plain stacks what theory says."""
    for run, found in networks[:MOST_NETWORKS]:
        given = ", ".join(f"{name}={value}" for name, value in run.model.args)
        out.print(f"[bold]{escape(str(run.model.target))}[/bold] {escape(given)}".rstrip())
        rows = [
            [one.name or "-", str(one.fan_in), f"{one.sw2:.3g}", "-" if one.sb2 is None else f"{one.sb2:.3g}"]
            for one in found.weights
        ]
        heads = [Head("weight", text=True), *(Head(name, number=True) for name in ("fan-in", "σw²", "σb²"))]
        if rows:
            show_table(out, heads, rows[:MOST_WEIGHTS])
        if len(rows) > MOST_WEIGHTS:
            out.print(f"... and {len(rows) - MOST_WEIGHTS:,} more weights.")
        if found.seen is None:
            out.print(escape(f"No rate: {found.why_not}. Train it, and gradlab measures it."), soft_wrap=True)
        else:
            _show_one(out, found.seen)
    if len(networks) > MOST_NETWORKS:
        out.print(f"... and {len(networks) - MOST_NETWORKS:,} more networks.")


def write_csv(to: Path, runs: Sequence[RunSpec], swept: Sequence[str]) -> None:
    """A row for each of ``runs``: its id, the swept keys, and what theory says; ``-`` is the standard output.

    Columns that the `runs` table has are called as there. What is null is empty, numbers are in full.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    keys = list(dict.fromkeys(swept))
    lines.writerow(["run_id", *keys, *COLUMNS])
    for run in runs:
        flat = run.flat()
        lines.writerow([run.id, *(flat[key] for key in keys), *_columns(run)])
    if str(to) == "-":
        sys.stdout.write(text.getvalue())
    else:
        replace(to, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def _columns(run: RunSpec) -> list[float | str | None]:
    said, course = predict(run), profile(run)
    return [
        said.fitted if said.single_rate else None,
        said.rate if said.asymptotic else None,
        *(said.chi1, said.q_star, said.depth_scale, said.gradient_scale, said.trainable_depth),
        None if course is None else course.log10_ratio(1),
        *(said.band, said.critical_weight_var, said.kept, said.time_scale, said.note),
    ]


def distinct(runs: Sequence[RunSpec], swept: Sequence[str]) -> list[tuple[dict[str, Value], RunSpec]]:
    """The values of those swept keys that theory sees, each combination once, with the first run that has it."""
    # No seed is seen by theory.
    runs = but_for_seeds(runs)
    flats, settings = [run.flat() for run in runs], [setting(run) for run in runs]
    keys = [key for key in dict.fromkeys(swept) if _matters(settings, flats, key, swept)]
    rows: dict[tuple[Value, ...], tuple[dict[str, Value], RunSpec]] = {}
    for run, flat in zip(runs, flats, strict=True):
        values = {key: flat[key] for key in keys}
        rows.setdefault(tuple(values.values()), (values, run))
    return list(rows.values())


def _matters(settings: Sequence[Setting], flats: Sequence[dict[str, Value]], key: str, swept: Sequence[str]) -> bool:
    """Whether theory can tell two runs apart that differ in this swept key alone."""
    others = [other for other in swept if other != key]
    company: dict[tuple[Value, ...], Setting] = {}
    for seen, flat in zip(settings, flats, strict=True):
        if company.setdefault(tuple(flat[other] for other in others), seen) != seen:
            return True
    return False


def _show_one(out: Console, seen: Setting, formats: str = "") -> None:
    said, course = predict_setting(seen), profile_of(seen)
    out.print(escape(f"{said.note}."))
    rows = [*_lines(seen, said, course), *([("formats", formats)] if formats else [])]
    if rows:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for what, words in rows:
            table.add_row(what, escape(words))
        out.print(table)
    if said.source:
        out.print(f"[dim]{escape(said.source)}[/dim]")


def _lines(seen: Setting, said: Prediction, course: Profile | None) -> list[tuple[str, str]]:
    """What the prediction holds, a line each."""
    if said.rate is None or said.chi1 is None:
        return []
    blocks = seen.architecture in MODELS and MODELS[seen.architecture].trunk is not None
    place = "time step" if seen.steps else "block" if blocks else "layer"
    limit = f", in the limit of many {place}s" if said.asymptotic else f", the mean over these {place}s"
    lines = [("rate", f"{said.rate:.4g} a {place}, χ₁ = {said.chi1:.4g}{'' if said.single_rate else limit}")]
    if said.single_rate and said.fitted is not None and abs(said.fitted / said.rate - 1) >= EVEN:
        lines.append(("fitted", f"{said.fitted:.4g} a {place}, as a measured rate is, over these {place}s"))
    if said.depth_scale is not None and said.trainable_depth is not None:
        lines.append(("depth scale", f"ξc = {_count(said.depth_scale)} for correlations{_gradients(said)}"))
        reach = "at any depth" if math.isinf(said.trainable_depth) else f"to about {_count(said.trainable_depth)}"
        lines.append(("trainable", f"{reach} (6 ξc, necessary, not sufficient); here {seen.depth}"))
    elif said.gradient_scale is not None:
        lines.append(("depth scale", f"ξ = {_count(said.gradient_scale, place)} for gradients"))
    if said.bound is not None:
        bound = number(said.bound, 4)
        lines.append(
            ("bound", f"never above γρ = {bound} a time step (ρ: largest singular value, here of a wide matrix)")
        )
    if said.q_star is not None:
        lines.append(("variance", f"q* = {_number(said.q_star)} of z in deep {place}s"))
    if course is not None:
        lines.append((f"this {'sequence' if seen.steps else 'depth'}", _ends(seen, course)))
    return lines


def _gradients(said: Prediction) -> str:
    if said.gradient_scale is None or said.gradient_scale == said.depth_scale:
        return ""
    return f", ξ = {_count(said.gradient_scale)} for gradients"


def _count(places: float, place: str = "layer") -> str:
    return "∞" if math.isinf(places) else f"{places:.3g} {place}s"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else number(value)


def _ends(seen: Setting, course: Profile) -> str:
    """The ratio that the column `vanishing_ratio` measures, and how far draws lie apart."""
    ends = "step 1 over T" if course.axis == "time" else "layer 1 over L-1"
    said = f"δ of {ends} is {power(course.log10_ratio(1))}"
    if course.deviation is None or not (spread := float(course.deviation[course.place.index(1)])):
        return said
    within = f"within a factor of {math.exp(spread):.2g} or so at width {seen.width}"
    if spread < APART:
        return f"{said}, {within}"
    typical = power(course.log10_ratio(1) - spread**2 / math.log(10))
    return f"{said} in the mean square over draws of the weights, but typically about {typical}, {within}"


def power(log10: float) -> str:
    """A number by its decimal logarithm, which may be too large or small for a float.

    >>> power(0.0), power(-796.2), power(-4.0)
    ('1', '1e-796', '1.00e-04')
    """
    return number(10.0**log10) if abs(log10) < 300 else f"1e{log10:.0f}"


def _show_table(out: Console, rows: Sequence[tuple[dict[str, Value], RunSpec]], runs: int, most: int | None) -> None:
    told = f"{runs:,} runs, {len(rows):,} of which theory can tell apart:" if len(rows) < runs else f"{runs:,} runs:"
    out.print(told)
    keys = list(rows[0][0])
    lines = [[*(_value(values[key]) for key in keys), *_figures(run)] for values, run in rows[:most]]
    headings = [*map(short, keys), *FIGURES]
    used = [place for place in range(len(headings)) if place < len(keys) or any(line[place] != "-" for line in lines)]
    heads = [Head(headings[place], number=place >= len(keys)) for place in used]
    show_table(out, heads, [[line[place] for place in used] for line in lines])
    if most is not None and len(rows) > most:
        out.print(f"... and {len(rows) - most:,} more: --all shows them, --csv FILE writes a row for each run.")
    out.print(f"[dim]{LEGEND}[/dim]")


def _figures(run: RunSpec) -> list[str]:
    said, course = predict(run), profile(run)
    rate = "-" if said.rate is None else f"{'' if said.single_rate else '~'}{said.rate:.4g}"
    ratio = "-" if course is None else power(course.log10_ratio(1))
    scales = [_scale(said.depth_scale), _scale(said.trainable_depth)]
    gate = [number(said.kept, 3), number(said.time_scale, 3)]
    return [rate, number(said.chi1, 4), *scales, ratio, number(said.critical_weight_var, 4), *gate]


def _scale(value: float | None) -> str:
    return "-" if value is None else _number(value)


def _value(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
