"""What a method is, and what it is closed over."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from cefl_jax import parallel
from cefl_jax.data.federated import FederatedData
from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network import topology
from cefl_jax.specs import Spec
from cefl_jax.stages import round_plan
from cefl_jax.stages.round_planner import Decision
from cefl_jax.types import Purpose, round_key


class Method(NamedTuple):
    """A training method as pure functions, with data, network, model and static spec closed over.

    A state has at least `round` i32[], `key`, and `ledger`. The names that `predictors` gives to
    its classifiers are prefixes of metric keys: "" for the deployed model, "cloud_" for another;
    they are told which test images they see, index i32[B], each one more than the one before.
    """

    init: Callable  # key -> state
    round: Callable  # (state, hparams) -> (state, RoundMetrics)
    predictors: Callable  # (state, normalised images f32[B, ...], index) -> {name: f32[B, Y]}
    measures: Callable  # (state) -> {metric key: f32[]}, what an evaluation measures besides


@dataclasses.dataclass(frozen=True)
class MethodContext:
    """Settings, model, federation and network of a run."""

    spec: Spec
    model: SplitModel
    work: Workload
    extent: round_plan.StaticBounds
    mesh: parallel.EdgeMesh
    data: FederatedData
    network: topology.Network
    num_kinds: int  # device classes of the network

    @property
    def skips(self) -> bool:
        """Whether clients are left out of a round whose numbers are not finite."""
        return self.spec.run.on_nonfinite == "skip_client"

    def draw_batches(self, state: Any, plan: round_plan.Plan) -> Int32[Array, "K S B"]:
        """Returns the examples of all local steps of a round; see `round_plan.draw_batches`."""
        key = round_key(state.key, state.round, Purpose.BATCHES)
        with jax.named_scope("batches"):
            return round_plan.draw_batches(
                self.data, key, plan.clients, self.spec.train.batch_size, self.extent.steps
            )


def chosen(value: int | None) -> int:
    """A setting that may be left automatic, once it no longer is.

    Raises:
      ValueError: when it still is.
    """
    if value is None:
        raise ValueError("a setting is still automatic; build.resolve chooses what is left so")
    return value


def count_clients(
    decision: Decision, out: Bool[Array, "K"] | None
) -> dict[str, Int32[Array, ""] | None]:
    """The fields of RoundMetrics that count clients.

    Who is left out has computed and sent like everybody else: the ledger charges for it.

    Args:
      decision: round_planner.Decision.
      out: bool[K], who is left out; or None.
    """
    finished, counts = (x.ravel() for x in (decision.schedule.finished, decision.schedule.counts))
    skipped = None
    if out is not None:
        counts, skipped = counts & ~out, out.sum(dtype=jnp.int32)
    return {
        "sampled": decision.sampled,
        "finished": finished.sum(dtype=jnp.int32),
        "counted": counts.sum(dtype=jnp.int32),
        "skipped": skipped,
    }
