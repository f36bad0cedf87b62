"""`gradlab verdict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs import complete
from gradlab.verbs.options import Quiet

FORBIDDEN = 3
"""Exit status where a run has a verdict that ``--fail-on`` names."""


def verdict(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of a result.", show_default=False, autocompletion=complete.results
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="For other programs, with a schema.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            metavar="NAMES",
            help="Exit status 3 where a run has one of these verdicts, or any.",
            autocompletion=complete.verdicts,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """What is wrong with the runs of a folder, in sentences or as JSON.

    Examples:
      gradlab verdict outputs/latest
      gradlab verdict outputs/latest --json --fail-on exploding,dead
    """
    from gradlab.terminal import screen, verdicts

    fatal = verdicts.fatal(fail_on)
    found = verdicts.judged(folder)
    if as_json:
        for part in verdicts.written(folder, found):
            typer.echo(part, nl=False)
        typer.echo()
    else:
        verdicts.show(screen.console(quiet=quiet), found)
    raise typer.Exit(FORBIDDEN if verdicts.failing(found, fatal) else 0)
