"""What was typed, looked at before a verb does anything with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from gradlab.spec.named import SpecError


@contextmanager
def configs_of(config_dir: Path | None, allow_code: bool) -> Iterator[list[Path]]:
    """The folders of further configs, with the user's own choices there are: see `grid.plugins.present`."""
    from gradlab.grid import plugins
    from gradlab.launch import own

    # What the command line names may run.
    own.allow()
    with plugins.present(config_dir, allowed=allow_code):
        yield [config_dir] if config_dir else []


def made_with(result: Path, allow_code: bool) -> None:
    """The user's own choices that the runs of ``result`` are made with are there, or `SpecError` says why not."""
    from gradlab.grid import plugins
    from gradlab.launch import own
    from gradlab.store.documents import plugins_of

    if allow_code:
        own.allow()
    plugins.of_result(result, plugins_of(result), allowed=allow_code)


def overrides_of(context: typer.Context, given: list[str] | None) -> list[str]:
    """The overrides as they were typed. Raises `SpecError` for an option that there is not, with what it may mean."""
    from gradlab.spec.keys import refuse_options

    options = [option for parameter in context.command.params for option in parameter.opts]
    refuse_options(given or [], options, f"gradlab {context.info_name} --help")
    return given or []


def one_experiment(experiment: list[str] | None) -> str | None:
    """The experiment that was chosen, if any. Raises `SpecError` for several: the last must not win in silence."""
    if experiment and len(experiment) > 1:
        raise SpecError(f"-e is given {len(experiment)} times: {', '.join(experiment)}; one experiment at a time")
    return experiment[0] if experiment else None


def refuse(overrides: list[str], *, what: str, **options: object) -> None:
    """Raises `SpecError` where an override or option stands beside one that already says everything."""
    given = [*overrides, *(f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None)]
    if given:
        kind = "overrides" if overrides else "such option"
        raise SpecError(f"{given[0]}: {what} takes no {kind}; it repeats what was planned")
