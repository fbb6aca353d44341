"""Which clients train together: clusters whose pooled labels resemble the whole."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PRNGKeyArray, Real

from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages.clustering.balanced import balanced_clusters, balanced_start
from cefl_jax.stages.clustering.divergence import (
    TIE_NATS,
    cluster_kl,
    counts_of_present,
    number_present,
    target_distribution,
)
from cefl_jax.stages.clustering.greedy import astraea_clusters, patent_clusters
from cefl_jax.stages.clustering.joint import ClientSeconds, joint_clusters
from cefl_jax.types import AnyArray

__all__ = [
    "TIE_NATS",
    "ClientSeconds",
    "Quality",
    "astraea_clusters",
    "balanced_clusters",
    "balanced_start",
    "cluster_clients",
    "cluster_kl",
    "count_clusters",
    "joint_clusters",
    "measure_quality",
    "patent_clusters",
    "random_clusters",
    "target_distribution",
]


def random_clusters(
    key: PRNGKeyArray,
    num_clients: int,
    num_clusters: int,
    present: Bool[AnyArray, "K"] | None = None,
) -> Int32[Array, "K"]:
    """A random division of the clients present into clusters equal in size within one, i32[K]."""
    place = jax.random.permutation(key, jnp.arange(num_clients, dtype=jnp.int32))
    shuffled = None if present is None else jnp.zeros(num_clients, bool).at[place].set(present)
    number = number_present(num_clients, shuffled)[place]
    return jnp.where(number < 0, -1, number % num_clusters)


def cluster_clients(
    key: PRNGKeyArray,
    label_counts: Real[AnyArray, "K Y"],
    spec: ClusteringSpec,
    present: Bool[AnyArray, "K"] | None = None,
    seconds: ClientSeconds | None = None,
) -> Int32[Array, "K"]:
    """Clusters the clients of a round by the rule that the settings name.

    The clients present are clustered as if the other places did not exist.

    Args:
      key: for the rule "random"; unused by the others.
      label_counts: i32[K, Y] examples of each label at each client, in sampling order.
      spec: static ClusteringSpec.
      present: bool[K] places that a client takes; None for all.
      seconds: ClientSeconds, for the rule "balanced" with a `network_weight`; unused otherwise.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    Raises:
      ValueError: for an unknown rule, or a `network_weight` without the seconds.
    """
    num_clients = label_counts.shape[0]
    counts = counts_of_present(label_counts, present)
    target = target_distribution(counts, spec.target)
    num_clusters = count_clusters(spec, num_clients)
    match spec.rule:
        case "patent":
            return patent_clusters(
                counts, num_clusters, spec.min_size, target, spec.max_size, present
            )
        case "balanced" if spec.network_weight > 0:
            if seconds is None:
                raise ValueError(
                    f"cefl.clustering.network_weight={spec.network_weight} needs the seconds of "
                    "every client with every edge node; set it to 0 where these are not known"
                )
            weight = spec.network_weight
            return joint_clusters(counts, num_clusters, *seconds, weight, target, present)
        case "balanced":
            return balanced_clusters(counts, num_clusters, target, present)
        case "astraea":
            return astraea_clusters(counts, num_clusters, spec.max_size, target, present)
        case "random":
            return random_clusters(key, num_clients, num_clusters, present)
        case "single":
            return jnp.minimum(number_present(num_clients, present), 0)
        case "singleton":
            return number_present(num_clients, present)
    raise ValueError(f"cefl.clustering.rule={spec.rule!r} is unknown")


def count_clusters(spec: ClusteringSpec, num_clients: int) -> int:
    """The static M: the most clusters that the rule can form from K clients."""
    return {"single": 1, "singleton": num_clients}.get(spec.rule, spec.num_clusters)


class Quality(NamedTuple):
    """How well the clusters that formed resemble the target; 0 when none formed."""

    count: Int32[Array, ""]  # type: ignore[assignment]  # for tuple.count; clusters that formed
    kl_mean: Float32[Array, ""]  # nats
    kl_max: Float32[Array, ""]  # nats
    size_min: Int32[Array, ""]  # clients
    size_max: Int32[Array, ""]  # clients


def measure_quality(
    label_counts: Real[AnyArray, "K Y"],
    cluster: Int[AnyArray, "K"],
    num_clusters: int,
    target: Float[AnyArray, "Y"],
) -> Quality:
    """The Quality of a clustering; arguments as in `cluster_kl`."""
    sizes = (
        jnp.zeros(num_clusters, jnp.int32)
        .at[cluster]
        .add(1, mode="drop", wrap_negative_indices=False)
    )
    formed = sizes > 0
    count = formed.sum(dtype=jnp.int32)
    kl = jnp.where(formed, cluster_kl(label_counts, cluster, num_clusters, target), 0.0)
    smallest = jnp.where(formed, sizes, sizes.max()).min()
    mean = kl.sum() * (1.0 / jnp.maximum(count, 1))
    return Quality(count, mean, kl.max(), smallest, sizes.max())
