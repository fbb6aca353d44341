"""SplitFed V1: a back half for every client on the main server, both halves averaged."""

from cefl_jax.methods.base import Method
from cefl_jax.methods.cefl import make_cefl
from cefl_jax.specs import Spec
from cefl_jax.stages.protocols import settings_of


def make_splitfed_v1(spec: Spec, *parts) -> Method:
    """SplitFed V1; the main server is the cloud, the fed server the front aggregation server.

    The clients' back halves are trained side by side, each on one client's smashed data.

    Args:
      spec: Spec.
      *parts: the others of `base.MethodContext`.
    Returns:
      Method.
    Reference:
      Thapa et al., SplitFed: when federated learning meets split learning, AAAI 2022, algorithm 1.
    """
    return make_cefl(settings_of(spec), *parts)
