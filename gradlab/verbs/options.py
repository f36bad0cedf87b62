"""The options and arguments that several verbs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradlab.verbs import complete

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hydra overrides: model.depth=50 optim.lr=0.01", show_default=False, autocompletion=complete.overrides
    ),
]
Experiment = Annotated[
    list[str] | None,
    typer.Option(
        "-e",
        "--experiment",
        help="A named experiment (gradlab list experiments).",
        autocompletion=complete.experiments,
    ),
]
ConfigDir = Annotated[Path | None, typer.Option("-cd", "--config-dir", help="A folder of further configs.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Exactly this folder.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices)
]
NoReport = Annotated[bool, typer.Option("--no-report", metavar="", help="Leave plots and page for later.")]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", metavar="", help="Run the network and data of its own that a result names."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", metavar="", help="Errors only.")]

GRAMMAR = {"ignore_unknown_options": True}
"""What looks like an option and is none arrives among the overrides, where the key that was meant can be named."""
