"""The radio link: path loss and Shannon rate."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float32, Real


def path_gain(distance_km: Real[ArrayLike, "..."]) -> Float32[Array, "..."]:
    """Channel gain of the urban macro cell, 10^(-PL/10) with PL = 128.1 + 37.6 log10(d/km) dB.

    Args:
      distance_km: f32[...] distance, > 0.
    Returns:
      f32[...] power gain, dimensionless.
    Reference:
      3GPP TR 36.814, macro cell propagation.
    """
    return 10.0**-12.81 * jnp.asarray(distance_km) ** -3.76


def shannon_rate(
    distance_km: Real[ArrayLike, "..."],
    bandwidth_hz: Real[ArrayLike, "..."],
    power_w: Real[ArrayLike, "..."],
    noise_w_per_hz: Real[ArrayLike, "..."],
) -> Float32[Array, "..."]:
    """Rate of a link by Shannon's formula, W log2(1 + P h / (W N0)).

    Args:
      distance_km: f32[...] distance, > 0.
      bandwidth_hz: f32[...] bandwidth W.
      power_w: f32[...] transmit power P.
      noise_w_per_hz: f32[...] noise density N0.
    Returns:
      f32[...] bit/s.
    """
    signal_to_noise = power_w * path_gain(distance_km) / (bandwidth_hz * noise_w_per_hz)
    return jnp.log1p(signal_to_noise) * bandwidth_hz / jnp.log(2.0)
