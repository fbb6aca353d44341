"""HierFAVG: edge nodes average their own clients' models several times before the cloud does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel, LocalModelState
from cefl_jax.network.costs.hierarchical import nearest_edges, steps_per_edge_round
from cefl_jax.numerics import reciprocal, weighted_sum
from cefl_jax.specs import MAX_SIDE, Spec, count
from cefl_jax.stages import traits
from cefl_jax.stages.local_training import LocalResult
from cefl_jax.stages.round_plan import exclude_clients
from cefl_jax.stages.round_planner import Decision
from cefl_jax.stages.traits import MethodTraits
from cefl_jax.types import HParams


@dataclasses.dataclass(frozen=True)
class HierfavgSpec:
    """Settings of `hierfavg`."""

    edge_rounds: int = count(2, "averages of each edge node's clients in a round; kappa_2")


def make_hierfavg(context: MethodContext) -> Method:
    """Makes HierFAVG: `edge_rounds` times (kappa_2) the local steps (kappa_1), then an average.

    A client belongs to its nearest edge node. In each edge round it starts from that node's model
    and with a new optimizer; its batches go on through its epoch. All averages are weighted by
    examples. An edge node without clients plays no part, nor does a client that leaves. A client
    that is left out of an edge round takes no part in the later ones of the round, nor in the
    weight of its edge node.

    With one edge node and one edge round this is FedAvg.

    Reference:
      Liu, Zhang, Song and Letaief, Client-edge-cloud hierarchical federated learning, ICC 2020,
      algorithm 1.
    """
    whole = LocalModel.of(context)

    def round(state, hparams):
        decision = whole.decide(state)
        trained = train_edges(whole, state, decision, hparams)
        return whole.finish_average(state, decision, trained)

    return whole.method(round)


def train_edges(
    whole: LocalModel, state: LocalModelState, decision: Decision, hparams: HParams
) -> LocalResult:
    """Runs all edge rounds of a round: LocalResult, with the edge models as one group."""
    edge_rounds, plan = whole.own.edge_rounds, decision.plan
    num_edges = decision.network.distance_km.shape[1]
    node = nearest_edges(decision.task, decision.network)
    block = steps_per_edge_round(decision.task, edge_rounds)
    training = whole.local_training()
    batches = whole.draw_batches(state, plan)

    def weigh(skipped):
        """Weight of each edge node's clients without those left out, f32[E]."""
        return jnp.zeros(num_edges).at[node].add(exclude_clients(plan, skipped).weight, mode="drop")

    def edge_round(r, so_far):
        models, loss, samples, skipped = so_far
        steps = r * block, (r + 1) * block
        trained = training.train(
            models,
            node,
            exclude_clients(plan, skipped),
            whole.data,
            batches,
            hparams.learning_rate,
            steps=steps,
            max_steps=-(-whole.planner.bounds.steps // edge_rounds),
        )
        skipped = jax.tree.map(jnp.logical_or, skipped, trained.skipped)
        weight = weigh(skipped)
        models = jax.tree.map(lambda sums, old: _mean(sums, weight, old), trained.sums, models)
        return models, loss + trained.loss, samples + trained.samples, skipped

    models = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_edges, *x.shape)), state.params)
    nobody = jnp.zeros(node.shape, bool) if whole.skips else None
    start = models, jnp.float32(0), jnp.int32(0), nobody
    with jax.named_scope("training"):
        models, loss, samples, skipped = jax.lax.fori_loop(0, edge_rounds, edge_round, start)
    weight = weigh(skipped)
    sums = jax.tree.map(lambda x: x[None], weighted_sum(models, weight))
    return LocalResult(sums, weight.sum()[None], loss, samples, None, skipped)


def _mean(sums, weight, old):
    """Sums f32[E, ...] by weights f32[E], or the old values where there is none."""
    weight = weight.reshape(-1, *[1] * (sums.ndim - 1))
    return jnp.where(weight > 0, sums * reciprocal(weight), old)


def _multiply_steps(spec: Any) -> Spec:
    """Returns the settings in which a round has the local steps of all its edge rounds."""
    train, times = spec.train, spec.hierfavg.edge_rounds
    train = dataclasses.replace(
        train,
        local_steps=train.local_steps and train.local_steps * times,
        local_epochs=train.local_epochs and train.local_epochs * times,
    )
    return dataclasses.replace(spec, train=train)


def _check_steps(spec: Any) -> None:
    steps, times = spec.train.local_steps, spec.hierfavg.edge_rounds
    if steps is not None and steps * times > MAX_SIDE:
        raise ValueError(
            f"hierfavg.edge_rounds={times}: with train.local_steps={steps} a client makes "
            f"{steps * times} local steps a round, and at most {MAX_SIDE} are possible; lower "
            "one of the two"
        )


METHOD = MethodInfo(
    make_hierfavg,
    MethodTraits(server="none", averages_at_edges=True),
    HierfavgSpec,
    traffic=lambda spec: traits.edge_rounds(spec.hierfavg.edge_rounds),
    adapt=_multiply_steps,
    check=_check_steps,
)
