"""The pytrees that layers exchange, and the axis letters.

N clients in the population, K clients in the round, M clusters, C client slots of a cluster,
E edge nodes, S local steps, B batch, Y classes, F cut-layer features, D devices, U uploaded steps,
R rows of uploaded smashed data, L items of one device; H, W, I rows, columns, channels of an image,
F the numbers in a row of a table where the samples are such rows.
"""

import enum
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float32, Int, Int32, PRNGKeyArray, PyTree

AnyArray: TypeAlias = Array | np.ndarray
"""JAX's arrays and NumPy's: what public functions take."""

Number: TypeAlias = float | np.floating | Float32[AnyArray, ""]
"""A scalar that a caller may trace, or not."""

Count: TypeAlias = int | np.integer | Int32[AnyArray, ""]
"""A number of things that a caller may trace, or not."""

Params: TypeAlias = PyTree[Float32[AnyArray, "..."]]


class Halves(NamedTuple):
    """Parameters of the edge-side model; one tree per block, leaves f32."""

    front: Params
    back: Params


class HParams(NamedTuple):
    """Scalars that may change without a new program, f32[]."""

    learning_rate: Float32[Array, ""]
    distill_learning_rate: Float32[Array, ""]
    lambda_edge: Float32[Array, ""]
    lambda_cloud: Float32[Array, ""]
    temperature: Float32[Array, ""]
    temperature_cloud: Float32[Array, ""]
    own: dict[str, Float32[Array, ""]]  # the method's own, by the names in `MethodInfo.traced`


class RoundTrace(NamedTuple):
    """What happened in a round on the simulated network, enough to draw it."""

    clients: Int32[Array, "K"]  # indices into the population
    task: Any  # network.step_times.Task
    schedule: Any  # network.schedule.Schedule
    phase_s: Float32[Array, "phases"]  # seconds


class RoundMetrics(NamedTuple):
    """What a round reports; None where a method has no such thing."""

    train_loss: Float32[Array, ""]  # mean over the samples trained on, before each step
    clusters: Any = None  # clustering.Quality
    offload_cost: Float32[Array, ""] | None = None  # the objective's value
    sampled: Int32[Array, ""] | None = None  # clients in the round
    finished: Int32[Array, ""] | None = None  # those of them that did all of it in time
    counted: Int32[Array, ""] | None = None  # those of them whose contribution counts
    skipped: Int32[Array, ""] | None = None  # left out: not finite; None: nobody ever is
    finite: Any = None  # OrderedDict {stage: numerics.FiniteCheck}, as they ran
    round_trace: Any = None  # RoundTrace


class Purpose(enum.IntEnum):
    """What a key is for: keys are folded from (seed, round, purpose), never carried."""

    MODEL = 0
    SAMPLING = 1
    CLUSTERING = 2
    BATCHES = 3
    DISTILL_EDGE = 4
    DISTILL_CLOUD = 5
    NETWORK = 6
    DEPARTURE = 7
    OFFLOAD = 8
    LINK = 9
    PROBE = 10


def purpose_key(key: PRNGKeyArray, purpose: Purpose) -> PRNGKeyArray:
    """Returns the root of all keys of one purpose; no two purposes share a key."""
    return jax.random.fold_in(key, int(purpose))


def round_key(key: PRNGKeyArray, round_index: Int[ArrayLike, ""], purpose: Purpose) -> PRNGKeyArray:
    """Returns the key of one purpose in one round."""
    return jax.random.fold_in(purpose_key(key, purpose), round_index)
