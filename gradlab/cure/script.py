"""A change as the lines of code that make it in a training script of the user's own. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradlab.cure.changes import Change, typed
from gradlab.spec import choices
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec

OPTIMIZERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "adadelta": "Adadelta",
}

ARGUMENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(OPTIMIZERS, ("weight_decay",)),
    "sgd": ("momentum", "nesterov", "weight_decay"),
    "rmsprop": ("momentum", "weight_decay"),
}
"""Keys of `optim` that are arguments of torch's optimizers, beside the learning rate."""

CLIPS = {
    "norm": "torch.nn.utils.clip_grad_norm_(model.parameters(), {threshold})",
    "value": "torch.nn.utils.clip_grad_value_(model.parameters(), {threshold})",
    "layerwise": (
        "for layer in (one for one in model.modules() if [*one.parameters(False)]): "
        "torch.nn.utils.clip_grad_norm_(layer.parameters(False), {threshold})"
    ),
    "normalize": "torch.nn.utils.clip_grad_norm_(model.parameters(), {threshold})  # after scaling the gradient up",
    "soft": (
        "norm = torch.nn.utils.get_total_norm([one.grad for one in model.parameters()]); "
        "[one.grad.mul_({threshold} / (norm + {threshold})) for one in model.parameters()]"
    ),
}

INITS = {
    "he_normal": "kaiming_normal_(weight)",
    "he_uniform": "kaiming_uniform_(weight)",
    "xavier_normal": "xavier_normal_(weight)",
    "xavier_uniform": "xavier_uniform_(weight)",
    "orthogonal": "orthogonal_(weight, gain={gain})",
}

SCHEDULES = {
    "cosine": "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {steps})",
    "linear": "torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, {end}, {steps})",
    "one_cycle": "torch.optim.lr_scheduler.OneCycleLR(optimizer, {lr}, {steps})",
}


def lines(spec: RunSpec, change: Change) -> list[str]:
    """What to write into a training script so that it does what ``change`` made of the run ``spec``.

    ``model``, ``optimizer``, ``inputs`` and ``targets`` are what they are called in most scripts. Keys that no line of
    torch says (`probe.every`) have none.
    """
    values = spec.flat()
    found: list[str] = []
    for parts, write in WRITERS.items():
        if any(key in change for key in parts):
            found += write(values, change)
    return found


def _optimizer(values: Mapping[str, Value], _: Change) -> list[str]:
    name = str(values["optim.name"])
    if name not in OPTIMIZERS:
        return []
    given = [f"lr={typed(values['optim.lr'])}"]
    present = [key for key in ARGUMENTS[name] if values[f"optim.{key}"]]
    given += [f"{key}={_python(values[f'optim.{key}'])}" for key in present]
    return [f"optimizer = torch.optim.{OPTIMIZERS[name]}(model.parameters(), {', '.join(given)})"]


def _schedule(values: Mapping[str, Value], change: Change) -> list[str]:
    found = []
    name = SCHEDULES.get(str(values["optim.schedule"]))
    if name is not None and "optim.schedule" in change:
        told = name.format(steps=values["train.steps"], end=values["optim.end_factor"], lr=typed(values["optim.lr"]))
        found.append(f"scheduler = {told}  # scheduler.step() after every optimizer.step()")
    if values["optim.warmup"] and "optim.warmup" in change:
        rise = f"torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, {values['optim.warmup']})"
        found.append(f"warmup = {rise}  # warmup.step() after every optimizer.step()")
    return found


def _clip(values: Mapping[str, Value], _: Change) -> list[str]:
    mode = str(values["clip.mode"])
    told = CLIPS.get(mode)
    if told is None and mode != "none":
        entry = choices.CLIPS[mode]
        return [f"# c = {typed(values['clip.threshold'])}: {entry.summary.partition('; c ')[0]} ({entry.source})"]
    if told is None:
        return ["# no clipping between loss.backward() and optimizer.step()"]
    return [f"{told.format(threshold=typed(values['clip.threshold']))}  # between loss.backward() and optimizer.step()"]


def _init(values: Mapping[str, Value], _: Change) -> list[str]:
    told, gain = INITS.get(str(values["model.init"])), values["model.gain"]
    draw = [] if told is None else [f"torch.nn.init.{told.format(gain=typed(gain))}"]
    if not draw and gain == 1:
        return []
    scale = [f"weight.data.mul_({typed(gain)})"] if gain != 1 and "orthogonal" not in str(told) else []
    return [
        "for weight in (one for one in model.parameters() if one.dim() > 1):",
        *(f"    {line}" for line in (*draw, *scale)),
    ]


def _inputs(values: Mapping[str, Value], change: Change) -> list[str]:
    found = []
    if "data.standardise" in change and values["data.standardise"]:
        found.append("inputs = (inputs - train_inputs.mean()) / train_inputs.std()")
    if "data.input_scale" in change and values["data.input_scale"] != 1:
        found.append(f"inputs = {typed(values['data.input_scale'])} * inputs")
    if "data.target_scale" in change:
        found.append(f"targets = {typed(values['data.target_scale'])} * targets")
    return found


def _layers(values: Mapping[str, Value], change: Change) -> list[str]:
    found = []
    if "model.activation" in change:
        found.append(f"# every activation of the model: {values['model.activation']}")
    if "model.norm" in change:
        what = "no norm" if values["model.norm"] == "none" else f"a {values['model.norm']} norm"
        if values["model.norm"] == "group":
            what += f" (torch.nn.GroupNorm({values['model.groups']}, units))"
        found.append(f"# {what} behind every layer of the model but the last")
    return found


def _loss(values: Mapping[str, Value], change: Change) -> list[str]:
    found = []
    if "train.loss" in change:
        found.append(f"# the loss: {values['train.loss']}")
    if "model.output" in change:
        found.append(f"# behind the model's last layer: {values['model.output']}")
    return found


def _pretraining(values: Mapping[str, Value], _: Change) -> list[str]:
    told = f"{values['pretrain.steps']} steps of Adam at {values['pretrain.lr']}"
    return [f"# before training, for each hidden layer in turn: {told} as encoder of an autoencoder of its own inputs"]


def _precision(values: Mapping[str, Value], _: Change) -> list[str]:
    form, scale = str(values["train.precision"]), str(values["train.loss_scale"])
    dtype = form.removeprefix("mixed_")
    if dtype == form:
        found = [f"model, inputs = model.to(torch.{dtype}), inputs.to(torch.{dtype})"]
    else:
        found = [f"model.forward = torch.autocast(inputs.device.type, torch.{dtype})(model.forward)"]
    if "16" in dtype and scale == "dynamic":
        steps = "scale(loss).backward(), unscale_(optimizer), clipping, step(optimizer), update()"
        found.append(f"scaler = torch.amp.GradScaler(inputs.device.type)  # of it {steps}")
    elif "16" in dtype and scale != "1":
        found.append(f"# ({scale} * loss).backward(), and every gradient divided by {scale} before it is clipped")
    return found


def _python(value: Value) -> str:
    return str(value) if isinstance(value, bool) else typed(value)


Write = Callable[[Mapping[str, Value], Change], list[str]]

WRITERS: dict[tuple[str, ...], Write] = {
    ("data.standardise", "data.input_scale", "data.target_scale"): _inputs,
    ("model.activation", "model.norm"): _layers,
    ("model.init", "model.gain"): _init,
    ("pretrain.mode",): _pretraining,
    ("train.loss", "model.output"): _loss,
    ("train.precision", "train.loss_scale"): _precision,
    tuple(f"optim.{key}" for key in ("name", "lr", "momentum", "nesterov", "weight_decay")): _optimizer,
    ("optim.schedule", "optim.warmup", "optim.end_factor"): _schedule,
    ("clip.mode", "clip.threshold", "clip.output_threshold"): _clip,
}
"""By the keys of a change, in the order in which a script says these things."""
