"""Tables, figures and one page from finished output. Torch-free.

May import the store's tables, verdicts, theory and a cure's ranking; it prints nothing, and has words of its own.
"""

from __future__ import annotations

from gradlab.report.page import Report, get_ready, write_report

__all__ = ["Report", "get_ready", "write_report"]
