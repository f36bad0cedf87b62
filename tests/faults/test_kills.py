"""A few kills of the campaign, at named points and at random moments: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pytest

from gradlab.launch import interrupts
from tests.commands import forked
from tests.faults.campaign import SWEEP, Kill, drawn, survives

NAMED = [
    Kill("three pieces are saved", signal.SIGTERM, True),
    Kill("runs are merged", signal.SIGKILL, True),
    Kill("the report is begun", signal.SIGKILL, False),
]
"""Each of the command that goes on with what the one before it left."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    ended = forked([*SWEEP, "--no-report"], folder)
    assert (ended.status, ended.err) == (0, "")
    return folder / "out"


def test_kills_at_named_points(whole: Path, tmp_path: Path) -> None:
    survives(tmp_path, NAMED, whole)


def test_kills_at_random(whole: Path, tmp_path: Path) -> None:
    random_ = random.Random(10)
    survives(tmp_path, [drawn(random_) for _ in range(3)], whole)


def test_an_interrupt_that_is_lost_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "AGAIN_SECONDS", 0.05)
    before = {one: signal.getsignal(one) for one in interrupts.STOPPING}
    lost = 0
    with interrupts.listening():
        hook = sys.unraisablehook
        assert hook is not sys.__unraisablehook__
        try:
            signal.raise_signal(signal.SIGTERM)
        except interrupts.Stopped as stopped:
            lost += interrupts.status(stopped) == 143
        with pytest.raises(interrupts.Stopped):
            signal.pause()
        interrupts.heard()
        signal.raise_signal(signal.SIGTERM)
    assert lost == 1
    signal.signal(signal.SIGINT, before[signal.SIGINT])
    assert {one: signal.getsignal(one) for one in interrupts.STOPPING} == before
    assert sys.unraisablehook is sys.__unraisablehook__
