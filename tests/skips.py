"""A pytest plugin: a skipped test that is not on the list in ``allowed_skips.txt`` fails the run where ``CI`` is set.

A test that is skipped everywhere proves nothing, and nobody notices. Elsewhere than in CI the list only adds a remark.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("allowed_skips.txt")
UNLISTED = pytest.StashKey[list[tuple[str, str]]]()


@dataclass(frozen=True)
class Allowed:
    """Tests that may be skipped: a test id in which ``*`` stands for anything, and words that the reason contains."""

    test: str
    reason: str

    def covers(self, test: str, reason: str) -> bool:
        """Whether this line allows ``test`` to be skipped for ``reason``."""
        pattern = re.escape(self.test).replace(r"\*", ".*")
        return re.fullmatch(pattern, test) is not None and self.reason in reason


def parse(text: str) -> list[Allowed]:
    """The lines ``test | reason`` of a list; blank lines and lines that begin with ``#`` say nothing."""
    allowed = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        test, separator, reason = (part.strip() for part in line.partition("|"))
        if not (test and separator and reason):
            raise ValueError(f"line {number}: expected `test | reason`, got {line!r}")
        allowed.append(Allowed(test, reason))
    return allowed


def unlisted(skipped: Iterable[tuple[str, str]], allowed: list[Allowed]) -> list[tuple[str, str]]:
    """The (test, reason) pairs of ``skipped`` that no line allows."""
    return [(test, reason) for test, reason in skipped if not any(line.covers(test, reason) for line in allowed)]


def _skipped(config: pytest.Config) -> list[tuple[str, str]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    return [(report.nodeid, str(report.longrepr)) for report in reporter.stats.get("skipped", [])]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sets the exit status; runs before the terminal's summary is written."""
    if hasattr(session.config, "workerinput"):  # a worker of pytest-xdist sees only its part
        return
    found = unlisted(_skipped(session.config), parse(LIST.read_text(encoding="utf-8")))
    session.config.stash[UNLISTED] = found
    if found and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names each skipped test that is not on the list."""
    found = config.stash.get(UNLISTED, [])
    if not found:
        return
    red = bool(os.environ.get("CI"))
    terminalreporter.section(f"skipped and not in {LIST.name}" + (": an error in CI" if red else ""), red=red)
    for test, reason in found:
        terminalreporter.line(f"{test}: {reason}")
