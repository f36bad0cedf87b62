"""`gradlab watch`."""

from __future__ import annotations

from typing import Annotated

import typer

from gradlab.spec.named import SpecError
from gradlab.verbs.given import overrides_of
from gradlab.verbs.options import NoReport, Out, Quiet


def watch(
    context: typer.Context,
    script: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCRIPT.py [ARGS]...", help="A training script, and its own arguments.", show_default=False
        ),
    ] = None,
    module: Annotated[bool, typer.Option("-m", metavar="", help="SCRIPT is a module's name, as of python -m.")] = False,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps between two records of the layers.")] = 50,
    out: Out = None,
    no_report: NoReport = False,
    quiet: Quiet = False,
) -> None:
    """A training script as it is, under observation: every layer of what it trains, and what is wrong with it.

    Examples:
      gradlab watch train.py --epochs 3
      gradlab watch --every 10 -m package.train --lr 0.1
    """
    words = script or []
    if not words or words[0].startswith("-"):
        overrides_of(context, words)
        raise SpecError("no script is given; expected gradlab watch [OPTIONS] SCRIPT.py [ARGS]..., or -m MODULE")
    from gradlab.launch import watched
    from gradlab.terminal import screen
    from gradlab.watching.script import Script

    what = Script(words[0], words[1:], module=module)
    raise typer.Exit(watched.run_script(what, every, out, screen.console(quiet=quiet), draw=not no_report))
