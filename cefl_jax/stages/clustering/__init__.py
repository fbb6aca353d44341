"""Which clients train together: clusters whose pooled labels resemble the whole."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PRNGKeyArray, Real

from cefl_jax.numerics import reciprocal
from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages.clustering.balanced import balanced_clusters, balanced_start
from cefl_jax.stages.clustering.divergence import (
    TIE_NATS,
    cluster_kl,
    number_clients,
    target_distribution,
)
from cefl_jax.stages.clustering.greedy import astraea_clusters, patent_clusters
from cefl_jax.stages.clustering.joint import ClientSeconds, joint_clusters
from cefl_jax.types import AnyArray, Count

__all__ = [
    "RULES",
    "TIE_NATS",
    "Candidates",
    "ClientSeconds",
    "Quality",
    "Rule",
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
    num_present: Count | None = None,
) -> Int32[Array, "K"]:
    """Divides the clients at random into clusters equal in size within one, i32[K].

    Args:
      key: of the division.
      num_clients: static K.
      num_clusters: static M.
      num_present: i32[] clients, in the first places; None for K. The others get -1.
    """
    place = jax.random.permutation(key, jnp.arange(num_clients, dtype=jnp.int32))
    if num_present is None:
        return place % num_clusters
    present = number_clients(num_clients, num_present) >= 0
    before = jnp.cumsum(jnp.zeros(num_clients, jnp.int32).at[place].set(present)) - 1
    return jnp.where(present, before[place] % num_clusters, -1)


class Candidates(NamedTuple):
    """The clients of a round, and what a rule may go by."""

    counts: Real[AnyArray, "K Y"]  # examples of each label at each client, in sampling order
    target: Float[AnyArray, "Y"]  # distribution that clusters should resemble
    num_clusters: int  # static M
    spec: ClusteringSpec  # static
    key: PRNGKeyArray
    num_present: Count | None  # clients, in the first places; None for K
    seconds: ClientSeconds | None  # with a `network_weight`

    @property
    def present(self) -> Bool[Array, "K"]:
        """Whether a place has a client, bool[K]."""
        return number_clients(self.counts.shape[0], self.num_present) >= 0


def _patent(clients):
    spec = clients.spec
    limits = clients.num_clusters, spec.min_size, clients.target, spec.max_size
    return patent_clusters(clients.counts, *limits, clients.num_present)


def _balanced(clients):
    counts, weight = clients.counts, clients.spec.network_weight
    num_clusters, target = clients.num_clusters, clients.target
    if not weight:
        return balanced_clusters(counts, num_clusters, target, clients.num_present)
    if clients.seconds is None:
        raise ValueError(
            f"cefl.clustering.network_weight={weight} needs the seconds of every client with every "
            "edge node; set it to 0 where these are not known"
        )
    return joint_clusters(
        counts,
        num_clusters,
        clients.seconds.client_s,
        clients.seconds.node_s,
        weight,
        target,
        clients.num_present,
    )


def _astraea(clients):
    size = clients.spec.max_size
    return astraea_clusters(
        clients.counts, clients.num_clusters, size, clients.target, clients.num_present
    )


def _random(clients):
    num_clients = clients.counts.shape[0]
    return random_clusters(clients.key, num_clients, clients.num_clusters, clients.num_present)


def _single(clients):
    return jnp.minimum(_singleton(clients), 0)


def _singleton(clients):
    return number_clients(clients.counts.shape[0], clients.num_present)


class Rule(NamedTuple):
    """A clustering rule."""

    cluster: Callable[[Candidates], Int32[Array, "K"]]  # -1 where nobody is
    reads: tuple[str, ...] = ("num_clusters",)  # fields of ClusteringSpec, besides the target
    num_clusters: Callable[[ClusteringSpec, int], int] = lambda spec, _: spec.num_clusters


RULES = {
    "patent": Rule(_patent, ("num_clusters", "min_size", "max_size")),
    "balanced": Rule(_balanced, ("num_clusters", "network_weight")),
    "astraea": Rule(_astraea, ("num_clusters", "max_size")),
    "random": Rule(_random),
    "single": Rule(_single, (), lambda spec, num_clients: 1),
    "singleton": Rule(_singleton, (), lambda spec, num_clients: num_clients),
}
"""By name. A script may add a rule of its own before it makes settings."""


def cluster_clients(
    key: PRNGKeyArray,
    label_counts: Real[AnyArray, "K Y"],
    spec: ClusteringSpec,
    num_present: Count | None = None,
    seconds: ClientSeconds | None = None,
) -> Int32[Array, "K"]:
    """Clusters the clients of a round by the rule that the settings name.

    The clients are clustered as if the empty places after them did not exist.

    Args:
      key: for rules that draw; "random" does.
      label_counts: i32[K, Y] examples of each label at each client, in sampling order.
      spec: static ClusteringSpec.
      num_present: i32[] clients, in the first places; None for K. Labels of the places after them
        are not to be counted: rows of zeros.
      seconds: ClientSeconds, for the rule "balanced" with a `network_weight`; unused otherwise.
    Returns:
      i32[K] cluster of each client, -1 where nobody is.
    Raises:
      ValueError: for an unknown rule, or a `network_weight` without the seconds.
    """
    if spec.rule not in RULES:
        raise ValueError(f"cefl.clustering.rule={spec.rule!r} is unknown")
    counts = jnp.asarray(label_counts, jnp.float32)
    target = target_distribution(counts, spec.target)
    num_clusters = count_clusters(spec, label_counts.shape[0])
    clients = Candidates(counts, target, num_clusters, spec, key, num_present, seconds)
    cluster: Any = RULES[spec.rule].cluster(clients)
    shape, dtype = getattr(cluster, "shape", None), getattr(cluster, "dtype", type(cluster))
    if shape != (label_counts.shape[0],) or not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"cefl.clustering.rule={spec.rule!r} returns {dtype} of shape {shape}; it needs to "
            f"return i32[{label_counts.shape[0]}], the cluster of each client"
        )
    return cluster


def count_clusters(spec: ClusteringSpec, num_clients: int) -> int:
    """Returns the static M: the most clusters that the rule can form from K clients."""
    return RULES[spec.rule].num_clusters(spec, num_clients)


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
    """Returns the Quality of a clustering; arguments as in `cluster_kl`."""
    sizes = (
        jnp.zeros(num_clusters, jnp.int32)
        .at[cluster]
        .add(1, mode="drop", wrap_negative_indices=False)
    )
    formed = sizes > 0
    count = formed.sum(dtype=jnp.int32)
    kl = jnp.where(formed, cluster_kl(label_counts, cluster, num_clusters, target), 0.0)
    smallest = jnp.where(formed, sizes, sizes.max()).min()
    mean = kl.sum() * reciprocal(count)
    return Quality(count, mean, kl.max(), smallest, sizes.max())
