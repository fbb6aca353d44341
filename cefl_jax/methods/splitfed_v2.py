"""SplitFed V2: one back half on the main server, which takes the clients one after another."""

from cefl_jax.methods.base import Method
from cefl_jax.methods.cefl import make_cefl
from cefl_jax.specs import Spec
from cefl_jax.stages.protocols import settings_of


def make_splitfed_v2(spec: Spec, *parts) -> Method:
    """SplitFed V2; the main server is the cloud, the fed server the front aggregation server.

    In each local step the clients compute and send side by side, and the main server steps its back
    half on the smashed data of one after another, in the order in which they were sampled, which is
    random. A client's front half steps along the gradient at the back half that the client met. In
    the end the front halves are averaged, and the back half is the server's.

    Args:
      spec: Spec.
      *parts: the others of `base.MethodContext`.
    Returns:
      Method.
    Reference:
      Thapa et al., SplitFed: when federated learning meets split learning, AAAI 2022, algorithm 2.
    """
    return make_cefl(settings_of(spec), *parts)
