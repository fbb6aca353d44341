"""What every method is closed over."""

import dataclasses

from cefl_jax import parallel
from cefl_jax.data.federated import FederatedData
from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network import topology
from cefl_jax.specs import Spec
from cefl_jax.stages import planning


@dataclasses.dataclass(frozen=True)
class Parts:
    """Settings, model, federation and network of a run."""

    spec: Spec
    model: SplitModel
    work: Workload
    extent: planning.Extent
    mesh: parallel.EdgeMesh
    data: FederatedData
    network: topology.Network
    num_kinds: int  # device classes of the network
