"""What the Tab key is answered with: keys and their values, experiments, results and their runs.

Whoever presses it waits: nothing is imported that imports numpy, but for the thresholds of diagnosis.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import typer

from gradlab.grid.launching import KEYS as LAUNCH_KEYS
from gradlab.grid.launching import LAUNCHERS
from gradlab.grid.search_path import options_of, search_path, shipped
from gradlab.spec.choices import DATA, MODELS, NAMED
from gradlab.spec.keys import APART, DEFAULTS, GROUPS, KEYS, allowed_keys
from gradlab.spec.named import Value

Item = tuple[str, str]
"""What may stand there, and a line about it."""

MOST_WIDTH = 72
"""Of a line about an answer."""

PLACES = {"data.path", "data.root", "model.target", "data.target"}
"""Keys whose values are files: the shell knows them."""

QUESTION = re.compile(r"^\s*question:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)


def overrides(ctx: typer.Context, incomplete: str) -> list[Item]:
    """A key as far as it is clear, `model.`, `model.depth=`; behind the sign its values, the last of several."""
    sign = incomplete[: len(incomplete) - len(incomplete.lstrip("+~"))]
    key, equals, value = incomplete.removeprefix(sign).partition("=")
    if not equals:
        return [(f"{sign}{name}", short(about)) for name, about in _keys(key)]
    before = f"{sign}{key}={value[: value.rfind(',') + 1]}"
    there = value.split(",")[:-1]
    return [(f"{before}{name}", short(about)) for name, about in _values(ctx, key) if name not in there]


def override_or_result(ctx: typer.Context, incomplete: str) -> list[Item]:
    """An override, or the folder of a result."""
    return [*overrides(ctx, incomplete), *(results(incomplete) if "=" not in incomplete else [])]


def short(about: str) -> str:
    """A line as a shell shows it: typer would break a longer one, and each of its lines were an answer."""
    return textwrap.shorten(about, MOST_WIDTH, placeholder=" ...").replace("[", "(").replace("]", ")")


def _keys(begun: str) -> Iterable[Item]:
    """The keys of the model and data that are chosen, or of all; without a dot the sections alone."""
    known = {key: rule.summary for key, rule in KEYS.items() if key in _allowed()}
    known |= dict.fromkeys((*APART, *LAUNCH_KEYS), "not part of a run")
    known |= {group: f"the config group of {key}" for group, key in GROUPS.items()} | {"experiment": "as -e"}
    if begun.startswith("diagnose"):
        from gradlab.diagnose.thresholds import THRESHOLDS

        known |= {entry.key: "a threshold of diagnosis" for entry in THRESHOLDS.values()}
    if "." in begun:
        return [(f"{key}=", about) for key, about in known.items() if "." in key]
    sections = dict.fromkeys(key.partition(".")[0] for key in (*known, "diagnose.") if "." in key)
    plain = [(f"{key}=", about) for key, about in known.items() if "." not in key]
    return [*plain, *((f"{section}.", "keys of this section") for section in sections)]


def _allowed() -> dict[str, Value]:
    """The keys of what is chosen; of a model or data set that nobody has chosen yet, those of any."""
    found: dict[str, Value] = dict(DEFAULTS)
    chosen = {GROUPS.get(key, key): value for key, _, value in (word.lstrip("+").partition("=") for word in _words())}
    models = [model for model in MODELS if chosen.get("model.name", model) in (model, "")] or list(MODELS)
    data = [one for one in DATA if chosen.get("data.name", one) in (one, "")] or list(DATA)
    for model in models:
        found |= allowed_keys(model, data[0])
    for one in data:
        found |= allowed_keys(models[0], one)
    return found


def _values(ctx: typer.Context, key: str) -> list[Item]:
    """The names that a key may have with a line about each; of a number, a truth or a text its words and default."""
    if key == "experiment":
        return experiments(ctx, "")
    key = GROUPS.get(key, key)
    if key in PLACES or (key not in KEYS and key not in APART and key not in LAUNCH_KEYS):
        return []
    named = LAUNCHERS if key == "launch.name" else NAMED.get(key, {})
    found = {name: choice.summary for name, choice in named.items()}
    group = next((group for group, named in GROUPS.items() if named == key), None)
    found |= {name: "of a folder of configs" for name in _options(ctx, group or "") if name not in found}
    rule = KEYS.get(key)
    if rule is not None:
        found |= dict.fromkeys(rule.words, "")
        found |= dict.fromkeys(("true", "false") if rule.kind is bool else (), "")
        default = _allowed().get(key)
        if not found and default is not None:
            found[str(default)] = "the default"
    return list(found.items())


def experiments(ctx: typer.Context, incomplete: str) -> list[Item]:
    """The named experiments, each with its question."""
    del incomplete
    files = {name: folder / "experiment" / f"{name}.yaml" for name, folder in _options(ctx, "experiment").items()}
    found = {name: QUESTION.search(file.read_text(encoding="utf-8", errors="replace")) for name, file in files.items()}
    return [(name, short(question.group(1)) if question else "") for name, question in found.items()]


def _options(ctx: typer.Context, group: str) -> dict[str, Path]:
    """The names of a group's files, each with the folder of configs that it lies in."""
    further = ctx.params.get("config_dir")
    dirs = search_path([further] if further and further.is_dir() else [])
    return {name: folder for folder in dirs for name in options_of(group, [folder])} if group else {}


def results(incomplete: str) -> list[Item]:
    """Folders of results, and folders on the way to them."""
    head = incomplete[: incomplete.rfind("/") + 1]
    place = Path(head).expanduser() if head else Path()
    inside = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    wanted = [path for path in inside if not path.name.startswith(".")]
    done = {path: (path / "manifest.json").is_file() for path in wanted}
    return [(f"{head}{path.name}{'' if done[path] else '/'}", "a result" if done[path] else "") for path in wanted]


def result_and_run(incomplete: str) -> list[Item]:
    """The folder of a result, then the id of one of its runs."""
    return run_ids(incomplete) if _words()[-1 if incomplete == "" else -2 :][0] != "--from" else results(incomplete)


def run_ids(incomplete: str) -> list[Item]:
    """The ids of the runs of the results that are named before."""
    del incomplete
    manifests = [Path(word) / "manifest.json" for word in _words()]
    found: list[Item] = []
    for file in filter(Path.is_file, manifests):
        for piece in json.loads(file.read_text(encoding="utf-8")).get("pieces", []):
            found += [(run_id, f"of {file.parent}") for run_id in piece.get("members", [])]
    return found


def _words() -> list[str]:
    """The command line so far, as the shell hands it over; typer's own reading stops at what is not finished."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or "").split()


def keys(incomplete: str) -> list[Item]:
    """The keys of a run, for the axes of figures."""
    del incomplete
    return [(key, short(rule.summary)) for key, rule in KEYS.items()]


def devices(incomplete: str) -> list[Item]:
    """What --device takes."""
    del incomplete
    return [("auto", "the GPU where there is one"), ("cpu", ""), ("cuda", "")]


def pages(incomplete: str) -> list[Item]:
    """The pages of the documentation."""
    del incomplete
    return [(file.stem, "") for file in sorted(shipped("docs").glob("*.md"))]


def verdicts(incomplete: str) -> list[Item]:
    """The names of verdicts, the last of several."""
    from gradlab.diagnose import ORDER

    before = incomplete[: incomplete.rfind(",") + 1]
    return [(f"{before}{name}", "") for name in (*(name for name in ORDER if name != "healthy"), "any")]
