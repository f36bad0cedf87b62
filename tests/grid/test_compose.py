"""Overrides become the grid: Hydra's grammar, groups, experiments, the search path, and one line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from gradlab.expect.form import parse
from gradlab.grid.compose import compose_grid, compose_run, experiments
from gradlab.spec.choices import ACTIVATIONS, CLIPS, MODELS, NORMS, OPTIMIZERS
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.cases import BAD_RUNS, BAD_SWEEPS

EXPERIMENTS = Path(__file__).resolve().parents[2] / "configs" / "experiment"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config into a folder whose name needs quotes, and returns the folder."""
    folder = tmp_path / "my 'own', configs"

    def written(name: str, text: str) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return folder

    return written


def run(*overrides: str, **options: object) -> RunSpec:
    (spec,) = compose_run(overrides, **options).runs  # type: ignore[arg-type]
    return spec


def column(key: str, *overrides: str, **options: object) -> list[Value]:
    """The values of ``key`` over the runs of a sweep, in order."""
    return [spec.flat()[key] for spec in compose_grid(overrides, **options).runs]  # type: ignore[arg-type]


def refused(*overrides: str, **options: object) -> str:
    with pytest.raises(SpecError) as caught:
        compose_grid(overrides, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_override_is_the_defaults_of_the_spec() -> None:
    assert run() == build({})
    assert run().id == build({}).id


@pytest.mark.parametrize(("overrides", "fragment"), BAD_RUNS)
def test_a_wrong_run_has_one_line(overrides: tuple[str, ...], fragment: str) -> None:
    with pytest.raises(SpecError) as caught:
        compose_run(overrides)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("overrides", "fragment"), BAD_SWEEPS)
def test_a_wrong_sweep_has_one_line(overrides: tuple[str, ...], fragment: str) -> None:
    assert fragment in refused(*overrides)


def test_the_table_of_wrong_command_lines_is_long() -> None:
    assert len({overrides for overrides, _ in (*BAD_RUNS, *BAD_SWEEPS)}) >= 100


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("seed=3,1,2", "seed", [3, 1, 2]),
        ("seed=range(3)", "seed", [0, 1, 2]),
        ("seed=range(1,8,3)", "seed", [1, 4, 7]),
        ("seed=range(3,0,-1)", "seed", [3, 2, 1]),
        ("optim.lr=range(0.5,2,0.5)", "optim.lr", [0.5, 1.0, 1.5]),
        ("seed=choice(5,4)", "seed", [5, 4]),
        ("seed=choice(5)", "seed", [5]),
        ("seed=tag(slow,choice(5,4))", "seed", [5, 4]),
        ("seed=sort(3,1,2)", "seed", [1, 2, 3]),
        ("seed=sort(range(3),reverse=true)", "seed", [2, 1, 0]),
        ("optim.lr=float(1,2)", "optim.lr", [1.0, 2.0]),
        ("optim.lr=1e-3,.5,1_000", "optim.lr", [0.001, 0.5, 1000.0]),
        ("model.depth=int(choice(2,3))", "model.depth", [2, 3]),
        ("data.batch_size=8,full", "data.batch_size", [8, 1437]),
        ("data.standardise=true,False", "data.standardise", [True, False]),
        ("model.weight_var=null,2", "model.weight_var", [None, 2.0]),
        ("model.init=he,'xavier'", "model.init", ["he_normal", "xavier_normal"]),
        ("++seed=1,2", "seed", [1, 2]),
        ("+model.weight_var=1,2", "model.weight_var", [1.0, 2.0]),
        ("model.activation=glob(*)", "model.activation", sorted(ACTIVATIONS)),
        ("model.activation=glob(s*)", "model.activation", ["selu", "sigmoid", "silu", "softplus"]),
        ("model.activation=glob([s*,t*],exclude=se*)", "model.activation", ["sigmoid", "silu", "softplus", "tanh"]),
        ("model.norm=glob(*,exclude=instance)", "model.norm", sorted({*NORMS} - {"instance"})),
        ("optim=glob(adam*)", "optim.name", ["adam", "adamax", "adamw"]),
        ("optim.name=glob(*)", "optim.name", sorted(OPTIMIZERS)),
        ("clip=glob(*)", "clip.mode", sorted(CLIPS)),
        ("model.name=mlp,residual_mlp", "model.name", ["mlp", "residual_mlp"]),
        ("train.precision=glob(float*)", "train.precision", ["float16", "float32", "float64"]),
    ],
)
def test_the_sweep_grammar(override: str, key: str, values: list[Value]) -> None:
    assert column(key, override) == values
    assert compose_grid([override]).swept == (key,)


def test_shuffle_keeps_the_values() -> None:
    assert sorted(map(int, map(str, column("seed", "seed=shuffle(range(20))")))) == list(range(20))


def test_values_of_a_run() -> None:
    spec = run("model.depth=3", "++optim.lr=0.5", "+model.weight_var=2", "data.batch_size=full", "model.init=he")
    assert (spec.model.depth, spec.optim.lr, spec.model.weight_var) == (3, 0.5, 2.0)
    assert (spec.data.batch_size, spec.model.init) == (1437, "he_normal")


@pytest.mark.parametrize("name", sorted(name for name, entry in MODELS.items() if not entry.free))
def test_a_name_is_its_group(name: str) -> None:
    assert run(f"model={name}").id == run(f"model.name={name}").id == build({"model.name": name}).id


def test_values_stay_when_a_group_is_chosen_by_its_name() -> None:
    spec = run("clip.threshold=0.25", "clip.mode=norm", "optim.lr=0.5", "optim.name=adamw")
    assert (spec.clip.mode, spec.clip.threshold) == ("norm", 0.25)
    assert (spec.optim.lr, spec.optim.weight_decay) == (0.5, 0.01)


def test_removing_an_optional_key_gives_its_default() -> None:
    assert run("~model.weight_var", "~launch.memory", "~experiment") == build({})
    assert run("data=gaussian_mixture", "~data.features=64").data.features == 64
    assert run("data=mnist", "~data.root").data.root is None


def test_a_chain_brings_its_data_unless_told_otherwise() -> None:
    assert run("model=linear_chain").data.name == "linear_teacher"
    assert column("data.name", "model.name=mlp,linear_chain,rnn") == ["digits", "linear_teacher", "digits"]
    assert column("data.name", "model=mlp,linear_chain", "data=linear_teacher") == ["linear_teacher"] * 2
    assert "linear_chain" in refused("model=mlp,linear_chain", "data=digits")


def test_what_was_given() -> None:
    grid = compose_run(["model=rnn", "seed=4", "name=here", "launch.workers=2"])
    assert grid.given == {"model.name", "seed", "name", "launch.workers"}
    assert (grid.name, grid.launch.workers, grid.launch.memory) == ("here", 2, None)
    assert grid.overrides == ("model=rnn", "seed=4", "name=here", "launch.workers=2")
    assert (grid.swept, grid.experiment, grid.duplicates) == ((), None, 0)


def test_interpolations_follow_the_values() -> None:
    assert run("model.width=${data.batch_size}", "data.batch_size=32").model.width == 32
    assert column("model.width", "model.width=${model.depth}", "model.depth=4,5") == [4, 5]


def test_hydra_is_left_as_it_was() -> None:
    compose_grid(["seed=1,2"])
    assert not GlobalHydra.instance().is_initialized()


# The search path


def test_a_config_folder_adds_choices(write: Write) -> None:
    folder = write("model/mywide.yaml", "name: mlp\nwidth: 512\n")
    assert run("model=mywide", config_dirs=[folder]) == build({"model.width": 512})
    grid = compose_grid(["model=mlp,mywide", "seed=0,1"], config_dirs=[folder])
    assert [spec.model.width for spec in grid.runs] == [64, 64, 512, 512]
    assert grid.swept == ("model.width", "seed")
    assert column("model.width", "model=glob(m*)", config_dirs=[folder]) == [64, 512]
    assert "mywide" in refused("model=nowhere", config_dirs=[folder])


def test_a_relative_config_folder(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("model/mywide.yaml", "name: mlp\nwidth: 512\n")
    monkeypatch.chdir(folder.parent)
    assert run("model=mywide", config_dirs=[Path(folder.name)]).model.width == 512


def test_the_shipped_choices_cannot_be_replaced(write: Write) -> None:
    folder = write("model/mlp.yaml", "name: mlp\nwidth: 512\n")
    assert run("model=mlp", config_dirs=[folder]).model.width == 64


def test_a_folder_of_its_own_data_for_a_chain(write: Write) -> None:
    folder = write("model/chain.yaml", "name: linear_chain\nwidth: 3\n")
    assert run("model=chain", config_dirs=[folder]).data.name == "linear_teacher"


def test_a_choice_that_reaches_beyond_its_section(write: Write) -> None:
    folder = write("clip/short.yaml", "# @package _global_\nclip: {mode: norm}\ntrain: {steps: 3}\nprobe: {every: 1}\n")
    folder = write("optim/also.yaml", "# @package _global_\noptim: {name: adam}\nprobe: {every: 2}\n")
    grid = compose_grid(["optim=sgd,also", "clip=none,short"], config_dirs=[folder])
    assert [(spec.optim.name, spec.clip.mode, spec.train.steps, spec.probe.every) for spec in grid.runs] == [
        ("sgd", "none", 200, 10),
        ("sgd", "norm", 3, 1),
        ("adam", "none", 200, 2),
        ("adam", "norm", 3, 1),
    ]


def test_interpolations_in_a_file(write: Write) -> None:
    folder = write("model/square.yaml", "name: mlp\nwidth: ${data.batch_size}\n")
    assert column("model.width", "model=square", "data.batch_size=8,16", config_dirs=[folder]) == [8, 16]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("name: [mlp\n", "cannot compose model=mine"),
        ("5\n", "cannot compose model=mine"),
        ("- 1\n", "a list"),
        ("", "does not give model.name"),
        ("width: 3\n", "does not give model.name"),
        ("name: nlp\n", "unknown model 'nlp'; did you mean 'mlp'?"),
        ("name: mlp\nwidht: 3\n", "did you mean 'model.width'?"),
        ("name: mlp\nwidth: [1, 2]\n", "model.width: expected one value"),
        ("name: mlp\nwidth: ???\n", "model.width=???"),
        ("name: mlp\nwidth: ${no.where}\n", "no.where"),
        ("name: mlp\nwidth: ${open\n", "cannot compose model=mine"),
        ("defaults: 5\nname: mlp\n", "defaults must be a list"),
        ("defaults: [nowhere]\nname: mlp\n", "nowhere"),
    ],
)
def test_a_wrong_file(write: Write, text: str, fragment: str) -> None:
    folder = write("model/mine.yaml", text)
    assert fragment in refused("model=mine", "seed=1,2", config_dirs=[folder])


def test_a_config_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "no such folder" in refused("seed=1,2", config_dirs=[tmp_path / "nowhere"])
    assert "no such folder" in refused("seed=1,2", config_dirs=[tmp_path / "file"])


# Experiments


@pytest.mark.parametrize("name", sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
def test_every_experiment_composes(name: str) -> None:
    grid = compose_grid([], experiment=name)
    assert grid.name == grid.experiment == name
    # Chrono initialisation takes the place of a forget bias: with it two of them are one run.
    assert grid.duplicates == 0 or name == "lstm-forget-bias"
    assert 1 < len(grid.runs) <= 432
    # That its grid has the settings which it expects something of is checked on the way; a reader needs the words.
    found = parse(list(grid.expect))
    assert len({entry.what for entry in found}) == len(found)
    assert all(len(entry.what) <= 80 for entry in found)


def test_an_experiment_is_named_in_either_way() -> None:
    grid = compose_grid([], experiment="scalar-chain")
    assert compose_grid(["+experiment=scalar-chain"]).runs == grid.runs
    assert compose_grid(["experiment=scalar-chain"]).runs == grid.runs


def test_every_experiment_says_what_it_asks_and_where_it_comes_from() -> None:
    records = experiments()
    assert len(records) >= 6
    for record in records:
        assert record.question.endswith("?")
        assert record.source
        assert record.axes


def test_the_reference_grid_is_the_one_of_the_overrides() -> None:
    overrides = [
        "model.depth=5,10,20",
        "model.activation=sigmoid,tanh,relu,leaky_relu",
        "model.init=xavier,he",
        "model.norm=none,batch,layer",
        "optim.lr=0.01,0.1",
        "clip.mode=none,norm,value",
    ]
    grid = compose_grid(overrides)
    assert len(grid.runs) == 432
    assert compose_grid([], experiment="reference-grid").runs == grid.runs
    assert grid.swept == ("model.depth", "model.activation", "model.init", "model.norm", "optim.lr", "clip.mode")


EXPERIMENT = """# @package _global_
defaults:
  - override /model: residual_mlp

experiment:
  question: Does it?
  source: a book

model:
  width: 8
axes:
  seed: range(2)
  optim: [sgd, adam]
  model.depth: [3]
"""


def test_an_experiment_of_ones_own(write: Write) -> None:
    folder = write("experiment/mine.yaml", EXPERIMENT)
    grid = compose_grid([], experiment="mine", config_dirs=[folder])
    assert grid.swept == ("seed", "optim.name", "model.depth")
    assert [(spec.seed, spec.optim.name) for spec in grid.runs] == [(0, "sgd"), (0, "adam"), (1, "sgd"), (1, "adam")]
    assert {(spec.model.name, spec.model.width, spec.model.depth) for spec in grid.runs} == {("residual_mlp", 8, 3)}
    assert grid.given == {"model.name", "model.width", "seed", "optim.name", "model.depth"}
    (record,) = [record for record in experiments([folder]) if record.name == "mine"]
    assert (record.question, record.source) == ("Does it?", "a book")
    assert record.axes[0] == ("seed", "range(2)")


def test_overrides_replace_axes_and_go_on_top(write: Write) -> None:
    folder = write("experiment/mine.yaml", EXPERIMENT)
    overrides = ["model.width=16", "clip.mode=none,norm", "optim.name=adamw", "model.depth=4,5"]
    grid = compose_grid(overrides, experiment="mine", config_dirs=[folder])
    assert grid.swept == ("seed", "model.depth", "clip.mode")
    assert [(s.seed, s.model.depth, s.clip.mode) for s in grid.runs[:3]] == [
        (0, 4, "none"),
        (0, 4, "norm"),
        (0, 5, "none"),
    ]
    assert {(spec.model.width, spec.optim.name) for spec in grid.runs} == {(16, "adamw")}
    assert compose_grid(["model=mlp"], experiment="mine", config_dirs=[folder]).runs[0].model.name == "mlp"


def test_an_experiment_whose_axes_are_all_given_is_one_run(write: Write) -> None:
    folder = write("experiment/mine.yaml", EXPERIMENT)
    given = ["seed=1", "optim=adam", "model.depth=4"]
    assert compose_run(given, experiment="mine", config_dirs=[folder]).runs[0].model.width == 8
    assert "nothing is swept" in refused(*given, experiment="mine", config_dirs=[folder])
    with pytest.raises(SpecError, match=r"experiment 'mine' sweeps model\.depth: gradlab sweep -e mine"):
        compose_run(given[:2], experiment="mine", config_dirs=[folder])


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("axes: {seed: '1,2'}\n", "# @package _global_"),
        ("# @package _global_\naxes: [1]\n", "expected axes to be a mapping"),
        ("# @package _global_\naxes: {seed: 5}\n", "axis seed=5: expected a sweep"),
        ("# @package _global_\naxes: {sed: '1,2'}\n", "experiment 'mine': unknown key 'sed'"),
        ("# @package _global_\nexpects: []\naxes: {seed: '1,2'}\n", "unknown section 'expects'; did you mean 'expect'"),
        ("# @package _global_\naxes: {+seed: '1,2'}\n", "axis +seed=1,2"),
        ("# @package _global_\naxes: {optim: 'sgd,adam', optim.name: 'sgd,adam'}\n", "given twice"),
        ("# @package _global_\nmodel: {name: rnn}\n", "override /model"),
        ("# @package _global_\nmodel: {dept: 3}\naxes: {seed: '1,2'}\n", "did you mean 'model.depth'?"),
        ("# @package _global_\ndefaults:\n  - override /model: nowhere\n", "model/nowhere"),
        ("# @package _global_\naxes: {seed: '1,'}\n", "cannot read"),
        ("# @package _global_\nreport: {z: seed}\naxes: {seed: '1,2'}\n", "report: unknown key 'z'; expected x and y"),
        ("# @package _global_\nreport: {x: sed}\naxes: {seed: '1,2'}\n", "report: x: unknown key 'sed'"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_wrong_experiment(write: Write, text: str, fragment: str) -> None:
    assert fragment in refused(experiment="mine", config_dirs=[write("experiment/mine.yaml", text)])


def test_an_experiment_is_chosen_once() -> None:
    assert "given twice: -e optimizers and +experiment=optimizers" in refused(
        "+experiment=optimizers", experiment="optimizers"
    )
    assert "did you mean 'optimizers'?" in refused(experiment="optimisers")
