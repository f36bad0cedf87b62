"""`gradlab cure`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs import complete
from gradlab.verbs.given import configs_of, made_with, one_experiment, overrides_of, refuse
from gradlab.verbs.options import AllowCode, ConfigDir, DeviceName, Experiment, NoReport, Out, Quiet


def cure(
    context: typer.Context,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OVERRIDES|DIR",
            help="Hydra overrides of a sick run: model.depth=30; or the folder of a finished one.",
            show_default=False,
            autocompletion=complete.override_or_result,
        ),
    ] = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    out: Out = None,
    device: DeviceName = "auto",
    no_report: NoReport = False,
    source: Annotated[
        tuple[Path, str] | None,
        typer.Option(
            "--from", metavar="DIR RUN_ID", help="One run of a finished sweep.", autocompletion=complete.result_and_run
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Which change heals a sick run: remedies of the literature, tried and ranked.

    Examples:
      gradlab cure model.depth=30 model.activation=sigmoid
      gradlab cure outputs/latest
    """
    from gradlab.launch import devices, local, places

    texts, named, chosen = overrides_of(context, given), one_experiment(experiment), devices.choose(device)
    folders = [text for text in texts if "=" not in text and ("/" in text or Path(text).exists())]
    # The workers import torch while the sick run is found.
    with local.crew_of(0 if places.elsewhere(texts) else min(chosen.workers, local.EARLY), chosen) as crew:
        from gradlab.cure import trials
        from gradlab.grid import compose, rerun
        from gradlab.launch import own

        if source is not None:
            refuse(texts, what="--from", experiment=named, config_dir=config_dir)
            made_with(source[0], allow_code)
            grid = own.named(rerun.again(*source), allowed=allow_code, what=str(source[0]))
        elif folders:
            texts.remove(folders[0])
            refuse(texts, what=folders[0], experiment=named, config_dir=config_dir)
            made_with(Path(folders[0]), allow_code)
            grid = own.named(trials.of_result(Path(folders[0])), allowed=allow_code, what=folders[0])
        else:
            with configs_of(config_dir, allow_code) as dirs:
                grid = compose.compose_any(texts, experiment=named, config_dirs=dirs)
        from gradlab.launch import conduct
        from gradlab.terminal import screen

        wishes = conduct.Wishes(out=out, report=not no_report)
        raise typer.Exit(conduct.start(trials.patient(grid), wishes, crew, sys.argv, screen.console(quiet=quiet)))
