"""The grid: its order, its duplicates, what its runs share, and what is said beside them."""

from __future__ import annotations

import pytest
import yaml

from gradlab.diagnose import DEFAULTS
from gradlab.grid import expand
from gradlab.grid.compose import compose_grid, compose_run
from gradlab.grid.expand import Setting, sections, spec_yaml
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build


def test_the_first_swept_key_is_slowest() -> None:
    grid = compose_grid(["optim=sgd,adam", "seed=0,1", "clip.mode=none,norm"])
    assert grid.swept == ("optim.name", "seed", "clip.mode")
    assert [(spec.optim.name, spec.seed, spec.clip.mode) for spec in grid.runs] == [
        (optimizer, seed, clip) for optimizer in ("sgd", "adam") for seed in (0, 1) for clip in ("none", "norm")
    ]


def test_runs_that_differ_in_their_seed_alone_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    def described(values: dict[str, Value]) -> RunSpec:
        built.append(values)
        return build(values)

    monkeypatch.setattr(expand, "described", described)
    grid = compose_grid(["optim.lr=0.1,0.2", "seed=range(0,500)", "clip=none,norm"])
    assert len(built) == 4
    assert len(grid.runs) == 2000
    for run in (grid.runs[0], grid.runs[1], grid.runs[-1]):
        assert run == build({key: value for key, value in run.flat().items() if value is not None})
        assert run.id == build({key: value for key, value in run.flat().items() if value is not None}).id
    assert len({run.id for run in grid.runs}) == 2000
    with pytest.raises(SpecError, match=r"data\.standardise=1: expected true or false"):
        compose_grid(["data.standardise=true,1", "seed=0,1"])
    with pytest.raises(SpecError, match="seed=-1: expected an integer of at least 0"):
        compose_grid(["seed=0,1,-1"])


def test_duplicates_run_once_in_the_place_of_the_first() -> None:
    grid = compose_grid(["model.init=he,xavier,he_normal", "seed=0,0,1"])
    assert [(spec.model.init, spec.seed) for spec in grid.runs] == [
        ("he_normal", 0),
        ("he_normal", 1),
        ("xavier_normal", 0),
        ("xavier_normal", 1),
    ]
    assert grid.duplicates == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("4096", 4096),
        ("512MiB", 512 * 2**20),
        ("2GiB", 2**31),
        ("800MB", 800_000_000),
        ("1.5kib", 1536),
        ("null", None),
    ],
)
def test_memory_in_units(given: str, expected: int | None) -> None:
    assert compose_run([f"launch.memory={given}"]).launch.memory == expected


def test_a_label_may_hold_anything_printable() -> None:
    assert compose_run(["name='<script>${seed}</script>'", "seed=7"]).name == "<script>7</script>"


def test_the_base_is_what_all_runs_share() -> None:
    base = yaml.safe_load(compose_run(["model.width=16", "launch.memory=1KiB"]).base)
    shared = yaml.safe_load(spec_yaml(build({"model.width": 16})))
    outside = {"launch": base["launch"], "store": {"weights": False}, "diagnose": DEFAULTS}
    assert base == {"name": "run", **shared, **outside}
    assert base["launch"] == {"name": "local", "memory": 1024, "workers": None, "stacked": "auto", "streams": None}
    swept = yaml.safe_load(compose_grid(["model=mlp,linear_chain", "optim.lr=0.1,0.2", "seed=3"]).base)
    assert swept["seed"] == 3
    assert swept["model"] == {"depth": 10, "width": 64, "gain": 1.0}
    assert "lr" not in swept["optim"]
    assert swept["optim"]["momentum"] == 0.0


def test_the_yaml_of_a_spec_builds_it_again() -> None:
    spec = build({"model.name": "linear_chain", "optim.name": "rmsprop", "data.batch_size": "full"})
    read = yaml.safe_load(spec_yaml(spec))
    assert list(read) == ["seed", "model", "data", "optim", "clip", "train", "pretrain", "probe"]
    flat = {"seed": read.pop("seed")}
    flat |= {f"{section}.{key}": value for section, values in read.items() for key, value in values.items()}
    assert build(flat).id == spec.id


def test_a_label_is_short_and_printable() -> None:
    for wrong in ("name=null", "name=true", f"name={'a' * 101}"):
        with pytest.raises(SpecError, match="expected a label of 1 to 100 printable characters"):
            compose_run([wrong])
    assert compose_run(["name=5"]).name == "5"


def test_sections_nest_dotted_values() -> None:
    assert sections({"seed": 1, "model.depth": 2, "model.width": 3}) == {"seed": 1, "model": {"depth": 2, "width": 3}}


def test_a_setting_knows_the_group_that_it_chooses_from() -> None:
    assert Setting("clip.mode", "", ("norm",), False, "clip=norm").group == "clip"
    assert Setting("clip.threshold", "", (1.0,), False, "clip.threshold=1.0").group is None
    assert Setting("seed", "", (1,), False, "seed=1").group is None
