"""Which causes are asked after a verdict, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from gradlab.diagnose import in_course, in_layers, in_precision
from gradlab.diagnose.case import Case, Shows

Asked = tuple[tuple[str, Callable[[Case], Shows]], ...]

_RATE: Asked = (("recurrence", in_layers.recurrent), ("gates", in_layers.gates))

_BROUGHT: Asked = (
    ("weight_decay", in_course.decay),
    ("input_scale", in_layers.input_far),
    ("init", in_layers.weightless),
    ("learning_rate_high", in_course.arose),
)
"""What makes a gradient explode or vanish that did neither at the start."""

ASKED: dict[str, Asked] = {
    "diverged": (
        *(
            ("input_not_finite", in_layers.not_finite),
            ("all_masked", in_layers.unmasked),
            ("labels", in_layers.targetless),
            ("sign", in_course.climbed),
            ("eps_half", in_precision.eps_lost),
            ("overflow_half", in_precision.too_large),
            ("loss_scale", in_course.overflow),
        ),
        *(("infinite_slope", in_course.rootless), ("input_scale", in_layers.input_far)),
        *(
            ("target_scale", in_layers.target_far),
            ("activation", in_layers.endless),
            ("init", in_course.explodes),
            ("momentum", in_course.heavy),
        ),
        *(("learning_rate_high", in_course.too_high), ("init", in_course.overflows)),
    ),
    "no_gradient": (
        ("cut", in_layers.apart),
        ("one_unit", in_layers.one_unit),
        ("activation_on_logits", in_layers.relu_output),
        ("dead_units", in_layers.dead),
        ("constant_output", in_layers.same_output),
        ("labels", in_layers.nothing_counts),
    ),
    "dead": (
        *(
            ("dropout", in_layers.dropped),
            ("input_scale", in_layers.input_far),
            ("weight_decay", in_course.decay),
            ("init", in_layers.weightless),
            ("underflow_half", in_layers.faint),
            ("init", in_course.unlevel),
            ("learning_rate_high", in_course.later),
        ),
        ("dead_units", in_course.always),
    ),
    "saturated": (
        *(
            ("attention", in_layers.crowded),
            ("gates", in_layers.shut),
            ("broken_layer", in_layers.odd),
            ("input_scale", in_layers.input_far),
            ("init", in_course.unlevel),
            ("learning_rate_high", in_course.later),
        ),
        ("init", in_course.always),
    ),
    "exploding": (
        *(
            *_BROUGHT,
            ("broken_layer", in_layers.broken),
            ("dropout", in_layers.dropped),
            *_RATE,
            ("activation", in_layers.endless),
        ),
        *(("normalised_growth", in_layers.grown), ("growth", in_layers.residual)),
        *(("depth", in_layers.deep), ("init", in_layers.drawn)),
    ),
    "vanishing": (
        *(
            *_BROUGHT,
            ("broken_layer", in_layers.broken),
            ("broken_layer", in_layers.odd),
            ("dropout", in_layers.dropped),
            ("constant_output", in_layers.same_output),
            ("idle", in_layers.idle),
            ("underflow_half", in_precision.sunk),
            ("constant_output", in_layers.lifeless),
            ("cut", in_layers.cut),
            ("dead_units", in_layers.dead),
            *_RATE,
        ),
        *(("rank", in_layers.skipless), ("activation", in_layers.activation)),
        *(("depth", in_layers.deep), ("init", in_layers.drawn)),
    ),
    "underflow": (
        *(("underflow_half", in_course.half), ("activation", in_layers.activation), ("depth", in_layers.deep)),
        ("init", in_layers.drawn),
    ),
    "overclipped": (("clip_scaled", in_precision.scaled_when_clipped), ("clip", in_course.clipped)),
    "oscillating": (
        ("sign", in_course.climbed),
        ("dropout", in_layers.dropped),
        ("momentum", in_course.heavy),
        ("learning_rate_high", in_course.swings),
    ),
    "stalled": (
        *(
            ("dropout", in_layers.dropped),
            ("weight_decay", in_course.decay),
            ("eps", in_course.swallowed),
            ("no_update", in_course.unheld),
            ("frozen", in_course.still),
            ("cut", in_layers.drawn_from),
            ("input_scale", in_layers.input_far),
            ("target_scale", in_layers.target_far),
        ),
        *(
            ("loss_scale", in_precision.skipped),
            ("clip_scaled", in_precision.scaled_when_clipped),
            ("rounding", in_precision.rounded_away),
        ),
        *(
            ("no_update", in_course.put_back),
            ("learning_rate_low", in_course.slow),
            ("no_update", in_course.unmoved),
            ("clip", in_course.shortened),
        ),
        *(("penalty", in_course.outweighed), ("constant_output", in_course.constant), ("rank", in_layers.skipless)),
        *(("learning_rate_high", in_course.fast), ("labels", in_course.guessing)),
        ("learning_rate_low", in_course.creeping),
    ),
}
"""By verdict the causes that may be behind it, in the order in which they are asked."""
