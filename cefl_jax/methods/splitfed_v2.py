"""SplitFed V2: one back half on the main server, which takes the clients one after another."""

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.cefl import make_cefl
from cefl_jax.stages import traits
from cefl_jax.stages.traits import MethodTraits


def make_splitfed_v2(context: MethodContext) -> Method:
    """Makes SplitFed V2; the main server is the cloud, the fed server the front aggregation server.

    In each local step the clients compute and send side by side, and the main server steps its back
    half on the smashed data of one after another, in the order in which they were sampled, which is
    random. A client's front half steps along the gradient at the back half that the client met. In
    the end the front halves are averaged, and the back half is the server's.

    Reference:
      Thapa et al., SplitFed: when federated learning meets split learning, AAAI 2022, algorithm 2.
    """
    return make_cefl(context)


METHOD = MethodInfo(
    make_splitfed_v2,
    MethodTraits(server="cloud", clusters="single", sequential_server=True),
    traffic=lambda spec: traits.SPLIT,
)
