"""What `gradlab cure` prints: the smallest changes that heal, what else helps, and what does not. In 80 columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gradlab.cure.command import folded
from gradlab.cure.ranking import Floats, Outcome, front, is_healthy, outcomes, ranked
from gradlab.terminal.summary import number

BARS = "▁▂▃▄▅▆▇█"

PLACES = 16
"""Characters of a profile."""

LEAST_RANGE = math.log(100)
"""Of the scale of the bars: what changes little must not look like a mountain."""

MOST_OTHERS = 12
"""Rows of the table of what else heals or helps."""

LEAST_HELPS = 4
"""Of them for what helps, where so many do."""

OF_THE_STEP = frozenset({"learning rate", "clipping", "optimizer"})
"""Kinds of change that leave the network at step 0, and so δ there, as it was."""

BEHIND = "   "
"""What stands before each line under a change."""


def show(out: Console, facts: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
    """The outcome of a cure, from its facts and the tables of its runs."""
    found = outcomes(facts, tables)
    if not found or found[0].state == "crashed":
        out.print("Every seed of the run crashed: there is nothing to compare with.")
        return
    before, *tried = found
    out.print(escape(patient(before)))
    if is_healthy(before):
        return
    best = front(tried)
    out.print(escape(summed_up(tried, before.seeds)))
    if best:
        out.print(f"\n{headline(best)}:")
    else:
        out.print("\nNothing that was tried heals it, and nothing helps beyond doubt.")
    for place, one in enumerate(best, 1):
        _show_best(out, place, one, before)
    _show_others(out, [one for one in ranked(tried) if one.state in ("heals", "helps") and one not in best])
    for state, words in (
        ("unclear", "May help (their seeds disagree)"),
        ("no help", "Do not help"),
        ("harms", "Do harm"),
        ("crashed", "Crashed"),
    ):
        if some := [one.name for one in ranked(tried) if one.state == state]:
            out.print(escape(f"{words}: {', '.join(some)}."))
    out.print(
        "[dim]Loss: of the last tenth of the steps, geometric mean over seeds; lower by: factor, 95 % interval of the "
        "paired seeds. δ = ‖∂loss/∂z‖ from the input to the output, at step 0, and the ratio of its ends. Names: "
        "gradlab list remedies.[/dim]"
    )


def headline(best: Sequence[Outcome]) -> str:
    """What the smallest changes do, and how they stand to each other."""
    change, verb = ("change", "s") if len(best) == 1 else ("changes", "")
    what = f"heal{verb}" if best[0].state == "heals" else f"help{verb}, though a verdict stays"
    more = "" if len(best) == 1 else ", each gaining more than those before it"
    return f"The smallest {change} that {what}{more}"


def patient(before: Outcome) -> str:
    """The run as it was, in one sentence or two."""
    right = "" if before.accuracy is None else f", accuracy {before.accuracy:.1%}"
    if is_healthy(before):
        told = f"loss {number(before.first)} -> {number(before.final)}{right}"
        # The run that was asked about is that of the first seed.
        if before.places[0] == 0 and before.verdicts[0] != "healthy":
            return (
                f"The run itself is {before.verdicts[0]}, and yet {before.healthy} of {before.seeds} seeds are "
                f"healthy: {told}. Another seed is all that it needs, and nothing was tried."
            )
        return (
            f"Healthy in {before.healthy} of {before.seeds} seeds: {told}. There is nothing to cure, and nothing was "
            "tried."
        )
    told = (
        f"loss {number(before.first)}, then diverged, which counts as {number(before.final)}"
        if before.diverges
        else f"loss {number(before.first)} -> {number(before.final)}{right}"
    )
    if before.verdict == "healthy":
        return (
            f"As it was: healthy in {before.healthy} of {before.seeds} seeds, and yet no better than one answer to "
            f"every input; {told}."
        )
    return f"As it was: {before.verdict}, healthy in {before.healthy} of {before.seeds} seeds; {told}."


def summed_up(tried: Sequence[Outcome], seeds: int) -> str:
    """How many changes came to what."""
    count = Counter(one.state for one in tried)
    parts = [f"{count['heals']} {'heals' if count['heals'] == 1 else 'heal'}"]
    parts.append(f"{count['helps']} {'helps' if count['helps'] == 1 else 'help'}")
    if count["unclear"]:
        parts.append(f"{count['unclear']} may help")
    parts.append(f"{count['no help']} {'does' if count['no help'] == 1 else 'do'} not")
    if count["harms"]:
        parts.append(f"{count['harms']} {'does' if count['harms'] == 1 else 'do'} harm")
    if count["crashed"]:
        parts.append(f"{count['crashed']} crashed")
    return f"{len(tried)} changes were tried over {seeds} seeds: {', '.join(parts)}."


def _show_best(out: Console, place: int, one: Outcome, before: Outcome) -> None:
    out.print(f"\n[bold]{place}. {escape(one.change['override'])}[/bold]  (cost {one.cost})")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for what, words in (
        ("   change", what_it_is(one)),
        ("   loss", loss(one, before)),
        ("   δ", profiles(one, before)),
        ("   theory", theory(one, before)),
        ("   source", "; ".join(one.change["sources"])),
    ):
        grid.add_row(what, escape(words))
    out.print(grid)
    # Line by line, as it is pasted: a blank behind a backslash would break it.
    for line in folded(one.change["command"], out.width - len(BEHIND)):
        out.print(f"{BEHIND}[bold]{escape(line)}[/bold]", soft_wrap=True)


def what_it_is(one: Outcome) -> str:
    """What the remedies of a change are, in words."""
    return "; ".join(one.change["summaries"])


def loss(one: Outcome, before: Outcome) -> str:
    """The final loss before and after, the factor between them with its interval, accuracy and health."""
    right = ""
    if one.accuracy is not None:
        was = "" if before.accuracy is None else f"{before.accuracy:.1%} -> "
        right = f", accuracy {was}{one.accuracy:.1%}"
    diverged = " (diverged)" if before.diverges else ""
    healed = one.state == "heals"
    return (
        f"{number(before.final)}{diverged} -> {number(one.final)}, lower by {factor(one)}{right}; "
        f"{'healthy' if healed else one.verdict} in "
        f"{one.healthy if healed else one.verdicts.count(one.verdict)} of {one.seeds} seeds"
    )


def factor(one: Outcome) -> str:
    """By what factor the loss is lower, and the ends of the 95 % interval."""
    ends = (_times(one.gain - one.margin), _times(one.gain + one.margin))
    return f"{_times(one.gain)} ({ends[0]} to {ends[1]})"


def _times(gain: float) -> str:
    """A factor from its logarithm.

    >>> _times(1.25), _times(4.7), _times(30.0)
    ('3.5', '110', '1.1e+13')
    """
    if abs(gain) > 300:
        return "inf" if gain > 0 else "0"
    value = math.exp(gain)
    return f"{value:.0f}" if 99.5 <= value < 1e5 else f"{value:.2g}"


def profiles(one: Outcome, before: Outcome) -> str:
    """Both profiles on one logarithmic scale, with the ratio of their ends."""
    finite = [value for one in (before.profile, one.profile) for value in one.tolist() if math.isfinite(value)]
    high = max(finite, default=0.0)
    low = min(min(finite, default=0.0), high - LEAST_RANGE)
    told = [f"{bars(some.profile, low, high)} {number(some.ends)}" for some in (before, one)]
    return " -> ".join(told)


def bars(profile: Floats, low: float, high: float) -> str:
    """A profile (P,) of logarithms as at most `PLACES` bars from ``low`` to ``high``; 0 for an exact zero.

    >>> import numpy as np
    >>> bars(np.array([-4.0, -2.0, 0.0, -np.inf]), -4.0, 0.0)
    '▁▅█0'
    """
    count = min(PLACES, len(profile))
    chosen = [profile[round(place * (len(profile) - 1) / max(1, count - 1))] for place in range(count)]
    return "".join(_bar(float(value), low, high) for value in chosen)


def _bar(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "0" if value < 0 else "?"
    share = 1.0 if high - low < 1e-9 else (value - low) / (high - low)
    return BARS[round(share * (len(BARS) - 1))]


def theory(one: Outcome, before: Outcome) -> str:
    """What theory says of the rate before and after, and whose theory it is."""
    was, now = before.change["theory"], one.change["theory"]
    if OF_THE_STEP.issuperset(one.change["kinds"]):
        rate = "" if now["rate"] is None else f"rate {_rate(now)} as before: "
        return f"{rate}the change is in the steps that are taken, not in how the initial weights pass gradients back"
    rates = "" if now["rate"] is None else f"rate {_rate(was)} -> {_rate(now)}: "
    source = f" ({now['source']})" if now["source"] else ""
    return f"{rates}{now['note']}{source}"


def _rate(said: Mapping[str, Any]) -> str:
    return "-" if said["rate"] is None else f"{'' if said['single_rate'] else '~'}{said['rate']:.3g}"


def _show_others(out: Console, others: Sequence[Outcome]) -> None:
    if not others:
        out.print()
        return
    out.print("\nAlso:")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "cost", "loss lower by", "accuracy"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    table.add_column("change", overflow="fold")
    shown = _some(others)
    for one in shown:
        right = "-" if one.accuracy is None else f"{one.accuracy:.1%}"
        stays = "" if one.state == "heals" else f" ({one.verdict})"
        table.add_row(one.state, str(one.cost), factor(one), right, escape(f"{one.change['override']}{stays}"))
    out.print(table)
    if len(others) > len(shown):
        out.print(f"... and {len(others) - len(shown)} more.")


def _some(others: Sequence[Outcome]) -> list[Outcome]:
    """The first of those that heal, and of those that help: a cheap help must not hide behind dear cures."""
    heal, help_ = ([one for one in others if one.state == state] for state in ("heals", "helps"))
    places = max(LEAST_HELPS, MOST_OTHERS - len(heal))
    return [*heal[: MOST_OTHERS - min(places, len(help_))], *help_[:places]]
