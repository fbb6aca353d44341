"""SplitFed V1: a back half for every client on the main server, both halves averaged."""

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.cefl import make_cefl
from cefl_jax.stages import traits
from cefl_jax.stages.traits import MethodTraits


def make_splitfed_v1(context: MethodContext) -> Method:
    """Makes SplitFed V1; the main server is the cloud, the fed server the front aggregation server.

    The clients' back halves are trained side by side, each on one client's smashed data.

    Reference:
      Thapa et al., SplitFed: when federated learning meets split learning, AAAI 2022, algorithm 1.
    """
    return make_cefl(context)


METHOD = MethodInfo(
    make_splitfed_v1, MethodTraits(server="cloud"), traffic=lambda spec: traits.SPLIT
)
