"""A network of the user's own before it is trained: made, called once on a batch, and measured.

What cannot be trained is found here, and told in a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.dataset import DataError
from gradlab.data.targets import told
from gradlab.engine.called import Judge, answer, judging, sow, tensor_of
from gradlab.engine.precision import FORMATS
from gradlab.engine.task import Task
from gradlab.models.module import converted, drawn, entries, is_lazy, made
from gradlab.spec.run import Extent, RunSpec
from gradlab.watching.facts import IGNORED
from gradlab.watching.observed import Observed, observe

ONE_OF_CLASSES = ("cross_entropy", "negative_log_likelihood", "hinge")
"""Losses that want an output for each class."""


def begun(run: RunSpec, inputs: Any, device: torch.device) -> nn.Module:
    """A run's network at its initial weights; parameters without a shape get one from the inputs."""
    dtype = FORMATS[run.train.precision].parameters
    module = made(run.model, run.seed, dtype).to(device)
    if is_lazy(module):
        # Torch draws what has no shape yet in single precision, from inputs of it.
        sow(run.seed, 0)
        with _theirs(run, lambda: f"inputs of {shapes(inputs)}"), torch.no_grad():
            answer(module, FORMATS["float32"].enter(inputs))
        module = converted(module, dtype)
    drawn(module, run.model, run.seed)
    return module


def looked_at(
    run: RunSpec, module: nn.Module, inputs: Any, targets: Tensor, judge: Judge
) -> tuple[Observed, dict[nn.Parameter, str]]:
    """What is seen of a network on one batch, and the names of its parameters. Raises `DataError` for what fails."""
    if not any(one.requires_grad for one in module.parameters()):
        raise DataError(
            f"model.target={run.model.target}: has no parameter that requires a gradient; nothing can learn"
        )
    form = FORMATS[run.train.precision]
    inputs = form.enter(inputs)
    there = form.cast(targets.device)
    outputs: list[Any] = []

    def heard(output: Any, targets: Tensor) -> Tensor:
        outputs[:] = [output]
        if run.loss in ONE_OF_CLASSES and targets.dim() == 1 and not targets.is_floating_point():
            if (least := int(targets.min())) < 0 and least != IGNORED:
                raise DataError(f"the targets hold the class {least}; expected 0 or more")
            able = tensor_of(output).shape[-1:].numel()
            if able < run.facts.outputs:
                wrong = f"puts out {able} numbers a sample, and the data have {run.facts.outputs} classes"
                raise DataError(f"model.target={run.model.target}: {wrong}; expected one for each")
        return judge(output, targets)

    def given() -> str:
        kind = "numbers" if targets.is_floating_point() or targets.is_complex() else f"{run.facts.outputs} classes"
        found = [f", outputs of {shapes(one)}" for one in outputs if isinstance(one, Tensor)]
        return f"inputs of {shapes(inputs)}, targets of {shapes(targets)}, {kind}{''.join(found)}"

    sow(run.seed, 0)
    with _theirs(run, given):
        _there_and_back(module, inputs, targets, heard, there)
    sow(run.seed, 0)
    try:
        seen = observe(module, inputs, lambda output: judge(output, targets), there=there)
    except ValueError as error:
        raise _failed(run, given(), error) from error
    return seen, {parameter: name for name, parameter in module.named_parameters()}


@contextmanager
def _theirs(run: RunSpec, given: Callable[[], str]) -> Iterator[None]:
    """Nothing of gradlab's listens within: it is the user's network, and whatever it raises is told in a line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise _failed(run, given(), error) from error


def _failed(run: RunSpec, given: str, error: Exception) -> DataError:
    return DataError(f"model.target={run.model.target}: fails on a batch with {given}: {told(error)}")


def _there_and_back(
    module: nn.Module, inputs: Any, targets: Tensor, judge: Judge, there: AbstractContextManager[Any]
) -> None:
    with torch.enable_grad():
        with there:
            loss: Any = judge(answer(module, inputs), targets)
        learned = [one for one in module.parameters() if one.requires_grad]
        # What is no scalar with a gradient is told by who listens.
        if isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1:
            torch.autograd.grad(loss.reshape(()), learned, allow_unused=True)


def shapes(given: Any) -> str:
    """The shape of a tensor, or of several."""
    if isinstance(given, Mapping):
        return ", ".join(f"{name} {tuple(part.shape)}" for name, part in given.items())
    parts = given if isinstance(given, tuple) else (given,)
    return " and ".join(str(tuple(part.shape)) for part in parts)


def extent(run: RunSpec, task: Task) -> Extent:
    """How large a network is; nothing but it and one batch is made. Raises `DataError` as `lend` does."""
    task.turn_to(0)
    inputs, targets = task.of_member(0)
    seen, names = looked_at(run, begun(run, inputs, torch.device("cpu")), inputs, targets, judging(run))
    signals, work = 0, 0.0
    for layer in seen.layers:
        put_out = sum(call.raw.count for call in layer.calls)
        weights = [one for one in layer.parameters if one.dim() > 1]
        # Each number that a layer puts out is a product over one unit's weights: there, and back twice.
        work += 6.0 * put_out * sum(one.numel() / one.shape[0] for one in weights)
        signals += put_out
    return Extent(
        parameters=sum(entries(one) for one in names if one.requires_grad),
        signals=signals // max(1, len(targets)),
        layers=len(seen.layers),
        work=work,
        calls=sum(len(layer.calls) for layer in seen.layers),
    )
