"""How runs are carried out: where their pieces run, and the keys of `launch`, no part of a run. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gradlab.spec.named import Choice, SpecError, Value, nearest, table


@dataclass(frozen=True)
class Launcher(Choice):
    """A place where pieces run: its ``keys`` of `launch`, and the package that the extra of its name brings."""

    keys: tuple[str, ...]
    package: str | None = None


EVERYWHERE = ("name", "memory", "workers", "stacked")

LAUNCHERS: dict[str, Launcher] = table(
    Launcher("local", "processes of this machine", "-", (*EVERYWHERE, "streams")),
    Launcher(
        "ray",
        "tasks of a Ray cluster, or of Ray on this machine",
        "Moritz et al. 2018, arXiv:1712.05889",
        (*EVERYWHERE, "cores", "gpus", "retries", "address"),
        "ray",
    ),
    Launcher(
        "slurm",
        "a job array of a Slurm cluster",
        "Yoo et al. 2003; submitit",
        (*EVERYWHERE, "cores", "gpus", "retries", "partition", "account", "qos", "constraint", "time", "setup"),
        "submitit",
    ),
)

MOST_STREAMS = 32
"""Of a GPU in a process: torch has no more, and two pieces on one would wait for each other."""

MOST_WORKERS = 4096
"""Pieces at once; a larger number is taken for a slip of the keyboard."""

NAMES = ("address", "partition", "account", "qos", "constraint", "setup")
"""Keys that hold a text of the cluster's."""

TRUSTED = ("address", "setup")
"""Of these, what runs commands, or whom gradlab speaks to: see `Launch.asks_trust`."""


@dataclass(frozen=True)
class Launch:
    """How runs are carried out: the bytes that a piece may take, pieces at once (``workers``); None: gradlab decides.

    ``stacked``: whether networks of the user's own are trained as one: yes, no, or auto. ``streams``: pieces that each
    process on a GPU of this machine trains by turns. Elsewhere than on this machine: ``cores`` of a piece, ``gpus`` of
    a piece (a share, or auto), how often one whose machine died is run again (``retries``), and where: Ray's
    ``address``, or what Slurm is asked for; ``time`` in minutes or as Slurm writes it, ``setup`` a shell command before
    each job.
    """

    memory: int | None = None
    workers: int | None = None
    stacked: str = "auto"
    streams: int | None = None
    name: str = "local"
    cores: int = 1
    gpus: float | str | None = None
    retries: int = 3
    address: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    setup: str | None = None

    def stored(self) -> dict[str, Value]:
        """The keys that its launcher has, as a manifest or a config keeps them."""
        values: dict[str, Value] = asdict(self)
        return {key: values[key] for key in LAUNCHERS[self.name].keys}

    def asks_trust(self) -> str | None:
        """What a folder of somebody else's could make this machine do, if anything: a key with its value."""
        given = [(key, getattr(self, key)) for key in TRUSTED]
        return next((f"launch.{key}={value}" for key, value in given if value not in (None, "auto")), None)


KEYS = tuple(f"launch.{field.name}" for field in fields(Launch))
"""Every key, dotted."""


def launch_of(values: Mapping[str, Value]) -> Launch:
    """Dotted values, those of `launch` among them, as a `Launch`. Raises `SpecError` for what it cannot be."""
    given = {key: values[f"launch.{key}"] for key in _names() if values.get(f"launch.{key}") is not None}
    name = str(given.get("name", "local"))
    if name not in LAUNCHERS:
        raise SpecError(f"launch.name={name}: expected {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}")
    for key in given:
        if key not in LAUNCHERS[name].keys:
            owners = " and ".join(f"launch={other.name}" for other in LAUNCHERS.values() if key in other.keys)
            raise SpecError(f"launch.{key}={given[key]}: launch={name} has no such key; {owners} has")
    read = {key: _READ[key](f"launch.{key}", value) for key, value in given.items() if key not in ("name", "stacked")}
    found = Launch(name=name, stacked=_stacked(values.get("launch.stacked", "auto")), **read)
    if name == "slurm" and (found.gpus == "auto" or not float(found.gpus or 0).is_integer()):
        raise SpecError(f"launch.gpus={found.gpus}: Slurm lends whole GPUs; expected an integer")
    return found


def _names() -> tuple[str, ...]:
    return tuple(key.partition(".")[2] for key in KEYS)


def _stacked(given: Value) -> str:
    # YAML reads yes and no as truths.
    word = ("no", "yes")[given] if isinstance(given, bool) else given
    if not isinstance(word, str) or word not in ("auto", "yes", "no"):
        raise SpecError(f"launch.stacked={'null' if given is None else str(given)[:60]}: expected auto, yes or no")
    return word


def _bytes(key: str, given: Value) -> int:
    units = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", str(given))
    size = int(float(match[1]) * units.get(match[2].lower(), 0)) if match else 0
    if size < 1 or isinstance(given, (bool, float)):
        raise SpecError(f"{key}={given}: expected bytes as an integer, or a size such as 512MiB or 2GiB, or null")
    return size


def _count(least: int, most: int | None = None) -> Any:
    def read(key: str, given: Value) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise SpecError(f"{key}={given}: expected an integer of at least {least} or null")
        if most is not None and given > most:
            raise SpecError(f"{key}={str(given)[:20]}: expected at most {most:,}")
        return given

    return read


def _gpus(key: str, given: Value) -> float | str:
    if given == "auto":
        return "auto"
    if isinstance(given, (bool, str)) or given is None or not 0 <= given <= 1024:
        raise SpecError(f"{key}={str(given)[:60]}: expected how many GPUs a piece takes, a share such as 0.25, or auto")
    if given > 1 and given != int(given):
        raise SpecError(f"{key}={given}: expected a share below 1, or whole GPUs")
    return given


def _text(key: str, given: Value) -> str:
    text = str(given)
    if isinstance(given, bool) or not text.isprintable() or not text.strip():
        raise SpecError(f"{key}={given!r}: expected a line of printable characters")
    return text


def _time(key: str, given: Value) -> str:
    """Minutes, or Slurm's own form. A bare number is refused: YAML reads 4:00:00 as 14400."""
    text = str(given).strip()
    match = re.fullmatch(r"(\d{1,6})\s*(min|h|d)", text)
    if match:
        return str(int(match[1]) * {"min": 1, "h": 60, "d": 1440}[match[2]])
    if re.fullmatch(r"\d{1,4}(:\d{2}){1,2}|\d{1,3}-\d{1,2}(:\d{2}){0,2}", text):
        return text
    raise SpecError(
        f"{key}={text[:60]}: expected a time with its unit, such as 90min, 4h or 2d, or '4:00:00' (in a file in quotes)"
    )


_READ: dict[str, Any] = {
    "memory": _bytes,
    "workers": _count(1),
    "streams": _count(1, MOST_STREAMS),
    "cores": _count(1, MOST_WORKERS),
    "retries": _count(0, 100),
    "gpus": _gpus,
    "time": _time,
    **dict.fromkeys(NAMES, _text),
}
