"""`gradlab docs`."""

from __future__ import annotations

from typing import Annotated

import typer

from gradlab.verbs import complete


def docs(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[PAGE]", help="The text of a page.", show_default=False, autocompletion=complete.pages),
    ] = None,
) -> None:
    """Where the documentation lies: its folder, then each page with its title; or the text of a page.

    Examples:
      gradlab docs
      gradlab docs page
    """
    from gradlab.terminal import pages

    typer.echo(pages.listed() if name is None else pages.text(name))
