"""`gradlab sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs import complete
from gradlab.verbs.given import configs_of, made_with, one_experiment, overrides_of, refuse
from gradlab.verbs.options import AllowCode, ConfigDir, DeviceName, Experiment, NoReport, Out, Overrides, Quiet


def sweep(
    context: typer.Context,
    overrides: Overrides = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    out: Out = None,
    device: DeviceName = "auto",
    no_report: NoReport = False,
    plan: Annotated[
        bool, typer.Option("--plan", metavar="", help="Print runs, cohorts, predicted work and memory, and stop.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="DIR", help="Run only what is missing in DIR.", autocompletion=complete.results
        ),
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", metavar="", help="Stop at the first crashed run.")] = False,
    quiet: Quiet = False,
) -> None:
    """A grid of runs, in Hydra's sweep grammar.

    Examples:
      gradlab sweep model.depth=5,10,20 model.activation=relu,tanh 'seed=range(5)'
      gradlab sweep -e reference-grid --plan
      gradlab sweep --resume outputs/latest
    """
    from gradlab.launch import devices, local

    given, named, chosen = overrides_of(context, overrides), one_experiment(experiment), devices.choose(device)
    if resume is not None:
        refuse(given, what="--resume", experiment=named, config_dir=config_dir, out=out, plan=plan or None)
        from gradlab.launch import conduct
        from gradlab.launch.resume import resume as go_on
        from gradlab.terminal import screen

        made_with(resume, allow_code)
        wishes = conduct.Wishes(report=not no_report, fail_fast=fail_fast)
        raise typer.Exit(go_on(resume, device, wishes, sys.argv, screen.console(quiet=quiet), allow_code=allow_code))
    # The workers import torch while the grid is composed.
    with local.crew_of(0 if plan else min(chosen.workers, local.EARLY), chosen) as crew:
        from gradlab.grid import compose
        from gradlab.launch import own

        with configs_of(config_dir, allow_code) as dirs:
            grid = compose.compose_grid(given, experiment=named, config_dirs=dirs)
        from gradlab.terminal import screen

        if plan:
            from gradlab.launch import speed

            speed.show_plan(own.known(grid), chosen, screen.console(quiet=quiet))
            return
        from gradlab.launch import conduct

        wishes = conduct.Wishes(out=out, report=not no_report, fail_fast=fail_fast)
        raise typer.Exit(conduct.start(grid, wishes, crew, sys.argv, screen.console(quiet=quiet)))
