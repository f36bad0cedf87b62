"""Every instrument against a dense oracle in float64: autograd on plain torch.nn networks, closed forms, numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.batches import batches
from gradlab.engine.instruments import INSTRUMENTS, bench
from gradlab.engine.train import train
from gradlab.spec.choices import INSTRUMENTS as NAMED
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.record import Tables, tidy
from tests.members import content, measured
from tests.models.attending import Written
from tests.oracles import PHI, Plain

Curves = dict[tuple[int, str], NDArray[np.float64]]
"""By step and quantity the values, in the order of their index."""

BASE: dict[str, Value] = {"train.precision": "float64", "train.steps": 0, "model.width": 7, "model.bias_var": 0.3}
RNN: dict[str, Value] = {**BASE, "model.name": "rnn", "model.depth": 1, "model.activation": "tanh", "data.length": 6}
CHAIN: dict[str, Value] = {
    "model.name": "linear_chain",
    "model.depth": 2,
    "model.width": 4,
    "model.gain": 0.1,
    "data.name": "spectral_teacher",
    "train.precision": "float64",
}
ATTENTION: dict[str, Value] = {
    "model.name": "transformer",
    "model.depth": 2,
    "model.width": 8,
    "model.heads": 2,
    "train.precision": "float64",
}
FITTING: dict[str, dict[str, Value]] = {
    "none": {},
    "jacobian_spectrum": {**BASE, "model.depth": 3},
    "hidden_jacobian": {**BASE, "model.depth": 3},
    "gradient_log": {**BASE, "model.depth": 3},
    "gradient_noise": {**BASE, "model.depth": 3},
    "jacobian_covariance": {**BASE, "model.depth": 3},
    "input_autocorrelation": {**BASE, "data.name": "interval", "model.depth": 3},
    "recurrent_jacobian": {**RNN, "data.name": "adding"},
    "input_correlation": {**BASE, "model.depth": 3},
    "token_similarity": {**ATTENTION, "data.name": "digits"},
    "tangent_kernel": {**BASE, "model.depth": 3},
    "number_range": {**BASE, "model.depth": 3},
    "coordinates": {**BASE, "model.depth": 3},
    "sharpness": {**BASE, "model.depth": 3},
    "weight_motion": {**BASE, "model.depth": 3},
    "twin_distance": {**BASE, "model.depth": 3},
    "loss_plane": {**RNN, "model.width": 1, "data.name": "silence"},
    "mode_strength": CHAIN,
}
"""Settings that each instrument can be used on."""


def tables(*settings: Mapping[str, Value]) -> Tables:
    runs = [build(values) for values in settings]
    return tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))


def read(*settings: Mapping[str, Value]) -> list[Curves]:
    """What the instrument of one cohort gave, a member each."""
    found: dict[str, dict[tuple[int, str], list[float]]] = {build(values).id: {} for values in settings}
    for row in tables(*settings).instruments.to_pylist():
        found[row["run_id"]].setdefault((row["step"], row["quantity"]), []).append(row["value"])
    return [{key: np.array(values) for key, values in own.items()} for own in found.values()]


def first_sample(run: RunSpec) -> Tensor:
    """The first sample of batch 0 (1, *shape), scaled."""
    data = content(run.data)
    chosen = batches(run.data, len(data.train_inputs), 1)[0][:1]
    return torch.from_numpy(data.train_inputs[chosen]) * run.data.input_scale


def with_instrument(name: str, **more: Value) -> dict[str, Value]:
    given = {key.replace("__", "."): value for key, value in more.items()}
    return {**FITTING[name], "probe.instrument": name, **given}


def test_the_functions_are_those_of_the_named_choices() -> None:
    assert list(INSTRUMENTS) == list(NAMED) == list(FITTING)


@pytest.mark.parametrize("name", NAMED)
def test_an_instrument_gives_what_its_choice_says(name: str) -> None:
    steps: Value = 0 if name == "loss_plane" else 2
    found = read(with_instrument(name, train__steps=steps, probe__every=1))[0]
    assert {quantity for _, quantity in found} == set(NAMED[name].gives)
    assert {step for step, _ in found} == (set() if name == "none" else set(range(int(steps or 0) + 1)))


@pytest.mark.parametrize(
    "settings",
    [
        {"model.depth": 4, "model.activation": "tanh"},
        {"model.depth": 4, "model.activation": "prelu", "model.norm": "layer", "data.input_scale": 3.0},
        {"model.depth": 4, "model.name": "residual_mlp", "model.norm": "rms", "model.activation": "gelu"},
        {"model.depth": 2, "model.name": "rnn", "model.activation": "silu"},
        {"model.depth": 3, "model.activation": "relu", "data.name": "linear_teacher", "data.features": 5},
    ],
)
def test_the_jacobian_is_autograds(settings: Mapping[str, Value]) -> None:
    wanted = [{**BASE, **settings, "probe.instrument": "jacobian_spectrum", "seed": seed} for seed in (0, 1)]
    for values, found in zip(wanted, read(*wanted), strict=True):
        run = build(values)
        network = Plain(run)
        dense = torch.func.jacrev(lambda x, network=network: network(x.unsqueeze(0))[-1].z[0][0])(first_sample(run)[0])
        s = np.linalg.svd(dense.detach().numpy().reshape(run.facts.outputs, -1), compute_uv=False)
        np.testing.assert_allclose(found[0, "singular_value"], s, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[0, "spread"], [np.var(s**2) / np.mean(s**2) ** 2], rtol=1e-9)
        np.testing.assert_allclose(found[0, "mean_square"], [np.mean(s**2)], rtol=1e-9)


def test_the_jacobian_of_a_chain_is_a_power_of_one_number() -> None:
    chain = {**CHAIN, "model.depth": 5, "train.steps": 0, "model.gain": 1.5, "probe.instrument": "jacobian_spectrum"}
    (found,) = read(chain)
    np.testing.assert_allclose(found[0, "singular_value"], 1.5**5, rtol=1e-12)
    np.testing.assert_allclose(found[0, "spread"], 0, atol=1e-15)


def test_the_spread_needs_no_squares_that_underflow() -> None:
    (found,) = read({**CHAIN, "model.gain": 1e-80, "model.depth": 3, "probe.instrument": "jacobian_spectrum"})
    np.testing.assert_allclose(found[0, "spread"], 0, atol=1e-15)


@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "rnn"])
def test_the_logarithm_of_the_gradient_is_autograds(model: str) -> None:
    run = build({**BASE, "model.name": model, "model.depth": 2, "probe.instrument": "gradient_log", "seed": 3})
    x = first_sample(run).requires_grad_()
    seen = Plain(run)(x)
    layers = [[x], *(layer.z for layer in seen)]
    flat = [z for zs in layers for z in zs]
    grads = iter(torch.autograd.grad(seen[-1].z[0][0, 0], flat))
    squares = [sum(float(next(grads).square().sum()) for _ in zs) for zs in layers]
    (found,) = read({**BASE, "model.name": model, "model.depth": 2, "probe.instrument": "gradient_log", "seed": 3})
    np.testing.assert_allclose(found[0, "log_square"], np.log(squares), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_score_of_a_batch_is_that_of_its_jacobians_correlations(norm: str) -> None:
    values = with_instrument("jacobian_covariance", model__norm=norm, model__activation="tanh", data__batch_size=9)
    run = build(values)
    data = content(run.data)
    x = torch.from_numpy(data.train_inputs[batches(run.data, len(data.train_inputs), 1)[0]]).requires_grad_()
    (slope,) = torch.autograd.grad(Plain(run)(x)[-1].z[0].sum(), x)
    correlations = np.corrcoef(slope.flatten(1).numpy())
    s = np.linalg.eigvalsh(correlations) + 1e-5
    (found,) = read(values)
    np.testing.assert_allclose(found[0, "jacobian_score"], [-np.sum(np.log(s) + 1 / s)], rtol=1e-8)
    np.testing.assert_allclose(found[0, "jacobian_correlation"], [(correlations.sum() - 9) / 72], rtol=1e-9, atol=1e-12)


def statistics_frozen(network: Plain, grid: Tensor) -> None:
    """Sets batch norm's running statistics to those of ``grid``, layer by layer, and stops using the batch's."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm1d)
        assert module.running_mean is not None
        assert module.running_var is not None
        module.running_mean.copy_(inputs[0].detach().mean(0))
        module.running_var.copy_(inputs[0].detach().var(0, correction=0))

    hooks = [module.register_forward_pre_hook(keep) for module in norms]
    network.eval()
    network(grid)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(("model", "norm"), [("mlp", "none"), ("mlp", "batch"), ("residual_mlp", "batch")])
def test_the_autocorrelation_is_that_of_autograds_slopes(model: str, norm: str) -> None:
    values = with_instrument("input_autocorrelation", model__name=model, model__norm=norm, model__activation="tanh")
    run = build(values)
    grid = torch.from_numpy(content(run.data).train_inputs)
    network = Plain(run)
    statistics_frozen(network, grid)
    x = grid.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[-1].z[0].sum(), x)
    g = slope[:, 0].numpy()
    centred = g - g.mean()
    wanted = [float(centred[: len(g) - lag] @ centred[lag:]) / float(centred @ centred) for lag in range(21)]
    (found,) = read(values)
    np.testing.assert_allclose(found[0, "input_gradient"], g, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[0, "autocorrelation"], wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "leaky_relu", "linear"])
def test_the_recurrent_jacobian_is_autograds_and_below_its_bound(activation: str) -> None:
    values = with_instrument("recurrent_jacobian", model__activation=activation, model__gain=1.4, seed=2)
    run = build(values)
    network, x = Plain(run), first_sample(run)
    stage = network.layers[0]
    states = network(x)[0].h

    def onward(h: Tensor, since: int) -> Tensor:
        for t in range(since, len(states)):
            assert stage.recurrent is not None
            h = stage.activate(stage.linear(x[0, t]) + stage.recurrent(h))
        return h

    lags = range(1, len(states))
    dense = [torch.func.jacrev(onward)(states[-1 - lag][0].detach(), len(states) - lag) for lag in lags]
    (found,) = read(values)
    norms = [torch.linalg.matrix_norm(matrix, 2).item() for matrix in dense]
    np.testing.assert_allclose(found[0, "jacobian_norm"], norms, rtol=1e-9)
    assert stage.recurrent is not None
    rho = torch.linalg.matrix_norm(stage.recurrent.weight, 2).item()
    gamma = 0.25 if activation == "sigmoid" else 1.0
    np.testing.assert_allclose(found[0, "bound"], [(gamma * rho) ** lag for lag in lags], rtol=1e-9)
    assert (found[0, "jacobian_norm"] <= found[0, "bound"] * (1 + 1e-12)).all()


@pytest.mark.parametrize("model", ["mlp", "residual_mlp", "rnn"])
def test_the_correlation_is_the_cosine_of_pairs(model: str) -> None:
    values = with_instrument("input_correlation", model__name=model, model__depth=2, model__activation="tanh")
    run = build(values)
    x = torch.from_numpy(content(run.data).train_inputs[:64])
    layers = [x, *(layer.z[-1] for layer in Plain(run)(x))]
    wanted = []
    for layer in layers:
        rows = layer.detach().numpy().reshape(64, -1)
        wanted.append(np.mean([a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(rows[::2], rows[1::2], strict=True)]))
    (found,) = read(values)
    np.testing.assert_allclose(found[0, "correlation"], wanted, rtol=1e-9)


def test_tokens_are_compared_with_their_mean_and_with_each_other() -> None:
    values = with_instrument("token_similarity", model__skip=False, model__norm_place="post")
    run = build(values)
    (found,) = read(values)
    inputs = torch.from_numpy(content(run.data).train_inputs[:16])
    streams = [seen.z[0].detach().numpy() for seen in Written(run)(inputs)]
    distances, cosines = [], []
    for x in streams[:-1]:
        distances.append(np.mean([np.linalg.norm(one - one.mean(0)) / np.linalg.norm(one) for one in x]))
        pairs = [(a, b) for one in x for place, a in enumerate(one) for b in one[:place]]
        cosines.append(np.mean([a @ b / np.sqrt(a @ a * (b @ b)) for a, b in pairs]))
    np.testing.assert_allclose(found[0, "token_distance"], distances, rtol=1e-9)
    np.testing.assert_allclose(found[0, "token_cosine"], cosines, rtol=1e-9)


@pytest.mark.parametrize("name", ["input_correlation", "gradient_log", "token_similarity"])
def test_tokens_are_an_input_as_others(name: str) -> None:
    settings = ATTENTION | {"data.length": 4, "train.steps": 0, "probe.instrument": name}
    assert all(np.isfinite(curve).all() for curve in read(settings)[0].values())


def test_the_tangent_kernel_is_that_of_autograds_derivatives_by_all_parameters() -> None:
    run = build(with_instrument("tangent_kernel", model__activation="tanh", data__batch_size=8))
    found = read(with_instrument("tangent_kernel", model__activation="tanh", data__batch_size=8))[0]
    network = Plain(run)
    rows = []
    for sample in torch.from_numpy(content(run.data).train_inputs[:32]):
        output = network(sample[None])[-1].z[-1][0, 0]
        layers = [[*stage.parameters()] for stage in network.layers]
        rows.append(
            [torch.cat([g.flatten() for g in torch.autograd.grad(output, own, retain_graph=True)]) for own in layers]
        )
    kernels = [torch.stack([row[layer] for row in rows]) for layer in range(3)]
    kernels = [rows @ rows.T for rows in kernels]
    own = np.array([float(one.diagonal().mean()) for one in kernels])
    both = np.array([float(one.sum() - one.diagonal().sum()) / (32 * 31) for one in kernels])
    assert found[0, "layer_ratio"] == pytest.approx(both / own, rel=1e-10)
    assert found[0, "kernel_ratio"] == pytest.approx(both.sum() / own.sum(), rel=1e-10)


WIDE: dict[str, dict[str, Value]] = {
    "ReLU": {},
    "tanh, critical": {"model.activation": "tanh", "model.weight_var": 1.761, "model.bias_var": 0.05},
    "GELU": {"model.activation": "gelu", "model.init": "xavier"},
}


@pytest.mark.parametrize("settings", WIDE.values(), ids=WIDE)
def test_the_tangent_kernel_of_wide_layers_is_what_theory_says(settings: dict[str, Value]) -> None:
    """Of pairs of digits as they are, whose lengths differ; means over eight seeds."""
    wide = {"model.width": 256, "model.depth": 12, "train.steps": 0, "probe.instrument": "tangent_kernel", **settings}
    curves = read(*({**wide, "seed": seed} for seed in range(8)))
    measured_ratio = np.mean([one[0, "kernel_ratio"] for one in curves])
    assert measured_ratio == pytest.approx(float(curves[0][0, "kernel_predicted"][0]), rel=0.05)
    by_layer = np.mean([one[0, "layer_ratio"] for one in curves], axis=0)
    assert by_layer == pytest.approx(curves[0][0, "layer_predicted"], abs=0.03)


def test_twins_of_a_quadratic_part_at_the_rate_of_its_curvature() -> None:
    """One layer and whitened inputs: the Hessian is 2/K I, biases included: w - w' is multiplied by 1 - 2 lr/K."""
    rates = (0.0, 1.0, 3.0, 5.0)
    base: dict[str, Value] = {"data.name": "spectral_teacher", "model.depth": 1, "train.precision": "float64"}
    base |= {"train.steps": 6, "probe.every": 3, "probe.instrument": "twin_distance"}
    for lr, found in zip(rates, read(*({**base, "optim.lr": lr} for lr in rates)), strict=True):
        exponent = math.log(abs(1 - 2 * lr / 4))
        assert found[0, "log_distance"] == 0
        assert (0, "exponent") not in found
        for step in (3, 6):
            np.testing.assert_allclose(found[step, "exponent"], exponent, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(found[step, "log_distance"], step * exponent, rtol=1e-5, atol=1e-7)


def test_a_twin_is_trained_as_its_run_is() -> None:
    """Without a learning rate nothing moves; with clipped momentum the twins of equal members part alike."""
    base = with_instrument("twin_distance", train__steps=4, probe__every=2, clip__mode="norm", optim__momentum=0.9)
    still, moving = read({**base, "optim.lr": 0.0}, {**base, "optim.lr": 0.3})
    assert still[4, "log_distance"] == 0
    (alone,) = read({**base, "optim.lr": 0.3})
    assert moving[4, "log_distance"] == alone[4, "log_distance"] != 0


def test_the_plane_is_that_of_a_single_unit() -> None:
    values = with_instrument("loss_plane", model__activation="sigmoid", model__init="orthogonal", model__bias_var=0.0)
    (found,) = read({**values, "data.length": 9})
    weights, biases = found[0, "plane_weight"], found[0, "plane_bias"]

    def loss(w: float, b: float) -> float:
        h = 0.0
        for _ in range(9):
            h = 1 / (1 + math.exp(-(w * h + b)))
        return (h - 0.7) ** 2

    shape = (len(biases), len(weights))
    losses, gradients = found[0, "plane_loss"].reshape(shape), found[0, "plane_gradient"].reshape(shape)
    eps = 1e-6
    for i, j in ((0, 0), (100, 100), (60, 50), (37, 91)):
        w, b = weights[j], biases[i]
        assert losses[i, j] == pytest.approx(loss(w, b), rel=1e-9)
        slopes = (loss(w + eps, b) - loss(w - eps, b), loss(w, b + eps) - loss(w, b - eps))
        assert gradients[i, j] == pytest.approx(math.hypot(*slopes) / (2 * eps), rel=1e-4, abs=1e-8)
    assert found[0, "cliff"] == pytest.approx(gradients.max() / np.median(gradients), rel=1e-12)


def test_modes_are_those_of_the_product_and_follow_their_solution() -> None:
    (found,) = read(
        {**CHAIN, "optim.lr": 0.002, "train.steps": 1200, "probe.every": 200, **instrument("mode_strength")}
    )
    np.testing.assert_allclose(found[0, "strength"], 0.01, rtol=1e-12)
    for step in range(0, 1201, 200):
        s = np.array([4.0, 3.0, 2.0, 1.0])
        grown = np.exp(2 * s * step / (4 / (2 * 0.002)))
        solution = s * grown / (grown - 1 + s / 0.01)
        np.testing.assert_allclose(found[step, "predicted"], solution, rtol=1e-9)
        np.testing.assert_allclose(found[step, "error"], np.abs(found[step, "strength"] - solution) / s, atol=1e-12)
        assert found[step, "error"].max() < 0.01


def instrument(name: str) -> dict[str, Value]:
    return {"probe.instrument": name}


def test_modes_without_a_beginning_have_no_prediction() -> None:
    (found,) = read({**CHAIN, "model.gain": 0.0, "train.steps": 0, **instrument("mode_strength")})
    assert np.isnan(found[0, "predicted"]).all()
    assert (found[0, "strength"] == 0).all()


@pytest.mark.usefixtures("either_engine")
@pytest.mark.parametrize("name", [name for name in NAMED if name != "none"])
def test_a_runs_other_numbers_do_not_know_of_the_instrument(name: str) -> None:
    """With an instrument and without: every bit of the other tables is the same."""
    steps: Value = 0 if name == "loss_plane" else 12
    values = with_instrument(name, train__steps=steps, probe__every=5)
    on, off = tables(values), tables({**values, "probe.instrument": "none"})
    assert off.instruments.num_rows == 0
    assert on.instruments.num_rows > 0
    clock = ["run_id", "probe.instrument", "duration_s"]
    assert on.runs.drop(clock).equals(off.runs.drop(clock))
    for one, other in ((on.steps, off.steps), (on.layers, off.layers)):
        assert one.drop("run_id").equals(other.drop("run_id"))


@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("none", "loss_plane")])
def test_a_member_reads_the_same_alone_and_in_company(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [with_instrument(name, train__steps=4, probe__every=2, seed=seed, optim__lr=0.01) for seed in range(3)]
    together = read(*members)
    monkeypatch.setattr(bench, "BYTES_AT_A_TIME", 1)
    for values, found, one_by_one in zip(members, together, read(*members), strict=True):
        (alone,) = read(values)
        assert alone.keys() == found.keys() == one_by_one.keys()
        for key, wanted in alone.items():
            np.testing.assert_allclose(found[key], wanted, rtol=1e-8, atol=1e-12)
            np.testing.assert_allclose(one_by_one[key], wanted, rtol=1e-8, atol=1e-12)


def test_a_diverged_member_ends_and_its_companions_go_on() -> None:
    base = with_instrument("jacobian_spectrum", train__steps=6, probe__every=2)
    gone, well = read({**base, "optim.lr": 1e300}, {**base, "optim.lr": 0.01})
    assert {step for step, _ in gone} < {0, 2, 4, 6}
    assert {step for step, _ in well} == {0, 2, 4, 6}
    assert all(np.isfinite(values).all() for values in well.values())


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_the_hidden_jacobian_is_the_product_of_what_lies_between(model: str) -> None:
    """Of linear layers: of dense ones the matrices, of filters of their middle taps those at every pixel."""
    own: dict[str, Value] = {
        "model.name": model,
        "model.activation": "linear",
        "model.depth": 4 if model == "mlp" else 3,
    }
    init = {"mlp": "orthogonal", "cnn": "delta_orthogonal"}[model]
    (found,) = read({**BASE, **own, "model.init": init, "model.gain": 1.5, "probe.instrument": "hidden_jacobian"})
    values = found[0, "hidden_singular_value"]
    assert len(values) == (7 if model == "mlp" else 7 * 64)
    np.testing.assert_allclose(values, 1.5**2, rtol=1e-12)
    assert found[0, "condition"][0] == pytest.approx(1)
    (found,) = read({**BASE, **own, "probe.instrument": "hidden_jacobian"})
    assert found[0, "condition"][0] > 3


def test_a_hidden_jacobian_that_is_none_or_too_large_is_refused() -> None:
    for settings, words in (({"model.depth": 2}, "2 hidden layers"), ({"model.width": 5000}, "at most 4,096")):
        with pytest.raises(SpecError, match=words):
            build({"probe.instrument": "hidden_jacobian", **settings})


def test_singular_values_of_what_is_not_finite_are_not_numbers() -> None:
    matrices = torch.stack([torch.eye(2), torch.full((2, 2), torch.inf), torch.tensor([[1.0, torch.nan], [0.0, 1.0]])])
    found = bench.singular_values(matrices.double())
    assert found[0].tolist() == [1.0, 1.0]
    assert torch.isnan(found[1:]).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probe.instrument": "jacobian_spectrum", "model.norm": "batch"}, "needs model.norm=none or layer or rms"),
        ({"probe.instrument": "input_autocorrelation"}, "needs data.name=interval; given digits"),
        ({"probe.instrument": "recurrent_jacobian"}, "needs model.name=rnn; given mlp"),
        ({"probe.instrument": "twin_distance"}, "needs train.precision=float64; given float32"),
        ({"probe.instrument": "mode_strength", **CHAIN, "data.batch_size": 8}, "needs data.batch_size=256; given 8"),
        ({"probe.instrument": "input_correlation", "data.name": "point"}, "needs 2 samples"),
        ({"probe.instrument": "jacobian_spectrum", **ATTENTION}, "'characters' has tokens"),
        ({"probe.instrument": "token_similarity"}, "needs model.name=transformer"),
        ({"probe.instrument": "jacobian_spectrun"}, "did you mean 'jacobian_spectrum'"),
    ],
)
def test_an_instrument_that_has_nothing_to_measure_is_refused(values: dict[str, Value], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_an_instrument_is_what_it_was_before_there_were_any() -> None:
    assert build({}).id == build({"probe.instrument": "none"}).id != build({"probe.instrument": "gradient_log"}).id
    (member,) = measured({"train.steps": 1, "model.depth": 2, "model.width": 4})
    assert member.run["probe.instrument"] == "none"


def test_the_oracle_knows_every_activation() -> None:
    assert {"tanh", "gelu", "silu", "prelu", "relu", "leaky_relu", "linear", "sigmoid"} <= set(PHI)
