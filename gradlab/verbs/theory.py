"""`gradlab theory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs.given import configs_of, one_experiment, overrides_of
from gradlab.verbs.options import AllowCode, ConfigDir, Experiment, Overrides, Quiet


def theory(
    context: typer.Context,
    overrides: Overrides = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    every: Annotated[bool, typer.Option("--all", metavar="", help="Every row of the table of a large grid.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="A row for each run, into a file; - is the screen.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """What theory predicts of a run or a grid, without training.

    Examples:
      gradlab theory model.depth=50 model.activation=tanh
      gradlab theory model.activation=tanh model.weight_var=1,1.5,2
      gradlab theory -e phase-diagram --csv -
    """
    from gradlab.grid import compose
    from gradlab.launch import own
    from gradlab.terminal import screen
    from gradlab.terminal import theory as foretell

    given, named = overrides_of(context, overrides), one_experiment(experiment)
    with configs_of(config_dir, allow_code) as dirs:
        grid = compose.compose_any(given, experiment=named, config_dirs=dirs)
    if csv is not None:
        foretell.write_csv(csv, grid.runs, grid.swept)
    elif networks := own.drawn(grid.runs):
        foretell.show_drawn(screen.console(quiet=quiet), networks)
    else:
        foretell.show(screen.console(quiet=quiet), grid.runs, grid.swept, most=None if every else foretell.MOST_ROWS)
