"""The verbs: run, sweep, cure, watch, report, verdict, theory, ls, docs, list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN
from pathlib import Path
from typing import Annotated

import typer

from gradlab import __version__
from gradlab.spec.named import SpecError
from gradlab.spec.secret import without_password

app = typer.Typer(
    help="What happens to the gradient, layer by layer, and which change cures it?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FORBIDDEN = 3
"""Exit status where a run has a verdict that ``--fail-on`` names."""

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides: model.depth=50 optim.lr=0.01", show_default=False)
]
Experiment = Annotated[
    list[str] | None, typer.Option("-e", "--experiment", help="A named experiment (gradlab list experiments).")
]
ConfigDir = Annotated[Path | None, typer.Option("-cd", "--config-dir", help="A folder of further configs.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Exactly this folder.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
NoReport = Annotated[bool, typer.Option("--no-report", metavar="", help="Leave plots and page for later.")]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", metavar="", help="Run the network and data of its own that a result names."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", metavar="", help="Errors only.")]

GRAMMAR = {"ignore_unknown_options": True}
"""What looks like an option and is none arrives among the overrides, where the key that was meant can be named."""


@app.command(context_settings=GRAMMAR)
def run(
    context: typer.Context,
    overrides: Overrides = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    out: Out = None,
    device: DeviceName = "auto",
    no_report: NoReport = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Print the resolved spec as YAML, and stop.")
    ] = False,
    source: Annotated[
        tuple[Path, str] | None,
        typer.Option("--from", metavar="DIR RUN_ID", help="Run again one run of a result, with what is changed."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """One training run.

    Examples:
      gradlab run model.depth=50 model.activation=sigmoid
      gradlab run -e he-depth30 seed=3 --dry-run
      gradlab run --from outputs/latest 3f2a optim.lr=0.01
    """
    from gradlab.launch import devices, local

    given, named, chosen = _overrides(context, overrides), _once(experiment), devices.choose(device)
    if source is not None:
        _refuse([], what="--from", experiment=named, config_dir=config_dir)
    # The worker imports torch while the run is composed.
    with local.crew_of(0 if dry_run else 1, chosen) as crew:
        from gradlab.grid import compose, expand, rerun
        from gradlab.launch import own

        if source is not None:
            _made_with(source[0], allow_code)
            grid = own.named(rerun.again(*source, given), allowed=allow_code, what=str(source[0]))
        else:
            with _plugins(config_dir, allow_code) as dirs:
                grid = compose.compose_run(given, experiment=named, config_dirs=dirs)
        if dry_run:
            from gradlab.terminal import screen

            typer.echo(without_password(expand.spec_yaml(grid.runs[0])), nl=False)
            screen.show_idle(screen.console(quiet=quiet, errors=True), grid)
            return
        from gradlab.launch import conduct
        from gradlab.terminal import screen

        wishes = conduct.Wishes(out=out, report=not no_report)
        raise typer.Exit(conduct.start(grid, wishes, crew, sys.argv, screen.console(quiet=quiet)))


@app.command(context_settings=GRAMMAR)
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
        Path | None, typer.Option("--resume", metavar="DIR", help="Run only what is missing in DIR.")
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", metavar="", help="Stop at the first crashed run.")] = False,
    quiet: Quiet = False,
) -> None:
    """A grid of runs, in Hydra's sweep grammar.

    Examples:
      gradlab sweep model.depth=5,10,20 model.activation=relu,tanh 'seed=range(5)'
      gradlab sweep -e reference-grid --plan
      gradlab sweep --resume outputs/latest
    """
    from gradlab.launch import devices, local

    given, named, chosen = _overrides(context, overrides), _once(experiment), devices.choose(device)
    if resume is not None:
        _refuse(given, what="--resume", experiment=named, config_dir=config_dir, out=out, plan=plan or None)
        from gradlab.launch import conduct
        from gradlab.launch.resume import resume as go_on
        from gradlab.terminal import screen

        _made_with(resume, allow_code)
        wishes = conduct.Wishes(report=not no_report, fail_fast=fail_fast)
        raise typer.Exit(go_on(resume, device, wishes, sys.argv, screen.console(quiet=quiet), allow_code=allow_code))
    # The workers import torch while the grid is composed.
    with local.crew_of(0 if plan else min(chosen.workers, local.EARLY), chosen) as crew:
        from gradlab.grid import compose
        from gradlab.launch import own

        with _plugins(config_dir, allow_code) as dirs:
            grid = compose.compose_grid(given, experiment=named, config_dirs=dirs)
        from gradlab.terminal import screen

        if plan:
            from gradlab.launch import speed

            speed.show_plan(own.known(grid), chosen, screen.console(quiet=quiet))
            return
        from gradlab.launch import conduct

        wishes = conduct.Wishes(out=out, report=not no_report, fail_fast=fail_fast)
        raise typer.Exit(conduct.start(grid, wishes, crew, sys.argv, screen.console(quiet=quiet)))


@app.command(context_settings=GRAMMAR)
def cure(
    context: typer.Context,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OVERRIDES|DIR",
            help="Hydra overrides of a sick run: model.depth=30; or the folder of a finished one.",
            show_default=False,
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
        typer.Option("--from", metavar="DIR RUN_ID", help="One run of a finished sweep."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Which change heals a sick run: remedies of the literature, tried and ranked.

    Examples:
      gradlab cure model.depth=30 model.activation=sigmoid
      gradlab cure outputs/latest
    """
    from gradlab.launch import devices, local

    texts, named, chosen = _overrides(context, given), _once(experiment), devices.choose(device)
    folders = [text for text in texts if "=" not in text and ("/" in text or Path(text).exists())]
    # The workers import torch while the sick run is found.
    with local.crew_of(min(chosen.workers, local.EARLY), chosen) as crew:
        from gradlab.cure import trials
        from gradlab.grid import compose, rerun
        from gradlab.launch import own

        if source is not None:
            _refuse(texts, what="--from", experiment=named, config_dir=config_dir)
            _made_with(source[0], allow_code)
            grid = own.named(rerun.again(*source), allowed=allow_code, what=str(source[0]))
        elif folders:
            texts.remove(folders[0])
            _refuse(texts, what=folders[0], experiment=named, config_dir=config_dir)
            _made_with(Path(folders[0]), allow_code)
            grid = own.named(trials.of_result(Path(folders[0])), allowed=allow_code, what=folders[0])
        else:
            with _plugins(config_dir, allow_code) as dirs:
                grid = compose.compose_any(texts, experiment=named, config_dirs=dirs)
        from gradlab.launch import conduct
        from gradlab.terminal import screen

        wishes = conduct.Wishes(out=out, report=not no_report)
        raise typer.Exit(conduct.start(trials.patient(grid), wishes, crew, sys.argv, screen.console(quiet=quiet)))


@app.command()
def report(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Folders of finished output.", show_default=False)
    ] = None,
    out: Out = None,
    serve: Annotated[
        bool, typer.Option("--serve", metavar="", help="Serve the page to this machine, and follow a running sweep.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of --serve; 0 is any that is free.")] = 0,
    x: Annotated[str | None, typer.Option("--x", help="Key along x of the heat maps.")] = None,
    y: Annotated[str | None, typer.Option("--y", help="Key along y of the heat maps.")] = None,
    facet: Annotated[str | None, typer.Option("--facet", help="Key of the panels of all figures of lines.")] = None,
    color: Annotated[str | None, typer.Option("--color", help="Key of their colours.")] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="ID", help="Only this run, by the beginning of its id; several: side by side."),
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


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
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
        _overrides(context, words)
        raise SpecError("no script is given; expected gradlab watch [OPTIONS] SCRIPT.py [ARGS]..., or -m MODULE")
    from gradlab.launch import watched
    from gradlab.terminal import screen
    from gradlab.watching.script import Script

    what = Script(words[0], words[1:], module=module)
    raise typer.Exit(watched.run_script(what, every, out, screen.console(quiet=quiet), draw=not no_report))


@app.command()
def verdict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a result.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="For other programs, with a schema.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", metavar="NAMES", help="Exit status 3 where a run has one of these verdicts, or any."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """What is wrong with the runs of a folder, in sentences or as JSON.

    Examples:
      gradlab verdict outputs/latest
      gradlab verdict outputs/latest --json --fail-on exploding,dead
    """
    from gradlab.terminal import screen, verdicts

    fatal = verdicts.fatal(fail_on)
    found = verdicts.judged(folder)
    if as_json:
        typer.echo(verdicts.as_json(folder, found))
    else:
        verdicts.show(screen.console(quiet=quiet), found)
    raise typer.Exit(FORBIDDEN if verdicts.failing(found, fatal) else 0)


@app.command(context_settings=GRAMMAR)
def theory(
    context: typer.Context,
    overrides: Overrides = None,
    experiment: Experiment = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    every: Annotated[bool, typer.Option("--all", metavar="", help="Every row of the table of a large grid.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="A row for each run, into a file; - is the screen.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """What theory predicts of a run or a grid, without training.

    Examples:
      gradlab theory model.depth=50 model.activation=tanh
      gradlab theory model.activation=tanh model.weight_var=1,1.5,2
      gradlab theory -e phase-diagram --csv -
    """
    from gradlab.grid import compose
    from gradlab.launch import own
    from gradlab.terminal import screen
    from gradlab.terminal import theory as foretell

    given, named = _overrides(context, overrides), _once(experiment)
    with _plugins(config_dir, allow_code) as dirs:
        grid = compose.compose_any(given, experiment=named, config_dirs=dirs)
    if csv is not None:
        foretell.write_csv(csv, grid.runs, grid.swept)
    elif networks := own.drawn(grid.runs):
        foretell.show_drawn(screen.console(quiet=quiet), networks)
    else:
        foretell.show(screen.console(quiet=quiet), grid.runs, grid.swept, most=None if every else foretell.MOST_ROWS)


@app.command("ls")
def list_results(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where results lie.", show_default="outputs")
    ] = Path("outputs"),
    quiet: Quiet = False,
) -> None:
    """Results: when, what was swept, how it ended, and verdicts."""
    from gradlab.terminal import results, screen

    results.show(screen.console(quiet=quiet), results.lines(folder))


@app.command()
def docs(
    name: Annotated[
        str | None, typer.Argument(metavar="[PAGE]", help="The text of a page.", show_default=False)
    ] = None,
) -> None:
    """Where the documentation lies: its folder, then each page with its title; or the text of a page.

    Examples:
      gradlab docs
      gradlab docs page
    """
    from gradlab.terminal import pages

    typer.echo(pages.listed() if name is None else pages.text(name))


@app.command("list")
def list_choices(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, data, activations, inits, norms, clips, losses, optimizers, schedules, probes, verdicts, "
            "causes, thresholds, remedies or experiments.",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    allow_code: AllowCode = False,
    quiet: Quiet = False,
) -> None:
    """Every named choice, with one line and its source."""
    from gradlab.terminal import catalogue, screen

    terminal = screen.console(quiet=quiet)
    with _plugins(config_dir, allow_code) as dirs:
        for title, rows in catalogue.choices(kind, dirs, lambda error: screen.say_error(str(error))):
            screen.show_choices(terminal, title, rows)


@contextmanager
def _plugins(config_dir: Path | None, allow_code: bool) -> Iterator[list[Path]]:
    """The folders of further configs, with the user's own choices there are: see `grid.plugins.present`."""
    from gradlab.grid import plugins
    from gradlab.launch import own

    # What the command line names may run.
    own.allow()
    with plugins.present(config_dir, allowed=allow_code):
        yield [config_dir] if config_dir else []


def _made_with(result: Path, allow_code: bool) -> None:
    """The user's own choices that the runs of ``result`` are made with are there, or `SpecError` says why not."""
    from gradlab.grid import plugins
    from gradlab.launch import own
    from gradlab.store.documents import plugins_of

    if allow_code:
        own.allow()
    plugins.of_result(result, plugins_of(result), allowed=allow_code)


def _overrides(context: typer.Context, given: list[str] | None) -> list[str]:
    """The overrides as they were typed. Raises `SpecError` for an option that there is not, with what it may mean."""
    from gradlab.spec.keys import refuse_options

    options = [option for parameter in context.command.params for option in parameter.opts]
    refuse_options(given or [], options, f"gradlab {context.info_name} --help")
    return given or []


def _once(experiment: list[str] | None) -> str | None:
    """The experiment that was chosen, if any. Raises `SpecError` for several: the last must not win in silence."""
    if experiment and len(experiment) > 1:
        raise SpecError(f"-e is given {len(experiment)} times: {', '.join(experiment)}; one experiment at a time")
    return experiment[0] if experiment else None


def _refuse(overrides: list[str], *, what: str, **options: object) -> None:
    """Raises `SpecError` where an override or option stands beside one that already says everything."""
    given = [*overrides, *(f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None)]
    if given:
        raise SpecError(f"{given[0]}: {what} takes no overrides and no such option; it repeats what was planned")


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
