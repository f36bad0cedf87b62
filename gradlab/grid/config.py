"""Overrides and experiment files become the ordered grid of run specs; the only file that knows Hydra and OmegaConf.

Hydra composes once for each choice of groups (40 ms), and its parser reads the sweep grammar; the values are applied to
the composed plain dict, so that 10,000 runs cost no more than their validation. Whatever Hydra, its parser or OmegaConf
raise leaves as one line in a `SpecError`, and no `DictConfig` leaves at all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    Sweep,
    ValueType,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradlab.expect.form import check_rows, parse
from gradlab.grid.expand import (
    GROUPS,
    MOST_RUNS,
    OUTSIDE,
    UNALTERING,
    Grid,
    Launch,
    Request,
    Setting,
    expand,
    sections,
    spec_yaml,
)
from gradlab.grid.experiment import BESIDE, Experiment, checked, grammar, maps, record
from gradlab.spec.choices import MODELS, NAMED, NOUNS
from gradlab.spec.keys import DEFAULTS, KEYS, check_key, unknown_key
from gradlab.spec.named import SpecError, Value, lookup, nearest
from gradlab.spec.run import SECTIONS

__all__ = ["Experiment", "Grid", "Launch", "compose_any", "compose_grid", "compose_run", "experiments", "spec_yaml"]

_SIGNS = {OverrideType.CHANGE: "", OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++", OverrideType.DEL: "~"}
_COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError)


def compose_grid(overrides: Sequence[str], *, experiment: str | None = None, config_dirs: Sequence[Path] = ()) -> Grid:
    """The grid of `gradlab sweep`; `SpecError` for anything wrong, and where nothing is swept."""
    request = _request(overrides, experiment, config_dirs)
    if not request.axes:
        raise SpecError(
            "nothing is swept: give at least one key several values, as in optim.lr=0.01,0.1 "
            "(one training run is gradlab run)"
        )
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


def _expanded(request: Request) -> Grid:
    """The grid, what it is expected to show checked; of settings that were changed only the form is."""
    where = f"experiment {request.experiment!r}: expect"
    expectations = parse(list(request.expect), where)
    grid = expand(request, _resolve)
    if not request.altered:
        check_rows(expectations, grid.runs, where)
    return grid


def experiments(
    config_dirs: Sequence[Path] = (), skipped: Callable[[SpecError], None] | None = None
) -> list[Experiment]:
    """Every experiment on the search path, by name; `SpecError` for a folder that is not there.

    A file that cannot be read raises it too, or is left out where ``skipped`` wants to be told of it.
    """
    dirs = _search_path(config_dirs)
    found = []
    for name in _options("experiment", dirs):
        try:
            found.append(record(name, _load_experiment(name, dirs)))
        except SpecError as error:
            if skipped is None:
                raise
            skipped(error)
    return found


def _search_path(config_dirs: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that hold config groups, gradlab's own first."""
    package = Path(__file__).resolve().parents[1]
    # An editable install leaves a stale copy inside the package, so the repository's folder goes first.
    beside = package.parent / "configs"
    own = beside if (package.parent / "pyproject.toml").is_file() and beside.is_dir() else package / "configs"
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise SpecError(f"--config-dir {folder}: no such folder; expected one with model/, data/, experiment/, ...")
    return (own, *(Path(folder).resolve() for folder in config_dirs))


def _options(group: str, dirs: Sequence[Path]) -> list[str]:
    return sorted({file.stem for folder in dirs for file in (folder / group).glob("*.yaml") if file.is_file()})


def _option(group: str, given: Value, dirs: Sequence[Path]) -> str:
    names = _options(group, dirs)
    if given not in names:
        shown = "null" if given is None else str(given)
        noun = NOUNS.get(GROUPS.get(group, ""), group)
        raise SpecError(f"unknown {noun} {shown!r}{nearest(shown, names) or ';'} available: {', '.join(names)}")
    return str(given)


def _one_line(error: BaseException) -> str:
    """What an error of Hydra, its parser, OmegaConf or YAML says, without the lines for programmers."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    noise = r"See https?://|full_key: |object_type=|\^|Error parsing override "
    about_files = r"\n\s*(?:Available options in|(?:Config s|S)earch path:)"
    lines = [line.strip() for line in re.split(about_files, text)[0].splitlines()]
    kept = [line for line in lines if line and not re.match(noise, line)]
    said = re.sub(r"^(LexerNoViableAltException: |\w+ while evaluating )", "", "; ".join(kept[:3]))
    return re.sub(r" expecting \{.*\}", "", said).replace("<EOF>", "end of line")


def _parse(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        known = [*KEYS, *OUTSIDE, *GROUPS]
        raise SpecError(
            f"{text!r}: expected {f'{text}=value' if text in known else 'key=value' + nearest(text, known)}"
        )
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except (HydraException, ValueError, RecursionError) as error:
        reason = _one_line(error)
        said = f"quote special characters{_in_quotes(text)}" if reason == text else reason
        raise SpecError(f"cannot read {text!r}: {said}; expected key=value, key=a,b or key=range(1,5)") from error


def _in_quotes(text: str) -> str:
    """How to write an override in a shell so that its value stays one text; nothing where quotes nest too deep."""
    key, _, value = text.partition("=")
    return "" if re.search(r"""["'$`!\\]""", text) else f""", in a shell as "{key}='{value}'\""""


def _read(text: str, dirs: Sequence[Path]) -> Setting:
    """One override in Hydra's grammar, as the contract narrows it."""
    override = _parse(text)
    sign = _SIGNS[override.type]
    given = override.key_or_group
    key = GROUPS.get(given, given)
    if override.package is not None:
        raise SpecError(f"{text}: packages ('@{override.package}') have no meaning here; expected key=value")
    if key in SECTIONS or key in ("launch", "diagnose"):
        names = [name for name in (*KEYS, *OUTSIDE) if name.startswith(f"{key}.")]
        raise SpecError(f"{text}: {key!r} is a section; its keys: {', '.join(names)}")
    if key not in KEYS and key not in OUTSIDE and key != "experiment":
        raise unknown_key(given, [*KEYS, *OUTSIDE, *GROUPS, "experiment"])
    if key in GROUPS.values() and (sign == "+" or (sign == "++" and given in GROUPS)):
        raise SpecError(f"{text}: {given} is there already; expected {text.lstrip('+')}")
    swept = override.value_type not in (None, ValueType.ELEMENT)
    if swept and (key in OUTSIDE or key == "experiment" or sign == "~"):
        reason = {"experiment": "one experiment at a time", "~": "~ removes one key"}
        why = reason.get(sign) or reason.get(key) or f"{key} is no part of a run"
        raise SpecError(f"{text}: cannot be swept: {why}")
    if (
        sign == "~"
        and key != "experiment"
        and not key.startswith(("launch.", "diagnose."))
        and not (key in KEYS and KEYS[key].nullable)
    ):
        raise SpecError(f"{text}: {key} is required; expected {key}=value, or nothing for its default")
    setting = Setting(key, sign, _values(override, key, text, dirs), swept, text)
    if setting.group is not None:
        for value in setting.values:
            _option(setting.group, value, dirs)
    return setting


def _values(override: Override, key: str, text: str, dirs: Sequence[Path]) -> tuple[Value, ...]:
    """The values of an override in their order; empty for `~key`."""
    given: object = override.value()
    if isinstance(given, IntervalSweep):
        raise SpecError(f"{text}: interval() has no end of values; expected a,b or range(start,stop,step)")
    if isinstance(given, Glob):
        group = next((group for group, named in GROUPS.items() if named == key), None)
        names = _options(group, dirs) if group else sorted(NAMED.get(key, KEYS[key].words if key in KEYS else ()))
        if not names:
            raise SpecError(f"{text}: glob() is for named choices: {', '.join(NAMED)}")
        matching = tuple(given.filter(names))
        if not matching:
            raise SpecError(f"{text}: matches nothing; available: {', '.join(names)}")
        return matching
    if not isinstance(given, Sweep):
        return () if override.value_type is None else (_scalar(given, text),)
    try:
        values = list(itertools.islice(override.sweep_iterator(), MOST_RUNS + 1))
    except (HydraException, ValueError, ArithmeticError, TypeError) as error:
        raise SpecError(f"{text}: {_one_line(error)}; expected a,b or range(start,stop,step)") from error
    if not values:
        raise SpecError(f"{text}: an empty sweep; expected at least one value")
    return tuple(_scalar(value, text) for value in values)


def _scalar(given: object, text: str) -> Value:
    if isinstance(given, QuotedString):
        return given.text
    if given is None or isinstance(given, (str, bool, int, float)):
        return given
    kind = "a list" if isinstance(given, list) else "a mapping" if isinstance(given, dict) else "a sweep inside a sweep"
    raise SpecError(f"{text}: expected one value, or a sweep such as a,b; given {kind}")


def _request(overrides: Sequence[str], experiment: str | None, config_dirs: Sequence[Path]) -> Request:
    for text in (*overrides, *([experiment] if experiment else [])):
        if not text.isprintable():
            raise SpecError(f"{text!r}: expected one line of printable characters")
    dirs = _search_path(config_dirs)
    settings = [_read(text, dirs) for text in overrides]
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
    with initialize_config_dir(str(dirs[0]), version_base="1.3"):
        composer = _composer(choices, dirs)
        config = composer(())
        if {*SECTIONS, "axes", "experiment"} & set(config.get("experiment") or ()):
            raise SpecError(f"experiment {title!r}: its file must begin with '# @package _global_'")
        axes = _axes(config.get("axes") or {}, settings, title, dirs)
        given = _given_by(raw) | {setting.key for setting in (*fixed, *axes)}
        flats = _flats(composer, [axis for axis in axes if axis.group], free_data="data.name" not in given)
    outside = {key: value for key, value in _flatten(config).items() if key in OUTSIDE}
    for setting in fixed:
        if setting.key in OUTSIDE:
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
    )


def _title(setting: Setting, dirs: Sequence[Path]) -> str | None:
    """The name of the chosen experiment; None for `experiment=null` and `~experiment`."""
    if setting.values in ((), (None,)):
        return None
    if setting.sign == "~":
        raise SpecError(f"{setting.text}: no experiment is chosen, so there is nothing to remove")
    return _option("experiment", setting.values[0], dirs)


def _refuse_twice(settings: Iterable[Setting]) -> None:
    seen: dict[str, str] = {}
    for setting in settings:
        if setting.key in seen:
            raise SpecError(f"{setting.key} is given twice: {seen[setting.key]} and {setting.text}; give it once")
        seen[setting.key] = setting.text


Composer = Callable[[tuple[tuple[str, str], ...]], dict[str, Any]]


def _composer(fixed: Mapping[str, str], dirs: Sequence[Path]) -> Composer:
    """A function from further choices of groups to the composed config, unresolved; each is composed once."""
    path = [f"hydra.searchpath=[{','.join(_quoted(f'file://{folder}') for folder in dirs[1:])}]"]

    @cache
    def composed(further: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        choices = {**fixed, **dict(further)}
        shown = " ".join(f"{group}={option}" for group, option in choices.items())
        try:
            config = compose("config", path + [f"{group}={_quoted(option)}" for group, option in choices.items()])
            plain = OmegaConf.to_container(config, resolve=False)
        except _COMPOSING as error:
            raise SpecError(f"cannot compose {shown or 'the configs'}: {_one_line(error)}") from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    return composed


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


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
        flat = _flatten(config)
        for key in GROUPS.values():
            if not isinstance(flat.get(key), str):
                raise SpecError(f"the file chosen in {key.partition('.')[0]}/ does not give {key}")
        model = lookup("model", MODELS, flat["model.name"])
        if free_data and flat["data.name"] == DEFAULTS["data.name"] != model.data:
            flat = _flatten(_union(composer, {**choice, "data": model.data}))
        flats[options] = {key: value for key, value in flat.items() if key not in OUTSIDE}
    return flats


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


def _flatten(config: Mapping[str, Any]) -> dict[str, Value]:
    """Dotted keys, without what else an experiment's file says; a list or a deeper mapping is refused."""
    flat: dict[str, Value] = {}
    for section, content in config.items():
        if section in BESIDE:
            continue
        if not isinstance(content, dict):
            flat[section] = _scalar(content, section)
            continue
        for key, value in content.items():
            flat[f"{section}.{key}"] = _scalar(value, f"{section}.{key}")
    return flat


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
        raw = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except _COMPOSING as error:
        raise SpecError(f"experiment {name!r} cannot be read: {_one_line(error)}") from error
    return checked(name, raw)


def _given_by(raw: Mapping[str, Any]) -> set[str]:
    """The keys that an experiment's file names: its values, and the groups that its defaults override."""
    keys = {key for key in _flatten({k: v for k, v in raw.items() if k != "defaults"}) if key in (*KEYS, *OUTSIDE)}
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
            axis = _read(text, dirs)
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


def _resolve(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values with their interpolations replaced, as OmegaConf does it."""
    try:
        plain = OmegaConf.to_container(OmegaConf.create(sections(values)), resolve=True)
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise SpecError(f"cannot resolve {where}{_one_line(error)}") from error
    assert isinstance(plain, dict)
    return _flatten({str(key): value for key, value in plain.items()})
