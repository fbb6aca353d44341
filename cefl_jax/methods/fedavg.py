"""Federated averaging: every client trains the whole model, a server averages."""

from cefl_jax.methods.base import Method
from cefl_jax.methods.local_model import LocalModel


def make_fedavg(*parts) -> Method:
    """FedAvg, clients weighted by their examples.

    Args:
      *parts: those of `base.MethodContext`.
    Returns:
      Method.
    Reference:
      McMahan et al., Communication-efficient learning of deep networks from decentralized data,
      AISTATS 2017, algorithm 1.
    """
    whole = LocalModel(*parts)

    def round(state, hparams):
        decision = whole.decide(state)
        trained = whole.train(state, decision.plan, hparams)
        return whole.finish_average(state, decision, trained)

    return whole.method(round)
