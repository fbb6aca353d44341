"""FedProx: federated averaging whose clients are held near the global model."""

import dataclasses

import jax

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel
from cefl_jax.specs import setting
from cefl_jax.stages.traits import MethodTraits


@dataclasses.dataclass(frozen=True)
class FedproxSpec:
    """Settings of `fedprox`."""

    mu: float = setting(0.01, "weight of half the squared distance from the global model", least=0)


def make_fedprox(context: MethodContext) -> Method:
    """Makes FedProx: clients descend F_k(w) + mu/2 |w - w_t|^2; with mu = 0 it is FedAvg.

    Reference:
      Li et al., Federated optimization in heterogeneous networks, MLSys 2020, equation 2 and
      algorithm 2.
    """
    whole = LocalModel.of(context)

    def round(state, hparams):
        def correct(grads, params, start):
            return jax.tree.map(
                lambda g, p, s: g + hparams.own["mu"] * (p - s), grads, params, start
            )

        decision = whole.decide(state)
        trained = whole.train(state, decision.plan, hparams, correct)
        return whole.finish_average(state, decision, trained)

    return whole.method(round)


METHOD = MethodInfo(make_fedprox, MethodTraits(server="none"), FedproxSpec, traced=("mu",))
