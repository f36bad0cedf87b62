"""From overrides and an experiment's file to the grid that they ask for.

Hydra composes once for each choice of groups; the values are applied to the composed plain dict, so that 10,000 runs
cost no more than their validation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.expect.form import check_rows, parse
from gradlab.grid.expand import OUTSIDE, UNALTERING, Grid, Request, Setting, expand
from gradlab.grid.experiment import Experiment, about, checked, grammar, maps, record
from gradlab.grid.hydra import Composer, composing, flatten, read_file, resolve
from gradlab.grid.launching import Launch, launch_of
from gradlab.grid.overrides import read
from gradlab.grid.search_path import option, options_of, search_path
from gradlab.spec.choices import MODELS
from gradlab.spec.keys import DEFAULTS, GROUPS, allowed_keys, check_key, is_key, unknown_key
from gradlab.spec.named import SpecError, Value, lookup
from gradlab.spec.run import SECTIONS


def compose_grid(overrides: Sequence[str], *, experiment: str | None = None, config_dirs: Sequence[Path] = ()) -> Grid:
    """The grid of `gradlab sweep`; `SpecError` for anything wrong, and where nothing is swept."""
    request = _request(overrides, experiment, config_dirs)
    if not request.axes:
        raise SpecError(
            "nothing is swept: give at least one key several values, as in optim.lr=0.01,0.1 "
            "(one training run is gradlab run)"
        )
    if "name" not in request.given:
        request.outside["name"] = request.experiment or "sweep"
    return _expanded(request)


def compose_run(overrides: Sequence[str], *, experiment: str | None = None, config_dirs: Sequence[Path] = ()) -> Grid:
    """The grid of one run of `gradlab run`; `SpecError` for anything wrong, and for any sweep."""
    request = _request(overrides, experiment, config_dirs)
    for axis in request.axes:
        if axis.text in overrides:
            raise SpecError(f"{axis.text}: a sweep; gradlab run takes one value a key, gradlab sweep takes several")
        swept = ", ".join(axis.key for axis in request.axes)
        raise SpecError(f"experiment {request.experiment!r} sweeps {swept}: gradlab sweep -e {request.experiment}")
    return _expanded(request)


def compose_any(overrides: Sequence[str], *, experiment: str | None = None, config_dirs: Sequence[Path] = ()) -> Grid:
    """The grid of `gradlab theory`, of one run or of several; `SpecError` for anything wrong."""
    return _expanded(_request(overrides, experiment, config_dirs))


def compose_launch(overrides: Sequence[str], before: Launch, *, config_dirs: Sequence[Path] = ()) -> Launch:
    """Where a result goes on that was launched as ``before``: with what ``overrides``, all of `launch`, change.

    What the plan was made with stays. Raises `SpecError` for anything wrong.
    """
    if not overrides:
        return before
    dirs = search_path(config_dirs)
    settings = [read(text, dirs) for text in overrides]
    _refuse_twice(settings)
    values = {f"launch.{key}": value for key, value in before.stored().items()}
    for setting in settings:
        if setting.key in ("launch.memory", "launch.stacked"):
            raise SpecError(f"{setting.text}: its pieces are planned; launch.memory and launch.stacked stay")
        if setting.group:
            with composing({"launch": str(setting.values[0])}, dirs) as composer:
                fresh = {key: value for key, value in _outside(composer(())).items() if key.startswith("launch.")}
            values = {**fresh, **{key: values[key] for key in ("launch.memory", "launch.stacked")}}
    for setting in settings:
        if not setting.group:
            _apply(setting, values)
    return launch_of(values)


def _expanded(request: Request) -> Grid:
    """The grid, what it is expected to show checked; of settings that were changed only the form is."""
    where = f"experiment {request.experiment!r}: expect"
    expectations = parse(list(request.expect), where)
    grid = expand(request, resolve)
    if expectations and not request.altered:
        check_rows(expectations, grid.runs, where)
    return grid


def experiments(
    config_dirs: Sequence[Path] = (), skipped: Callable[[SpecError], None] | None = None
) -> list[Experiment]:
    """Every experiment on the search path, by name; `SpecError` for a folder that is not there.

    A file that cannot be read raises it too, or is left out where ``skipped`` wants to be told of it.
    """
    dirs = search_path(config_dirs)
    found = []
    for name in options_of("experiment", dirs):
        try:
            found.append(record(name, _load_experiment(name, dirs)))
        except SpecError as error:
            if skipped is None:
                raise
            skipped(error)
    return found


def _request(overrides: Sequence[str], experiment: str | None, config_dirs: Sequence[Path]) -> Request:
    for text in (*overrides, *([experiment] if experiment else [])):
        if not text.isprintable():
            raise SpecError(f"{text!r}: expected one line of printable characters")
    dirs = search_path(config_dirs)
    settings = [read(text, dirs) for text in overrides]
    if experiment is not None:
        settings.insert(0, Setting("experiment", "", (experiment,), False, f"-e {experiment}"))
    _refuse_twice(settings)
    chosen = next((setting for setting in settings if setting.key == "experiment"), None)
    title = _title(chosen, dirs) if chosen else None
    raw = _load_experiment(title, dirs) if title else {}
    fixed = [setting for setting in settings if not setting.swept and setting is not chosen]
    choices = {setting.group: str(setting.values[0]) for setting in fixed if setting.group}
    if title:
        choices["experiment"] = title
    with composing(choices, dirs) as composer:
        config = composer(())
        if {*SECTIONS, "axes", "experiment"} & set(config.get("experiment") or ()):
            raise SpecError(f"experiment {title!r}: its file must begin with '# @package _global_'")
        axes = _axes(config.get("axes") or {}, settings, title, dirs)
        given = _given_by(raw) | {setting.key for setting in (*fixed, *axes)}
        flats = _flats(composer, [axis for axis in axes if axis.group], free_data="data.name" not in given)
    if title:
        _leave_to_those_that_have(flats.values(), _given_by(raw))
    outside = _outside(config)
    for setting in fixed:
        if setting.key in OUTSIDE and not setting.group:
            _apply(setting, outside)
    for flat in flats.values():
        _settle(flat, (*fixed, *axes))
    altered = [setting.text for setting in settings if setting is not chosen and setting.key not in UNALTERING]
    expect = raw.get("expect") or []
    return Request(
        flats=flats,
        axes=axes,
        outside=outside,
        given=frozenset(given),
        overrides=tuple(overrides),
        experiment=title,
        expect=tuple(expect),
        altered=tuple(altered if title else ()),
        maps=maps(title, raw),
        about=about(raw),
    )


def _outside(config: Mapping[str, Any]) -> dict[str, Value]:
    """The values of the composed config that are no part of a run."""
    flat = flatten(config)
    for key in flat:
        if key.startswith("launch.") and key not in OUTSIDE:
            raise unknown_key(key, OUTSIDE)
    return {key: value for key, value in flat.items() if key in OUTSIDE}


def _title(setting: Setting, dirs: Sequence[Path]) -> str | None:
    """The name of the chosen experiment; None for `experiment=null` and `~experiment`."""
    if setting.values in ((), (None,)):
        return None
    if setting.sign == "~":
        raise SpecError(f"{setting.text}: no experiment is chosen, so there is nothing to remove")
    return option("experiment", setting.values[0], dirs)


def _refuse_twice(settings: Iterable[Setting]) -> None:
    seen: dict[str, str] = {}
    for setting in settings:
        if setting.key in seen:
            raise SpecError(f"{setting.key} is given twice: {seen[setting.key]} and {setting.text}; give it once")
        seen[setting.key] = setting.text


def _flats(
    composer: Composer, axes: Sequence[Setting], *, free_data: bool
) -> dict[tuple[Value, ...], dict[str, Value]]:
    """One flat config for each combination of the swept groups' options, without the keys outside a run.

    Where the data are left free, a model that cannot take the default ones brings its own.
    """
    flats: dict[tuple[Value, ...], dict[str, Value]] = {}
    for options in itertools.product(*(dict.fromkeys(axis.values) for axis in axes)):
        choice = {str(axis.group): str(option) for axis, option in zip(axes, options, strict=True)}
        config = _union(composer, choice)
        flat = flatten(config)
        for key in GROUPS.values():
            if not isinstance(flat.get(key), str):
                raise SpecError(f"the file chosen in {key.partition('.')[0]}/ does not give {key}")
        model = lookup("model", MODELS, flat["model.name"])
        if free_data and flat["data.name"] == DEFAULTS["data.name"] != model.data:
            flat = flatten(_union(composer, {**choice, "data": model.data}))
        flats[options] = {key: value for key, value in flat.items() if key not in OUTSIDE}
    return flats


def _leave_to_those_that_have(flats: Collection[dict[str, Value]], keys: set[str]) -> None:
    """Takes those ``keys``, an experiment's, that some of its models or data have away from the others.

    So Elman's tanh and an LSTM's forget bias can stand in the file of one experiment that compares the two.
    """
    have = [keys & set(allowed_keys(str(flat["model.name"]), str(flat["data.name"]))) for flat in flats]
    some = {key for own in have for key in own}
    for flat, own in zip(flats, have, strict=True):
        for key in some - own:
            flat.pop(key, None)


def _union(composer: Composer, choice: Mapping[str, str]) -> dict[str, Any]:
    """The config of several choices, from those of one choice each where each changes its own section alone.

    Composing every combination would take 40 ms for each of them; a file with a package or defaults of its own can
    reach beyond its section, and then there is no other way.
    """
    base = composer(())
    parts = {group: composer(((group, option),)) for group, option in choice.items()}
    if all({**part, group: None} == {**base, group: None} for group, part in parts.items()):
        return {**base, **{group: part[group] for group, part in parts.items()}}
    return composer(tuple(choice.items()))


def _settle(flat: dict[str, Value], settings: Iterable[Setting]) -> None:
    """Applies the settings of a run's values to ``flat``; nothing may be left open (`???`) then."""
    for setting in settings:
        if setting.key not in OUTSIDE and not setting.group:
            _apply(setting, flat)
    for key, value in flat.items():
        if value == "???":
            raise SpecError(f"{key}=???: its file leaves it open; expected {key}=value")


def _apply(setting: Setting, flat: dict[str, Value]) -> None:
    """``flat`` with one setting; a swept key is only made room for."""
    key = setting.key
    if key not in OUTSIDE:
        check_key(key, str(flat["model.name"]), str(flat["data.name"]))
    present = flat.get(key)
    if setting.sign == "~":
        if setting.values and setting.values[0] is not None and setting.values[0] != present:
            shown = "null" if present is None else present
            raise SpecError(f"{setting.text}: {key} is {shown}, so there is nothing to remove")
        flat.pop(key, None)
        return
    if setting.sign == "+" and present is not None:
        raise SpecError(f"{setting.text}: {key} is there already; expected {setting.text[1:]} or +{setting.text}")
    flat[key] = setting.values[0]


def _load_experiment(name: str, dirs: Sequence[Path]) -> dict[str, Any]:
    """The file of an experiment as it stands, before composition."""
    file = next(path for folder in dirs if (path := folder / "experiment" / f"{name}.yaml").is_file())
    try:
        raw = read_file(file)
    except SpecError as error:
        raise SpecError(f"experiment {name!r} {error}") from error
    return checked(name, raw)


def _given_by(raw: Mapping[str, Any]) -> set[str]:
    """The keys that an experiment's file names: its values, and the groups that its defaults override."""
    keys = {key for key in flatten({k: v for k, v in raw.items() if k != "defaults"}) if key in OUTSIDE or is_key(key)}
    for entry in raw.get("defaults") or []:
        for text in entry if isinstance(entry, dict) else ():
            group = str(text).removeprefix("override").strip().removeprefix("/")
            if group in GROUPS:
                keys.add(GROUPS[group])
    return keys


def _axes(
    raw: Mapping[str, Any], settings: Sequence[Setting], title: str | None, dirs: Sequence[Path]
) -> tuple[Setting, ...]:
    """The experiment's axes in its order, each replaced by the override of its key; then the overrides' own."""
    own: dict[str, Setting] = {}
    for key, values in raw.items():
        text = f"{key}={grammar(values)}"
        try:
            axis = read(text, dirs)
        except SpecError as error:
            raise SpecError(f"experiment {title!r}: {error}") from error
        if axis.sign or not axis.swept:
            raise SpecError(f"experiment {title!r}: axis {text}: expected a sweep such as a,b")
        if axis.key in own:
            raise SpecError(f"experiment {title!r}: {axis.key} is given twice: {own[axis.key].text} and {text}")
        own[axis.key] = axis
    given = {setting.key: setting for setting in settings}
    own = {key: given.get(key, axis) for key, axis in own.items()}
    axes = [*own.values(), *(setting for setting in settings if setting.key not in own)]
    return tuple(axis for axis in axes if axis.swept)
