"""`gradlab report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gradlab.spec.named import SpecError
from gradlab.verbs import complete
from gradlab.verbs.options import Out, Quiet


def _key(option: str, what: str) -> Any:
    return typer.Option(option, help=what, autocompletion=complete.keys)


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...", help="Folders of finished output.", show_default=False, autocompletion=complete.results
        ),
    ] = None,
    out: Out = None,
    serve: Annotated[
        bool, typer.Option("--serve", metavar="", help="Serve the page to this machine, and follow a running sweep.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --serve; 0 is any that is free.")] = 0,
    x: Annotated[str | None, _key("--x", "Key along x of the heat maps.")] = None,
    y: Annotated[str | None, _key("--y", "Key along y of the heat maps.")] = None,
    facet: Annotated[
        str | None,
        _key("--facet", "Key of the panels of all figures of lines."),
    ] = None,
    color: Annotated[str | None, _key("--color", "Key of their colours.")] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="ID",
            help="Only this run, by the beginning of its id; several: side by side.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Tables, plots and a page from finished output.

    Examples:
      gradlab report outputs/latest
      gradlab report outputs/latest --run 3f2a --run 77aa
    """
    from gradlab.launch import conduct
    from gradlab.terminal import screen

    terminal, keys = screen.console(quiet=quiet), {"x": x, "y": y, "facet": facet, "color": color}
    if serve:
        if out is not None or run:
            raise SpecError("--serve follows a whole result and writes no folder; it takes neither -o nor --run")
        conduct.serve(paths or [Path("outputs/latest")], port, terminal, keys)
    else:
        conduct.report_again(paths or [], out, terminal, keys, run or [])
