"""`gradlab ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs.options import Quiet


def list_results(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where results lie.", show_default="outputs")
    ] = Path("outputs"),
    quiet: Quiet = False,
) -> None:
    """Results: when, what was swept, how it ended, and verdicts."""
    from gradlab.terminal import results, screen

    results.show(screen.console(quiet=quiet), results.lines(folder))
