"""`gradlab list`."""

from __future__ import annotations

from typing import Annotated

import typer

from gradlab.verbs.given import configs_of
from gradlab.verbs.options import AllowCode, ConfigDir, Quiet

KINDS = (
    *("models", "data", "activations", "inits", "norms", "clips", "losses", "optimizers", "schedules", "pretraining"),
    *("probes", "verdicts", "causes", "thresholds", "remedies", "launchers", "experiments"),
)
"""What there are lists of, for the help; the lists are the catalogue's."""


def _kinds(incomplete: str) -> list[str]:
    del incomplete
    return list(KINDS)


def list_choices(
    kind: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.",
            show_default=False,
            autocompletion=_kinds,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
) -> None:
    """Every named choice, with one line and its source."""
    from gradlab.terminal import catalogue, screen

    terminal = screen.console(quiet=quiet)
    with configs_of(config_dir, allow_code) as dirs:
        for title, rows in catalogue.choices(kind, dirs, lambda error: screen.say_error(str(error))):
            screen.show_choices(terminal, title, rows)
