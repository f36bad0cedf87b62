"""What a result keeps as text: the manifest, the config, the specs of its runs, expectations, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from gradlab.data.facts import described
from gradlab.spec.keys import KEYS, is_free
from gradlab.spec.named import SpecError
from gradlab.spec.plugins import Source
from gradlab.spec.run import SCHEMA, SECTIONS, RunSpec
from gradlab.spec.secret import without_password
from gradlab.store.atomic import replace
from gradlab.store.folder import Folder, open_result
from gradlab.store.forms import (
    COUNT,
    FINITE,
    NUMBER,
    SOME,
    TEXT,
    TRUTH,
    VALUE,
    Anything,
    Each,
    Fields,
    Maybe,
    Named,
    Plain,
    Words,
    read_json,
)

Manifest = dict[str, Any]

READ = 2**20
"""Characters of a grid that are read at a time."""


_KEY = Words(tuple(KEYS), is_free)

_DEVICE = Fields({"name": TEXT, "label": TEXT, "memory": COUNT, "cores": SOME})
_CHANGE = Fields(
    {
        **{name: Each(TEXT) for name in ("remedies", "kinds", "summaries", "sources")},
        **dict.fromkeys(("override", "command"), TEXT),
        "members": Each(TEXT, least=1),
        "cost": COUNT,
        "change": Named(VALUE),
        "theory": Fields(
            {"rate": Maybe(NUMBER), "single_rate": TRUTH, "log10_ratio": Maybe(NUMBER), "note": TEXT, "source": TEXT}
        ),
    },
    {"script": Each(TEXT)},
)
_CURE = Fields(
    {"round": COUNT, "seeds": Each(COUNT, least=1), "changes": Each(_CHANGE, least=1)},
    {"guess": Fields({"loss": Maybe(NUMBER), "accuracy": Maybe(NUMBER)})},
)
_MANIFEST = Fields(
    {"runs": SOME, "state": TEXT},
    {
        "name": TEXT,
        **{name: Maybe(TEXT) for name in ("experiment", "started", "finished", "git")},
        **{name: Each(TEXT) for name in ("command", "altered")},
        **dict.fromkeys(("duplicates", "cohorts"), COUNT),
        "expect": Each(Anything()),
        "maps": Named(_KEY),
        "about": Named(TEXT),
        "swept": Each(_KEY),
        "elapsed_s": FINITE,
        "versions": Named(Maybe(TEXT)),
        "host": Fields({}, {"name": TEXT, "system": TEXT, "cores": Maybe(COUNT)}),
        "device": _DEVICE,
        "workers": Plain("an integer of 1 to 4096", (int,), 1, 4096),
        "memory": SOME,
        "diagnose": Named(FINITE),
        "pieces": Each(Named(Anything())),
        "kernels": Named(TEXT),
        "resumed": Each(Each(TEXT)),
        "starts": Each(
            Fields(
                {
                    "started": Maybe(TEXT),
                    "versions": Named(Maybe(TEXT)),
                    "git": Maybe(TEXT),
                    "host": Maybe(TEXT),
                    "device": TEXT,
                },
                {"kernels": Named(TEXT)},
            )
        ),
        "launch": Named(VALUE),
        "weights": TRUTH,
        "plugins": Each(Fields({"kind": Words(("package", "file")), "place": TEXT, "sha256": TEXT})),
        "cure": _CURE,
    },
)
RESUMABLE = Fields(
    {
        "device": _DEVICE,
        **{name: _MANIFEST.optional[name] for name in ("workers", "swept", "cohorts", "memory")},
    }
)
"""What a manifest must hold beside its pieces for its plan to be gone on with."""

PIECE = Fields(
    {
        "index": COUNT,
        "members": Each(TEXT, least=1),
        "cohort": COUNT,
        "threads": Plain("an integer of 1 to 4096", (int,), 1, 4096),
        "work": FINITE,
        "memory": COUNT,
        "chunks": Each(SOME, least=1),
    },
    {"effort": FINITE, "stacked": TRUTH},
)
"""A piece of the plan, as the manifest keeps it: who goes on with the plan holds its pieces against this."""

_OUTCOME = Fields(dict.fromkeys(("what", "expected", "measured", "result", "computed", "source"), TEXT))
_EXPECTATIONS = Fields({"experiment": Maybe(TEXT), "altered": Each(TEXT), "outcomes": Each(_OUTCOME)})


def read_manifest(path: Path) -> Manifest:
    """The manifest of the result at ``path``. Raises `SpecError` where it is none, or of another schema or form."""
    manifest = _of_this_schema(path)
    _MANIFEST.check(manifest, str(Folder(path).manifest))
    if "cure" in manifest:
        _check_cure(manifest["cure"], f"{Folder(path).manifest}: cure")
    return manifest


def plugins_of(path: Path) -> list[Source]:
    """Where the choices of the user's own come from that the runs of the result at ``path`` are made with."""
    return [Source(**kept) for kept in read_manifest(path).get("plugins", [])]


def check_result(path: Path) -> None:
    """Raises `SpecError` where ``path`` holds no result of this schema, finished or not."""
    _of_this_schema(path)


def _of_this_schema(path: Path) -> Manifest:
    folder = open_result(path)
    manifest = read_json(folder.manifest, "a manifest of gradlab")
    if not isinstance(manifest, dict) or "schema" not in manifest:
        raise SpecError(f"{folder.manifest}: not a manifest of gradlab: expected a mapping with its schema")
    if manifest["schema"] != SCHEMA:
        raise SpecError(f"{path}: written in schema {manifest['schema']}; this gradlab reads schema {SCHEMA}")
    return manifest


def _check_cure(facts: Mapping[str, Any], where: str) -> None:
    """Every change is tried over the same seeds, and the first is the run as it was."""
    for number, change in enumerate(facts["changes"], start=1):
        Each(TEXT, length=len(facts["seeds"])).check(change["members"], f"{where}: changes {number}: members")
        if bool(change["remedies"]) != (number > 1):
            expected = "at least one remedy" if number > 1 else "no remedy: the run as it was"
            raise SpecError(f"{where}: changes {number}: remedies: expected {expected}")


def write_manifest(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest."""
    _write_text(folder.manifest, json.dumps(manifest, indent=1) + "\n")


def write_expectations(folder: Folder, told: Mapping[str, Any]) -> None:
    """Replaces what the experiment was expected to show: its name, what was altered, and each outcome."""
    _write_text(folder.expectations, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_expectations(path: Path) -> dict[str, Any] | None:
    """What `write_expectations` wrote into the result at ``path``; None where nothing was expected."""
    file = Folder(path).expectations
    if not file.is_file():
        return None
    told: dict[str, Any] = read_json(file, "what an experiment was expected to show")
    _EXPECTATIONS.check(told, str(file))
    return told


def write_inputs(folder: Folder, config: str, overrides: Sequence[str], runs: Sequence[RunSpec]) -> None:
    """Writes what was asked for: the config, the overrides, and every run's spec."""
    _write_text(folder.config, config)
    _write_text(folder.overrides, "".join(f"- {json.dumps(override)}\n" for override in overrides) or "[]\n")
    write_runs(folder, runs)
    folder.pieces.mkdir(exist_ok=True)


def write_runs(folder: Folder, runs: Sequence[RunSpec]) -> None:
    """Replaces the specs of the runs, in the order of the grid: what `read_runs` reads. The ids come first.

    A run at a time, so that a million of them need no memory.
    """
    # Runs that share their sections have the same keys.
    alike = {tuple(id(getattr(run, section)) for section in SECTIONS): run for run in runs}
    keys = list(dict.fromkeys(key for run in alike.values() for key in run.flat()))

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write(f'{{"ids":{_short([run.id for run in runs])},"keys":{_short(keys)},"runs":[')
            for number, run in enumerate(runs):
                flat = run.flat()
                row = _short([flat.get(key) for key in keys])
                file.write(("," if number else "") + without_password(row))
            file.write("]}\n")

    replace(folder.grid, write)


def _short(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def read_runs(folder: Folder) -> tuple[RunSpec, ...]:
    """The runs of a result, in the order of its grid. Raises `SpecError` where they are not there, or no runs.

    A run at a time, as they were written: the values of a million of them are gigabytes.
    """
    if (ids := _first(folder)) is not None:
        with suppress(_TornError), folder.grid.open(encoding="utf-8") as file:
            runs = tuple(_described(keys, row, folder, number) for number, (keys, row) in enumerate(_rows(file), 1))
            if len(runs) == len(ids):
                return runs
    grid = _grid(folder)
    return tuple(_described(grid["keys"], row, folder, number) for number, row in enumerate(grid["runs"], start=1))


class _TornError(Exception):
    """The grid is not as `write_runs` writes it: who reads all of it says what is wrong, or reads an older one."""


def _rows(file: TextIO) -> Iterator[tuple[list[str], Any]]:
    """The keys, and the values of each run, of the grid in a file."""
    text = ""

    def before(mark: str) -> str:
        nonlocal text
        while mark not in text:
            text += _more(file)
        found, _, text = text.partition(mark)
        return found

    before('],"keys":')
    try:
        keys = json.loads(before(',"runs":['))
    except ValueError as error:
        raise _TornError from error
    decode, place = json.JSONDecoder().raw_decode, 0
    while True:
        try:
            row, end = decode(text, place)
        except ValueError:
            row, end = None, len(text)
        if end == len(text):
            # The rest of a run may still come.
            text, place = text[place:] + _more(file), 0
            continue
        yield keys, row
        if text[end] != ",":
            break
        place = end + 1
    if (text[end:] + file.read()).strip() != "]}":
        raise _TornError


def _more(file: TextIO) -> str:
    if not (part := file.read(READ)):
        raise _TornError
    return part


def _described(keys: Sequence[str], row: Any, folder: Folder, number: int) -> RunSpec:
    where = f"{folder.grid}: runs {number}"
    Each(VALUE, length=len(keys)).check(row, where)
    try:
        return described({key: value for key, value in zip(keys, row, strict=True) if value is not None})
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _grid(folder: Folder) -> dict[str, Any]:
    if not folder.grid.is_file():
        if folder.manifest.is_file() and "watched" in read_json(folder.manifest, "a manifest"):
            raise SpecError(
                f"{folder.root}: a training that was watched, which only its own script can run; its verdicts have the "
                "causes (gradlab verdict), and model=module takes its network"
            )
        raise SpecError(f"{folder.root}: its {folder.grid.name} is missing, and with it the specs of its runs")
    grid: dict[str, Any] = read_json(folder.grid, "the specs of a result's runs")
    where = str(folder.grid)
    Fields({"keys": Each(TEXT, least=1), "runs": Each(Each(VALUE), least=1)}, {"ids": Each(TEXT)}).check(grid, where)
    keys = Each(VALUE, length=len(grid["keys"]))
    for number, row in enumerate(grid["runs"], start=1):
        keys.check(row, f"{where}: runs {number}")
    if "ids" in grid:
        Each(TEXT, length=len(grid["runs"])).check(grid["ids"], f"{where}: ids")
        if len(set(grid["ids"])) < len(grid["ids"]):
            raise SpecError(f"{where}: ids: expected each once")
    return grid


def ids_of(folder: Folder) -> list[str]:
    """The ids of the runs, in the order of the grid; a result written before they were kept has only the specs."""
    ids: list[str] | None = _first(folder) or _grid(folder).get("ids")
    return [run.id for run in read_runs(folder)] if ids is None else ids


def _first(folder: Folder) -> list[str] | None:
    """The ids, where they come first, without the specs behind them: of a million runs these are gigabytes."""
    begins, ends, head = '{"ids":', '],"keys":', ""
    try:
        with folder.grid.open(encoding="utf-8") as file:
            while (part := file.read(READ)) and (head + part)[: len(begins)] == begins:
                head += part
                if ends in head[-len(part) - len(ends) :]:
                    ids = json.loads(head[len(begins) : head.index(ends) + 1])
                    sound = isinstance(ids, list) and all(isinstance(one, str) for one in ids)
                    return ids if sound and len(set(ids)) == len(ids) else None
    except (OSError, ValueError):
        # What is wrong with it is said by who reads all of it.
        return None
    return None


def _write_text(path: Path, text: str) -> None:
    replace(path, lambda temporary: temporary.write_text(without_password(text), encoding="utf-8"))


def log_error(folder: Folder, text: str) -> None:
    """Adds a crash, with its traceback, to errors.log."""
    with folder.errors.open("a", encoding="utf-8") as file:
        file.write(f"{without_password(text)}\n")
