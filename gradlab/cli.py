"""The command: its verbs put together, and what is said when one of them refuses."""

from __future__ import annotations

import sys
from errno import EAGAIN
from typing import Annotated

import typer

from gradlab import __version__
from gradlab.spec.named import SpecError
from gradlab.verbs.choices import list_choices
from gradlab.verbs.cure import cure
from gradlab.verbs.docs import docs
from gradlab.verbs.export import export
from gradlab.verbs.options import GRAMMAR
from gradlab.verbs.report import report
from gradlab.verbs.results import list_results
from gradlab.verbs.run import run
from gradlab.verbs.sweep import sweep
from gradlab.verbs.theory import theory
from gradlab.verbs.verdict import verdict
from gradlab.verbs.watch import watch

app = typer.Typer(
    help="What happens to the gradient, layer by layer, and which change cures it?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help.
for verb in (run, sweep, cure):
    app.command(context_settings=GRAMMAR)(verb)
app.command()(report)
app.command(context_settings=GRAMMAR | {"allow_interspersed_args": False})(watch)
app.command()(verdict)
app.command()(export)
app.command(context_settings=GRAMMAR)(theory)
app.command("ls")(list_results)
app.command()(docs)
app.command("list")(list_choices)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gradlab {__version__}")
        raise typer.Exit


@app.callback()
def gradlab_(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What happens to the gradient, layer by layer, and which change cures it?"""


def main() -> None:
    """The `gradlab` command. A wrong key or value ends with one line and exit status 2, never a traceback.

    So does, with status 1, what the system refuses: a full disk, a folder that may not be written.
    """
    from gradlab.launch import interrupts
    from gradlab.terminal.streams import endure

    endure()
    if any("-completion" in word for word in sys.argv[1:]):
        from gradlab.verbs import shells

        shells.put_in_place()
    try:
        with interrupts.listening():
            # However it was started, its help is to be typed.
            app(prog_name="gradlab")
    except SpecError as error:
        _say_error(str(error))
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        sys.exit(interrupts.status(stopped))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        more = "; no further process or thread can be started: ulimit -u says how many" if error.errno == EAGAIN else ""
        _say_error(f"{where}{error.strerror or error}{more}")
        sys.exit(1)


def _say_error(message: str) -> None:
    from gradlab.terminal import screen

    screen.say_error(message)


if __name__ == "__main__":
    main()
