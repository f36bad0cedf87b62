"""Kinds of networks that are as they are on purpose, beside the faults that they look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.watching.facts import as_drawn
from tests.watching.test_networks import CLASSES, WIDTH, Net, batch, chain, names, row

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    torch.manual_seed(0)


class Scale(nn.Module):
    """A gain for every channel; it learns or does not."""

    def __init__(self, value: float, learned: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((WIDTH,), value), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def causes(network: nn.Module, loss: Callable[..., Tensor] = F.cross_entropy, given: Any = None) -> list[str]:
    frame = gradlab.measure(network, loss, given or batch())
    return [verdict.cause.name for verdict in gradlab.verdict(frame) if verdict.cause is not None]


@pytest.mark.parametrize(("learned", "healthy"), [(True, True), (False, False)])
def test_what_is_lost_where_a_learned_gain_starts_small_is_no_fault(learned: bool, healthy: bool) -> None:
    network = nn.Sequential(*list(chain(3))[:-1], Scale(1e-6, learned), *chain(3))
    frame = gradlab.measure(network, F.cross_entropy, batch())
    (first, *_) = gradlab.verdict(frame, optimizer="adam")
    assert (first.name == "healthy") == healthy
    assert not healthy or "start small on purpose" in first.sentence


@pytest.mark.parametrize(("own", "along"), [(False, True), (True, False)])
def test_a_layer_shared_by_blocks_with_layers_of_their_own_is_no_recurrence(own: bool, along: bool) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        for place in range(5):
            x = torch.tanh(net["shared"](x))
            x = torch.tanh(net[f"own{place}"](x)) if own else x
        out: Tensor = net["head"](x)
        return out

    parts = {f"own{place}": nn.Linear(WIDTH, WIDTH) for place in range(5)} if own else {}
    network = Net(forward, shared=nn.Linear(WIDTH, WIDTH), head=nn.Linear(WIDTH, CLASSES), **parts)
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert ("time" in set(frame["axis"])) == along


def test_behind_a_layer_that_starts_at_zero_no_unit_is_dead() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        branch = net["second"](F.relu(net["first"](net["zero"](x))))
        out: Tensor = net["head"](x + branch)
        return out

    kinds = ("zero", "first", "second", "head")
    network = Net(forward, **{name: nn.Linear(WIDTH, CLASSES if name == "head" else WIDTH) for name in kinds})
    for part in (network["zero"], network["first"]):
        nn.init.zeros_(part.get_parameter("bias"))
    nn.init.zeros_(network["zero"].get_parameter("weight"))
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert "dead" not in names(frame)


@pytest.mark.parametrize(("units", "verdict"), [(6, False), (64, True)])
def test_a_few_units_may_be_at_rest_by_chance(units: int, verdict: bool) -> None:
    x, y = batch()
    network = nn.Sequential(nn.Linear(x.shape[1], units), nn.ReLU(), nn.Linear(units, CLASSES))
    with torch.no_grad():
        network[0].get_parameter("bias")[: round(0.85 * units)] = -100.0
    frame = gradlab.measure(network, F.cross_entropy, (x, y))
    assert row(frame, "0")["units"] == units
    assert row(frame, "0")["dead"] > 0.75
    assert ("dead" in names(frame)) == verdict


def test_a_trunk_leads_to_the_layer_that_the_input_feeds() -> None:
    table = torch.randn(WIDTH, WIDTH)

    def forward(net: Net, x: Tensor) -> Tensor:
        bias = 1e-6 * net["c"](F.gelu(net["b"](F.gelu(net["a"](table)))))
        out: Tensor = net["head"](net["stem"](x) @ (torch.eye(WIDTH) + bias))
        return out

    parts = {name: nn.Linear(WIDTH, WIDTH) for name in ("a", "b", "c", "stem")}
    frame = gradlab.measure(Net(forward, **parts, head=nn.Linear(WIDTH, CLASSES)), F.cross_entropy, batch())
    on = frame.loc[frame["stage"] == 1, "name"].tolist()
    assert on[0].endswith("stem")


@pytest.mark.parametrize("learned", [False, True])
def test_what_has_learned_does_not_look_drawn(learned: bool) -> None:
    weight = torch.randn(64, 48) / 48**0.5
    direction = torch.randn(64, 1) @ torch.randn(1, 48) / 48
    assert as_drawn(weight + (5 * direction if learned else 0.0)) == (not learned)
    network = chain(4)
    for part in list(network)[:4]:
        part.requires_grad_(False)
        if learned and isinstance(part, nn.Linear):
            with torch.no_grad():
                part.weight += 3 * torch.outer(torch.ones(len(part.weight)), torch.ones(part.weight.shape[1])) / WIDTH
    assert ("frozen" in causes(network)) == (not learned)


class Norm(nn.Module):
    """A norm of somebody's own, over the maps."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()


def posed() -> Iterator[tuple[nn.Module, Callable[..., Tensor], Any, str]]:
    """Networks with a wrong problem, what each is given, and the cause."""
    x, y = batch()
    yield nn.Sequential(*chain(2), nn.LogSoftmax(0)), F.nll_loss, None, "log_probabilities"
    one = nn.Sequential(*list(chain(2))[:-1], nn.Linear(WIDTH, 1))
    yield one, lambda out, _: F.mse_loss(out, torch.zeros(len(x))), None, "labels"
    yield (
        nn.Sequential(*one, nn.ReLU()),
        lambda out, _: F.mse_loss(out, -1 - torch.rand_like(out)),
        None,
        ("activation_on_logits"),
    )
    scaled = (torch.arange(len(x)) % 2)[:, None] / 255.0
    yield one, lambda out, _: F.binary_cross_entropy_with_logits(out, scaled), None, "labels"
    yield (
        nn.Sequential(*list(chain(1))[:-1], nn.Linear(WIDTH, 1), nn.Tanh(), nn.Linear(1, CLASSES)),
        (F.cross_entropy),
        None,
        "rank",
    )
    maps = (torch.randn(len(x), 3, 1, 1), y)
    norm = nn.Sequential(nn.Conv2d(3, 8, 1), Norm(), nn.ReLU(), nn.Flatten(), nn.Linear(8, CLASSES))
    yield norm, F.cross_entropy, maps, "norm_of_one"
    yield chain(2), lambda out, _: (out - out.detach()).square().sum(1).sqrt().mean(), None, "infinite_slope"
    yield chain(2), lambda out, y: -out.relu().gather(1, y[:, None]).log().mean(), None, "infinite_slope"
    yield one, lambda out, _: F.mse_loss(out, torch.full_like(out, 3.5)), None, "labels"

    def masked(net: Net, x: Tensor) -> Tensor:
        scores = (x @ x.T)[None].masked_fill(torch.ones(len(x), len(x), dtype=torch.bool).tril(), -torch.inf)
        out: Tensor = net["head"]((scores.softmax(-1) @ net["stem"](x))[0])
        return out

    yield (
        Net(masked, stem=nn.Linear(x.shape[1], WIDTH), head=nn.Linear(WIDTH, CLASSES)),
        F.cross_entropy,
        None,
        ("all_masked"),
    )


Loss = Callable[[Tensor, Tensor], Tensor]


def written() -> Iterator[tuple[str, Loss, Loss]]:
    """Losses that are written by hand: the cause, one that has it, and one that is right."""
    numbers = torch.randn(len(batch()[0]))
    shares = F.one_hot(batch()[1], CLASSES) * 0.9 + 0.1 / CLASSES
    yield (
        "labels",
        lambda out, _: (out[:, :1] - numbers).square().mean(),
        lambda out, _: (out[:, :1] - numbers[:, None]).square().mean(),
    )
    yield (
        "log_probabilities",
        lambda out, _: F.kl_div(out.softmax(1), shares, reduction="batchmean"),
        lambda out, _: F.kl_div(out.log_softmax(1), shares, reduction="batchmean"),
    )
    one_hot = F.one_hot(batch()[1], CLASSES)
    yield (
        "target_scale",
        lambda out, _: -(out.log_softmax(-1) * (60 * one_hot)).sum(-1).mean(),
        lambda out, _: -(out.log_softmax(-1) * (one_hot > 0)).sum(-1).mean(),
    )
    yield (
        "target_scale",
        lambda out, _: F.cross_entropy(out, 100 * shares),
        lambda out, _: F.cross_entropy(out, shares),
    )
    yield (
        "labels",
        lambda out, _: (out[:, :1] - (numbers[:, None] - torch.arange(3))).square().mean(),
        lambda out, _: (out[:, :3] - (numbers[:, None] - torch.arange(3))).square().mean(),
    )
    yield (
        "target_scale",
        lambda out, _: (out[:, 0] - 300 * numbers).square().mean(),
        lambda out, _: (out[:, 0] - 3 * numbers).square().mean(),
    )
    yield "target_scale", lambda out, _: F.smooth_l1_loss(out[:, 0], 1e4 * numbers), lambda out, _: out.square().mean()
    yield (
        "penalty",
        lambda out, _: (out[:, 0] - numbers).square().mean() + 1e6 * out.square().mean(),
        lambda out, _: 200 * ((out[:, 0] - numbers).square().mean() + out.square().mean()),
    )
    yield (
        "first_loss",
        lambda out, _: F.binary_cross_entropy_with_logits(out, shares, pos_weight=torch.tensor(1e4)),
        lambda out, _: F.binary_cross_entropy_with_logits(out, shares),
    )
    yield "first_loss", lambda out, _: (1e8 + out).square().mean(), lambda out, _: (1 + out).square().sum()
    yield (
        "labels",
        lambda out, y: F.cross_entropy(out, torch.full_like(y, -100)),
        lambda out, y: F.cross_entropy(out, torch.where(torch.arange(len(y)) > 2, y, -100)),
    )
    yield (
        "labels",
        lambda out, _: F.mse_loss(out[:, 0], numbers.where(numbers > 0, torch.nan)),
        lambda out, _: F.mse_loss(out[:, 0], numbers),
    )
    yield (
        "labels",
        lambda out, y: (F.cross_entropy(out, y, reduction="none") * 0).sum(),
        lambda out, y: F.cross_entropy(out, y, reduction="none").mean(),
    )
    yield (
        "cut",
        lambda out, y: torch.tensor(F.cross_entropy(out, y).item(), requires_grad=True),
        F.cross_entropy,
    )


@pytest.mark.parametrize("place", range(14))
def test_a_loss_that_is_written_by_hand(place: int) -> None:
    cause, sick, right = list(written())[place]
    assert causes(chain(3), sick) == [cause]
    assert causes(chain(3), right) == []


def dropping(share: float) -> nn.Sequential:
    """A network most of whose units are dropped."""
    return nn.Sequential(nn.Linear(batch()[0].shape[1], WIDTH), nn.ReLU(), nn.Dropout(share), nn.Linear(WIDTH, CLASSES))


@pytest.mark.parametrize(
    ("cause", "sick", "cured"),
    [
        ("sign", lambda out, y: -F.cross_entropy(out, y), lambda out, y: 2 * F.cross_entropy(out, y)),
        (
            "penalty",
            lambda out, y: F.cross_entropy(out, y) + 1e6 * out.square().mean(),
            lambda out, y: 3 * (F.cross_entropy(out, y) + out.square().mean()),
        ),
    ],
)
def test_a_loss_that_is_climbed_or_outweighed(cause: str, sick: Loss, cured: Loss) -> None:
    assert cause in causes(chain(3), sick)
    assert causes(chain(3), cured) == []


def test_a_sum_over_the_batch_is_no_large_loss() -> None:
    def summed(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, reduction="sum")

    mean, whole = (gradlab.measure(chain(3), loss, batch()) for loss in (F.cross_entropy, summed))
    assert names(whole) == names(mean) == ["healthy"]
    found = whole.attrs["facts"]["losses"]["negative_log_likelihood"]
    assert found["weight"] == len(batch()[0])
    assert found["value"] * found["weight"] == pytest.approx(whole.attrs["loss"])
    left = [whole.attrs["loss"] * 0.9**step for step in range(60)]
    (verdict,) = gradlab.verdict(whole, losses=left, optimizer="sgd")
    assert "not learned" not in verdict.sentence


def test_what_dropout_leaves_is_out_of_scale() -> None:
    assert causes(dropping(0.99), F.cross_entropy) == ["dropout"]
    assert causes(dropping(0.5), F.cross_entropy) == []
    assert causes(dropping(0.99).eval(), F.cross_entropy) == ["dropout"], "measured as it is trained"
    shares = torch.empty(WIDTH)
    drawn = Net(lambda net, x: net["head"](net["stem"](x) + shares.bernoulli_(0.01)), **_of_two())
    assert causes(drawn, F.cross_entropy) == [], "a mask that is drawn and divides nothing is no dropout"


def _of_two() -> dict[str, nn.Module]:
    return {"stem": nn.Linear(batch()[0].shape[1], WIDTH), "head": nn.Linear(WIDTH, CLASSES)}


def test_a_loss_that_falls_without_end_has_learned_nothing() -> None:
    frame = gradlab.measure(chain(3), lambda out, y: -(out - y[:, None]).square().mean(), batch())
    found = gradlab.verdict(frame, losses=[-1.0 * 2**step for step in range(60)], optimizer="sgd")
    assert [verdict.cause.name for verdict in found if verdict.cause] == ["sign"]
    assert names(frame) == ["healthy"], "a loss that is not known may lie below zero"


@pytest.mark.parametrize(("depth", "found"), [(20, "healthy"), (80, "vanishing")])
def test_through_many_layers_no_optimizer_makes_a_decay_good(depth: int, found: str) -> None:
    network = chain(depth, nn.Tanh)
    for part in list(network)[:-1:2]:
        nn.init.orthogonal_(part.get_parameter("weight"), 0.01 ** (1 / depth))
        nn.init.zeros_(part.get_parameter("bias"))
    frame = gradlab.measure(network, F.cross_entropy, batch())
    assert names(frame)[0] == found
    assert gradlab.verdict(frame, optimizer="sgd")[0].name == "vanishing"


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("place", range(10))
def test_the_cause_is_told(place: int) -> None:
    network, loss, given, cause = list(posed())[place]
    assert cause in causes(network, loss, given)


@pytest.mark.parametrize(("fall", "cause"), [(0.0, "no_update"), (1e-7, "clip")])
def test_a_gradient_that_moves_nothing(fall: float, cause: str) -> None:
    network = chain(3)
    frame = gradlab.measure(network, F.cross_entropy, batch())
    losses = [frame.attrs["loss"] * (1 - fall * step) for step in range(60)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    (verdict,) = gradlab.verdict(frame, losses=losses, optimizer=optimizer)
    assert verdict.name == "stalled"
    assert verdict.cause is not None
    assert verdict.cause.name == cause


def test_a_head_that_is_drawn_small_is_no_outlier() -> None:
    network = chain(8)
    with torch.no_grad():
        network[-1].get_parameter("weight").mul_(1e-3)
    assert "ill_scaled" not in names(gradlab.measure(network, F.cross_entropy, batch()))


def test_what_no_optimizer_holds_cannot_learn() -> None:
    network = chain(3)
    frame = gradlab.measure(network, F.cross_entropy, batch())
    every = list(network.parameters())
    parts = [torch.optim.SGD(some, lr=0.1) for some in (every[:2], every[2:])]
    (verdict,) = gradlab.verdict(frame, optimizer=parts[1])
    assert (verdict.name, verdict.cause and verdict.cause.name) == ("misspecified", "no_update")
    assert [one.name for one in gradlab.verdict(frame, optimizer=parts)] == ["healthy"]
    (learned,) = gradlab.verdict(frame, losses=[0.9**step for step in range(60)], optimizer=parts[1])
    assert learned.name == "healthy"
    assert "could learn" in learned.sentence, "a head that is trained alone on purpose learns, and is told"


@pytest.mark.parametrize("listed", [False, True])
def test_layers_in_a_plain_list_are_none_of_the_module(listed: bool) -> None:
    first, *others = list(chain(3))
    kept = nn.ModuleList(others) if listed else others

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net["first"](x)
        for part in kept:
            x = part(x)
        return x

    parts = {"first": first, **({"others": kept} if isinstance(kept, nn.ModuleList) else {})}
    frame = gradlab.measure(Net(forward, **parts), F.cross_entropy, batch())
    for losses in (None, [0.9**step for step in range(60)]):
        (verdict,) = gradlab.verdict(frame, losses=losses)
        assert verdict.name == ("healthy" if listed else "misspecified"), "whatever the others learn"
        assert (verdict.cause and verdict.cause.name) == (None if listed else "no_update")


def test_what_the_loss_brings_along_is_no_part_of_the_module() -> None:
    judge = nn.Linear(CLASSES, CLASSES)
    assert causes(chain(3), lambda out, y: F.cross_entropy(judge(out), y)) == []


@pytest.mark.parametrize("at", ["every step", "anew", "the end", "never"])
def test_a_state_that_is_detached_at_every_step(at: str) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        states = [x.new_zeros(len(x), WIDTH)]
        for _ in range(6):
            given = {"every step": states[-1].detach(), "anew": torch.zeros_like(states[-1])}
            states.append(net["cell"](x, given.get(at, states[-1])))
        out: Tensor = net["head"](states[-1] - (states[-2].detach() if at == "the end" else 0))
        return out

    network = Net(forward, cell=nn.RNNCell(batch()[0].shape[1], WIDTH), head=nn.Linear(WIDTH, CLASSES))
    nn.init.orthogonal_(network["cell"].get_parameter("weight_hh"))
    assert causes(network) == (["cut"] if at in ("every step", "anew") else [])


def test_logits_so_far_apart_that_one_class_is_certain() -> None:
    far = F.one_hot(batch()[1], CLASSES) * 1e4
    assert causes(chain(3), lambda out, y: F.cross_entropy(out + far, y)) == ["first_loss"]
    assert causes(chain(3), lambda out, y: F.cross_entropy(out + far / 1e3, y)) == []


@pytest.mark.parametrize("signal", [8, 40])
def test_a_target_that_is_longer_than_its_signal(signal: int) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        logs = out.log_softmax(1).expand(signal, *out.shape)
        lengths = torch.full((len(y),), signal), torch.full((len(y),), 12)
        return F.ctc_loss(logs, torch.arange(12).expand(len(y), 12) % 3 + 1, *lengths)

    assert causes(chain(3), loss) == (["labels"] if signal < 12 else [])


@pytest.mark.parametrize("temperature", [1e-4, 1.0])
def test_a_choice_that_is_certain_passes_no_gradient(temperature: float) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        out: Tensor = net["head"]((net["stem"](x) / temperature).softmax(1))
        return out

    frame = gradlab.measure(Net(forward, **_of_two()), F.cross_entropy, batch())
    assert names(frame) == (["saturated"] if temperature < 1 else ["healthy"])


@pytest.mark.parametrize("way", ["by argmax", "by chance", "by its weight"])
def test_who_is_not_chosen_is_not_idle_and_a_router_learns_by_its_weight(way: str) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        stem = net["stem"](x).relu()
        share, best = net["router"](stem).softmax(1).max(1)
        # The last expert is chosen by none.
        best = torch.zeros_like(best) if way == "by chance" else best.clamp(max=1)
        every = torch.stack([net[f"expert{place}"](stem) for place in range(3)], 1)
        taken = every[torch.arange(len(x)), best]
        out: Tensor = net["head"](taken if way == "by argmax" else taken * share[:, None])
        return out

    experts = {f"expert{place}": nn.Linear(WIDTH, WIDTH) for place in range(3)}
    network = Net(forward, **_of_two(), router=nn.Linear(WIDTH, 3), **experts)
    assert causes(network) == (["cut"] if way == "by argmax" else [])


def test_gates_that_are_shut() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        stem = net["stem"](x)
        out: Tensor = net["head"](stem + net["gate"](stem).sigmoid() * stem)
        return out

    network = Net(forward, **_of_two(), gate=nn.Linear(WIDTH, WIDTH))
    assert causes(network) == []
    nn.init.constant_(network["gate"].get_parameter("bias"), -20.0)
    assert causes(network) == ["gates"]


def test_what_a_hook_takes_from_the_parameters_and_not_from_the_signal() -> None:
    network = chain(3)
    for parameter in network[0].parameters():
        parameter.register_hook(torch.zeros_like)
    assert causes(network) == ["no_update"]


@pytest.mark.parametrize("outlier", [1e6, 3.0])
def test_inputs_over_the_largest_of_them(outlier: float) -> None:
    x, y = batch()
    x[0, 0] = outlier
    assert causes(chain(3), given=(30 * x / outlier, y)) == (["input_scale"] if outlier > 3 else [])
