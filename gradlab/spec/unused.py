"""Keys of a run that do nothing in it."""

from __future__ import annotations

import dataclasses

from gradlab.spec.choices import CLIPS, NORMS, OPTIMIZERS, PRETRAINING, SCHEDULES
from gradlab.spec.choices.formats import HALF
from gradlab.spec.run import RunSpec
from gradlab.spec.sections import OptimSpec

ALWAYS = ("name", "schedule", "warmup")
"""Fields of the `optim` section that act in every run."""


def unused(spec: RunSpec) -> frozenset[str]:
    """Keys that this run has but that do nothing in it: a threshold without clipping, momentum under adam."""
    idle = {
        f"optim.{f.name}"
        for f in dataclasses.fields(OptimSpec)
        if f.name not in {*ALWAYS, *OPTIMIZERS[spec.optim.name].uses, *SCHEDULES[spec.optim.schedule].uses}
    }
    idle |= {f"clip.{name}" for name in ("threshold", "output_threshold") if name not in CLIPS[spec.clip.mode].uses}
    if spec.model.norm != "group":
        idle.add("model.groups")
    if not NORMS[spec.model.norm or "none"].of_signals:
        idle.add("model.norm_order")
    if spec.model.parametrization != "mup":
        idle.add("model.base_width")
    if not HALF & set(spec.train.precision.split("_")):
        idle.add("train.loss_scale")
    if spec.train.precision not in HALF:
        idle.add("train.rounding")
    if spec.pretrain.mode == "none":
        idle |= {"pretrain.steps", "pretrain.lr"}
    if not PRETRAINING[spec.pretrain.mode].corrupts:
        idle.add("pretrain.corruption")
    if spec.model.activation not in ("leaky_relu", "prelu"):
        idle.add("model.slope")
    if spec.facts.loss != "mean_squared_error" or spec.loss == "quartic":
        idle.add("data.target_scale")
    return frozenset(idle)
