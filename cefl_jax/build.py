"""From checked settings to everything that a run needs, before anything is compiled."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from cefl_jax import config, parallel
from cefl_jax.config import fields
from cefl_jax.data import partition, sources
from cefl_jax.data.dataset import Dataset, check_dataset
from cefl_jax.data.federated import FederatedData, make_federated
from cefl_jax.data.partition_file import checked_parts
from cefl_jax.methods import METHODS
from cefl_jax.methods.base import effective_spec
from cefl_jax.models.conv import conv_block
from cefl_jax.models.cost import Workload, measure_workload
from cefl_jax.models.split import SplitModel, make_model, with_head
from cefl_jax.network.sources import presets, trace_file
from cefl_jax.network.topology import Network
from cefl_jax.safe_read import InputFileError, one_line
from cefl_jax.specs import DataSpec, PartitionSpec, RunSpec, Spec
from cefl_jax.stages.clustering import count_clusters
from cefl_jax.stages.round_plan import static_bounds
from cefl_jax.stages.round_planner import RoundPlanner
from cefl_jax.stages.traits import MethodTraits


class Setup(NamedTuple):
    """A run that has been checked and not yet compiled; arrays are still NumPy's."""

    spec: Spec
    partition: list[Int[np.ndarray, "_"]]  # example indices of each client
    data: FederatedData
    classes: tuple[int, ...]  # the data's own label of each class, 0 to Y - 1
    network: Network
    device_names: tuple[str, ...]  # of the network's device classes
    model: SplitModel
    planner: RoundPlanner
    mesh: parallel.EdgeMesh

    def hashes(self) -> dict[str, str]:
        """Returns the SHA-256 of the data and of the partition by the names that files give them.

        They stand in checkpoints and in `summary.json`, and a run goes on only with the same.
        """
        return {
            "data_sha256": self.data.sha256(),
            "partition_sha256": partition.sha256(self.partition),
        }


def prepare(
    spec: Spec,
    mesh: parallel.EdgeMesh | None = None,
    load: Callable[[str, str | None], Dataset] = sources.load,
    measure: Callable[..., Workload] = measure_workload,
) -> Setup:
    """Loads and checks everything that a run needs, before anything is compiled or written.

    Args:
      spec: Spec.
      mesh: EdgeMesh; by default the one that the settings choose.
      load: in place of `sources.load`, such as one that keeps what it has loaded.
      measure: in place of `measure_workload`, likewise.
    Returns:
      Setup, its settings resolved.
    Raises:
      ValueError: one line that names the field, its value and the remedy.
    """
    dataset = load(spec.data.name, spec.data.path)
    dataset = sources.hold_out(dataset, spec.data.validation_share, spec.seed)
    parts = make_partition(spec, dataset.train_labels)
    return make_setup(spec, dataset, parts, mesh, measure)


def build(spec: Spec, dataset: Any, parts: Any) -> Setup:
    """Makes the Setup of a run on a data set and a partition that are at hand.

    Both are checked as those of files are.

    Args:
      spec: Spec; of its `data`, `normalization` is read, and `path` where the data set has a name
        of `sources.KNOWN`.
      dataset: Dataset, by `data.dataset.make_dataset` and of a name of its own; or by
        `sources.load`, and all of it.
      parts: example indices of each client, as `partition_file.checked_parts` takes them.
    Returns:
      Setup, its settings resolved. They say what was given: `data.name` is that of the data set,
      `data.partition` is a file without a path, of so many clients, and nothing is held out.
    Raises:
      ValueError: one line, which begins with `dataset`, `parts` or the field of a setting.
    """
    dataset = check_dataset(dataset)
    parts = _check_parts(parts, len(dataset.train_labels))
    data = DataSpec(
        name=dataset.name,
        path=_check_name(dataset, spec.data.path),
        partition=PartitionSpec(name="file"),
        normalization=spec.data.normalization,
    )
    return make_setup(dataclasses.replace(spec, data=data), dataset, parts)


def make_setup(
    spec: Spec,
    dataset: Dataset,
    parts: list[Int[np.ndarray, "_"]],
    mesh: parallel.EdgeMesh | None = None,
    measure: Callable[..., Workload] = measure_workload,
) -> Setup:
    """Makes the Setup of a run on data that have been checked, and that its settings describe.

    Args:
      spec: Spec.
      dataset: Dataset.
      parts: example indices of each client, none empty; clients may share examples.
      mesh: EdgeMesh; by default the one that the settings choose.
      measure: in place of `measure_workload`, such as one that keeps what it has measured.
    Returns:
      Setup, its settings resolved.
    Raises:
      ValueError: one line, which names the field of a setting that does not fit the data.
    """
    info, sample_shape = METHODS[spec.method.name], dataset.train_images.shape[1:]
    effective = effective_spec(spec, info)
    config.check_population(spec, len(parts))
    config.check_channels(spec, sample_shape[-1])
    mesh = mesh or choose_mesh(spec.run, effective, info.traits)
    lowering = functools.partial(conv_block, platform=mesh.platform)
    model = make_model(
        spec.model, sample_shape, dataset.num_classes, lowering, spec.run.compute_dtype
    )
    model = with_head(model) if info.traits.personal_models else model
    data = make_federated(dataset, parts, spec.data.normalization)
    network, device_names = make_network(spec, len(parts))
    spec = resolve(spec, mesh, len(parts))
    effective = effective_spec(spec, info)
    traffic = info.traffic(effective)
    kind = info.traits.whole, info.traits.personal_models
    work = measure(spec.model, sample_shape, dataset.num_classes, *kind)
    planner = RoundPlanner(
        effective,
        info.traits,
        traffic,
        work,
        traffic.sizes(effective, model, work),
        static_bounds(np.diff(data.offsets), effective.train, effective.cefl.distill.upload_steps),
    )
    return Setup(spec, parts, data, dataset.classes, network, device_names, model, planner, mesh)


def _check_parts(parts, num_examples):
    try:
        return checked_parts(parts, num_examples)
    except InputFileError as error:
        raise ValueError(one_line(f"parts {error}; correct them")) from error


def _check_name(dataset, path):
    """The path from which `sources.load` reads this very data set; None where it has no such name.

    A run of it is repeated by that name, which must not stand for other samples.
    """
    if dataset.name not in sources.KNOWN:
        return None
    try:
        known: Any = sources.load(dataset.name, path)
    except ValueError as error:
        raise ValueError(
            f"dataset.name is {dataset.name!r}, a name of sources.load: {error}; or give the data "
            "set another name"
        ) from error
    if not all(map(np.array_equal, dataset[1:], known[1:])):
        raise ValueError(
            f"dataset.name is {dataset.name!r}, and sources.load reads other samples of that name; "
            "give the data set another name"
        )
    return path


def archive_bytes(setup: Setup) -> int:
    """Returns the bytes of the features that a round keeps for distillation, on each device."""
    spec = setup.planner.spec
    if spec.cefl.distill.rule == "none":
        return 0
    samples = spec.train.clients_per_round * setup.planner.bounds.uploads * spec.train.batch_size
    each = jnp.dtype(spec.run.archive_dtype).itemsize
    return samples * math.prod(setup.model.feature_shape) * each


def make_partition(spec: Spec, labels: Int[np.ndarray, "n"]) -> list[Int[np.ndarray, "_"]]:
    """Returns the example indices of each client, as the settings say."""
    settings, seed = spec.data.partition, spec.seed
    count = settings.num_clients
    match settings.name:
        case "iid":
            return partition.iid(labels, count, seed)
        case "dirichlet":
            return partition.dirichlet(labels, count, settings.alpha, seed, settings.min_size)
        case "shards":
            return partition.shards(labels, count, settings.labels_per_client, seed)
        case "extended_dirichlet":
            return partition.extended_dirichlet(
                labels,
                count,
                settings.labels_per_client,
                settings.alpha,
                seed,
                settings.min_size,
            )
        case "quantity_skew":
            return partition.quantity_skew(labels, count, settings.alpha, seed, settings.min_size)
        case "file":
            parts = partition.from_file(settings.path, len(labels))
            config.check_file_clients(spec, len(parts))
            return parts
    raise ValueError(f"data.partition.name={settings.name!r} is unknown")


def make_network(spec: Spec, num_clients: int) -> tuple[Network, tuple[str, ...]]:
    """The Network of the run, with the trace that it replays, and the names of device classes."""
    settings, trace = spec.network, None
    if settings.dynamics == "trace":  # first: a file that is refused, before anything is computed
        trace = trace_file.read_trace(
            settings.trace, spec.train.rounds, num_clients, settings.num_edges
        )
    network, device_names = presets.make_network(settings, num_clients, spec.seed)
    return network._replace(trace=trace), device_names


def resolve(spec: Spec, mesh: parallel.EdgeMesh, num_clients: int) -> Spec:
    """Returns the settings as they will hold: what was left automatic chosen, the clients counted.

    What nothing reads stays automatic, None.
    """
    clients = spec.train.clients_per_round
    info = METHODS[spec.method.name]
    effective = effective_spec(spec, info)
    most = -(-clients // mesh.size) if mesh.flat else clients  # a device's
    chunk = spec.run.client_chunk or (
        most if mesh.flat else choose_client_chunk(mesh.platform, effective, info.traits)
    )
    batch = effective.cefl.distill.batch_size
    parts = spec.run.distill_parts or choose_distill_parts(mesh.platform, batch)
    chosen = {"client_chunk": min(chunk, most), "distill_parts": min(parts, batch)}
    unread = fields.find_unread(fields.flatten(spec))
    run: dict[str, Any] = {
        name: None if f"run.{name}" in unread else value for name, value in chosen.items()
    }
    partition_spec = dataclasses.replace(spec.data.partition, num_clients=num_clients)
    return dataclasses.replace(
        spec,
        data=dataclasses.replace(spec.data, partition=partition_spec),
        run=dataclasses.replace(
            spec.run, devices=mesh.size, layout="flat" if mesh.flat else "loop", **run
        ),
    )


def choose_mesh(run: RunSpec, effective: Spec, traits: MethodTraits) -> parallel.EdgeMesh:
    """Returns the EdgeMesh that the settings name, or leave to what there is to share."""
    flat = choose_layout(run.layout) == "flat"
    most_items = count_most_items(effective, traits, flat)
    num_devices = run.devices or parallel.choose_num_devices(most_items)
    return parallel.make_mesh(num_devices, run.deterministic, flat)


def count_most_items(effective: Spec, traits: MethodTraits, flat: bool = False) -> int:
    """Returns what devices can share: the clusters of a round, or its clients.

    Its clients in the flat layout, and where they train whole models alone. What is done one after
    another is one.
    """
    if not traits.side_by_side:
        return 1
    clients = effective.train.clients_per_round
    if flat:
        return clients
    return min(count_clusters(effective.cefl.clustering, clients), clients)


def choose_layout(layout: str) -> str:
    """Returns the layout of a round on the devices that there are, "loop" or "flat"."""
    if layout != "auto":
        return layout
    return "loop" if jax.devices()[0].platform == "cpu" else "flat"


def choose_client_chunk(platform: str, effective: Spec, traits: MethodTraits) -> int:
    """Clients to compute at once, in equal parts of a cluster of the usual size.

    On two CPU cores 5 of a cluster at once were 1.4 times faster than one after another and wider
    won nothing, but a slot without a client costs as much as one with (a cluster of one in slots of
    two took 1.5 times as long). For other platforms 16 is a guess. Where clients train models
    alone, a cluster is all of them.
    """
    clients = effective.train.clients_per_round
    alone = traits.whole or traits.personal_models
    clusters = 1 if alone else count_most_items(effective, traits)
    size = -(-clients // clusters)
    most = 5 if platform == "cpu" else 16
    return -(-size // -(-size // most))


def choose_distill_parts(platform: str, batch_size: int) -> int:
    """Parts of a distillation batch, for the devices to share; the results depend on their number.

    On a CPU, parts of 32: on one core they cost no more than a batch of 64 whole, and two cores did
    two of them in two thirds of the time that they took together for the batch.
    """
    return -(-batch_size // 32) if platform == "cpu" else 1
