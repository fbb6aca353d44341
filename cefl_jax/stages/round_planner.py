"""The decisions of a round: who takes part, in which cluster, on which server, and for how long.

They follow from data, network and settings alone, and never from what the models have learned.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, PRNGKeyArray

from cefl_jax.data.federated import FederatedData
from cefl_jax.models.cost import Workload
from cefl_jax.network import dynamics, topology
from cefl_jax.network.costs import pair_costs
from cefl_jax.network.ledger import RoundCost
from cefl_jax.network.messages import Sizes
from cefl_jax.network.schedule import Schedule
from cefl_jax.network.step_times import Task
from cefl_jax.numerics import take
from cefl_jax.specs import Spec
from cefl_jax.stages import clustering, offload, round_plan
from cefl_jax.stages.distillation import count_flop
from cefl_jax.stages.sampling import sample_clients
from cefl_jax.stages.traits import MethodTraits, Traffic
from cefl_jax.types import Purpose, purpose_key, round_key

DECIDED = (Purpose.SAMPLING, Purpose.CLUSTERING, Purpose.OFFLOAD, Purpose.DEPARTURE)
"""What is drawn anew in each round; the network has keys of its own."""


class Decision(NamedTuple):
    """What is decided of a round, and how it goes on the simulated network."""

    plan: round_plan.Plan  # of the steps that are made and the contributions that count
    task: Task
    schedule: Schedule  # where clients take turns: of each turn, leaves [K, ...]
    network: topology.RoundNetwork
    clusters: clustering.Quality | None  # None: the method does not choose them
    offload_cost: Float32[Array, ""] | None  # the objective's value; None: it does not match
    sampled: Int32[Array, ""]  # clients
    uploaded: Int32[Array, ""]  # samples whose smashed data the cloud distils on
    conditions: topology.Conditions  # of the next round


@dataclasses.dataclass(frozen=True)
class RoundPlanner:
    """Decides rounds from the network's present state, and says what they cost."""

    spec: Spec  # effective: what the method fixes is as it fixes it
    traits: MethodTraits
    traffic: Traffic
    work: Workload
    sizes: Sizes
    bounds: round_plan.StaticBounds

    def start(self, key: PRNGKeyArray, network: topology.Network) -> topology.Conditions:
        """Returns the network's Conditions in the first round."""
        return dynamics.start(purpose_key(key, Purpose.NETWORK), network, self.spec.network)

    def decide(
        self,
        key: PRNGKeyArray,
        round_index: Int32[Array, ""],
        conditions: topology.Conditions,
        data: FederatedData,
        network: topology.Network,
    ) -> Decision:
        """Decides one round.

        Args:
          key: of the run.
          round_index: i32[], from 0.
          conditions: Conditions of this round.
          data: FederatedData.
          network: Network of the whole population.
        Returns:
          Decision.
        """
        keys = {purpose: round_key(key, round_index, purpose) for purpose in DECIDED}
        network_key = purpose_key(key, Purpose.NETWORK)
        settings = self.spec.network
        with jax.named_scope("schedule"):
            after = dynamics.step(network_key, round_index, conditions, network, settings)
        clients, num_present, cluster, clusters = self._gather(keys, conditions, data, network)
        with jax.named_scope("offloading"):
            sizes = take(data.sizes, clients)
            plan = self._plan(clients, cluster, sizes, self.num_clusters)
            now = around = self._network(network, conditions, plan.clients)
            if self.traits.whole:
                now = topology.without_servers(now)
            samples = self._samples(plan)
            placement, cost = self._place(keys[Purpose.OFFLOAD], plan, samples, now)
        with jax.named_scope("schedule"):
            stays = self._stays(keys[Purpose.DEPARTURE], plan, conditions, after)
            task = Task(samples, plan.cluster, placement, stays, plan.uploaded)
            schedule = self._simulate(task, now)
            plan = round_plan.apply_dropouts(plan, schedule.steps.ravel(), schedule.counts.ravel())
            uploaded = round_plan.uploaded_samples(plan, self._samples(plan)).sum()
        if self.traits.averages_at_edges:
            now = around
        return Decision(plan, task, schedule, now, clusters, cost, num_present, uploaded, after)

    def cost(self, decision: Decision, num_kinds: int) -> RoundCost:
        """Returns what a decided round costs, on a network of so many device classes."""
        flop = count_flop(decision.uploaded, self.work, self.spec.cefl.distill)
        held = decision.task, decision.schedule, decision.network, self.work, self.sizes
        return self.traffic.cost(*held, flop, num_kinds)

    @property
    def num_clusters(self) -> int:
        """The static M."""
        spec = self.spec
        return clustering.count_clusters(spec.cefl.clustering, spec.train.clients_per_round)

    def _gather(self, keys, conditions, data, network):
        """Samples clients, i32[K], counts them, clusters them, i32[K], and measures the Quality."""
        spec, num_clients = self.spec.cefl.clustering, data.sizes.shape[0]
        static = self.spec.network.dynamics == "static"
        with jax.named_scope("sampling"):
            clients = sample_clients(
                keys[Purpose.SAMPLING],
                num_clients,
                self.spec.train.clients_per_round,
                None if static else conditions.available,
            )
        with jax.named_scope("clustering"):
            num_present = (clients < num_clients).sum(dtype=jnp.int32)
            counts, sizes = (take(x, clients) for x in (data.label_counts, data.sizes))
            seconds = None
            if spec.network_weight:
                nearby = self._network(network, conditions, clients)
                alone = self._alone(clients, jnp.where(clients < num_clients, 0, -1), sizes, nearby)
                seconds = clustering.ClientSeconds(*alone)
            cluster = clustering.cluster_clients(
                keys[Purpose.CLUSTERING], counts, spec, None if static else num_present, seconds
            )
            if not self.traits.chooses_clusters:
                return clients, num_present, cluster, None
            target = clustering.target_distribution(counts, spec.target)
            quality = clustering.measure_quality(counts, cluster, self.num_clusters, target)
        return clients, num_present, cluster, quality

    def _stays(self, key, plan, conditions, after):
        """Draws the local steps i32[K] after which each client leaves, or as many as there are.

        A client that is not available in the next round leaves in this one, at a uniformly random
        moment.
        """
        if self.spec.network.dynamics == "static":
            return jnp.full_like(plan.steps, self.bounds.steps)
        leaves = conditions.available & ~after.available
        part = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(key, k)))(plan.clients)
        steps = (part * plan.steps).astype(jnp.int32)
        return jnp.where(take(leaves, plan.clients, None), steps, self.bounds.steps)

    def _simulate(self, task, network):
        settings = self.spec.network
        held = task, network, self.work, self.sizes
        return self.traffic.simulate(*held, settings.deadline_s, settings.late == "keep")

    def _samples(self, plan):
        return round_plan.step_samples(plan, self.spec.train.batch_size, self.bounds.steps)

    def _plan(self, clients, cluster, sizes, num_clusters):
        train, upload_steps = self.spec.train, self.spec.cefl.distill.upload_steps
        plan = round_plan.make_plan(clients, cluster, sizes, num_clusters, train, upload_steps)
        if self.spec.cefl.distill.rule == "none":
            plan = plan._replace(uploaded=jnp.zeros_like(plan.uploaded))
        return plan

    def _network(self, network, conditions, clients):
        include_cloud = self.spec.cefl.offload.include_cloud
        return topology.of_clients(network, conditions, clients, include_cloud)

    def _alone(self, clients, cluster, sizes, network):
        """Computes seconds f32[K, E] of each client's and each server's local steps, one to one."""
        plan = self._plan(clients, cluster, sizes, 1)  # keeps the order
        samples = self._samples(plan)
        return pair_costs.client_seconds(samples, plan.uploaded, network, self.work, self.sizes)

    def _place(self, key, plan, samples, network):
        """Returns the server of every cluster, and the objective's value where one is sought."""
        spec, formed = self.spec.cefl.offload, plan.members > 0
        if not self.traits.chooses_clusters:  # the last: the cloud, or nobody
            return jnp.where(formed, network.backhaul_bps.shape[0] - 1, -1), None
        pair = pair_costs.pair_costs(
            samples,
            plan.uploaded,
            plan.cluster,
            network,
            self.work,
            self.sizes,
            self.num_clusters,
        )
        clients_cost, node_cost = pair.weigh(spec.time_weight, spec.energy_weight)
        members = plan.cluster[None] == jnp.arange(self.num_clusters)[:, None]  # [M, K]
        far = jnp.where(members[..., None], network.distance_km[None], 0.0).sum(1)
        distance = far / jnp.maximum(plan.members, 1)[:, None]
        return offload.place_clusters(clients_cost, node_cost, formed, spec, distance, key)
