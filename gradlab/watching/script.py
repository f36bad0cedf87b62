"""A training script run as it is, with everything that it trains under observation.

The script is `__main__`, its folder comes first on the path, and its arguments, output, signals and exit status are
its own. torch is not imported before the script does so: what it sets in the environment first holds.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import runpy
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlab.spec.named import SpecError


@dataclass(frozen=True)
class Script:
    """What is run: a file, or a module by its name (``python -m``); and its arguments."""

    target: str
    arguments: Sequence[str]
    module: bool

    def check(self) -> None:
        """Raises `SpecError` where there is no such file or module."""
        if self.module:
            sys.path.insert(0, str(Path.cwd()))
            try:
                found = importlib.util.find_spec(self.target)
            except (ModuleNotFoundError, ValueError) as error:
                raise SpecError(f"-m {self.target}: no such module ({error})") from error
            finally:
                sys.path.pop(0)
            if found is None:
                raise SpecError(f"-m {self.target}: no such module; expected one that python -m runs")
        elif not Path(self.target).is_file():
            what = "a folder" if Path(self.target).is_dir() else "no such file"
            raise SpecError(f"{self.target}: {what}; expected a script, or -m and the name of a module")

    def run(self) -> None:
        """Runs it as Python would."""
        sys.argv = [self.target, *self.arguments]
        if self.module:
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(self.target, run_name="__main__", alter_sys=True)
            return
        path = Path(self.target)
        sys.path.insert(0, str(path.resolve().parent))
        main = types.ModuleType("__main__")
        main.__dict__.update(__file__=str(path), __builtins__=__builtins__, __annotations__={})
        # It stays: what runs at the exit of the process looks there.
        sys.modules["__main__"] = main
        exec(compile(path.read_bytes(), str(path), "exec"), main.__dict__)


class WhenImported(importlib.abc.MetaPathFinder):
    """Calls ``then`` once, as soon as a package has been imported."""

    def __init__(self, package: str, then: Callable[[], None]) -> None:
        self.package, self.then, self.looking = package, then, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds it where it is, with a loader that says when it is done."""
        del path, target
        if fullname != self.package or self.looking:
            return None
        self.looking = True
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            self.looking = False
            return None
        loader, then = spec.loader, self.then
        load = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            load(module)
            then()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def when_imported(package: str, then: Callable[[], None]) -> None:
    """Calls ``then`` when ``package`` is imported, or now where it is already."""
    if package in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, WhenImported(package, then))
