"""`gradlab export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs import complete
from gradlab.verbs.options import Out, Quiet


def _targets(incomplete: str) -> list[tuple[str, str]]:
    from gradlab.export.targets import TARGETS

    del incomplete
    return [(name, target.what) for name, target in TARGETS.items()]


def export(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of a result.", show_default=False, autocompletion=complete.results
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="TARGET",
            help="tensorboard, wandb, mlflow, trackio or csv.",
            show_default=False,
            autocompletion=_targets,
        ),
    ],
    out: Out = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="ID", help="Only this run, by the beginning of its id.", autocompletion=complete.run_ids
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """A result for another program: scalars of steps and layers, hyperparameters, outcomes and verdicts.

    Into DIR/export/TARGET, unless -o or the program's own variables say otherwise.

    Examples:
      gradlab export outputs/latest --to tensorboard
      gradlab export outputs/latest --to mlflow -o store --run 3f2a
    """
    from gradlab.export import targets
    from gradlab.terminal import screen

    target, terminal = targets.find(to), screen.console(quiet=quiet)
    with screen.waiting(terminal, f"Writing for {to}"):
        places = targets.export(folder, target, out, run or [])
    screen.show_files(terminal, places)
