"""`gradlab run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlab.spec.secret import without_password
from gradlab.verbs import complete
from gradlab.verbs.given import configs_of, made_with, one_experiment, overrides_of, refuse
from gradlab.verbs.options import AllowCode, ConfigDir, DeviceName, Experiment, NoReport, Out, Overrides, Quiet


def run(
    context: typer.Context,
    overrides: Overrides = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    out: Out = None,
    device: DeviceName = "auto",
    no_report: NoReport = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Print the resolved spec as YAML, and stop.")
    ] = False,
    source: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            "--from",
            metavar="DIR RUN_ID",
            help="Run again one run of a result, with what is changed.",
            autocompletion=complete.result_and_run,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """One training run.

    Examples:
      gradlab run model.depth=50 model.activation=sigmoid
      gradlab run -e he-depth30 seed=3 --dry-run
      gradlab run --from outputs/latest 3f2a optim.lr=0.01
    """
    from gradlab.launch import devices, local, places

    given, named, chosen = overrides_of(context, overrides), one_experiment(experiment), devices.choose(device)
    if source is not None:
        refuse([], what="--from", experiment=named, config_dir=config_dir)
    # The worker imports torch while the run is composed.
    with local.crew_of(0 if dry_run or places.elsewhere(given) else 1, chosen) as crew:
        from gradlab.grid import compose, expand, rerun
        from gradlab.launch import own

        if source is not None:
            made_with(source[0], allow_code)
            grid = own.named(rerun.again(*source, given), allowed=allow_code, what=str(source[0]))
        else:
            with configs_of(config_dir, allow_code) as dirs:
                grid = compose.compose_run(given, experiment=named, config_dirs=dirs)
        if dry_run:
            from gradlab.terminal import screen

            typer.echo(without_password(expand.spec_yaml(grid.runs[0])), nl=False)
            screen.show_notes(screen.console(quiet=quiet, errors=True), grid)
            return
        from gradlab.launch import conduct
        from gradlab.terminal import screen

        wishes = conduct.Wishes(out=out, report=not no_report)
        raise typer.Exit(conduct.start(grid, wishes, crew, sys.argv, screen.console(quiet=quiet)))
