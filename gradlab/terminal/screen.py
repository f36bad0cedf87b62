"""The terminal itself: what a line is there, errors, a plan, lists, and where the files are.

Plain lines where the output is not a terminal; no colour codes in a file. Everything fits in 80 columns.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from gradlab.spec.run import but_for_seeds
from gradlab.spec.unused import unused
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.streams import visible

if TYPE_CHECKING:
    from gradlab.grid.expand import Grid

PLAIN_COLUMNS = 80
"""The width of a line where there is no terminal."""


class Screen(Console):
    """A console on which only gradlab itself gives orders: text from files, folders and servers stays text."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, every control character of ``text`` made visible and every password hidden."""
        return super().render_str(visible(text), **options)

    def print(self, *parts: Any, **options: Any) -> None:
        """As rich's; a file gets no blanks at the ends of its lines, with which a terminal's columns are filled."""
        if self.is_terminal:
            super().print(*parts, **options)
            return
        with self.capture() as held:
            super().print(*parts, **options)
        self.file.write(re.sub(r" +\n", "\n", held.get()))


def console(*, quiet: bool = False, errors: bool = False) -> Console:
    """The terminal (its standard error where ``errors``), or a file of plain lines; silent where ``quiet``.

    A file has 80 columns unless COLUMNS says otherwise.
    """
    # Of a pipe rich would take the width of the terminal that stands at another end of the process.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_COLUMNS
    return Screen(quiet=quiet, stderr=errors, highlight=False, emoji=False, width=width)


def say_error(message: str) -> None:
    """One line on standard error."""
    _stderr(f"gradlab: error: {message}", soft_wrap=not sys.stderr.isatty())


def say(message: str) -> None:
    """One line on standard error, of something that is no error of gradlab's."""
    _stderr(f"gradlab: {message}", soft_wrap=not sys.stderr.isatty())


def point(what: str, verb: str, root: Path) -> None:
    """Says, on standard error, why a command ended early, and in a line to be copied how to go on."""
    _stderr(f"{what} Go on with", soft_wrap=not sys.stderr.isatty())
    _stderr(f"  gradlab {verb} {shlex.quote(str(root))}", soft_wrap=True)


def _stderr(text: str, *, soft_wrap: bool) -> None:
    Screen(stderr=True, highlight=False, emoji=False).print(text, markup=False, soft_wrap=soft_wrap)


@contextmanager
def waiting(out: Console, what: str) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if out.is_terminal and not out.quiet:
        with out.status(what):
            yield
    else:
        yield


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(1234, "cohort")
    ('1 run', '1,234 cohorts')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show_question(out: Console, name: str | None, about: Mapping[str, str]) -> None:
    """What a named experiment asks, and where it comes from."""
    if name is None or not about:
        return
    out.print(f"[bold]{escape(name)}[/bold]: {escape(about.get('question', ''))}")
    if source := about.get("source"):
        out.print(f"[dim]{escape(source)}[/dim]")


def show_notes(out: Console, grid: Grid) -> None:
    """A note for each key that was given and does nothing in any run, and one where a run ends within its warmup."""
    settings = but_for_seeds(grid.runs)
    idle = frozenset.intersection(*(unused(run) for run in settings)) & grid.given
    for key in sorted(idle):
        out.print(f"Note: {key} has no effect here.")
    rising = [run for run in settings if 0 < run.train.steps <= run.optim.warmup]
    if rising:
        warmup, steps = rising[0].optim.warmup, rising[0].train.steps
        some = ", in some runs" if len(rising) < len(settings) else ""
        out.print(f"Note: optim.warmup={warmup} of train.steps={steps}: the learning rate rises to the end{some}.")


def show_files(out: Console, places: Sequence[tuple[str, str]]) -> None:
    """What lies where, a line each."""
    widest = max(len(what) for what, _ in places)
    for what, where in places:
        out.print(f"[bold]{what:{widest}}[/bold]  {escape(where)}", soft_wrap=True)


def show_choices(out: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Named choices: name, one line, source.

    Where there is no terminal, and no COLUMNS to fit into, each is one line, as other programs want it.
    """
    if not out.is_terminal and "COLUMNS" not in os.environ:
        widest = max(len(name) for name, _, _ in rows)
        out.print(f"{title}:")
        for name, what, source in rows:
            out.print(
                f"{name:{widest}}  {what}" + (f" ({source})" if source not in ("", "-") else ""),
                markup=False,
                soft_wrap=True,
            )
        out.print()
        return
    out.print(f"[italic]{escape(title)}[/italic]")
    show_table(
        out, [Head("name", style="bold"), Head("what it is", text=True), Head("source", text=True, style="dim")], rows
    )
    out.print()
