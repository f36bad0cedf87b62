"""The command that repeats a run: nothing missing, nothing to spare, and the same after a shell has read it."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from gradlab.cure.command import command, folded
from gradlab.grid.compose import compose_run
from gradlab.spec.choices import ALIASES
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import build

RUNS: dict[str, dict[str, Value]] = {
    "default": {},
    "alias": {"model.activation": "leaky", "model.init": "xavier"},
    "numbers": {"optim.lr": 1e30, "model.weight_var": 0.123456789, "seed": 7, "data.standardise": False},
    "residual": {"model.name": "residual_mlp", "model.branch_scale": 0.1826, "data.name": "fashion_mnist"},
    "recurrent": {"model.name": "rnn", "data.name": "adding", "data.length": 30, "optim.name": "adam"},
    "chain": {"model.name": "linear_chain", "data.name": "spectral_teacher", "model.width": 4, "data.features": 4},
    "full batch": {"data.batch_size": "full", "optim.name": "rmsprop", "optim.beta2": 0.9},
    "clipped": {"clip.mode": "layerwise", "clip.output_threshold": 5.0, "train.precision": "float64"},
}


def as_the_shell_reads(text: str) -> list[str]:
    """The words that `gradlab` would get."""
    script = f"gradlab() {{ printf '%s\\n' \"$@\"; }}\n{text}"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


def id_of(overrides: list[str]) -> str | None:
    """The id of the run; None where there is no such run."""
    try:
        return compose_run(overrides).runs[0].id
    except SpecError:
        return None


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_same_run_and_says_no_more_than_it_must(name: str) -> None:
    spec = build(RUNS[name])
    program, verb, *given = shlex.split(command(spec))
    assert (program, verb) == ("gradlab", "run")
    assert compose_run(given).runs[0].id == spec.id
    for override in given:
        assert id_of([other for other in given if other != override]) != spec.id, override


def test_the_default_run_needs_no_words() -> None:
    assert command(build({})) == "gradlab run"
    assert ALIASES["model.init"]["xavier"] in command(build({"model.init": "xavier"}))


@pytest.mark.parametrize("mirror", ["/data", "https://a.b/c?d=1&e", "/my data/it's, here", "C:\\data\\", "/a=b/{c}"])
def test_where_the_data_lie_is_no_part_of_the_run_and_yet_told(mirror: str) -> None:
    spec = build({"data.name": "mnist", "data.mirror": mirror})
    again = compose_run(shlex.split(command(spec))[2:]).runs[0]
    assert (again.id, again.data.mirror) == (spec.id, mirror)


@pytest.mark.parametrize("width", [1, 24, 40, 77, 1000])
def test_a_shell_reads_a_folded_command_as_one(width: int) -> None:
    whole = command(build({"data.name": "mnist", "data.mirror": "/my data/it's", "optim.lr": 0.3, "model.depth": 30}))
    lines = folded(whole, width)
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert not lines[-1].endswith("\\")
    assert as_the_shell_reads("\n".join(lines)) == shlex.split(whole)[1:]
    longest = max(len(shlex.quote(word)) for word in shlex.split(whole)) + len("     ") + len(" \\")
    assert max(map(len, lines)) <= max(width, longest)
