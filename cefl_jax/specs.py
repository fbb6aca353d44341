"""The settings of a run as frozen, hashable dataclasses: what the program is specialised on.

Field names are those of the config (`config.train.optimizer.momentum`), and the defaults here are
the defaults there. What may change without a new program (learning rates, lambdas, temperature) is
handed to the round as `HParams`, taken from the fields of the same name.

Each field says all of itself in its metadata: see `setting`. Checks, refusals of settings that
nothing reads, and lists of settings follow from that.
"""

import dataclasses
from typing import Any, TypeAlias

Clause: TypeAlias = dict[str, tuple[Any, ...]]
"""Values of fields by dotted path; it holds where one of the fields has one of its values."""

A_VALUE = ("a value",)  # in place of values: every one but None
MAX_COUNT = 2**31 - 1  # counts have 32 bits on the device
MAX_SIDE = 100_000  # most that one side of an array on the device can sensibly be
MAX_NUMBER = 10**9


def setting(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    of: str = "",
    when: Clause | tuple[Clause, ...] = (),
) -> Any:
    """Returns a field of settings that says all of itself.

    Args:
      default: its default.
      meaning: one phrase.
      choices: the values that it may have; none for any, or for those that a table elsewhere lists.
      least: least value of a number, or of each number of a tuple; None for no limit.
      most: likewise, the largest.
      above: likewise, a bound that a value has to exceed.
      of: property of `MethodTraits` of the methods that read it; empty for every method.
      when: further clauses; the field is read where all of them hold. A clause names fields that
        stand before this one.
    """
    clauses = (when,) if isinstance(when, dict) else tuple(when)
    metadata = {
        "meaning": meaning,
        "choices": choices,
        "least": least,
        "most": most,
        "above": above,
        "of": of,
        "when": clauses,
    }
    return dataclasses.field(default=default, metadata=metadata)


def count(default: int | None, meaning: str, *, most: int = MAX_SIDE, **more: Any) -> Any:
    """Returns a `setting` that is a whole number of at least 1."""
    return setting(default, meaning, least=1, most=most, **more)


def share(default: float, meaning: str, **more: Any) -> Any:
    """Returns a `setting` from 0 to 1."""
    return setting(default, meaning, least=0, most=1, **more)


@dataclasses.dataclass(frozen=True)
class MethodSpec:
    """Which training method."""

    name: str = setting("cefl", "training method")


@dataclasses.dataclass(frozen=True)
class ClusteringSpec:
    """Which clients train together; `clustering.RULES` says which rule reads what."""

    rule: str = setting("balanced", "clustering rule")
    num_clusters: int = count(4, "most clusters that may form")
    min_size: int = count(2, "patent: least members of a cluster")
    max_size: int | None = count(
        None, "patent: where a walk ends; astraea: size of a cluster; None: off, K / M"
    )
    target: str = setting(
        "global",
        "distribution that clusters should resemble, and are measured by",
        choices=("global", "uniform"),
    )
    network_weight: float = setting(
        0.0,
        "balanced: nats that a second of the slowest pair is worth",
        least=0,
        most=MAX_NUMBER,
    )


@dataclasses.dataclass(frozen=True)
class OffloadSpec:
    """Which edge node trains which cluster. Every rule's matching is priced by all of these."""

    rule: str = setting("optimal", "offload rule; optimal minimises the objective")
    objective: str = setting(
        "sum", "sum of the pairs' costs, or the largest", choices=("sum", "bottleneck")
    )
    edge_capacity: int = count(
        1, "clusters that one edge node can take; the j-th computes j times slower"
    )
    include_cloud: bool = setting(False, "the cloud can take clusters as one more node")
    time_weight: float = setting(1.0, "cost of a second of a pair", least=0, most=MAX_NUMBER)
    energy_weight: float = setting(0.0, "cost of a joule of a pair", least=0, most=MAX_NUMBER)


DISTILL = "cefl.distill.rule"
DISTILS: Clause = {DISTILL: ("mutual", "cloud_to_edge", "edge_to_cloud", "hard_labels")}
EDGE_TAUGHT: Clause = {DISTILL: ("mutual", "cloud_to_edge")}
CLOUD_TAUGHT: Clause = {DISTILL: ("mutual", "edge_to_cloud")}
TAUGHT: Clause = {DISTILL: ("mutual", "cloud_to_edge", "edge_to_cloud")}


@dataclasses.dataclass(frozen=True)
class DistillSpec:
    """How edge model and cloud model teach each other."""

    rule: str = setting(
        "mutual",
        "who teaches whom; hard_labels: the same training without a teacher",
        choices=("mutual", "cloud_to_edge", "edge_to_cloud", "hard_labels", "none"),
    )
    lambda_edge: float = share(
        0.5, "weight of the cloud's predictions when the edge model learns", when=EDGE_TAUGHT
    )
    lambda_warmup_rounds: int = setting(
        0,
        "rounds over which lambda_edge grows linearly from 0",
        least=0,
        most=MAX_COUNT,
        when=EDGE_TAUGHT,
    )
    cloud_hard_labels: bool = setting(
        True,
        "the cloud model learns from labels too, not from predictions alone",
        when=CLOUD_TAUGHT,
    )
    lambda_cloud: float = share(
        0.5,
        "weight of the edge's predictions when the cloud model learns",
        when=(CLOUD_TAUGHT, {"cefl.distill.cloud_hard_labels": (True,)}),
    )
    temperature_cloud: float | None = setting(
        None,
        "softening of the predictions when the cloud model learns; None: temperature",
        above=0,
        when=CLOUD_TAUGHT,
    )
    temperature: float = setting(
        2.0,
        "softening of the predictions when the edge model learns",
        above=0,
        when=(TAUGHT, {**EDGE_TAUGHT, "cefl.distill.temperature_cloud": (None,)}),
    )
    epochs: int = count(1, "passes over the uploaded smashed data, per direction", when=DISTILS)
    batch_size: int = count(64, "smashed samples of one distillation step", when=DISTILS)
    learning_rate: float = setting(0.01, "of both directions", above=0, when=DISTILS)
    momentum: float = share(0.9, "of both directions", when=DISTILS)
    optimizer_state: str = setting(
        "reset",
        "both optimizers start anew each round, or go on",
        choices=("reset", "persist"),
        when=DISTILS,
    )
    upload_steps: int | None = count(
        None,
        "last local steps whose smashed data is uploaded; None: as many as a pass",
        when=DISTILS,
    )


CODECS = ("none", "bf16", "int8", "topk")


@dataclasses.dataclass(frozen=True)
class CompressionSpec:
    """How features and gradients at the cut are sent."""

    smashed: str = setting("none", "codec of smashed data", choices=CODECS, of="codes_features")
    gradient: str = setting(
        "none", "codec of gradients at the cut", choices=CODECS, of="codes_features"
    )
    topk_share: float = share(
        0.1,
        "share of a sample's values that topk sends",
        above=0,
        of="codes_features",
        when={"cefl.compression.smashed": ("topk",), "cefl.compression.gradient": ("topk",)},
    )


@dataclasses.dataclass(frozen=True)
class PrivacySpec:
    """What smashed data gives away, and what is done against it."""

    noise_std: float = setting(
        0.0,
        "standard deviation of the noise that a client adds to its smashed data",
        least=0,
        most=MAX_NUMBER,
        of="codes_features",
    )
    probe_size: int = setting(
        256,
        "test images on which leakage is measured; 0: it is not",
        least=0,
        most=4096,
        of="sends_features",
    )


@dataclasses.dataclass(frozen=True)
class CeflSpec:
    """The parts of the method `cefl`; other methods read some of them."""

    clustering: ClusteringSpec = setting(ClusteringSpec(), "", of="chooses_clusters")
    offload: OffloadSpec = setting(OffloadSpec(), "", of="chooses_clusters")
    distill: DistillSpec = setting(DistillSpec(), "", of="chooses_clusters")
    compression: CompressionSpec = CompressionSpec()
    privacy: PrivacySpec = PrivacySpec()


PARTITION = "data.partition.name"
DRAWN: Clause = {PARTITION: ("dirichlet", "extended_dirichlet", "quantity_skew")}


@dataclasses.dataclass(frozen=True)
class PartitionSpec:
    """Which client holds which examples."""

    name: str = setting(
        "dirichlet",
        "how examples are divided among clients",
        choices=("iid", "dirichlet", "shards", "extended_dirichlet", "quantity_skew", "file"),
    )
    num_clients: int = count(
        100, "clients in the population; file: as many as it lists, or 100", most=MAX_COUNT
    )
    alpha: float = setting(
        0.3, "concentration: small is skewed, large is even", above=0, when=DRAWN
    )
    labels_per_client: int = count(
        2,
        "labels of a client",
        most=MAX_COUNT,
        when={PARTITION: ("shards", "extended_dirichlet")},
    )
    min_size: int = count(10, "least examples of a client", most=MAX_COUNT, when=DRAWN)
    path: str | None = setting(
        None,
        'JSON file of example indices, [[0, 5], [1]] or {"0": [0, 5], "1": [1]}',
        when={PARTITION: ("file",)},
    )


@dataclasses.dataclass(frozen=True)
class NormalizationSpec:
    """How samples are scaled before the model."""

    mean: tuple[float, ...] = setting(
        (0.286,), "of bytes as pixels in [0, 1]; one value a channel, or one for all"
    )
    std: tuple[float, ...] = setting((0.353,), "likewise", above=0)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The examples and how clients hold them."""

    name: str = setting("fashion_mnist_12k", "data set")
    path: str | None = setting(
        None,
        "folder of IDX files, or the one that torchvision was given",
    )
    validation_share: float = setting(
        0.0,
        "share of training examples that is held out and tested on; 0: the test set",
        least=0,
        most=0.9,
    )
    partition: PartitionSpec = PartitionSpec()
    normalization: NormalizationSpec = NormalizationSpec()


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The edge-side model, its cut, and the cloud model."""

    name: str = setting("lenet5", "edge-side model")
    cut: int = count(1, "blocks of the front half, 1 to blocks - 1", of="has_front_halves")
    cloud: str = setting(
        "deep", "cloud model on the cut-layer features", of="has_cloud_model", when=DISTILS
    )


DYNAMICS = "network.dynamics"
MARKOV: Clause = {DYNAMICS: ("markov",)}


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """The simulated computing power network."""

    preset: str = setting("cellular", "network")
    path: str | None = setting(
        None, "JSON or YAML description of a network", when={"network.preset": ("file",)}
    )
    num_edges: int = count(4, "edge nodes that can train back halves")
    dynamics: str = setting("static", "how the network changes over the rounds")
    trace: str | None = setting(
        None, ".npz of conditions, or .csv of availability", when={DYNAMICS: ("trace",)}
    )
    shadow_std_db: float = setting(
        8.0,
        "standard deviation of a link's shadow fading",
        least=0,
        most=15,  # six of them stay within what a trace may hold
        when=MARKOV,
    )
    shadow_correlation: float = share(0.9, "of a link's fading from round to round", when=MARKOV)
    load_mean: float = setting(
        0.3, "share of an edge node that others take", least=0, most=0.95, when=MARKOV
    )
    load_std: float = share(0.15, "its standard deviation", when=MARKOV)
    load_correlation: float = share(0.9, "of a node's load from round to round", when=MARKOV)
    leave_probability: float = share(
        0.05, "that an available client leaves in a round", when=MARKOV
    )
    return_probability: float = share(
        0.5, "that a client away is back in the next round", when=MARKOV
    )
    deadline_s: float | None = setting(
        None,
        "simulated seconds for clients to deliver; None: no limit",
        above=0,
        of="takes_deadline",
    )
    late: str = setting(
        "drop",
        "what becomes of a client that did not finish",
        choices=("drop", "keep"),
        of="takes_parts",
        when={DYNAMICS: ("markov", "trace"), "network.deadline_s": A_VALUE},
    )


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer of clients and edge nodes, started anew in each round."""

    name: str = setting("sgd", "optimizer", choices=("sgd", "adam"))
    learning_rate: float = setting(0.05, "of front halves and back halves", above=0)
    momentum: float = share(0.0, "of sgd", when={"train.optimizer.name": ("sgd",)})
    weight_decay: float = setting(0.0, "added to the gradient, as in PyTorch", least=0)
    clip_norm: float | None = setting(
        None, "largest global norm of a half's gradient; None: no limit", above=0
    )


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Rounds, clients and local training."""

    rounds: int = count(100, "rounds of the whole run", most=MAX_COUNT)
    clients_per_round: int = count(20, "clients sampled uniformly without replacement")
    local_steps: int | None = count(10, "batches of a client in a round; None: local_epochs")
    local_epochs: int | None = count(
        None, "or passes over its examples; set one of the two, the other None"
    )
    batch_size: int = count(20, "examples of one local step")
    optimizer: OptimizerSpec = OptimizerSpec()


DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """How the run is executed; does not change what it computes, but for rounding and faults."""

    eval_every: int = count(5, "rounds between two evaluations; one compiled call", most=MAX_COUNT)
    checkpoint_every: int | None = count(
        10, "rounds, with an evaluation; None: at the end and on signals", most=MAX_COUNT
    )
    checkpoint_keep: int = count(
        2, "newest checkpoints that stay, beside the most accurate", most=1000
    )
    checkpoint_async: bool = setting(True, "the next rounds are computed while one is written")
    resume: str = setting(
        "auto",
        "auto: the run that the workdir holds is resumed",
        choices=("auto", "never"),
    )
    layout: str = setting(
        "auto",
        "loop: one cluster after another, a few clients at once; flat: all clients at once, in "
        "steps of one length; auto: loop on CPUs, flat elsewhere",
        choices=("auto", "loop", "flat"),
    )
    client_chunk: int | None = count(
        None,
        "clients trained at once, of a cluster in the loop layout, of a device in the flat one; None: "
        "automatic",
        of="side_by_side",
    )
    devices: int | None = count(None, "devices to spread a round over; None: automatic", most=256)
    distill_parts: int | None = count(
        None,
        "parts of a distillation batch, for the devices; None: automatic",
        most=256,
        of="has_cloud_model",
        when=DISTILS,
    )
    compute_dtype: str = setting(
        "float32", "in which models compute; parameters stay float32", choices=DTYPES
    )
    archive_dtype: str = setting(
        "float32",
        "in which uploaded features are kept",
        choices=DTYPES,
        of="has_cloud_model",
        when=DISTILS,
    )
    save_trace: bool = setting(False, "write network_trace.npz, which network.trace replays")
    on_nonfinite: str = setting(
        "stop",
        "stop the run, or leave out a client's update that is not finite",
        choices=("stop", "skip_client"),
        of="has_clients",
    )
    deterministic: bool = setting(
        True, "bitwise the same on any number of devices, in the loop layout"
    )
    compile_cache: bool = setting(True, "keep compiled programs below ~/.cache/cefl_jax")


@dataclasses.dataclass(frozen=True)
class Spec:
    """Everything that a run depends on but the methods' own settings: see `methods.spec_class`."""

    seed: int = setting(
        0,
        "of the partition, the network, the weights and every draw of the run",
        least=0,
        most=2**32 - 1,
    )
    method: MethodSpec = MethodSpec()
    cefl: CeflSpec = CeflSpec()
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    network: NetworkSpec = NetworkSpec()
    train: TrainSpec = TrainSpec()
    run: RunSpec = RunSpec()

    def replace(self, changes: dict[str, Any]) -> "Spec":
        """Returns the settings with some fields changed, unchecked.

        Args:
          changes: {dotted path: value}, such as {"train.rounds": 5}.
        Raises:
          AttributeError, TypeError: for a path that is no field.
        """
        spec = self
        for path, value in changes.items():
            spec = _replace(spec, path, value)
        return spec


def _replace(group, path, value):
    name, _, rest = path.partition(".")
    if rest:
        value = _replace(getattr(group, name), rest, value)
    return dataclasses.replace(group, **{name: value})
