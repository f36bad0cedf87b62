"""Instruments, one a file: what is measured beyond the per-layer table where `probe.instrument` asks for it.

Each is a function of a cohort and gives curves at the recorded steps, per member, in float64.
"""

from __future__ import annotations

from gradlab.engine.instruments.bench import Curve, Instrument
from gradlab.engine.instruments.coordinates import coordinates
from gradlab.engine.instruments.gradient_log import gradient_log
from gradlab.engine.instruments.gradient_noise import gradient_noise
from gradlab.engine.instruments.hidden_jacobian import hidden_jacobian
from gradlab.engine.instruments.input_autocorrelation import input_autocorrelation
from gradlab.engine.instruments.input_correlation import input_correlation
from gradlab.engine.instruments.jacobian_covariance import jacobian_covariance
from gradlab.engine.instruments.jacobian_spectrum import jacobian_spectrum
from gradlab.engine.instruments.loss_plane import loss_plane
from gradlab.engine.instruments.mode_strength import mode_strength
from gradlab.engine.instruments.number_range import number_range
from gradlab.engine.instruments.recurrent_jacobian import recurrent_jacobian
from gradlab.engine.instruments.sharpness import sharpness
from gradlab.engine.instruments.tangent_kernel import tangent_kernel
from gradlab.engine.instruments.token_similarity import token_similarity
from gradlab.engine.instruments.twin_distance import twin_distance
from gradlab.engine.instruments.weight_motion import weight_motion

__all__ = ["INSTRUMENTS", "Curve"]

INSTRUMENTS: dict[str, Instrument] = {
    "none": lambda _cohort, _advance: lambda _t: (),
    "jacobian_spectrum": jacobian_spectrum,
    "hidden_jacobian": hidden_jacobian,
    "gradient_log": gradient_log,
    "gradient_noise": gradient_noise,
    "jacobian_covariance": jacobian_covariance,
    "input_autocorrelation": input_autocorrelation,
    "recurrent_jacobian": recurrent_jacobian,
    "input_correlation": input_correlation,
    "token_similarity": token_similarity,
    "tangent_kernel": tangent_kernel,
    "number_range": number_range,
    "coordinates": coordinates,
    "sharpness": sharpness,
    "weight_motion": weight_motion,
    "twin_distance": twin_distance,
    "loss_plane": loss_plane,
    "mode_strength": mode_strength,
}
"""The function of every name of `choices.INSTRUMENTS`."""
