"""FedNova: a client's change is divided by how far its steps could go, and then averaged."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel
from cefl_jax.numerics import take
from cefl_jax.specs import share
from cefl_jax.stages.round_plan import exclude_clients
from cefl_jax.stages.traits import MethodTraits


@dataclasses.dataclass(frozen=True)
class FednovaSpec:
    """Settings of `fednova`."""

    server_momentum: float = share(0.0, "of the server's step; 0: as published in algorithm 1")


def make_fednova(context: MethodContext) -> Method:
    """Makes FedNova: clients that make more steps do not pull the model towards their own optimum.

    The model moves by tau_eff times the average, weighted by examples, of the clients' normalised
    changes (x_i - x) / |a_i|_1, where tau_eff is the average of |a_i|_1. A client that leaves early
    has the full weight of its examples. With equal numbers of steps, and without the server's
    momentum, it is FedAvg. A round of which nothing counts changes nothing. Clients' steps are
    those of SGD, with momentum or without.

    Reference:
      Wang, Liu, Liang, Joshi and Poor, Tackling the objective inconsistency problem in
      heterogeneous federated optimization, NeurIPS 2020, equation 5, theorem 3 and algorithm 1.
    """
    whole = LocalModel.of(context)
    lengths = local_lengths(whole.planner.bounds.steps, whole.spec.train.optimizer.momentum)

    def start(params):
        return jax.tree.map(jnp.zeros_like, params)

    def round(state, hparams):
        decision = whole.decide(state)
        plan = decision.plan
        length = take(lengths, plan.steps, None)
        # By examples, whatever part of its steps a client made: that is what the length is for.
        plan = plan._replace(weight=jnp.where(plan.weight > 0, plan.sizes, 0).astype(jnp.float32))
        normalised = plan._replace(weight=plan.weight / jnp.maximum(length, 1.0))
        trained = whole.train(state, normalised, hparams)
        weight = exclude_clients(plan, trained.skipped).weight
        anybody = weight.sum() > 0
        total = jnp.where(anybody, weight.sum(), 1.0)
        each = (weight * length).sum() / total**2  # tau_eff, over the sum of weights
        change = jax.tree.map(
            lambda sums, x: each * (sums[0] - trained.weight[0] * x), trained.sums, state.params
        )
        momentum = jax.tree.map(
            lambda m, d: hparams.own["server_momentum"] * m + d, state.memory, change
        )
        params, memory = jax.tree.map(
            lambda new, old: jnp.where(anybody, new, old),
            (jax.tree.map(jnp.add, state.params, momentum), momentum),
            (state.params, state.memory),
        )
        stages = ("aggregation", {"change": change}), ("server step", {"model": params})
        return whole.finish(state, decision, params, memory, trained, *stages)

    return whole.method(round, start)


def local_lengths(max_steps: int, momentum: float) -> Float32[Array, "lengths"]:
    """Returns |a_i|_1, f32[S + 1], of clients with 0 to `max_steps` local steps.

    It is the sum of the weights of a client's gradients in its change, over the rate: a gradient
    counts in its own step and, with momentum rho, in the later ones as rho, rho^2, ...

    Args:
      max_steps: static S.
      momentum: static rho.
    """
    of_gradient = np.cumsum(momentum ** np.arange(max_steps))  # of the last one, the last but one
    return jnp.asarray(np.append(0.0, np.cumsum(of_gradient)), jnp.float32)


def _check_sgd(spec: Any) -> None:
    if spec.train.optimizer.name != "sgd":
        raise ValueError(
            f"train.optimizer.name={spec.train.optimizer.name!r}: fednova knows the length of the "
            "steps of sgd alone; set it to 'sgd'"
        )


METHOD = MethodInfo(
    make_fednova,
    MethodTraits(server="none"),
    FednovaSpec,
    traced=("server_momentum",),
    check=_check_sgd,
)
