"""FedOpt: the clients' mean change is a gradient for the server's optimizer."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel, average
from cefl_jax.specs import setting, share
from cefl_jax.stages.traits import MethodTraits


@dataclasses.dataclass(frozen=True)
class FedoptSpec:
    """Settings of `fedopt`: the server's optimizer on the clients' mean change."""

    optimizer: str = setting(
        "adam", "the server's optimizer", choices=("adam", "yogi", "adagrad", "sgd")
    )
    server_learning_rate: float = setting(0.01, "of the step along its direction", above=0)
    beta1: float = share(
        0.9,
        "adam, yogi: of the first moment; sgd: its momentum",
        when={"fedopt.optimizer": ("adam", "yogi", "sgd")},
    )
    beta2: float = share(0.99, "of the second moment", when={"fedopt.optimizer": ("adam", "yogi")})
    tau: float = setting(
        0.001,
        "less adaptive with more",
        above=0,
        when={"fedopt.optimizer": ("adam", "yogi", "adagrad")},
    )


class Moments(NamedTuple):
    """The state of the server's optimizer, leaves like the model's."""

    first: Any
    second: Any


def make_fedopt(context: MethodContext) -> Method:
    """Makes FedAdam, FedYogi, FedAdagrad, or SGD with momentum on the server (FedAvgM).

    SGD with learning rate 1 and without momentum is FedAvg. A round of which nothing counts
    leaves the optimizer as it was.

    Reference:
      Reddi et al., Adaptive federated optimization, ICLR 2021, algorithms 1 and 2; for SGD with
      momentum Hsu et al., Measuring the effects of non-identical data distribution, 2019.
    """
    whole = LocalModel.of(context)
    spec = whole.own

    def start(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return Moments(zeros, jax.tree.map(lambda x: jnp.full_like(x, spec.tau**2), params))

    def round(state, hparams):
        decision = whole.decide(state)
        trained = whole.train(state, decision.plan, hparams)
        mean = average(trained, state.params)
        change = jax.tree.map(jnp.subtract, mean, state.params)
        moments, update = server_update(spec, state.memory, change)
        rate = hparams.own["server_learning_rate"]
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, update)
        anybody = trained.weight[0] > 0
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(anybody, new, old),
            (params, moments),
            (state.params, state.memory),
        )
        stages = (
            ("aggregation", {"model": mean}),
            ("server step", {"model": params, "moments": moments}),
        )
        return whole.finish(state, decision, params, moments, trained, *stages)

    return whole.method(round, start)


def server_update(spec: FedoptSpec, moments: Moments, change: PyTree) -> tuple[Moments, PyTree]:
    """Returns the Moments after a change, and the server's step, leaves as in both.

    Args:
      spec: FedoptSpec.
      moments: Moments; the second ones start at tau^2.
      change: the clients' mean change, Delta_t.
    """
    if spec.optimizer == "sgd":
        first = jax.tree.map(lambda m, d: spec.beta1 * m + d, moments.first, change)
        return moments._replace(first=first), first
    mix = 0.0 if spec.optimizer == "adagrad" else spec.beta1
    first = jax.tree.map(lambda m, d: mix * m + (1.0 - mix) * d, moments.first, change)
    rest = 1.0 - spec.beta2
    second = jax.tree.map(
        {
            "adagrad": lambda v, d: v + d**2,
            "adam": lambda v, d: spec.beta2 * v + rest * d**2,
            "yogi": lambda v, d: v - rest * d**2 * jnp.sign(v - d**2),
        }[spec.optimizer],
        moments.second,
        change,
    )
    update = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + spec.tau), first, second)
    return Moments(first, second), update


METHOD = MethodInfo(
    make_fedopt, MethodTraits(server="none"), FedoptSpec, traced=("server_learning_rate",)
)
