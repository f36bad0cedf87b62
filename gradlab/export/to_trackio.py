"""Trackio's local store: the folder given, or the one that TRACKIO_DIR names."""

from __future__ import annotations

import io
import os
import shlex
from contextlib import redirect_stdout

from gradlab.export.contents import Contents, Place


def write(contents: Contents, place: str) -> list[Place]:
    """All runs as runs of one project; outcomes stand at the last step, and the verdict among the settings."""
    # Read when the package is imported.
    os.environ["TRACKIO_DIR"] = place
    import trackio

    # What it prints are its own commands, which know nothing of the folder.
    with redirect_stdout(io.StringIO()):
        for run in contents.runs():
            told = {"state": run.state, "verdict": run.verdict, "sentences": "\n".join(run.sentences)}
            trackio.init(
                project=contents.name,
                name=f"{run.label} ({run.run_id[:8]})",
                config={**run.settings, **told},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for step, values in run.rows:
                trackio.log(dict(values), step=step)
            trackio.log({f"summary/{name}": value for name, value in run.outcomes.items()}, step=run.last)
            trackio.finish()
    shown = f"TRACKIO_DIR={shlex.quote(place)} trackio show --project {shlex.quote(contents.name)}"
    return [("store", place), ("look", shown)]
