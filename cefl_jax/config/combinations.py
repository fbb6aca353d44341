"""Which settings cannot be together: each check passes, or says in one line what to change."""

from cefl_jax.config.readers import check_unread
from cefl_jax.config.validate import SettingError
from cefl_jax.methods import METHODS
from cefl_jax.safe_read import show
from cefl_jax.specs import PartitionSpec, Spec
from cefl_jax.stages.clustering import RULES, count_clusters


def check_combinations(spec: Spec) -> None:
    """Refuses settings that are right alone and cannot be together.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such combination.
    """
    train = spec.train
    if (train.local_steps is None) == (train.local_epochs is None):
        raise SettingError(
            f"train.local_steps={train.local_steps}, train.local_epochs={train.local_epochs}: "
            "set one of the two and the other to None"
        )
    check_unread(spec)
    _check_partition(spec.data.partition)
    if spec.data.validation_share and spec.data.partition.name == "file":
        raise SettingError(
            f"data.validation_share={spec.data.validation_share:g}: a partition file names "
            "examples of the whole training set; set it to 0, or choose another "
            "data.partition.name"
        )
    if spec.data.partition.name != "file":
        check_population(spec, spec.data.partition.num_clients)
    _check_network(spec.network)
    info = METHODS[spec.method.name]
    try:
        info.check(spec)
    except ValueError as error:
        raise SettingError(str(error)) from error
    if info.traits.chooses_clusters:
        _check_cluster_sizes(spec.cefl.clustering, train.clients_per_round)
        _check_slots(spec)
        _check_offload(spec.cefl.offload)


def check_population(spec: Spec, num_clients: int) -> None:
    """Refuses a round of more clients than there are.

    Args:
      spec: Spec.
      num_clients: N.
    Raises:
      SettingError: when `train.clients_per_round` is more.
    """
    if spec.train.clients_per_round > num_clients:
        partition, remedy = spec.data.partition, "data.partition.num_clients"
        if partition.name == "file":
            remedy = f"the number of them in {partition.path or 'parts'}"
        raise SettingError(
            f"train.clients_per_round={spec.train.clients_per_round}: there are only "
            f"{num_clients} clients; lower it or raise {remedy}"
        )


def check_file_clients(spec: Spec, num_clients: int) -> None:
    """Refuses a number of clients that is not that of the partition's file, nor the default.

    Args:
      spec: Spec with `data.partition.name` "file".
      num_clients: N, of the file.
    Raises:
      SettingError: for another `data.partition.num_clients`.
    """
    given, path = spec.data.partition.num_clients, spec.data.partition.path
    default = PartitionSpec.num_clients
    if given not in (num_clients, default):
        raise SettingError(
            f"data.partition.num_clients={given}: data.partition.path={path} lists {num_clients} "
            f"clients; set it to {num_clients}, or to its default {default}"
        )


def check_channels(spec: Spec, channels: int) -> None:
    """Refuses a normalisation that is not of one value, or of one for each channel.

    Args:
      spec: Spec.
      channels: of the images, or numbers in a row of a table.
    Raises:
      SettingError: when `data.normalization` has another number of values.
    """
    for name in ("mean", "std"):
        values = getattr(spec.data.normalization, name)
        if len(values) not in (1, channels):
            raise SettingError(
                f"data.normalization.{name}={show(values)}: {len(values)} values, and the data "
                f"have {channels} channel(s); give one value for all, or one for each"
            )


def _check_partition(partition):
    if partition.name == "file" and partition.path is None:
        raise SettingError(
            "data.partition.path=None: with data.partition.name='file' it needs to be the path "
            "of a JSON file, such as the partition.json that a run left"
        )


def _check_network(network):
    for field, chooser, value in (("path", "preset", "file"), ("trace", "dynamics", "trace")):
        if getattr(network, chooser) == value and getattr(network, field) is None:
            raise SettingError(
                f"network.{field}=None: with network.{chooser}={value!r} it needs to be the path "
                "of a file"
            )
    if (
        network.dynamics == "markov"
        and network.leave_probability
        and not (network.return_probability)
    ):
        raise SettingError(
            f"network.return_probability=0.0: with network.leave_probability="
            f"{network.leave_probability} nobody would be left to sample; raise it"
        )


def _check_offload(offload):
    if offload.time_weight == offload.energy_weight == 0:
        raise SettingError(
            "cefl.offload.time_weight=0, cefl.offload.energy_weight=0: every pair would cost "
            "nothing; set one of the two above 0"
        )


def _check_cluster_sizes(clustering, clients):
    """Sizes and numbers of clusters that a round's clients cannot fill, or do not fit."""
    rule, most = clustering.rule, clustering.max_size
    if rule == "patent" and clustering.min_size > clients:
        raise SettingError(
            f"cefl.clustering.min_size={clustering.min_size}: needs to be at most "
            f"train.clients_per_round={clients}"
        )
    if rule == "patent" and most is not None and most < clustering.min_size:
        raise SettingError(
            f"cefl.clustering.max_size={most}: needs to be at least "
            f"cefl.clustering.min_size={clustering.min_size}"
        )
    if rule == "astraea" and most is not None and most * clustering.num_clusters < clients:
        raise SettingError(
            f"cefl.clustering.max_size={most}: {clustering.num_clusters} clusters of that size "
            f"cannot hold train.clients_per_round={clients}; raise it or num_clusters"
        )
    counted = rule != "patent" and "num_clusters" in RULES[rule].reads  # patent forms fewer
    if counted and clustering.num_clusters > clients:
        raise SettingError(
            f"cefl.clustering.num_clusters={clustering.num_clusters}: needs to be at most "
            f"train.clients_per_round={clients}"
        )


def _check_slots(spec):
    """Clusters that the edge nodes have no place for."""
    clustering, offload = spec.cefl.clustering, spec.cefl.offload
    capacity = offload.edge_capacity
    places = (spec.network.num_edges + offload.include_cloud) * capacity
    clusters = count_clusters(clustering, spec.train.clients_per_round)
    setting = "cefl.clustering.num_clusters"
    if "num_clusters" not in RULES[clustering.rule].reads:
        setting = f"cefl.clustering.rule={clustering.rule} makes train.clients_per_round"
    if clusters > places:
        raise SettingError(
            f"{setting}={clusters}: network.num_edges={spec.network.num_edges} with "
            f"cefl.offload.edge_capacity={capacity} and "
            f"cefl.offload.include_cloud={offload.include_cloud} have places for {places} "
            "clusters; lower it or raise one of these"
        )
