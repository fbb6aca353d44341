"""FedProx: federated averaging whose clients are held near the global model."""

import jax

from cefl_jax.methods.base import Method
from cefl_jax.methods.local_model import LocalModel


def make_fedprox(*parts) -> Method:
    """FedProx: clients descend F_k(w) + mu/2 |w - w_t|^2; with mu = 0 this is FedAvg.

    Args:
      *parts: those of `base.MethodContext`.
    Returns:
      Method.
    Reference:
      Li et al., Federated optimization in heterogeneous networks, MLSys 2020, equation 2 and
      algorithm 2.
    """
    whole = LocalModel(*parts)

    def round(state, hparams):
        def correct(grads, params, start):
            return jax.tree.map(
                lambda g, p, s: g + hparams.proximal * (p - s), grads, params, start
            )

        decision = whole.decide(state)
        trained = whole.train(state, decision.plan, hparams, correct)
        return whole.finish_average(state, decision, trained)

    return whole.method(round)
