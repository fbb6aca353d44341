"""Who trains what in a round, and on which server."""

import dataclasses

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
