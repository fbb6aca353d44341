"""Federated averaging: every client trains the whole model, a server averages."""

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.local_model import LocalModel
from cefl_jax.stages.traits import MethodTraits


def make_fedavg(context: MethodContext) -> Method:
    """Makes FedAvg, clients weighted by their examples.

    Reference:
      McMahan et al., Communication-efficient learning of deep networks from decentralized data,
      AISTATS 2017, algorithm 1.
    """
    whole = LocalModel.of(context)

    def round(state, hparams):
        decision = whole.decide(state)
        trained = whole.train(state, decision.plan, hparams)
        return whole.finish_average(state, decision, trained)

    return whole.method(round)


METHOD = MethodInfo(make_fedavg, MethodTraits(server="none"))
