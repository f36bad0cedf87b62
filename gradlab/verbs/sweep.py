"""`gradlab sweep`."""

from __future__ import annotations

import sys
from functools import partial
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
    detach: Annotated[
        bool, typer.Option("--detach", metavar="", help="launch=slurm: hand the jobs over, and end.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """A grid of runs, in Hydra's sweep grammar.

    Examples:
      gradlab sweep model.depth=5,10,20 model.activation=relu,tanh 'seed=range(5)'
      gradlab sweep -e reference-grid --plan
      gradlab sweep --resume outputs/latest
    """
    from gradlab.launch import devices, local, places

    given, named, chosen = overrides_of(context, overrides), one_experiment(experiment), devices.choose(device)
    if resume is not None:
        others = [text for text in given if not text.lstrip("+~").startswith("launch")]
        folder = None if given else config_dir
        refuse(others, what="--resume", experiment=named, config_dir=folder, out=out, plan=plan or None)
        from gradlab.grid.compose import compose_launch
        from gradlab.launch import conduct
        from gradlab.launch.resume import resume as go_on
        from gradlab.terminal import screen

        made_with(resume, allow_code)
        wishes = conduct.Wishes(report=not no_report, fail_fast=fail_fast, detach=detach)
        launch = partial(compose_launch, given, config_dirs=[config_dir] if config_dir else [])
        terminal = screen.console(quiet=quiet)
        raise typer.Exit(go_on(resume, device, wishes, sys.argv, terminal, allow_code=allow_code, launch=launch))
    # The workers import torch while the grid is composed.
    with local.crew_of(0 if plan or places.elsewhere(given) else min(chosen.workers, local.EARLY), chosen) as crew:
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

        wishes = conduct.Wishes(out=out, report=not no_report, fail_fast=fail_fast, detach=detach)
        raise typer.Exit(conduct.start(grid, wishes, crew, sys.argv, screen.console(quiet=quiet)))
