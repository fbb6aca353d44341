"""What a method's rounds are: who trains what on which server, what is sent, and what it costs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

from cefl_jax.models.cost import Workload
from cefl_jax.models.split import SplitModel
from cefl_jax.network import schedule
from cefl_jax.network.costs import cloud, hierarchical, split
from cefl_jax.network.messages import Sizes
from cefl_jax.specs import Spec
from cefl_jax.stages.link import knowledge_sizes, make_link, whole_sizes

SERVERS = ("matched", "cloud", "none")


@dataclasses.dataclass(frozen=True)
class MethodTraits:
    """How a method divides the work of a round between clients and servers.

    Its properties say which settings mean something for the method: `specs.setting(of=...)` names
    one of them.
    """

    server: str  # of back halves: matched, by the offload rule | cloud | none: clients do all
    clusters: str | None = None  # clustering rule that the method fixes; None: as the settings say
    sequential_clients: bool = False  # each client starts from the model of the one before
    sequential_server: bool = False  # a back half steps on one client's samples after another's
    personal_models: bool = False  # clients keep models; logits travel, and no weights
    averages_at_edges: bool = False  # edge nodes average their clients' models within a round
    pools_data: bool = False  # no clients train: the cloud holds all examples

    def __post_init__(self) -> None:
        """Raises ValueError for a server that there is not."""
        if self.server not in SERVERS:
            raise ValueError(
                f"server={self.server!r} of a method is unknown; known: {', '.join(SERVERS)}"
            )

    @property
    def whole(self) -> bool:
        """Whether clients, or the cloud, train whole models; the front half is then all of it."""
        return self.server == "none"

    @property
    def has_clients(self) -> bool:
        """Whether clients train."""
        return not self.pools_data

    @property
    def chooses_clusters(self) -> bool:
        """Whether clusters and their servers are chosen by the settings, and both models distil."""
        return self.server == "matched"

    @property
    def has_front_halves(self) -> bool:
        """Whether clients hold the model up to the cut."""
        return not self.whole

    @property
    def sends_features(self) -> bool:
        """Whether training goes through the cut: the server learns from smashed data."""
        return self.has_front_halves and not self.personal_models

    @property
    def codes_features(self) -> bool:
        """Whether smashed data may be compressed or noised on its way."""
        return self.sends_features and not self.sequential_clients

    @property
    def has_cloud_model(self) -> bool:
        """Whether there is a second model, in the cloud."""
        return self.chooses_clusters or self.personal_models

    @property
    def side_by_side(self) -> bool:
        """Whether clients train at the same time."""
        return self.has_clients and not (self.sequential_clients or self.sequential_server)

    @property
    def takes_parts(self) -> bool:
        """Whether a client that leaves may deliver a part of its steps."""
        return self.has_clients and not (self.averages_at_edges or self.personal_models)

    @property
    def takes_deadline(self) -> bool:
        """Whether a round may end before all clients are done."""
        return self.takes_parts and not self.sequential_clients


class Traffic(NamedTuple):
    """The messages of a round, its simulated clock and its cost, as three pure functions."""

    sizes: Callable  # (spec, model, work) -> messages.Sizes
    simulate: Callable  # (task, network, work, sizes, deadline_s, keep) -> schedule.Schedule
    cost: Callable  # (task, schedule, network, work, sizes, distill_flop, num_kinds) -> RoundCost


def edge_rounds(times: int) -> Traffic:
    """Returns the Traffic of whole models that edge nodes average `times` a round."""
    return MODELS._replace(
        cost=functools.partial(hierarchical.hierarchical_cost, edge_rounds=times)
    )


def _split_sizes(spec: Spec, model: SplitModel, work: Workload) -> Sizes:
    return make_link(spec.cefl.compression, spec.cefl.privacy).measure(model, work)


def _model_sizes(spec: Spec, model: SplitModel, work: Workload, control: bool = False) -> Sizes:
    return whole_sizes(work, control)


def _logit_sizes(spec: Spec, model: SplitModel, work: Workload) -> Sizes:
    return knowledge_sizes(work, model.num_classes)


SPLIT = Traffic(_split_sizes, schedule.simulate, split.split_cost)
"""Front and back halves at the ends of a round; smashed data and gradients in each step."""

SEQUENTIAL = Traffic(_split_sizes, split.simulate_sequential, split.sequential_cost)
"""The same, one client after another."""

MODELS = Traffic(_model_sizes, schedule.simulate, split.split_cost)
"""A whole model down to each client, and up again."""

MODELS_AND_CONTROLS = MODELS._replace(sizes=functools.partial(_model_sizes, control=True))
"""The same, and a control variate as large as the model with each."""

LOGITS = Traffic(_logit_sizes, schedule.simulate, cloud.logit_exchange_cost)
"""Features, labels and logits, after training."""
