"""Code of the user's own, by the name that a key gives: where it is defined, and the thing itself."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.data.dataset import DataError
from gradlab.spec.named import nearest


def source_of(target: str) -> str:
    """The SHA-256 of the file that defines ``target``. Nothing of it runs; of a package, the packages above it do.

    Raises `DataError` where there is no such file.
    """
    file = _file_of(target)
    return _digest(file, file.stat().st_mtime_ns, file.stat().st_size)


@lru_cache(maxsize=64)
def _digest(file: Path, _changed: int, _size: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def imported(target: str) -> Any:
    """What ``target`` names: ``path/to/file.py:Name`` or ``package.module.Name``.

    Its file runs once, and again where it has changed. The folder of the command is on the path, and so is that of the
    file. Raises `DataError` where there is no such file or name, and where it cannot be imported.
    """
    module, name = _module(target), _name(target)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            named = [one for one in vars(found) if not one.startswith("_")]
            raise DataError(f"{target}: {module.__name__} has no {part!r}{nearest(part, named)}")
        found = getattr(found, part)
    return found


def called(target: str, arguments: dict[str, Any]) -> Any:
    """What ``target`` returns. Raises `DataError` where it is not callable, and where it raises itself."""
    function = imported(target)
    if not callable(function):
        raise DataError(f"{target}: is a {type(function).__name__}; expected a class or a function")
    _takes(target, function, arguments)
    try:
        return function(**arguments)
    except Exception as error:
        # It is the user's: whatever it raises is told in a line, with the place that its author knows.
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise DataError(f"{target}({given}): {told(error)}") from error


def _takes(target: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Raises `DataError` for an argument that ``function`` has not, or that it needs and is not given."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return
    able = [name for name, one in known.items() if one.kind not in (one.VAR_POSITIONAL, one.POSITIONAL_ONLY)]
    takes = f"it takes: {', '.join(able) or 'none'}"
    for name in arguments:
        if name not in able:
            raise DataError(f"{target}: has no argument {name!r}{nearest(name, able)}; {takes}")
    needed = [name for name in able if known[name].default is inspect.Parameter.empty and name not in arguments]
    if needed:
        raise DataError(f"{target}: needs the argument {needed[0]!r} (args.{needed[0]}=...); {takes}")


def told(error: BaseException) -> str:
    """An error of the user's code in one line: its kind, what it says, and the last line of theirs that it passed."""
    said = " ".join(str(error).split())
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and f"{os.sep}gradlab{os.sep}" not in file and not file.startswith("<"):
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {said[:300]}{place}"


def _name(target: str) -> str:
    return target.rpartition(":" if ":" in target else ".")[2]


def _file_of(target: str) -> Path:
    place = target.rpartition(":" if ":" in target else ".")[0]
    if ":" in target:
        file = Path(place).expanduser()
        if not file.is_file():
            near = [one.name for one in file.parent.glob("*.py")] if file.parent.is_dir() else []
            raise DataError(f"{target}: no file {place} in {Path.cwd()}{nearest(file.name, near)}")
        return file
    _on_path(str(Path.cwd()))
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError) as error:
        raise DataError(f"{target}: {told(error)}") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise DataError(f"{target}: no module {place!r} here or among what is installed")
    return Path(found.origin)


def _module(target: str) -> ModuleType:
    file = _file_of(target)
    _on_path(str(Path.cwd()))
    if ":" in target:
        _on_path(str(file.resolve().parent))
    digest = source_of(target)
    try:
        if ":" not in target:
            return importlib.import_module(target.rpartition(".")[0])
        return _from_file(file.resolve(), digest)
    except Exception as error:
        # It is the user's file: whatever it raises is told in a line.
        raise DataError(f"{target}: cannot be imported: {told(error)}") from error


@lru_cache(maxsize=64)
def _from_file(file: Path, digest: str) -> ModuleType:
    """A file of this content as a module: under its own name, so that what it pickles and what imports it find it."""
    name = file.stem if file.stem not in sys.modules else f"{file.stem}_{digest[:8]}"
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _on_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
