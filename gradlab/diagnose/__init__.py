"""From columns to verdicts: what is wrong with a run, by which numbers, and where the threshold comes from. Torch-free.

Everything is computed from the tables alone, which `tables` cuts into the histories of runs. May import `spec.named`.
"""

from __future__ import annotations

from gradlab.diagnose.final import final_loss
from gradlab.diagnose.history import History, Profile
from gradlab.diagnose.rules import ORDER, joined, judge, names
from gradlab.diagnose.slope import Fit, fit, rate, vanishing_ratio
from gradlab.diagnose.thresholds import DEFAULTS, THRESHOLDS, Limits, Threshold, limits
from gradlab.diagnose.verdict import Verdict, Verdicts

__all__ = [
    "DEFAULTS",
    "ORDER",
    "THRESHOLDS",
    "Fit",
    "History",
    "Limits",
    "Profile",
    "Threshold",
    "Verdict",
    "Verdicts",
    "final_loss",
    "fit",
    "joined",
    "judge",
    "limits",
    "names",
    "rate",
    "vanishing_ratio",
]
