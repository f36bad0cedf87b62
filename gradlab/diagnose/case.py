"""What a cause is looked for in, and how it shows."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.diagnose.history import History
from gradlab.diagnose.thresholds import Limits
from gradlab.diagnose.verdict import Verdict


@dataclass(frozen=True)
class Case:
    """What a cause is looked for in: a verdict, the run that it is of, and the thresholds."""

    verdict: Verdict
    history: History
    limits: Limits


Shows = str | None
"""How a cause shows in words; None where the numbers do not bear it out."""
