"""Which values settings may have, alone and together: each check passes, or says what to change."""

import functools
import math
from collections.abc import Iterator
from typing import Any

from cefl_jax.config.fields import SettingError, all_fields, defaults, find_unread, flatten
from cefl_jax.methods import METHODS
from cefl_jax.safe_read import show
from cefl_jax.specs import A_VALUE, PartitionSpec, Spec
from cefl_jax.stages.clustering import RULES, count_clusters

MAX_NAMED = 4  # of the values that would do


def check_fields(spec: Spec) -> None:
    """Refuses a value that is out of its range, or not among the known ones.

    Args:
      spec: Spec, every field of its type and every number finite.
    Raises:
      SettingError: for the first such field.
    """
    for path, field in all_fields().items():
        value: Any = functools.reduce(getattr, path.split("."), spec)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if field.choices and value not in field.choices:
            known = ", ".join(field.choices)
            raise SettingError(f"{path}={value!r} is unknown; known: {known}")
        least = -math.inf if field.least is None else field.least
        most = math.inf if field.most is None else field.most
        bounded = field.least is not None or field.most is not None
        if bounded and not all(least <= number <= most for number in numbers):
            wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
            raise SettingError(f"{path}={value}: needs to be {wanted}")
        if field.above is not None and not all(number > field.above for number in numbers):
            raise SettingError(f"{path}={value}: needs to be more than {field.above}")


def check_unread(spec: Spec) -> None:
    """Refuses a setting that is not its default, and that nothing would read.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such setting.
    """
    settings, at = flatten(spec), defaults()
    for path, clause in find_unread(settings).items():
        if settings[path] != at[path]:
            held = " and ".join(f"{chooser}={settings[chooser]!r}" for chooser in clause)
            remedies = [
                f"{chooser if len(clause) > 1 else 'that'} to {_list(values)}"
                for chooser, values in clause.items()
            ]
            raise SettingError(
                f"{path}={settings[path]!r}: not read with {held}; set {', or '.join(remedies)}, "
                f"or {path} to {at[path]!r}"
            )


def check_combinations(spec: Spec) -> None:
    """Refuses settings that are right alone and cannot be together.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such combination.
    """
    train, partition = spec.train, spec.data.partition
    if (train.local_steps is None) == (train.local_epochs is None):
        raise SettingError(
            f"train.local_steps={train.local_steps}, train.local_epochs={train.local_epochs}: "
            "set one of the two and the other to None"
        )
    check_unread(spec)
    _raise_first(_data_faults(spec))
    if partition.name != "file":
        check_population(spec, partition.num_clients)
    _raise_first(_network_faults(spec.network))
    info = METHODS[spec.method.name]
    try:
        info.check(spec)
    except ValueError as error:
        raise SettingError(str(error)) from error
    if info.traits.chooses_clusters:
        _raise_first(_cluster_faults(spec))
        _raise_first(_offload_faults(spec))


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


def _raise_first(faults: Iterator[str]) -> None:
    for line in faults:
        raise SettingError(line)


def _data_faults(spec):
    """Lines about a partition file that is not named, or that is not of the data."""
    partition, share = spec.data.partition, spec.data.validation_share
    if partition.name != "file":
        return
    if partition.path is None:
        yield (
            "data.partition.path=None: with data.partition.name='file' it needs to be the path "
            "of a JSON file, such as the partition.json that a run left"
        )
    if share:
        yield (
            f"data.validation_share={share:g}: a partition file names examples of the whole "
            "training set; set it to 0, or choose another data.partition.name"
        )


def _network_faults(network):
    """Lines about files that are not named, and about clients that leave for good."""
    for field, chooser, value in (("path", "preset", "file"), ("trace", "dynamics", "trace")):
        if getattr(network, chooser) == value and getattr(network, field) is None:
            yield (
                f"network.{field}=None: with network.{chooser}={value!r} it needs to be the path "
                "of a file"
            )
    leave, back = network.leave_probability, network.return_probability
    if network.dynamics == "markov" and leave and not back:
        yield (
            f"network.return_probability=0.0: with network.leave_probability={leave} nobody would "
            "be left to sample; raise it"
        )


def _cluster_faults(spec):
    """Lines about sizes and numbers of clusters that a round's clients cannot fill."""
    clients, clustering = spec.train.clients_per_round, spec.cefl.clustering
    rule, least, most = clustering.rule, clustering.min_size, clustering.max_size
    if rule == "patent" and least > clients:
        yield (
            f"cefl.clustering.min_size={least}: needs to be at most "
            f"train.clients_per_round={clients}"
        )
    if rule == "patent" and most is not None and most < least:
        yield (
            f"cefl.clustering.max_size={most}: needs to be at least cefl.clustering.min_size={least}"
        )
    num_clusters = clustering.num_clusters
    if rule == "astraea" and most is not None and most * num_clusters < clients:
        yield (
            f"cefl.clustering.max_size={most}: {num_clusters} clusters of that size cannot hold "
            f"train.clients_per_round={clients}; raise it or num_clusters"
        )
    counted = rule != "patent" and "num_clusters" in RULES[rule].reads  # patent forms fewer
    if counted and num_clusters > clients:
        yield (
            f"cefl.clustering.num_clusters={num_clusters}: needs to be at most "
            f"train.clients_per_round={clients}"
        )


def _offload_faults(spec):
    """Lines about clusters that the edge nodes have no place for, and pairs that cost nothing."""
    clustering, offload = spec.cefl.clustering, spec.cefl.offload
    edges, clients = spec.network.num_edges, spec.train.clients_per_round
    places = (edges + offload.include_cloud) * offload.edge_capacity
    clusters = count_clusters(clustering, clients)
    setting = "cefl.clustering.num_clusters"
    if "num_clusters" not in RULES[clustering.rule].reads:
        setting = f"cefl.clustering.rule={clustering.rule} makes train.clients_per_round"
    if clusters > places:
        yield (
            f"{setting}={clusters}: network.num_edges={edges} with "
            f"cefl.offload.edge_capacity={offload.edge_capacity} and "
            f"cefl.offload.include_cloud={offload.include_cloud} have places for {places} "
            "clusters; lower it or raise one of these"
        )
    if offload.time_weight == offload.energy_weight == 0:
        yield (
            "cefl.offload.time_weight=0, cefl.offload.energy_weight=0: every pair would cost "
            "nothing; set one of the two above 0"
        )


def _list(values):
    more = " or ..." if len(values) > MAX_NAMED else ""
    return A_VALUE[0] if values is A_VALUE else " or ".join(map(repr, values[:MAX_NAMED])) + more
