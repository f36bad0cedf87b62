"""The sections of a run's spec, frozen, and what is known of its data and of a network of the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gradlab.spec.choices.data import forms_of
from gradlab.spec.choices.models import MODELS
from gradlab.spec.named import Value

CHANNELS = (1, 3, 4)
"""Numbers of a pixel: grey, colours, colours and how opaque they are."""

Arguments = tuple[tuple[str, Value], ...]
"""What a function of the user's own is called with, by name, in the order of the names."""


@dataclass(frozen=True)
class ModelSpec:
    """The `model` section; a key that the architecture lacks is None: so are depth and width of a user's own network.

    ``args`` are `model.args.NAME`, by name.
    """

    name: str
    depth: int
    width: int
    activation: str | None
    slope: float | None
    init: str | None
    gain: float
    weight_var: float | None
    bias_var: float | None
    norm: str | None
    pool: str | None
    block: str | None
    branch_scale: float | None
    capsule_width: int | None
    routing: int | None
    squash_eps: float | None
    forget_bias: float | None
    chrono: bool | None
    attention: str | None
    heads: int | None
    norm_place: str | None
    skip: bool | None
    feed_forward: int | None
    causal: bool | None
    qk_norm: bool | None
    attention_scale: float | None
    output: str | None
    parametrization: str | None
    base_width: int | None
    base_depth: int | None
    dropout: float | None
    groups: int | None
    norm_order: str | None
    target: str | None
    source: str | None
    args: Arguments = ()

    @property
    def free(self) -> bool:
        """Whether it is a network of the user's own (`model=module`): its depth and width are not gradlab's to say."""
        return MODELS[self.name].free

    @property
    def drawn_width(self) -> int:
        """The width whose fans tell the variances of the initial weights: under `mup` the base's, else its own."""
        return self.base_width if self.parametrization == "mup" and self.base_width else self.width

    @property
    def deeper(self) -> float:
        """The residual branches over those at which `mup` leaves them as they are; 1 where it does not count them."""
        if self.parametrization != "mup" or self.base_depth is None:
            return 1.0
        branches = MODELS[self.name].branches
        return branches(self.depth) / branches(self.base_depth)

    @property
    def branch(self) -> float:
        """What a residual branch is multiplied by, as it acts."""
        return (self.branch_scale or 0.0) / math.sqrt(self.deeper)


@dataclass(frozen=True)
class DataSpec:
    """The `data` section, `batch_size` resolved to an integer; a key that the data lack is None."""

    name: str
    root: str | None
    mirror: str | None
    batch_size: int
    seed: int
    standardise: bool
    input_scale: float
    target_scale: float
    bad_every: int
    length: int | None
    features: int | None
    ask: str | None
    permuted: bool | None
    path: str | None
    label: str | None
    heldout: float | None
    task: str | None
    target: str | None
    source: str | None
    args: Arguments = ()


@dataclass(frozen=True)
class OptimSpec:
    """The `optim` section; which keys act is in `choices.OPTIMIZERS` and `choices.SCHEDULES`."""

    name: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    l1: float
    beta1: float
    beta2: float
    eps: float
    dampening: float
    amsgrad: bool
    maximize: bool
    schedule: str
    warmup: int
    end_factor: float
    decay: float
    decay_every: int


@dataclass(frozen=True)
class ClipSpec:
    """The `clip` section."""

    mode: str
    threshold: float
    output_threshold: float | None


@dataclass(frozen=True)
class TrainSpec:
    """The `train` section."""

    steps: int
    precision: str
    loss_scale: str
    rounding: str
    loss: str
    source: str | None = None


@dataclass(frozen=True)
class PretrainSpec:
    """The `pretrain` section; ``steps`` are of each layer where one is pre-trained after the other."""

    mode: str
    steps: int
    lr: float
    corruption: float


@dataclass(frozen=True)
class ProbeSpec:
    """The `probe` section."""

    every: int
    instrument: str


@dataclass(frozen=True)
class Facts:
    """What a network must know of its data: shapes and sizes, no numbers.

    ``shape`` is that of one input, ``outputs`` how many numbers or classes one answer has; ``loss``, ``image`` and
    ``vocabulary`` as in `choices.Data`; ``positions`` counts the answers of a sample, 0 where there is but one. Of data
    of the user's own, ``source`` is the SHA-256 of what they come from, and ``told`` how they were understood;
    ``kind``: what their numbers are, where they are not all floats; ``turned``: their channels stand first in the
    arrays, as torch has them, and last in ``shape``.
    """

    shape: tuple[int, ...]
    outputs: int
    loss: str
    train: int
    heldout: int
    source: str | None = None
    told: str | None = None
    image: bool = False
    vocabulary: int = 0
    positions: int = 0
    dictated: bool = False
    kind: str | None = None
    turned: bool = False

    @property
    def inputs(self) -> int:
        """Entries of one input."""
        return math.prod(self.shape)

    @property
    def steps(self) -> int:
        """Time steps of one input: of an image, its rows."""
        return self.shape[0]

    @property
    def features(self) -> int:
        """Entries of one time step: of a token, one for each that there is."""
        return self.vocabulary or math.prod(self.shape[1:])

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.shape[0], self.shape[1]

    @property
    def channels(self) -> int:
        """Numbers of a pixel."""
        return self.shape[2] if len(self.shape) > 2 else 1

    @property
    def forms(self) -> tuple[str, ...]:
        """How an input can be taken; see `choices.data.forms_of`. Two axes of the user's own can be an image's, too."""
        found = forms_of(len(self.shape), image=self.image, vocabulary=self.vocabulary)
        return (*found, "image") if self.source is not None and len(self.shape) == 2 and not self.image else found

    def channels_last(self) -> Facts:
        """Images of the user's own as gradlab's architectures take them, (H, W, C); as they are if that is not clear.

        The axis of the channels is the only one, of the first and the last, that has 1, 3 or 4 entries.
        """
        if self.source is None or len(self.shape) != 3:
            return self
        first, *rest = self.shape
        if self.image or (first in CHANNELS and rest[-1] not in CHANNELS):
            return replace(self, shape=(*rest, first), image=True, turned=True)
        return replace(self, image=True) if rest[-1] in CHANNELS and first not in CHANNELS else self


@dataclass(frozen=True)
class Extent:
    """How large a network of the user's own is: what is planned by.

    Trained ``parameters`` (real numbers), ``signals`` (numbers that its layers put out for one sample), ``layers``,
    their ``calls``, and the ``work`` of a step on one batch in operations. ``stacks``: several have been tried as one,
    and ``obstacle`` is empty; otherwise it may say why they cannot be trained so.
    """

    parameters: int
    signals: int
    layers: int
    work: float
    calls: int = 1
    stacks: bool = False
    obstacle: str = ""
