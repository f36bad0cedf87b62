"""A network of the user's own, trained by the engine, equals the same network in a plain loop with torch.optim."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab import measure
from gradlab.data import function
from gradlab.data.batches import batches
from gradlab.data.dataset import DataError, Dataset
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.called import answer, sow
from gradlab.engine.train import train
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec
from gradlab.store.record import Record, tidy
from gradlab.watching import observed
from tests.engine import networks

HERE = str(Path(networks.__file__))
STEPS = 12
BASE: dict[str, Value] = {
    "model.name": "module",
    "train.precision": "float64",
    "train.steps": STEPS,
    "probe.every": 5,
    "data.batch_size": 16,
    "optim.lr": 0.05,
}
WORDS: dict[str, Value] = {"data.name": "function", "data.target": f"{HERE}:words"}

MORE: dict[str, dict[str, Value]] = {
    "Mlp": {"model.args.depth": 4},
    "Words": WORDS,
    "TwoInputs": {**WORDS, "data.args.named": True},
}
"""What a network needs beside its name."""

NAMES = (
    *("Mlp", "Convolutional", "Residual", "Lstm", "Cells", "Transformer", "Tied", "Repeated", "Dropping", "Buffered"),
    *("Frozen", "Complex", "Functional", "Lazy", "Words", "TwoInputs"),
)
CASES: dict[str, dict[str, Value]] = {name: {"model.target": f"{HERE}:{name}", **MORE.get(name, {})} for name in NAMES}
TRAININGS: tuple[dict[str, Value], ...] = (
    {"optim.momentum": 0.9},
    {"optim.name": "adamw", "optim.lr": 0.01, "optim.eps": 1e-6, "clip.mode": "norm", "clip.threshold": 0.5},
)


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests name the code that runs."""
    monkeypatch.setattr(function, "_ALLOWED", [True])


def spec(values: Mapping[str, Value]) -> RunSpec:
    return described({**BASE, **values})


def trained(*runs: RunSpec) -> Record:
    return train(runs, load(runs[0].data), torch.device("cpu"), lambda _t, _d: None)


class Plain:
    """The same training as anybody writes it."""

    def __init__(self, run: RunSpec) -> None:
        self.run, self.data = run, load(run.data)
        torch.manual_seed(run.seed)
        kind = getattr(networks, str(run.model.target).rpartition(":")[2])
        self.module: nn.Module = kind(**dict(run.model.args))
        if any(isinstance(one, nn.UninitializedParameter) for one in self.module.parameters()):
            sow(run.seed, 0)
            self.module(torch.zeros(2, *run.facts.shape))
        self.module = double(self.module)
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.frames: dict[int, Any] = {}

    def batch(self, t: int) -> tuple[Any, Tensor]:
        chosen = batches(self.run.data, len(self.data.train_targets), STEPS + 1)[t]
        return taken(self.data.train_inputs, chosen), torch.from_numpy(self.data.train_targets[chosen])

    def train(self) -> None:
        learned = [one for one in self.module.parameters() if one.requires_grad]
        optim = self.run.optim
        if optim.name == "sgd":
            stepper: torch.optim.Optimizer = torch.optim.SGD(learned, optim.lr, optim.momentum)
        else:
            stepper = torch.optim.AdamW(learned, optim.lr, eps=optim.eps, weight_decay=optim.weight_decay)
        for t in range(STEPS + 1):
            inputs, targets = self.batch(t)
            if t % 5 == 0 or t == STEPS:
                sow(self.run.seed, t)
                self.frames[t] = measure(self.module, F.cross_entropy, (inputs, targets))
            sow(self.run.seed, t)
            loss = F.cross_entropy(answer(self.module, inputs), targets)
            stepper.zero_grad()
            loss.backward()
            self.losses.append(float(loss.detach()))
            squares = [one.grad.abs().square().sum() for one in learned if one.grad is not None]
            self.norms.append(float(torch.stack(squares).sum().sqrt()))
            if t == STEPS:
                break
            if self.run.clip.mode == "norm":
                nn.utils.clip_grad_norm_(learned, self.run.clip.threshold)
            stepper.step()


def double(module: nn.Module) -> nn.Module:
    """`module.double()` without what it does to complex numbers."""
    for one in module.parameters():
        one.data = one.data.to(torch.complex128 if one.is_complex() else torch.float64)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = buffer.double() if buffer.is_floating_point() else buffer
    return module.train()


def taken(inputs: Any, chosen: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: taken(one, chosen) for name, one in inputs.items()}
    return torch.from_numpy(inputs[chosen])


@pytest.mark.parametrize("more", TRAININGS, ids=["sgd", "adamw-clipped"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_lent_network_is_trained_as_a_plain_loop_trains_it(name: str, more: dict[str, Value]) -> None:
    run = spec({**CASES[name], **more})
    record, plain = trained(run), Plain(run)
    plain.train()
    np.testing.assert_allclose(record.loss[:, 0], plain.losses, rtol=1e-8)
    np.testing.assert_allclose(record.grad_norm[:, 0], plain.norms, rtol=1e-8)
    layers = tidy(record).layers.to_pandas()
    for t, frame in plain.frames.items():
        rows = layers[layers["step"] == t]
        assert rows["name"].tolist() == frame["name"].tolist()
        for column in ("grad_norm", "signal_grad_norm", "weight_norm", "act_std", "stage", "grad_rms"):
            found, wanted = rows[column].to_numpy(float), frame[column].to_numpy(float)
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("name", ["Convolutional", "Transformer", "Dropping", "Buffered"])
def test_a_member_is_the_same_alone_and_in_company(name: str) -> None:
    runs = [spec({**CASES[name], "seed": seed, "optim.lr": lr}) for seed, lr in ((0, 0.05), (1, 0.3), (0, 0.01))]
    together = trained(*runs)
    for member, run in enumerate(runs):
        alone = trained(run)
        np.testing.assert_array_equal(together.loss[:, member], alone.loss[:, 0])
        assert together.heldout_loss is not None
        assert alone.heldout_loss is not None
        assert together.heldout_loss[member] == alone.heldout_loss[0]


def test_running_statistics_and_accuracy_are_those_of_the_plain_network_in_evaluation() -> None:
    run = spec(CASES["Convolutional"])
    record, again = trained(run), Plain(run)
    # The last row is measured without touching running statistics.
    again_steps = [again.batch(t) for t in range(STEPS)]
    stepper = torch.optim.SGD(again.module.parameters(), run.optim.lr)
    for inputs, targets in again_steps:
        stepper.zero_grad()
        F.cross_entropy(again.module(inputs), targets).backward()
        stepper.step()
    again.module.eval()
    output = again.module(torch.from_numpy(again.data.heldout_inputs))
    targets = torch.from_numpy(again.data.heldout_targets)
    assert record.heldout_loss is not None
    assert record.accuracy is not None
    np.testing.assert_allclose(record.heldout_loss[0], float(F.cross_entropy(output, targets).detach()), rtol=1e-8)
    assert record.accuracy[0] == float((output.argmax(1) == targets).double().mean())


def test_what_is_put_out_under_names_is_judged_by_its_first_tensor() -> None:
    named, plain = (trained(spec({"model.target": f"{HERE}:{name}"})).loss[:, 0] for name in ("Naming", "Mlp"))
    np.testing.assert_array_equal(named, plain)


def test_sparse_gradients_train_as_dense_ones() -> None:
    dense, sparse = (
        trained(spec({**CASES["Words"], "model.args.sparse": sparse})).loss[:, 0] for sparse in (False, True)
    )
    np.testing.assert_allclose(sparse, dense, rtol=1e-12)


def test_a_member_that_diverges_leaves_the_others_alone() -> None:
    runs = [spec({**CASES["Repeated"], "optim.lr": lr}) for lr in (0.05, 1e200)]
    record = trained(*runs)
    assert record.diverged_at[0] == -1
    assert record.diverged_at[1] > 0
    np.testing.assert_array_equal(record.loss[:, 0], trained(runs[0]).loss[:, 0])


DRAWN: tuple[dict[str, Value], ...] = (
    {},
    {"model.init": "he_normal"},
    {"model.init": "he_normal", "model.gain": 2.0},
)


def test_weights_are_drawn_anew_where_that_is_asked() -> None:
    own, he, twice = (trained(spec({**CASES["Mlp"], "train.steps": 0, **more})).layers[0] for more in DRAWN)
    column = trained(spec({**CASES["Mlp"], "train.steps": 0})).columns.index("weight_norm")
    norms = he.values[column, 0, 1:]
    fans = [(64, 8), (8, 8), (8, 8), (8, 10)]
    np.testing.assert_allclose(norms, [np.sqrt(2 * fan_out) for _, fan_out in fans], rtol=0.5)
    np.testing.assert_allclose(twice.values[column, 0, 1:], 2 * norms, rtol=1e-12)
    assert not np.allclose(own.values[column, 0, 1:], norms, rtol=0.05)


def test_activations_are_replaced_where_that_is_asked() -> None:
    run = spec({**CASES["Dropping"], "model.activation": "tanh", "train.steps": 0})
    layers = tidy(trained(run)).layers.to_pandas()
    assert layers["saturated"].notna().any()
    with pytest.raises(DataError, match=r"has no activation that is a module"):
        trained(spec({**CASES["Mlp"], "model.activation": "relu"}))


def test_the_ids_of_two_arguments_and_of_two_sources_differ(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef net(width=8):\n    return nn.Linear(64, 10)\n")
    values: dict[str, Value] = {**BASE, "model.target": f"{file}:net"}
    first = described(values)
    assert described({**values, "model.args.width": 8}).id != first.id
    assert (
        described({**values, "model.args.width": 8, "model.args.b": 1}).id
        == described({**values, "model.args.b": 1, "model.args.width": 8}).id
    )
    file.write_text(file.read_text() + "# another\n")
    assert described(values).id != first.id


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.target": f"{HERE}:Nett"}, r"has no 'Nett'"),
        ({"model.target": f"{HERE}:Mpl"}, r"did you mean 'Mlp'\?"),
        ({"model.target": "nowhere.py:Net"}, r"no file nowhere\.py"),
        ({"model.target": "nopackage.Net"}, r"no module 'nopackage'"),
        ({"model.target": f"{HERE}:not_a_module"}, r"returned a list; expected a torch\.nn\.Module"),
        (
            {"model.target": f"{HERE}:Mlp", "model.args.deep": 3},
            r"has no argument 'deep'; did you mean 'depth'\?; it takes: ",
        ),
        (
            {"model.target": f"{HERE}:Naming", "model.args.classes": 9},
            r"puts out 9 numbers a sample, and .* have 10 classes",
        ),
        ({"model.target": f"{HERE}:MADE"}, r"is a Mlp that was made already; expected the class"),
        ({"model.target": f"{HERE}:Still"}, r"has no parameter that requires a gradient"),
        ({"model.name": "mlp", "model.depth": 3, **WORDS, "data.args.named": True}, r"it holds several inputs; 'mlp'"),
        ({"model.target": f"{HERE}:Lazy", **WORDS}, r"fails on a batch with inputs of \(16, 5\): Runtime"),
        ({"model.target": f"{HERE}:Words"}, r"fails on a batch with inputs of \(16, 8, 8\)"),
        ({"model.target": f"{HERE}:Mlp", "data.name": "function", "data.target": f"{HERE}:unequal"}, r"4 inputs and 3"),
    ],
)
def test_what_cannot_be_lent_is_refused_in_a_line(values: dict[str, Value], message: str) -> None:
    with pytest.raises((DataError, SpecError), match=message) as refused:
        trained(spec(values))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"expected model\.target=path/to/file\.py:Name"),
        ({"model.target": "nets"}, r"model\.target=nets: expected path/to/file\.py:Name"),
        ({"model.target": f"{HERE}:Mlp", "model.depth": 3}, r"has no key 'model\.depth'"),
        ({"model.name": "mlp", "model.args.depth": 3}, r"takes no arguments of its own names"),
        ({"model.name": "mlp", "model.init": "own"}, r"only model=module has something of its own"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(values: dict[str, Value], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec(values)


def test_data_of_a_stored_run_are_not_made_where_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = spec({**CASES["Words"]})
    monkeypatch.setattr(function, "_ALLOWED", [])
    stored = described({key: value for key, value in run.flat().items() if value is not None})
    assert stored.id == run.id
    assert stored.facts.heldout == 0  # nobody looked


def test_several_inputs_are_one_data_set() -> None:
    found: Dataset = load(spec(CASES["TwoInputs"]).data)
    assert set(found.train_inputs) == {"words", "numbers"}


def test_an_instrument_of_parameters_alone_is_of_networks_of_one_s_own_too() -> None:
    # Pixels that are zero on every sample leave the weights by them where they began.
    run = spec({**CASES["Mlp"], "data.standardise": False, "probe.instrument": "weight_motion"})
    plain = Plain(run)
    begun = {name: one.detach().clone() for name, one in plain.module.named_parameters()}
    plain.train()
    still = {name: float((one == begun[name]).double().mean()) for name, one in plain.module.named_parameters()}
    last = trained(run).readings[-1]
    assert (last.step, last.index) == (STEPS, (1, 2, 3, 4))
    np.testing.assert_array_equal(last.values[0], [still[f"layers.{number}.weight"] for number in range(4)])
    assert 0 < last.values[0, 0] < 1
    frozen = trained(spec({**CASES["Frozen"], "probe.instrument": "weight_motion"}))
    assert frozen.readings[0].index == (2,)
    with pytest.raises(SpecError, match="is yours; of any network: weight_motion"):
        spec({**CASES["Mlp"], "probe.instrument": "number_range"})


def test_the_layer_that_breaks_first_is_named() -> None:
    record = trained(spec({**CASES["Repeated"], "optim.lr": 1e200}))
    assert record.diverged_at[0] > 0
    assert record.diverged_layer[0] == 1


def test_a_fault_of_ours_is_not_told_as_the_network_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of gradlab's own")

    monkeypatch.setattr(observed, "depth_rows", broken)
    with pytest.raises(ZeroDivisionError, match=r"of gradlab's own"):
        trained(spec(CASES["Mlp"]))
