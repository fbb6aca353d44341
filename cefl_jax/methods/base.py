"""What a method is, what the program knows of it, and what it is closed over."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from cefl_jax import parallel
from cefl_jax.data.federated import FederatedData
from cefl_jax.models.split import SplitModel
from cefl_jax.network import topology
from cefl_jax.specs import ClusteringSpec, DistillSpec, Spec
from cefl_jax.stages import round_plan
from cefl_jax.stages.round_planner import Decision, RoundPlanner
from cefl_jax.stages.traits import MODELS, MethodTraits, Traffic
from cefl_jax.types import Purpose, round_key


class Method(NamedTuple):
    """A training method as pure functions, with data, network, model and static spec closed over.

    A state has at least `round` i32[], `key`, and `ledger`. The names that `predictors` gives to
    its classifiers are prefixes of metric keys: "" for the deployed model, "cloud_" for another;
    they get the places of these images in the test set, index i32[B], one after another.
    """

    init: Callable  # key -> state
    round: Callable  # (state, hparams) -> (state, RoundMetrics)
    predictors: Callable  # (state, normalised images f32[B, ...], index) -> {name: f32[B, Y]}
    measures: Callable  # (state) -> {metric key: f32[]}, what an evaluation measures besides


Closed = TypeVar("Closed", bound="MethodContext")


@dataclasses.dataclass(frozen=True)
class MethodContext:
    """What the functions of a method are closed over: settings, model, federation, network."""

    planner: RoundPlanner
    model: SplitModel
    mesh: parallel.EdgeMesh
    data: FederatedData
    network: topology.Network
    num_kinds: int  # device classes of the network

    def __post_init__(self) -> None:
        """Checks what a subclass asks of the method; here nothing."""

    @classmethod
    def of(cls: type[Closed], context: "MethodContext") -> Closed:
        """Returns a subclass's instance, closed over what `context` is."""
        return cls(**vars(context))

    @property
    def spec(self) -> Spec:
        """The effective settings: what the method fixes is as it fixes it."""
        return self.planner.spec

    @property
    def own(self) -> Any:
        """The method's own settings, of the class that its `MethodInfo` names."""
        return getattr(self.spec, self.spec.method.name)

    @property
    def skips(self) -> bool:
        """Whether clients are left out of a round whose numbers are not finite."""
        return self.spec.run.on_nonfinite == "skip_client"

    def draw_batches(self, state: Any, plan: round_plan.Plan) -> Int32[Array, "K S B"]:
        """Returns the examples of all local steps of a round; see `round_plan.draw_batches`."""
        key = round_key(state.key, state.round, Purpose.BATCHES)
        with jax.named_scope("batches"):
            return round_plan.draw_batches(
                self.data, key, plan.clients, self.spec.train.batch_size, self.planner.bounds.steps
            )


def _as_set(spec: Spec) -> Spec:
    return spec


def _models(spec: Spec) -> Traffic:
    return MODELS


def _nothing_wrong(spec: Spec) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """A method: its functions, and everything that the program has to know of it besides.

    `METHOD` of a module of `cefl_jax.methods` is one; the module's name is the method's.
    """

    make: Callable[[MethodContext], Method]
    traits: MethodTraits
    settings: type | None = None  # dataclass of its own settings, `config.NAME.*`
    traced: tuple[str, ...] = ()  # of these, those that may change without a new program
    traffic: Callable[[Any], Traffic] = _models  # what a round sends, from effective settings
    adapt: Callable[[Any], Spec] = _as_set  # shared settings that it changes; see `effective_spec`
    check: Callable[[Any], None] = _nothing_wrong  # raises ValueError for settings it cannot run

    def __post_init__(self) -> None:
        """Raises ValueError for settings that say too little of themselves, and unknown ones."""
        fields = dataclasses.fields(self.settings) if self.settings else ()
        for field in fields:
            if "meaning" not in field.metadata:
                raise ValueError(
                    f"{field.name} of a method's settings says nothing of itself; make it with "
                    "cefl_jax.specs.setting"
                )
        names = [field.name for field in fields]
        if not isinstance(self.traced, tuple) or not set(self.traced) <= set(names):
            raise ValueError(
                f"traced={self.traced!r} of a method: needs to be a tuple of names among its "
                f"settings, {names}"
            )


def effective_spec(spec: Spec, info: MethodInfo) -> Spec:
    """Returns the settings that the stages read under a method.

    Where the method fixes clusters and servers, those of the settings are replaced, and nothing is
    distilled; then `MethodInfo.adapt` changes what else it fixes.

    Args:
      spec: Spec of the user, checked.
      info: MethodInfo of `spec.method.name`.
    """
    traits = info.traits
    if not traits.chooses_clusters:
        cefl = dataclasses.replace(
            spec.cefl,
            clustering=ClusteringSpec(rule=traits.clusters or "singleton"),
            offload=dataclasses.replace(spec.cefl.offload, include_cloud=traits.server == "cloud"),
            distill=DistillSpec(rule="none"),
        )
        spec = dataclasses.replace(spec, cefl=cefl)
    return info.adapt(spec)


def chosen(value: int | None) -> int:
    """Returns a setting that `build.resolve` has filled in.

    Raises:
      ValueError: when it still is.
    """
    if value is None:
        raise ValueError("a setting is still automatic; build.resolve chooses what is left so")
    return value


def count_clients(
    decision: Decision, skipped: Bool[Array, "K"] | None
) -> dict[str, Int32[Array, ""] | None]:
    """Returns the fields of RoundMetrics that count clients.

    Who is left out has computed and sent like everybody else: the ledger charges for it.

    Args:
      decision: round_planner.Decision.
      skipped: bool[K], who is left out; or None.
    """
    finished, counts = (x.ravel() for x in (decision.schedule.finished, decision.schedule.counts))
    num_skipped = None
    if skipped is not None:
        counts, num_skipped = counts & ~skipped, skipped.sum(dtype=jnp.int32)
    return {
        "sampled": decision.sampled,
        "finished": finished.sum(dtype=jnp.int32),
        "counted": counts.sum(dtype=jnp.int32),
        "skipped": num_skipped,
    }
