"""The pytrees that cross rooms, and the axis letters.

N clients in the population, K clients in the round, M clusters, C client slots of a cluster,
E edge nodes, S local steps, B batch, Y classes, F cut-layer features, D devices, U uploaded steps,
R rows of uploaded smashed data, L items of one device; H, W, I rows, columns, channels of an image.
"""

import enum
from typing import Any, NamedTuple

import jax

Params = Any


class Halves(NamedTuple):
    """Parameters of the edge-side model; one tree per block, leaves f32."""

    front: Params
    back: Params


class HParams(NamedTuple):
    """Scalars that may change without a new program, f32[]."""

    learning_rate: jax.Array
    distill_learning_rate: jax.Array
    lambda_edge: jax.Array
    lambda_cloud: jax.Array
    temperature: jax.Array
    temperature_cloud: jax.Array
    proximal: jax.Array  # fedprox: mu
    server_learning_rate: jax.Array  # scaffold, fedopt, fedgkt


class Course(NamedTuple):
    """What became of a round on the simulated network, enough to draw it."""

    clients: jax.Array  # i32[K] indices into the population
    task: Any  # network.pace.Task
    schedule: Any  # network.schedule.Schedule
    phase_s: jax.Array  # f32[len(PHASES)] seconds


class RoundMetrics(NamedTuple):
    """What a round reports; None where a method has no such thing."""

    train_loss: jax.Array  # f32[], mean over the samples trained on, before each step
    clusters: Any = None  # clustering.Quality
    offload_cost: jax.Array | None = None  # f32[], the objective's value
    sampled: jax.Array | None = None  # i32[], clients in the round
    finished: jax.Array | None = None  # i32[], those of them that did all of it in time
    counted: jax.Array | None = None  # i32[], those of them whose contribution counts
    skipped: jax.Array | None = None  # i32[], left out for what is not finite; None: nobody ever is
    finite: Any = None  # OrderedDict {stage: tree of bool[]}, what each stage left, as they ran
    course: Any = None  # Course


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
    WIRE = 9
    PROBE = 10


def purpose_key(key, purpose):
    """The root of all keys of one purpose; no two purposes share a key."""
    return jax.random.fold_in(key, int(purpose))


def round_key(key, round_index, purpose):
    """The key of one purpose in one round."""
    return jax.random.fold_in(purpose_key(key, purpose), round_index)
