"""What smashed data gives away of the images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray, PyTree

from cefl_jax.stages.link import Codec, add_noise
from cefl_jax.types import AnyArray, Number


def distance_correlation(
    x: Float[AnyArray, "n *of_x"], y: Float[AnyArray, "n *of_y"], rows: int | None = None
) -> Float32[Array, ""]:
    """Computes the sample distance correlation of paired observations.

    Between 0 and 1; 1 when one is a shifted, scaled and rotated copy of the other, and for any two
    pairs. 0 when all x or all y are equal, and for n = 1. This is the correlation itself, not its
    square, and not corrected for bias: independent observations of many values give well above 0.

    Args:
      x: f32[n, ...] observations, each flattened.
      y: f32[n, ...] likewise.
      rows: static, observations whose distances are computed at once; None for one after another.
    Returns:
      f32[] sqrt(dCov^2(x, y) / sqrt(dVar^2(x) dVar^2(y))); not a number when an input is not
      finite.
    Reference:
      Szekely, Rizzo and Bakirov, Measuring and testing dependence by correlation of distances,
      Annals of Statistics 35(6), 2007, definitions 4 and 5.
    """
    x, y = _centred_distances(x, rows), _centred_distances(y, rows)
    variances = (x * x).mean() * (y * y).mean()
    square = (x * y).mean() / jnp.sqrt(jnp.where(variances == 0.0, 1.0, variances))
    return jnp.sqrt(jnp.clip(square, 0.0, 1.0))


def measure_leakage(
    front: Callable,
    params: PyTree,
    images: Float32[AnyArray, "n *sample"],
    *,
    noise_std: Number,
    codec: Codec,
    key: PRNGKeyArray,
    rows: int | None = None,
) -> Float32[Array, ""]:
    """Measures the distance correlation between images and what a client would send for them.

    Args:
      front: from params and images to cut-layer features f32[n, ...].
      params: of the front half.
      images: f32[n, ...] normalised probe images.
      noise_std: standard deviation of the noise that a client adds, f32[] or a number.
      codec: Codec of the smashed data; the probe is sent as one message.
      key: of the noise and of the codec.
      rows: as in `distance_correlation`.
    Returns:
      f32[] from 0 to 1.
    Reference:
      Vepakomma, Singh, Gupta and Raskar, NoPeek: Information leakage reduction to share activations
      in distributed deep learning, ICDM workshops 2020: distance correlation as the leakage of
      split learning.
    """
    noise_key, codec_key = jax.random.split(key)
    features = add_noise(noise_key, front(params, images), noise_std)
    sent = codec.transmit(codec_key, features, jnp.ones(images.shape[0], bool))
    return distance_correlation(images, sent, rows)


def _centred_distances(x, rows):
    """Doubly centred Euclidean distances f32[n, n] in units of the spread of x."""
    x = x.reshape(x.shape[0], -1)
    spread = jnp.abs(x - x[:1]).max()
    unit = jnp.where(spread < jnp.finfo(jnp.float32).tiny, 0.0, 1.0 / spread)
    # Differences first: from a Gram matrix, equal observations would not be exactly 0 apart.
    distance = jax.lax.map(
        lambda row: jnp.sqrt((((x - row[None]) * unit) ** 2).sum(-1)), x, batch_size=rows
    )
    return (
        distance
        - distance.mean(0, keepdims=True)
        - distance.mean(1, keepdims=True)
        + distance.mean()
    )
