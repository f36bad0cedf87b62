"""From a grid to cohorts and their pieces, with the work and the memory that each will take. Torch-free.

Runs that share every key but those of `WITHIN` share every tensor shape: they are a cohort. A cohort is cut into
pieces that fit `launch.memory`; a piece is what trains together, and is decided once, before anything trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gradlab.spec.choices import MODELS, OPTIMIZERS
from gradlab.spec.run import DataSpec, Extent, Facts, ModelSpec, OptimSpec, PretrainSpec, RunSpec, TrainSpec

if TYPE_CHECKING:
    from gradlab.grid.expand import Grid

WITHIN = frozenset(
    {
        "seed",
        *(f"model.{key}" for key in ("init", "gain", "weight_var", "bias_var", "forget_bias", "chrono")),
        *(f"model.{key}" for key in ("parametrization", "base_width", "dropout")),
        *(f"data.{key}" for key in ("input_scale", "target_scale")),
        *(f"optim.{field.name}" for field in dataclasses.fields(OptimSpec) if field.name != "name"),
        *(f"pretrain.{field.name}" for field in dataclasses.fields(PretrainSpec)),
        *(f"clip.{key}" for key in ("mode", "threshold", "output_threshold")),
    }
)
"""Keys in which the members of a cohort may differ: they change numbers, not shapes."""

PARTS = 8
"""Pieces at least of a cohort whose members are networks of the user's own: a constant, as company is everywhere."""

COMPANY, SMALL = 8, 5e6
"""Networks of the user's own are trained as one where a piece holds so many at least, and a call of a layer takes at
most so many operations: then a step is calls, and not arithmetic (`python -m benchmarks.stacking`). By what they are
and never by a clock, so that the same sweep always meets the same company and has the same numbers."""

HELDOUT_SAMPLES = 512
"""Held-out samples evaluated at a time: a constant, so that the figures do not depend on the machine."""

SIGNAL_COPIES = 6
"""Tensors of each layer's shape alive at the height of a step: signal, norm, activation, their derivatives, scratch."""

MEASURED_PARAMETERS, MEASURED_SIGNALS = 3, 4
"""The same where nothing is trained, and the parameters: themselves, the gradient, a layer's draw in float64."""

PER_SIGNAL, PER_PARAMETER, PER_LAYER = 150.0, 80.0, 2e5
"""What a step does beside its products, in operations of them: for each entry of a signal (norm, activation and their
ways back), each parameter (norm, clip, update) and each layer (calls). An estimate, from one core on which products of
64 x 64 x 64 run at 100 GFLOP/s: it orders pieces, and makes the bar's time left honest."""

PARAMETER_COPIES = 8
"""Of the parameters: themselves, the gradient twice, the weights before a step and a window, float64 scratch."""

STEP_ROW, LAYER_ROW = 280, 700
"""Bytes that a row of the tables takes at the height of their making: as numbers, in order, as columns, with its id."""


@dataclass(frozen=True)
class Piece:
    """Runs that train together: positions in the grid, and how it is run.

    ``work`` counts operations of matrix products, ``effort`` estimates what all of it takes, in the same unit;
    ``chunks`` are the sizes that it is cut into where it did not fit the device (one chunk: it did). ``stacked``:
    networks of the user's own are trained as one; others always are.
    """

    index: int
    members: tuple[int, ...]
    cohort: int
    threads: int
    work: float
    effort: float
    memory: int
    chunks: tuple[int, ...]
    stacked: bool = False


@dataclass(frozen=True)
class Plan:
    """The pieces of a grid, largest first; ``work`` counts operations of matrix products, ``memory`` bytes."""

    pieces: tuple[Piece, ...]
    cohorts: int
    budget: int

    @property
    def work(self) -> float:
        """Operations of the whole grid."""
        return sum(piece.work for piece in self.pieces)


def plan_of(grid: Grid, memory: int, cores: int) -> Plan:
    """The plan of a grid, on a device of this ``memory`` in bytes unless `launch.memory` says otherwise."""
    return make_plan(grid.runs, grid.launch.memory or memory, cores)


def gains(size: Extent, members: int, wish: str) -> bool:
    """Whether so many networks of the user's own are trained as one, if they can be; ``wish`` is `launch.stacked`."""
    if wish == "auto":
        return members >= COMPANY and size.work <= SMALL * size.calls
    return wish == "yes" and members > 1


def make_plan(runs: Sequence[RunSpec], budget: int, cores: int) -> Plan:
    """Cuts ``runs`` into pieces of at most ``budget`` bytes; a single piece takes all ``cores``, several one each."""
    cohorts: dict[object, list[int]] = {}
    # Runs of one grid share their sections, and those of a million are told apart by where they lie.
    alike: dict[tuple[object, ...], list[int]] = {}
    for position, run in enumerate(runs):
        place = (id(run.model), id(run.data), run.optim.name, id(run.train), id(run.probe))
        if (members := alike.get(place)) is None:
            members = alike[place] = cohorts.setdefault(cohort_key(run), [])
        members.append(position)
    cuts: list[tuple[Cost, int, Sequence[int]]] = []
    for number, members in enumerate(cohorts.values()):
        # Members that clip alike stand together, so that each mode is one slice of the piece.
        members.sort(key=lambda position: runs[position].clip.mode)
        each = cost(runs[members[0]])
        cuts.extend((each, number, part) for part in _cut(members, runs, budget))
    cuts.sort(key=lambda cut: -cut[0].effort * len(cut[2]))
    threads = cores if len(cuts) == 1 else 1
    pieces = tuple(
        Piece(
            index=index,
            members=tuple(part),
            cohort=number,
            threads=threads,
            work=each.work * len(part),
            effort=each.effort * len(part),
            memory=each.shared + each.memory * len(part),
            chunks=(len(part),),
            stacked=_stacks(runs[part[0]]) and len(part) > 1,
        )
        for index, (each, number, part) in enumerate(cuts)
    )
    return Plan(pieces, len(cohorts), budget)


def _cut(members: Sequence[int], runs: Sequence[RunSpec], budget: int) -> list[Sequence[int]]:
    """Pieces of nearly equal size, none above the budget unless one run alone is."""
    each = cost(runs[members[0]])
    most = max(1, (budget - each.shared) // each.memory)
    pieces = -(-len(members) // most)
    if runs[members[0]].model.free:
        # One after the other they gain nothing from company: more processes can share them.
        apart = len(members) // COMPANY if _stacks(runs[members[0]]) else len(members)
        pieces = max(pieces, min(apart, PARTS))
    bounds = [len(members) * number // pieces for number in range(pieces + 1)]
    return [members[start:stop] for start, stop in pairwise(bounds)]


def _stacks(run: RunSpec) -> bool:
    return run.extent is not None and run.extent.stacks


def cohort_key(run: RunSpec) -> object:
    """Equal for runs that can be members of one cohort."""
    return (_shared(run.model), _shared(run.data), run.optim.name, run.train, run.probe)


@lru_cache(maxsize=65536)
def _shared(section: ModelSpec | DataSpec) -> ModelSpec | DataSpec:
    """The section with the keys of `WITHIN` blanked."""
    prefix = "model" if isinstance(section, ModelSpec) else "data"
    blank: dict[str, Any] = {f.name: None for f in dataclasses.fields(section) if f"{prefix}.{f.name}" in WITHIN}
    return dataclasses.replace(section, **blank)


@dataclass(frozen=True)
class Cost:
    """Of one run: ``work`` and ``effort`` as in `Piece`, the bytes that a member takes, and those that all share."""

    work: float
    effort: float
    memory: int
    shared: int


def cost(run: RunSpec) -> Cost:
    """What a run takes."""
    if run.model.free:
        return _of_module(run.extent or Extent(10**5, 10**4, 10, 1e8), run)
    trained = _cost(run.model, run.facts, run.data.batch_size, run.optim.name, run.train, run.probe.every)
    more = 1 + steps_before(run) / (run.train.steps + 1)
    return dataclasses.replace(trained, work=trained.work * more, effort=trained.effort * more)


def steps_before(run: RunSpec) -> float:
    """How many steps of its training a run's pre-training takes as long as."""
    if run.pretrain.mode == "none":
        return 0.0
    # A layer's own autoencoder has two layers, and what it is given comes through those before it, there alone.
    layers = run.layers
    share = (layers - 1) * (2 + layers / 6) / layers if run.pretrain.mode == "layerwise" else 1.0
    return share * run.pretrain.steps


def _of_module(size: Extent, run: RunSpec) -> Cost:
    """What a network of the user's own takes: of members trained one after the other signals are held once."""
    steps, width = run.train.steps, 8 if run.train.precision == "float64" else 4
    copies = PARAMETER_COPIES + 2 * OPTIMIZERS[run.optim.name].buffers if steps else MEASURED_PARAMETERS
    rows = size.layers + 1
    each = width * size.parameters * copies + STEP_ROW * (steps + 1) + LAYER_ROW * rows * (steps // run.probe.every + 2)
    batch = run.data.batch_size
    signals = max(batch, HELDOUT_SAMPLES) * (size.signals + run.facts.inputs)
    beside = batch * size.signals * PER_SIGNAL + size.parameters * PER_PARAMETER + size.layers * PER_LAYER
    shared = 8 * batch * (steps + 1)
    if size.stacks:
        each += width * signals * SIGNAL_COPIES
    else:
        shared += width * signals * SIGNAL_COPIES
    return Cost(size.work * (steps + 1), (size.work + beside) * (steps + 1), each, shared)


@lru_cache(maxsize=65536)
def _cost(model: ModelSpec, facts: Facts, batch: int, optimizer: str, train: TrainSpec, every: int) -> Cost:
    steps, width = train.steps, 8 if train.precision == "float64" else 4
    matrices = MODELS[model.name].matrices(model, facts)
    products = sum(fan_in * fan_out * uses for fan_in, fan_out, uses in matrices)
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out, _ in matrices)
    beside = MODELS[model.name].beside(model, facts)
    signals = sum(fan_out * uses for _, fan_out, uses in matrices) + facts.inputs + beside
    largest = max(fan_out * max(4, 2 * uses) for _, fan_out, uses in matrices)
    heldout = min(HELDOUT_SAMPLES, facts.heldout) * (facts.inputs + largest + beside // len(matrices))
    copies = PARAMETER_COPIES + 2 * OPTIMIZERS[optimizer].buffers if steps else MEASURED_PARAMETERS
    alive = SIGNAL_COPIES if steps else MEASURED_SIGNALS
    memory = width * (parameters * copies + batch * signals * alive + (heldout if steps else 0))
    rows = len(matrices) + 1 + (facts.steps if MODELS[model.name].needs_time else 0)
    memory += STEP_ROW * (steps + 1) + LAYER_ROW * rows * (steps // every + 2)
    # The samples of every step, by their numbers.
    shared = 8 * batch * (steps + 1)
    work = 6.0 * batch * products
    else_ = batch * signals * PER_SIGNAL + parameters * PER_PARAMETER + len(matrices) * PER_LAYER
    return Cost(work * (steps + 1), (work + else_) * (steps + 1), memory, shared)
