"""What a cure came to, in sentences: the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gradlab.cure.ranking import Outcome, is_healthy
from gradlab.diagnose.numbers import number
from gradlab.theory.words import OWN

OF_THE_STEP = frozenset({"learning rate", "schedule", "clipping", "optimizer"})
"""Kinds of change that leave the network at step 0, and so δ there, as it was."""


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
        said = f"Healthy in {before.healthy} of {before.seeds} seeds: {told}."
        if before.final >= before.first:
            # Too few steps to be stalled: what does not learn is judged by its course.
            return f"{said} The loss has not fallen: more steps (train.steps) would tell why, and nothing was tried."
        return f"{said} There is nothing to cure, and nothing was tried."
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
    if count["steadies"]:
        parts.append(f"{count['steadies']} only {'ends' if count['steadies'] == 1 else 'end'} the divergence")
    parts.append(f"{count['no help']} {'does' if count['no help'] == 1 else 'do'} not")
    if count["harms"]:
        parts.append(f"{count['harms']} {'does' if count['harms'] == 1 else 'do'} harm")
    if count["crashed"]:
        parts.append(f"{count['crashed']} crashed")
    return f"{len(tried)} changes were tried over {seeds} seeds: {', '.join(parts)}."


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
        f"{number(before.final)}{diverged} -> {number(one.final)}, {lower(one)}{right}; "
        f"{'healthy' if healed else one.verdict} in "
        f"{one.healthy if healed else one.verdicts.count(one.verdict)} of {one.seeds} seeds"
    )


def lower(one: Outcome) -> str:
    """By what factor the loss is lower, in words: ``18 times lower (17 to 20)``."""
    times, _, ends = factor(one).partition(" ")
    return f"{times} times lower {ends}"


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


def theory(one: Outcome, before: Outcome) -> str:
    """What theory says of the rate before and after, and whose theory it is."""
    was, now = before.change["theory"], one.change["theory"]
    if OF_THE_STEP.issuperset(one.change["kinds"]):
        rate = "" if now["rate"] is None else f"rate {_rate(now)} as before: "
        return f"{rate}the change is in the steps that are taken, not in how the initial weights pass gradients back"
    rates = "" if now["rate"] is None else f"rate {_rate(was)} -> {_rate(now)}: "
    if now["note"] == OWN:
        return ""
    source = f" ({now['source']})" if now["source"] else ""
    return f"{rates}{now['note']}{source}"


def _rate(said: Mapping[str, Any]) -> str:
    return "-" if said["rate"] is None else f"{'' if said['single_rate'] else '~'}{said['rate']:.3g}"


NEAREST = 3
"""So many changes are named where nothing helps."""


def nearest(tried: Sequence[Outcome]) -> list[str]:
    """Where nothing helps: the changes of the lowest final loss that do not diverge, and what to try from there."""
    ended = [one for one in tried if one.seeds and not one.diverges]
    close = sorted(ended, key=lambda one: one.final)[:NEAREST]
    if not close:
        return ["Every change diverges or crashes. Next: a smaller learning rate yet, and fewer layers."]
    said = [
        f"{one.change['override']} (run {one.run_id}): loss {number(one.final)}"
        f"{'' if one.accuracy is None else f', accuracy {one.accuracy:.1%}'}, {one.verdict}"
        for one in close
    ]
    return [
        "The nearest:",
        *said,
        f"Next: gradlab cure from the first of them, {close[0].change['override']}, or more of train.steps.",
    ]
