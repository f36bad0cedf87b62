"""Where plugins are found: entry points of installed packages, and the file `plugins.py` of a folder of configs.

An installed package was chosen when it was installed. A folder of configs may come from anybody: its file is code, and
is run where the command line says `--allow-code`, never because the folder was named.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.spec.named import SpecError
from gradlab.spec.plugins import PRESENT, Source, enter, used
from gradlab.spec.run import RunSpec
from gradlab.theory import activations, setting

GROUP = "gradlab"
"""Of the entry points of packages that bring plugins."""

FILE = "plugins.py"
"""In a folder of configs."""

THEORY: dict[str, dict[str, Any]] = {
    "model.activation": activations.ACTIVATIONS,
    "model.init": setting.WEIGHT_VARIANCES,
}
"""What theory knows of names, by their key."""


@contextmanager
def present(config_dir: Path | None, *, allowed: bool) -> Iterator[None]:
    """Plugins are entered; within it an unknown name says so where a file was left alone that may define it.

    Raises `SpecError` for plugins that cannot be read, and where code is ``allowed`` that is not there.
    """
    file = None if config_dir is None else config_dir / FILE
    there = file is not None and file.is_file()
    if allowed and not there:
        where = "there is no --config-dir" if file is None else f"{file} is not there"
        raise SpecError(f"--allow-code: allows {FILE} of a --config-dir to run, and {where}")
    installed()
    if allowed and file is not None:
        enter_file(file)
    try:
        yield
    except SpecError as error:
        if there and not allowed and str(error).startswith("unknown "):
            raise SpecError(f"{error} ({file} is code, and is not run without --allow-code)") from error
        raise


@cache
def installed() -> None:
    """Enters what the entry points of installed packages list."""
    for point in entry_points(group=GROUP):
        module = _module_of(point)
        found = sys.modules[point.module]
        _enter(Source("package", _place(point), _digest(Path(str(found.__file__)))), module)


def enter_file(file: Path) -> Source:
    """Enters what a file of the user's own lists, by running it; once in a process as long as it is the same."""
    source = Source("file", str(file.resolve()), _digest(file))
    if not any(known == source for known, _ in PRESENT.values()):
        name = f"gradlab_plugins_{source.sha256[:16]}"
        spec = spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        _run(lambda: spec.loader.exec_module(module), str(file))  # type: ignore[union-attr]
        _enter(source, module)
    return source


def of_result(path: Path, sources: Sequence[Source], *, allowed: bool) -> None:
    """Enters what the runs of the result at ``path`` are made with.

    Raises `SpecError` for a file that is not ``allowed`` to run, and for a source that is gone or another one by now.
    """
    if sources:
        installed()
    for source in sources:
        if source.kind == "file":
            if not allowed:
                raise SpecError(f"{path}: its runs are made with {source.place}, which is code; expected --allow-code")
            if not Path(source.place).is_file():
                raise SpecError(f"{path}: its runs are made with {source.place}, which is not there any more")
            enter_file(Path(source.place))
        if source not in [known for known, _ in PRESENT.values()]:
            raise SpecError(f"{path}: its runs are made with {source.place}, which has changed or is not installed")


def needed(runs: Sequence[RunSpec]) -> list[Source]:
    """The sources of what ``runs`` use, each once."""
    if not PRESENT:
        return []
    return list(dict.fromkeys(source for run in runs for source in used(run.flat()).values()))


def _enter(source: Source, module: object) -> None:
    enter(source, vars(module).get("PLUGINS") if isinstance(module, ModuleType) else module)
    for (key, name), (owner, plugin) in PRESENT.items():
        if owner == source and plugin.theory is not None and key in THEORY:
            THEORY[key][name] = _run(plugin.theory, f"{source.place}: theory of {name}")


def _module_of(point: EntryPoint) -> object:
    place = f"plugin {_place(point)}"
    _run(lambda: import_module(point.module), place)
    return _run(point.load, place)


def _place(point: EntryPoint) -> str:
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.name}{package}"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _run(code: Callable[[], object], where: str) -> Any:
    """What somebody else's ``code`` returns. Raises `SpecError` for whatever it raises, in one line with its place."""
    try:
        return code()
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = getattr(error, "lineno", None) or (trace.tb_lineno if trace is not None else None)
        said = str(error).partition("\n")[0]
        raise SpecError(f"{where}: cannot be run: {type(error).__name__}: {said} (line {line})") from error
