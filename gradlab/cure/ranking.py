"""What each change of a sick run came to, from the tables alone: paired with the run before, seed by seed.

Torch-free. Shapes: S seeds, P places of a profile (layers 1..L-1, or time steps).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradlab.diagnose.final import final_loss
from gradlab.diagnose.rules import names
from gradlab.diagnose.tables import histories

Floats = NDArray[np.float64]

Guess = Mapping[str, float | None]
"""What one answer to every input comes to: its ``loss`` and its ``accuracy``, None where there is no such figure."""

NO_GUESS: Guess = {"loss": None, "accuracy": None}

STATES = ("heals", "helps", "unclear", "steadies", "no help", "harms", "crashed")
"""What a change may come to, the best first; what steadies ends a divergence, and does not learn."""

ABLE = STATES[:4]
"""States of a change that does some good."""

LEARNED = 0.75
"""A network has learned where its final loss is below this share of its loss at step 0, and of the sick run's there.

The number is ours. Weights that are too large begin at a large loss: coming down from it alone is not learning.
"""

BEYOND_GUESSING = 0.2
"""And where it is at least so far on the way from guessing to perfection: in accuracy, or in loss where there is none.

Guessing is one answer to every input (`trials` writes down what that comes to). The number is ours. A loss that comes
down from a thousand to that of a guess has lost a bad beginning, and learned nothing.
"""

LEAST_GAIN = 0.05
"""In ln of the loss: less than 5 % is neither help nor harm, as it is no movement to `diagnose.stalled`."""

MORE = 0.1
"""In ln of the loss: what a dearer change must gain beyond a cheaper one to be worth naming beside it."""

_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Two-sided 5 % points of Student's t with 1..20 degrees of freedom (Student 1908; any table)."""

_NORMAL = 1.96
"""The same of a normal distribution, which more degrees of freedom are close to."""

SMALLEST, LARGEST = 1e-30, 1e30
"""A loss of exactly zero counts as the one, a loss that is not finite as the other, so that both have logarithms."""


@dataclass(frozen=True)
class Course:
    """One run: its loss at step 0, its `final_loss`, its verdict, and ||delta|| by place at step 0 (P,).

    A run that diverged has learned nothing: it ends where it began, or with a guess where that is the lower loss.
    ``accuracy`` is None where the run has none.
    """

    first: float
    final: float
    diverged: bool
    verdict: str
    accuracy: float | None
    rate: float | None
    axis: str
    profile: Floats

    @property
    def healthy(self) -> bool:
        """Whether no threshold of diagnosis is crossed."""
        return names(self.verdict) == ("healthy",)


@dataclass(frozen=True)
class Outcome:
    """What a change came to over S paired seeds.

    ``change`` is as `trials` wrote it, ``state`` one of `STATES`. ``gains`` (S,) are ln of the final loss before over
    that after; ``gain`` their mean, ``margin`` half of its 95 % interval; ``places`` (S,) say which seeds of the cure
    they are of, since a seed that crashed is left out. ``first`` and ``final`` are geometric means of losses,
    ``accuracy`` and ``rate`` medians; ``axis`` is depth or time. ``healthy`` and ``diverged`` count seeds,
    ``verdicts`` are those of each, ``verdict`` is the most frequent one; ``guesses`` is true where the median run has
    come no further than one answer to every input. ``profile`` (P,) is the median of
    ln ||delta|| relative to its last place, ``low`` and ``high`` its least and largest over the seeds.
    """

    change: Mapping[str, Any]
    state: str
    places: tuple[int, ...]
    gains: Floats
    gain: float
    margin: float
    first: float
    final: float
    accuracy: float | None
    healthy: int
    diverged: int
    guesses: bool
    verdicts: tuple[str, ...]
    rate: float | None
    axis: str
    profile: Floats
    low: Floats
    high: Floats

    @property
    def cost(self) -> int:
        """What its kinds of change cost."""
        return int(self.change["cost"])

    @property
    def name(self) -> str:
        """The remedies in one word."""
        return "+".join(self.change["remedies"]) or "as it was"

    @property
    def answers(self) -> tuple[str, ...]:
        """The causes of the sick run's verdicts that it takes away."""
        return tuple(self.change.get("answers", ()))

    @property
    def run_id(self) -> str:
        """The run at the first seed."""
        return str(self.change["members"][0])

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.gains)

    @property
    def verdict(self) -> str:
        """The most frequent one over the seeds."""
        return Counter(self.verdicts).most_common(1)[0][0] if self.verdicts else ""

    @property
    def diverges(self) -> bool:
        """Whether most seeds diverge."""
        return 2 * self.diverged > self.seeds

    @property
    def least(self) -> float:
        """What it gains at the least: the lower end of the interval; -inf where nothing is known."""
        return -math.inf if math.isnan(self.gain) else self.gain - self.margin

    @property
    def log10_ends(self) -> float:
        """The decimal logarithm of ||delta|| of the first place over that of the last; nan where there is no place."""
        return float(self.profile[0]) / math.log(10) if len(self.profile) else math.nan

    @property
    def ends(self) -> float:
        """The same as a number, inf where it is too large for one."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.profile[0])) if len(self.profile) else math.nan


def courses(
    tables: Mapping[str, pa.Table], guess: Guess = NO_GUESS, units: Mapping[str, float] | None = None
) -> dict[str, Course]:
    """The course of every run that did not crash, by its id, losses over the run's unit, if it has one."""
    runs = tables["runs"]
    guessed = math.inf if guess["loss"] is None else guess["loss"]
    found = {}
    for row, history in zip(runs.to_pylist(), histories(runs, tables["steps"], tables["layers"]), strict=True):
        if row["state"] == "failed":
            continue
        losses = history.loss / (units or {}).get(row["run_id"], 1.0)
        first, diverged = float(losses[0]), row["state"] == "diverged"
        # In this order: a first loss that is no number is not below that of a guess either.
        final = min(guessed, first) if diverged else final_loss(losses) if len(losses) > 1 else first
        along = history.along[-1]
        deltas = along.deltas if along.axis == "time" else along.deltas[:-1]
        found[row["run_id"]] = Course(
            first, final, diverged, row["verdict"], row["accuracy"], row["rate"], along.axis, deltas
        )
    return found


def outcomes(facts: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> list[Outcome]:
    """What every change of ``facts`` came to, in its order; the first is the sick run itself, which changes nothing.

    Of an interrupted cure those whose runs have all ended; none where the sick run itself has not.
    """
    guess: Guess = facts.get("guess", NO_GUESS)
    units = {run_id: change.get("unit", 1.0) for change in facts["changes"] for run_id in change["members"]}
    known, ended = courses(tables, guess, units), set(tables["runs"]["run_id"].to_pylist())
    before = facts["changes"][0]["members"]
    over = [change for change in facts["changes"] if ended.issuperset(change["members"])]
    return [_outcome(change, before, known, guess) for change in over] if ended.issuperset(before) else []


def _outcome(change: Mapping[str, Any], before: Sequence[str], known: Mapping[str, Course], guess: Guess) -> Outcome:
    both = {
        place: (known[one], known[other])
        for place, (one, other) in enumerate(zip(before, change["members"], strict=True))
        if one in known and other in known
    }
    if not both:
        nothing = np.empty(0)
        return Outcome(
            *(
                change,
                "crashed",
                (),
                nothing,
                math.nan,
                math.nan,
                math.nan,
                math.nan,
                None,
                0,
                0,
                True,
                (),
                None,
                "depth",
            ),
            *(nothing, nothing, nothing),
        )
    pairs = list(both.values())
    after = [course for _, course in pairs]
    gains = np.array([_ln(one.final) - _ln(other.final) for one, other in pairs])
    middle, low, high = _profile([course.profile for course in after])
    return Outcome(
        change=change,
        state=_state(gains, pairs, guess),
        places=tuple(both),
        gains=gains,
        gain=float(gains.mean()),
        margin=half_width(gains),
        first=_typical([course.first for course in after]),
        final=_typical([course.final for course in after]),
        accuracy=_median([course.accuracy for course in after]),
        healthy=sum(course.healthy for course in after),
        diverged=sum(course.diverged for course in after),
        guesses=not _beyond(after, guess),
        verdicts=tuple(course.verdict for course in after),
        rate=_median([course.rate for course in after]),
        axis=after[0].axis,
        profile=middle,
        low=low,
        high=high,
    )


def _state(gains: Floats, pairs: Sequence[tuple[Course, Course]], guess: Guess) -> str:
    """One of `STATES`. What makes a run diverge does harm whatever its losses, and nothing harms one that diverges."""
    diverged, diverges = (_most([course.diverged for course in side]) for side in zip(*pairs, strict=True))
    if diverges and not diverged:
        return "harms"
    healthy = _most([course.healthy for _, course in pairs])
    found = state(float(gains.mean()), half_width(gains), learned=_learned(pairs, guess), healthy=healthy)
    if diverged and found in ("no help", "harms"):
        return "no help" if diverges else "steadies"
    return found


def _most(said: Sequence[bool]) -> bool:
    return 2 * sum(said) > len(said)


def _learned(pairs: Sequence[tuple[Course, Course]], guess: Guess) -> bool:
    """Whether the median run has come far from where it and the sick run began, and further than guessing."""
    left = [_ln(other.final) - min(_ln(one.first), _ln(other.first)) for one, other in pairs]
    return float(np.median(left)) < math.log(LEARNED) and _beyond([other for _, other in pairs], guess)


def _beyond(after: Sequence[Course], guess: Guess) -> bool:
    """Whether the median run is `BEYOND_GUESSING`, where it is known what that is."""
    if guess["accuracy"] is not None:
        right = _median([course.accuracy for course in after])
        return right is not None and right > guess["accuracy"] + BEYOND_GUESSING * (1 - guess["accuracy"])
    if guess["loss"] is not None:
        return float(np.median([course.final for course in after])) < (1 - BEYOND_GUESSING) * guess["loss"]
    return True


def state(gain: float, margin: float, *, learned: bool, healthy: bool) -> str:
    """One of `STATES`: a cure lowers the loss beyond doubt, learns, and leaves a healthy verdict.

    >>> state(2.0, 0.5, learned=True, healthy=True), state(2.0, 0.5, learned=True, healthy=False)
    ('heals', 'helps')
    >>> state(2.0, 2.5, learned=True, healthy=True), state(0.1, 0.01, learned=False, healthy=True)
    ('unclear', 'no help')
    >>> state(-2.0, 0.5, learned=False, healthy=True), state(-0.01, 0.001, learned=False, healthy=True)
    ('harms', 'no help')
    """
    if abs(gain) < LEAST_GAIN:
        return "no help"
    if gain + margin < 0:
        return "harms"
    if not learned or gain < 0:
        return "no help"
    return "unclear" if gain <= margin else "heals" if healthy else "helps"


def half_width(values: Floats) -> float:
    """Half of the two-sided 95 % interval of the mean of ``values`` (S,), by Student's t; infinite of a single one.

    >>> round(half_width(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 3)
    1.963
    """
    freedom = len(values) - 1
    if freedom < 1:
        return math.inf
    t = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL
    return t * float(values.std(ddof=1)) / math.sqrt(len(values))


def _ln(loss: float) -> float:
    return math.log(min(max(loss, SMALLEST), LARGEST) if math.isfinite(loss) else LARGEST)


def _typical(losses: Sequence[float]) -> float:
    """Their geometric mean, so that the factor between two of them is the mean gain."""
    return math.exp(sum(map(_ln, losses)) / len(losses))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _profile(profiles: Sequence[Floats]) -> tuple[Floats, Floats, Floats]:
    """Median, least and largest of ln ||delta|| relative to its last place (P,); a norm of exactly zero is -inf."""
    stacked = np.stack(profiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(stacked) - np.log(stacked[:, -1:])
    return np.median(logs, axis=0), logs.min(axis=0), logs.max(axis=0)


def is_healthy(before: Outcome) -> bool:
    """Whether most seeds of the run as it was are healthy, and have learned more than a guess."""
    return 2 * before.healthy > before.seeds and not before.guesses


def ranked(found: Sequence[Outcome]) -> list[Outcome]:
    """The changes, the best first: by what they came to, then the smallest, then by what they gain at the least.

    Of the smallest those come first that take away a cause of the sick run's verdicts: others treat what follows.
    """
    tried = [outcome for outcome in found if outcome.change["remedies"]]
    return sorted(tried, key=lambda one: (STATES.index(one.state), one.cost, not one.answers, -one.least))


def front(found: Sequence[Outcome]) -> list[Outcome]:
    """The smallest changes that heal, each of which gains more than those before it, beyond doubt.

    Where nothing heals, the same of those that help.
    """
    order = ranked(found)
    best = next((name for name in STATES[:2] if any(one.state == name for one in order)), None)
    kept: list[Outcome] = []
    for one in order:
        if one.state == best and all(_gains_more(one, other) for other in kept):
            kept.append(one)
    return kept


def _gains_more(one: Outcome, other: Outcome) -> bool:
    """Whether ``one`` gains more than ``other``: by `MORE` in the mean, and by something over the whole interval.

    Their seeds are the same, so their gains are compared pair by pair: intervals that overlap may still tell.
    """
    theirs = dict(zip(other.places, other.gains.tolist(), strict=True))
    more = np.array(
        [gain - theirs[place] for place, gain in zip(one.places, one.gains.tolist(), strict=True) if place in theirs]
    )
    return len(more) > 0 and float(more.mean()) > max(MORE, half_width(more))
