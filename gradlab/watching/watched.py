"""One run that is watched: a module, the optimizer that trains it, and what was seen of it so far."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab.diagnose.thresholds import DEFAULTS
from gradlab.watching.course import Course, Figure, Norms, divided, local, norms, sharded
from gradlab.watching.ears import Scale, bare, scale_of
from gradlab.watching.lookout import Lookout, Say
from gradlab.watching.observed import audible
from gradlab.watching.peers import Part
from gradlab.watching.recording import Recording
from gradlab.watching.rows import Row
from gradlab.watching.unmoved import Unmoved, ids_of

Due = Callable[[], None]


TRUSTED = 20
"""Steps (and all recorded ones) at which the norm of what an update takes is computed though nothing marks a change."""


@dataclass
class Watched:
    """A run: told of every way back and every update of the process, it keeps what is its own.

    ``due`` is called after a record: what is there may be written down. ``say`` is told where the first number that is
    not finite was made. ``micro`` counts the ways back, from 0.
    """

    name: str
    module: nn.Module
    optimizer: Optimizer
    every: int
    due: Due
    say: Say
    course: Course = field(default_factory=Course)
    layers: list[tuple[int, list[Row]]] = field(default_factory=list)
    precision: str = "float32"
    samples: int = 0
    seen: dict[str, Any] = field(default_factory=dict)
    diverged: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    told: int = 0
    micro: int = -1
    scaler: Any = None

    def __post_init__(self) -> None:
        self._names = audible(self.module)
        self._loss: Figure = 0.0
        self._norms: Norms | None = None
        self._clipped: Norms | None = None
        self._back: Sequence[Tensor] = ()
        self._scale: Scale = 1.0
        self._scale_now: Scale = 1.0
        self._skipped: bool | Tensor = False
        self._ways = 0
        self._marks: list[tuple[int, int]] = []
        self._left: list[tuple[int, int]] = []
        self._taken: list[tuple[int, int]] = []
        self._kept, self._old, self._stale = 0, False, False
        self._since = self._remade = 0
        self._hidden = False
        self._losses: list[Figure] = []
        self._lr: Figure = math.nan
        self._updates = 0
        self._updates_seen = 0
        self._recording: Recording | None = None
        self._unmoved = Unmoved(self.module, self.optimizer)
        self._ways_seen = 1
        self._classes: list[int | None] = []
        self._between = weakref.WeakSet[Optimizer]()
        self.contested = weakref.WeakSet[Optimizer]()
        self.judged: list[weakref.ref[nn.Parameter]] = []
        self.plays = False
        self.lookout = Lookout(self.module, self._names, self.say)
        self._prepare()

    def goes_on_with(self, optimizer: Optimizer) -> bool:
        """Takes an optimizer for its own that was made anew, of the same kind and parameters, after a few steps.

        Many scripts make one in each epoch, or in each step by mistake: each alone has too few steps to be judged.
        """
        alike = type(optimizer) is type(self.optimizer) and ids_of(optimizer) == ids_of(self.optimizer)
        if not alike or len(self.course) - self._since > DEFAULTS["least_steps"]:
            return False
        self.optimizer, self._since = optimizer, len(self.course)
        self._remade += 1
        return True

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that the optimizer trains."""
        return [one for group in self.optimizer.param_groups for one in group["params"]]

    @property
    def known(self) -> dict[str, Any]:
        """What was seen of it, and what of it no optimizer moves: of all that made a step in this process so far."""
        if "facts" not in self.seen:
            return self.seen
        facts: dict[str, Any] = {} if self.told else {"ways": self._ways_seen}
        if self.lookout.found is not None:
            facts["first_break"] = self.lookout.found.stored()
        facts |= self._unmoved.facts(self.seen["facts"]["trainable"], several=len(self.layers) > 1)
        facts |= {"remade": self._remade} if self._remade else {}
        facts |= {"plays": True} if self.plays else {}
        facts["kept_gradients"] = self._kept / max(1, len(self.layers) - 1)
        facts["alone"] = [one for one in self._classes if one is not None]
        return self.seen | {"facts": self.seen["facts"] | facts}

    @property
    def begun(self) -> bool:
        """Whether anything of it has run."""
        seen = self._recording is not None and bool(self._recording.tape.order)
        return seen or self.micro >= 0

    def _prepare(self) -> None:
        """The next step is recorded where it is its turn."""
        if len(self.course) % self.every == 0 and not self.diverged:
            self._recording = Recording(self.module, self._names)
            self._recording.start()

    @property
    def part(self) -> Part:
        """What this process saw, for another."""
        columns = self.course.columns()
        parts = sharded(self.module)
        return Part(columns["loss"], columns["grad_norm"], columns["grad_norm_clipped"], self.layers, parts)

    def take(self, whole: Part) -> None:
        """Puts what all processes saw in the place of what this one did."""
        count = len(whole.loss)
        self.course.loss[:count] = whole.loss
        self.course.grad_norm[:count] = whole.grad_norm[:count]
        self.course.grad_norm_clipped[:count] = whole.grad_norm_clipped[:count]
        self.layers = [(step, list(rows)) for step, rows in whole.layers]

    def stop(self) -> None:
        """Nothing is heard any more."""
        self.ended = self.ended or time.monotonic()
        self.lookout.stop()
        if self._recording is not None:
            self._recording.stop()
            self._recording = None

    def before_backward(self, losses: Sequence[Tensor], scale: Scale, *, again: bool) -> None:
        """Whether this way back is of this run shows when it is over: its gradients have changed then."""
        if self.diverged:
            return
        if self.scaler is not None and isinstance(scale, float) and scale == 1.0:
            # One of a kind that nobody has told of.
            scale = scale_of(self.scaler)
        self._back, self._scale_now = losses, scale
        present = [one.grad for one in self.parameters if one.grad is not None]
        self._marks = [(id(one), one._version) for one in present]
        # What stands there since the last update, and was not set to zero, not even behind autograd's back.
        same = self._recording is not None and bool(present) and self._marks == self._taken
        self._old = same and any(bool((one.coalesce().values() if one.is_sparse else one).any()) for one in present)
        if not present:
            # What came here was thrown away, and others have made their step with it: a game of several players.
            self.contested |= self._between if self._ways else set()
            self._forget()
        self.lookout.before_backward(losses[0], len(self.course), self.micro + 1)
        if self._recording is not None:
            self._recording.before_backward(losses[0], scale, again=again)

    def _forget(self) -> None:
        """The gradients were set to zero: a step begins, whatever came before."""
        self._loss, self._norms, self._ways = 0.0, None, 0
        self._between.clear()
        if self._recording is not None:
            self._recording.drop()

    def after_backward(self) -> None:
        """Takes the norm of all gradients, before anything clips them."""
        if self.diverged:
            return
        self.lookout.heard()
        if self._recording is not None:
            self._recording.after_backward()
        having = [one for one in self.parameters if one.grad is not None]
        gradients = [one.grad for one in having if one.grad is not None]
        left = [(id(one), one._version) for one in gradients]
        if not gradients or left == self._marks:
            return
        self._stale = self._old or (self._stale and bool(self._marks) and self._marks == self._left)
        self._left = left
        self._scale = self._scale_now
        for loss in self._back:
            value = loss.detach()
            value = value if value.dim() == 0 else value.sum()
            self._loss = self._loss + divided(float(value) if value.device.type == "cpu" else value, self._scale)
        self._norms = norms([local(one) for one in gradients])
        self._ways += 1
        self.micro += 1
        self.lookout.after_backward(self._back[0], self._norms, having, self._scale, len(self.course), self.micro)

    def before_update(self, optimizer: Optimizer) -> None:
        """The learning rate, and the weights where they are recorded."""
        self._unmoved.heed(optimizer)
        if self._ways and optimizer not in self._between and not ids_of(optimizer) & ids_of(self.optimizer):
            self._between.add(optimizer)
        if optimizer is self.optimizer and not self.diverged:
            lr = optimizer.param_groups[0].get("lr", math.nan)
            self._lr = lr.detach().clone() if isinstance(lr, Tensor) else float(lr)
            if self._recording is not None:
                self._recording.before_update()
                self._unmoved.rest(optimizer)

    def gradients_ready(self, optimizer: Optimizer) -> None:
        """The norm of what the update takes."""
        if optimizer is not self.optimizer or self.diverged:
            return
        scale = getattr(optimizer, "grad_scale", None)
        found = getattr(optimizer, "found_inf", None)
        scale = 1.0 if scale is None else scale
        self._skipped = found.clone() if isinstance(found, Tensor) else False
        given = [one.grad for one in self.parameters if one.grad is not None]
        marks = [(id(one), one._version) for one in given]
        trusted = self._norms is not None and marks == self._left and not self._hidden
        if trusted and self._recording is None and len(self.course) >= TRUSTED:
            taken = self._norms or Norms((), 0.0)
        else:
            taken = norms([local(one) for one in given])
            if trusted and self._norms is not None and isinstance(taken.total, float):
                # What is changed behind autograd's back (`.grad.data`) leaves no mark.
                self._hidden = taken.total != self._norms.total
        self._clipped = Norms(taken.each, divided(taken.total, scale))
        if self._recording is not None:
            before = self._norms.total if self._norms is not None else math.nan
            same = isinstance(before, float) and bool(before == taken.total and self._scale == 1.0 and scale == 1.0)
            self._recording.gradients_ready(scale, untouched=same)

    def after_update(self, optimizer: Optimizer) -> None:
        """A row of `steps`, and where it is recorded the rows of `layers`."""
        if optimizer is not self.optimizer or self.diverged or self._clipped is None:
            return
        self._updates += 1
        self._kept += self._stale and self._recording is not None
        self._stale = False
        given = [one.grad for one in self.parameters if one.grad is not None]
        self._taken = [(id(one), one._version) for one in given]
        before = self._norms if self._norms is not None else self._clipped
        total = divided(before.total, self._scale) if self._norms is not None else before.total
        self._row(total, self._clipped.total, self._skipped)
        if self._recording is not None:
            self._recording.after_update()
        self._ended_step()

    def after_scaler(self, optimizer: Optimizer, scale: Scale) -> None:
        """A step that a loss scaler skipped is a row, too: its weights stay, and its gradient was not finite."""
        if optimizer is not self.optimizer or self.diverged:
            return
        if self._updates == self._updates_seen and self._norms is not None:
            self._row(divided(self._norms.total, self._scale), None, skipped=True)
            self._ended_step()
        self._updates_seen = self._updates
        if self.course.loss_scale:
            self.course.loss_scale[-1] = scale

    def compiled(self) -> None:
        """Something was compiled: while a step is recorded it runs as it was written, and between no hook is in it."""
        self.lookout.stop()
        if self._recording is not None:
            self._recording.as_written()

    def step(self, loss: Figure, **scalars: Figure) -> None:
        """The script's own word on the step that was made last, or on a part of one to come (a micro-batch)."""
        told = {name: single(name, value) for name, value in scalars.items()}
        self._losses.append(single("the loss", loss))
        if len(self.course) == self.told:
            return
        at = len(self.course) - 1
        self.told = len(self.course)
        losses, self._losses = self._losses, []
        mean = losses[0]
        for one in losses[1:]:
            mean = mean + one
        self.course.loss[at] = mean / len(losses)
        self.course.scalars += [(at, name, value) for name, value in told.items()]

    def _row(self, before: Figure, after: Figure | None, skipped: bool | Tensor) -> None:
        course = self.course
        course.loss.append(self._loss if self._ways else None)
        course.lr.append(self._lr)
        course.grad_norm.append(before)
        course.grad_norm_clipped.append(after)
        course.loss_scale.append(None)
        course.skipped.append(skipped)
        broke = isinstance(before, float) and not (math.isfinite(before) and math.isfinite(float(self._loss)))
        self.diverged = broke and skipped is False

    def _ended_step(self) -> None:
        recording, self._recording = self._recording, None
        self._clipped = None
        self.lookout.next_step()
        self._forget()
        if recording is not None:
            recording.stop()
            self.layers.append((len(self.course) - 1, recording.rows()))
            if not self.seen:
                self.seen = recording.told
                self._ways_seen = recording.ways
                self._unmoved.see(recording, self.parameters)
            self.judged += [weakref.ref(one) for one in recording.judged]
            entropy = recording.told.get("facts", {}).get("losses", {}).get("negative_log_likelihood", {})
            self._classes.append(entropy.get("only"))
            self.precision = recording.precision if recording.rows() else self.precision
            self.samples = self.samples or recording.samples
            self.due()
        self._prepare()


def single(name: str, value: Any) -> Figure:
    """A figure that a script tells, which is not waited for. Raises `TypeError` for what is no single number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().reshape(())
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} is {given}; expected a single number") from error


def trained_by(optimizer: object) -> Optimizer:
    """The optimizer of torch that is meant. Raises `TypeError` for what is none."""
    found = bare(optimizer)
    if not isinstance(found, Optimizer):
        raise TypeError(f"the optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
    return found
