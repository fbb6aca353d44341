"""HierFAVG: edge nodes average their own clients' models several times before the cloud does."""

import jax
import jax.numpy as jnp

from cefl_jax.methods.whole_model import WholeModel, average
from cefl_jax.network.hierarchy import nearest_edges, steps_per_edge_round
from cefl_jax.stages.aggregation import weighted_sum
from cefl_jax.stages.local_training import Trained
from cefl_jax.types import Purpose, round_key


def make_hierfavg(*parts):
    """HierFAVG: `edge_rounds` (kappa_2) times the local steps (kappa_1), then a cloud average.

    A client belongs to its nearest edge node. In each edge round it starts from that node's model
    and with a new optimizer; its batches go on through its epoch. All averages are weighted by
    examples. An edge node without clients plays no part, nor does a client that leaves.

    With one edge node and one edge round this is FedAvg.

    Args:
      *parts: those of `parts.Parts`.
    Returns:
      Method.
    Reference:
      Liu, Zhang, Song and Letaief, Client-edge-cloud hierarchical federated learning, ICC 2020,
      algorithm 1.
    """
    whole = WholeModel(*parts)

    def round(state, hparams):
        decision = whole.decide(state)
        trained = train_edges(whole, state, decision, hparams)
        return whole.finish(state, decision, average(trained, state.params), (), trained)

    return whole.method(round)


def train_edges(whole, state, decision, hparams):
    """All edge rounds of a round: Trained, with the edge models as one group."""
    edge_rounds, plan = whole.spec.hierfavg.edge_rounds, decision.plan
    num_edges = decision.network.distance_km.shape[1]
    node = nearest_edges(decision.task, decision.network)
    weight = jnp.zeros(num_edges).at[node].add(plan.weight, mode="drop")
    block = steps_per_edge_round(decision.task, edge_rounds)
    training = whole.local_training()
    key = round_key(state.key, state.round, Purpose.BATCHES)

    def edge_round(r, so_far):
        models, loss, samples = so_far
        steps = r * block, (r + 1) * block
        trained = training.train(
            models, node, plan, whole.data, key, hparams.learning_rate, steps=steps
        )
        models = jax.tree.map(lambda sums, old: _mean(sums, weight, old), trained.sums, models)
        return models, loss + trained.loss, samples + trained.samples

    models = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_edges, *x.shape)), state.params)
    start = models, jnp.float32(0), jnp.int32(0)
    with jax.named_scope("training"):
        models, loss, samples = jax.lax.fori_loop(0, edge_rounds, edge_round, start)
    sums = jax.tree.map(lambda x: x[None], weighted_sum(models, weight))
    return Trained(sums, weight.sum()[None], loss, samples, None)


def _mean(sums, weight, old):
    """Sums f32[E, ...] by weights f32[E], or the old values where there is none."""
    weight = weight.reshape(-1, *[1] * (sums.ndim - 1))
    return jnp.where(weight > 0, sums * (1.0 / jnp.where(weight > 0, weight, 1.0)), old)
