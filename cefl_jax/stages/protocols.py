"""How each method divides the work of a round between clients and servers."""

import dataclasses

from cefl_jax.specs import ClusteringSpec, DistillSpec, Spec

EACH = ClusteringSpec(rule="singleton")
ALL = ClusteringSpec(rule="single")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Who trains what, and on which server."""

    server: str  # of back halves: matched, by the offload rule | cloud | none: clients do all
    clustering: ClusteringSpec | None = None  # None: as the settings say
    control: bool = False  # a control variate as large as the model travels with it
    in_turn: bool = False  # one client after another, each from the model of the one before
    back_in_turn: bool = False  # a back half steps on one client's samples after another's
    heads: bool = False  # clients keep models of their own; what they predict travels, not weights
    edge_rounds: bool = False  # edge nodes average their own clients' models several times a round

    @property
    def whole(self) -> bool:
        """Whether clients train whole models; their front half is then all of it."""
        return self.server == "none"


PROTOCOLS = {
    "cefl": Protocol("matched"),
    "fedavg": Protocol("none", EACH),
    "fedprox": Protocol("none", EACH),
    "scaffold": Protocol("none", EACH, control=True),
    "fedopt": Protocol("none", EACH),
    "hierfavg": Protocol("none", EACH, edge_rounds=True),
    "splitfed_v1": Protocol("cloud", EACH),
    "splitfed_v2": Protocol("cloud", ALL, back_in_turn=True),
    "sequential_split": Protocol("cloud", EACH, in_turn=True),
    "fedgkt": Protocol("cloud", EACH, heads=True),
}
"""By method. `centralized` has none: its rounds divide no work."""


def one_at_a_time(method: str) -> bool:
    """Whether a method trains on one client after another, or on nobody's in particular."""
    protocol = PROTOCOLS.get(method)
    return protocol is None or protocol.in_turn or protocol.back_in_turn


def has_heads(method: str) -> bool:
    """Whether the clients of a method train a front half with a head, and keep both."""
    return method in PROTOCOLS and PROTOCOLS[method].heads


def trains_whole(method: str) -> bool:
    """Whether a method trains whole models: its clients do, or the cloud does."""
    return method not in PROTOCOLS or PROTOCOLS[method].whole


def settings_of(spec: Spec) -> Spec:
    """The Spec that a method's stages read: parts of `cefl` that its protocol fixes are replaced.

    Other methods than `cefl` do not distil, but for `fedgkt`, which has its own settings; and their
    clusters and servers are their protocol's.
    """
    protocol = PROTOCOLS.get(spec.method.name)
    if spec.method.name == "cefl":
        return spec
    if protocol is None:
        cefl = dataclasses.replace(spec.cefl, distill=DistillSpec(rule="none"))
        return dataclasses.replace(spec, cefl=cefl)
    offload = dataclasses.replace(spec.cefl.offload, include_cloud=protocol.server == "cloud")
    cefl = dataclasses.replace(
        spec.cefl,
        clustering=protocol.clustering or spec.cefl.clustering,
        offload=offload,
        distill=_distillation(spec) if protocol.heads else DistillSpec(rule="none"),
    )
    train = spec.train
    if protocol.edge_rounds:
        times = spec.hierfavg.edge_rounds
        train = dataclasses.replace(
            train,
            local_steps=train.local_steps and train.local_steps * times,
            local_epochs=train.local_epochs and train.local_epochs * times,
        )
    return dataclasses.replace(spec, cefl=cefl, train=train)


def _distillation(spec):
    """The DistillSpec of `fedgkt`: clients and cloud teach each other."""
    own = spec.fedgkt
    return DistillSpec(
        rule="mutual",
        epochs=own.server_epochs,
        batch_size=own.server_batch_size,
        learning_rate=own.server_learning_rate,
        momentum=own.server_momentum,
    )
