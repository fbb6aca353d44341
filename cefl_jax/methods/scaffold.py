"""SCAFFOLD: control variates take out of a client's steps where its own data would drift."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel, average
from cefl_jax.numerics import take
from cefl_jax.specs import setting
from cefl_jax.stages import traits
from cefl_jax.stages.round_plan import exclude_clients
from cefl_jax.stages.traits import MethodTraits


@dataclasses.dataclass(frozen=True)
class ScaffoldSpec:
    """Settings of `scaffold`."""

    server_learning_rate: float = setting(1.0, "of the step by the clients' mean change", above=0)


class Controls(NamedTuple):
    """Control variates, leaves like the model's."""

    server: Any  # c
    clients: Any  # c_i, leaves f32[N, ...]


def make_scaffold(context: MethodContext) -> Method:
    """Makes SCAFFOLD with option II: a client's new control variate is its mean step.

    The model moves by the clients' change averaged by their examples, as in the other methods; the
    server's control variate by the plain mean over the population, as published. Memory is N times
    the model. A client whose model does not count, or is left out, keeps its control variate.

    Published is plain SGD. With another optimizer it is the step that is corrected, and not the
    gradient that the optimizer gets: c_i is a mean step, with momentum 0.9 up to ten gradients, and
    as a correction of one gradient it would make the method diverge.

    Reference:
      Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, ICML
      2020, algorithm 1 and equations 3 to 5.
    """
    whole = LocalModel.of(context)
    num_clients = whole.data.sizes.shape[0]

    def start(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        clients = jax.tree.map(lambda x: jnp.zeros((num_clients, *x.shape), x.dtype), params)
        return Controls(zeros, clients)

    def round(state, hparams):
        decision, controls = whole.decide(state), state.memory
        plan = decision.plan
        own = jax.tree.map(lambda x: take(x, plan.clients, None), controls.clients)
        corrections = jax.tree.map(lambda c, own: c[None] - own, controls.server, own)
        trained = whole.train(state, plan, hparams, corrections=corrections)
        rate, mean = hparams.own["server_learning_rate"], average(trained, state.params)
        params = jax.tree.map(lambda old, new: old + rate * (new - old), state.params, mean)
        plan = exclude_clients(plan, trained.skipped)
        controls = _renew(controls, own, state.params, trained.models, plan, hparams)
        # The server's control variate takes in those of all clients of the round.
        server = {"model": params, "control": controls.server}
        stages = ("aggregation", {"model": mean}), ("server step", server)
        return whole.finish(state, decision, params, controls, trained, *stages)

    return whole.method(round, start)


def _renew(controls, own, start, models, plan, hparams):
    """The Controls after a round: c_i <- c_i - c + (x - y_i) / (steps x learning rate)."""
    counts = (plan.weight > 0) & (plan.steps > 0)
    pace = 1.0 / (jnp.maximum(plan.steps, 1) * hparams.learning_rate)

    def change(server, own, start, model):
        like = (-1, *[1] * server.ndim)
        moved = (start[None] - model) * pace.reshape(like)
        return jnp.where(counts.reshape(like), moved - server[None], 0.0)

    changes = jax.tree.map(change, controls.server, own, start, models)
    population = 1.0 / jax.tree.leaves(controls.clients)[0].shape[0]
    server = jax.tree.map(lambda c, d: c + population * d.sum(0), controls.server, changes)
    clients = jax.tree.map(
        lambda c, d: c.at[plan.clients].add(d, mode="drop"), controls.clients, changes
    )
    return Controls(server, clients)


METHOD = MethodInfo(
    make_scaffold,
    MethodTraits(server="none"),
    ScaffoldSpec,
    traced=("server_learning_rate",),
    traffic=lambda spec: traits.MODELS_AND_CONTROLS,
)
