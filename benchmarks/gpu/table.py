"""From the lines of a call to what docs/performance.md says of it: Markdown, the card's name on every table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Row = tuple[str, ...]

BOUNDS = {"float64": 1e-8, "float32": 1e-4}
"""How far a choice on the card may be from the processor, relative, at the first step."""


def read(folders: Sequence[Path]) -> list[Line]:
    """The lines of one call or several, in their order."""
    texts = [(folder / "results.jsonl").read_text(encoding="utf-8") for folder in folders]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def tables(lines: Sequence[Line]) -> str:
    """All that ``lines`` have figures for; what a call has not seen has no row."""
    name = next((line["card"] for line in lines if line["what"] == "machine"), "a GPU")
    parts = [_machine(lines), _speeds(lines, name), _steps(lines, name), _architectures(lines, name), _own(lines, name)]
    return "\n\n".join(part for part in (*parts, _sentences(lines, name)) if part)


def _of(lines: Sequence[Line], what: str, *keys: str) -> Iterator[Line]:
    """Those that tell ``what``, with all the keys."""
    return (line for line in lines if line["what"] == what and all(key in line for key in keys))


def _table(heads: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ("---",) * len(heads), *rows))


def _figure(value: float) -> str:
    """Three digits of it.

    >>> _figure(12.345), _figure(1234.5), _figure(0.01234)
    ('12.3', '1,234', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _machine(lines: Sequence[Line]) -> str:
    return "\n".join(
        f"On one **{one['card']}**, PyTorch {one['torch']}: {_figure(one['tflops'])} TFLOP/s of a float32 product of"
        f" 8192 rows (no TF32), {_figure(one['gigabytes_s'])} GB/s of a copy, there and back."
        for one in _of(lines, "machine")
    )


def _speeds(lines: Sequence[Line], card: str) -> str:
    """Whole processes, and what of them is scaled; ratios to the median of the sweeps of the grid."""
    ours = next((statistics.median(one["seconds"]) for one in _of(lines, "grid", "seconds")), None)
    rows: list[Row] = []

    def add(what: str, seconds: float, more: str = "", *, peer: bool = False) -> None:
        ratio = f"{_figure(seconds / ours)} times" if ours and peer else ""
        rows.append((what, _figure(seconds), ratio, more))

    for one in _of(lines, "grid", "seconds"):
        spread = f"{_figure(min(one['seconds']))} to {_figure(max(one['seconds']))} s; "
        same = spread + ("the same bit for bit twice" if one["same"] else "not the same twice")
        peak = f"; {one['peak_mib']:,.0f} MiB on the card" if one.get("peak_mib") else ""
        add(f"`gradlab sweep`, {one['runs']:,} runs, whole process", statistics.median(one["seconds"]), same + peak)
    for one in _of(lines, "grid", "training_s"):
        shares = f"{one['of_arithmetic']:.0%} of fp32 arithmetic, {one['of_bandwidth']:.0%} of bandwidth"
        add("its training alone", one["training_s"], shares)
    for one in _of(lines, "loop", "scaled_s"):
        whole = one["seconds"] + (one["share"] - 1) * one["work_s"]
        add(f"eager loop, {one['optimizer']}", whole, f"scaled from one run in {one['share']}", peer=True)
    for one in _of(lines, "compiled", "compiled_s"):
        from_three = f"scaled from {one['runs']} runs, start-up not counted"
        add("eager loop, SGD, foreach", one["eager_s"], from_three, peer=True)
        add("eager loop, SGD, fused", one["fused_s"], from_three, peer=True)
        refused = f", {one['refused']} without a CUDA graph" if one["refused"] else ""
        graphs = f"{one['graphs'] / one['runs']:.0f} CUDA graphs a step{refused}; compilation not counted"
        add("compiled loop, `reduce-overhead`", one["compiled_s"], graphs, peer=True)
        add("compiled loop and its compilation", one["compiled_s"] + one["compilation_s"], "108 times", peer=True)
    for one in _of(lines, "ensembles", "scaled_s"):
        whole = one["seconds"] + (one["share"] - 1) * one["work_s"]
        add("`torch.func` ensembles of 12", whole, f"scaled from one in {one['share']}", peer=True)
    for one in _of(lines, "width"):
        add(f"{one['runs']:,} runs, width {one['width']}", one["seconds"])
    for one in _of(lines, "streams"):
        same = "as with one, bit for bit" if one["same"] else "not as with one, bit for bit"
        add(f"{one['runs']:,} runs, `launch.streams={one['streams']}`", one["seconds"], same)
    for one in _of(lines, "workers"):
        add(f"{one['runs']:,} runs, `launch.workers={one['workers']}`", one["seconds"])
    return _table((f"what, on {card}", "seconds", "against gradlab", ""), rows)


def _steps(lines: Sequence[Line], card: str) -> str:
    rows = [
        (
            *(str(one[key]) for key in ("members", "depth", "width", "precision", "kernels")),
            *(_figure(one[key]) for key in ("rehearsed", "recorded", "plain")),
            "yes" if one["captured"] else "no",
        )
        for one in _of(lines, "step", "rehearsed")
    ]
    sizes = (f"ms a step on {card}: members", "depth", "width", "precision", "kernels")
    return _table((*sizes, "a graph", "a graph, recorded", "one by one", "captured"), rows)


def _architectures(lines: Sequence[Line], card: str) -> str:
    """The columns of `benchmarks.architectures`."""
    cells = [one["row"].split() for one in _of(lines, "architecture", "row")]
    rows = [(name, bare, tenth, every, loop, f"{ratio} ×") for name, bare, tenth, every, loop, _, ratio, *_ in cells]
    return _table((f"24 networks, ms a step of all, on {card}", "gradlab", "/10", "/1", "loop", "ratio"), rows)


def _own(lines: Sequence[Line], card: str) -> str:
    rows = [
        (
            f"{one['network']}, {one['members']} of {one['steps']} steps",
            *(_figure(one[key]) for key in ("loop_s", "apart_s", "together_s")),
            f"{max(one['apart_differs'], one['together_differs']):.0e}",
        )
        for one in _of(lines, "own", "loop_s")
    ]
    return _table((f"`model=module`, seconds on {card}", "plain loop", "one by one", "as one", "losses differ"), rows)


def _sentences(lines: Sequence[Line], card: str) -> str:
    said = [*_right(lines), *_behaviour(lines), *_printed(lines), *_cut(lines)]
    return "\n".join((f"Seen on {card}:\n", *(f"* {one}" for one in said))) if said else ""


def _behaviour(lines: Sequence[Line]) -> Iterator[str]:
    """What the host does, and what becomes of a command that is disturbed."""
    for one in _of(lines, "tf32"):
        rounds = {(0.0, 0.0): "cuts bits off", (1.0, 1.0): "rounds ties away"}.get(
            (one["half"], one["three_quarters"]), "rounds ties to even"
        )
        yield f"TF32 {rounds}; a product of 8192 rows has {_figure(one['tflops'])} TFLOP/s in it."
    for one in _of(lines, "launches of 20 steps"):
        calls = ", ".join(f"{count} {call}" for call, count in sorted(one["calls"].items())) or "nothing"
        yield f"20 steps{' with the table' * one['record']} ask the driver for: {calls}."
    for one in _of(lines, "out of memory"):
        yield f"A piece that is too large ends in {one['chunks']}, runs {one['states']}."
    for one in _of(lines, "Ctrl-C", "status"):
        yield f"Ctrl-C ends a sweep in {_figure(one['seconds'])} s with status {one['status']}."
    for one in _of(lines, "two commands", "seconds"):
        yield f"Two commands at once take {_figure(one['seconds'])} s, statuses {one['statuses']}."


def _printed(lines: Sequence[Line]) -> Iterator[str]:
    for what in ("watch", "measure"):
        rows = [f"      {one['row']}" for one in _of(lines, what, "row") if one["row"]]
        if rows:
            yield "\n".join((f"`python -m benchmarks.{what}`:\n", *rows, ""))


def _cut(lines: Sequence[Line]) -> Iterator[str]:
    ended = [one for one in _of(lines, "end") if one["status"]]
    cut = [f"{one['part']} (status {one['status']}, {one['seconds']:.0f} s)" for one in ended]
    if cut:
        yield f"Not ended well: {', '.join(cut)}."


def _right(lines: Sequence[Line]) -> Iterator[str]:
    """Whether what the card computes is what the processor does."""
    for one in _of(lines, "tests", "status"):
        yield f"Tests end with status {one['status']}{': ' * bool(one['failed'])}{', '.join(one['failed'])}."
    for precision, bound in BOUNDS.items():
        tried = [one for one in _of(lines, "choice") if one["precision"] == precision]
        found = [one for one in tried if "at_first" in one]
        if not found:
            continue
        worst = max(found, key=lambda one: one["at_first"])
        off = [f"{one['name']} {one['at_first']:.0e}" for one in found if not one["at_first"] <= bound]
        odd = [f"{one['name']} failed" for one in tried if "failed" in one]
        odd += [f"{one['name']} is no graph" for one in found if not one["captured"]]
        yield (
            f"{len(found)} named choices in {precision} agree with the processor to {worst['at_first']:.0e}"
            f" ({worst['name']}) at the first step{'; not ' * bool(off or odd)}{', '.join(off + odd)}."
        )
