"""Tables, figures and one page from finished output; reads only the store's tables, never torch."""

from __future__ import annotations

from gradlab.report.page import Report, get_ready, write_report

__all__ = ["Report", "get_ready", "write_report"]
