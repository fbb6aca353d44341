"""The settings of a run as frozen, hashable dataclasses: what the program is specialised on.

Field names are those of the config (`config.train.optimizer.momentum`), and the defaults here are
the defaults there. What may change without a new program (learning rates, lambdas, temperature) is
handed to the round as `HParams`, taken from the fields of the same name.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class MethodSpec:
    """Which training method."""

    name: str = "cefl"  # training method


@dataclasses.dataclass(frozen=True)
class ClusteringSpec:
    """Which clients train together."""

    rule: str = "balanced"  # patent | balanced | astraea | random | single | singleton
    num_clusters: int = 4  # most clusters that may form; not read by single and singleton
    min_size: int = 2  # patent: least members of a cluster
    max_size: int | None = None  # patent: limit of a walk; astraea: size; None: off, K / M
    target: str = "global"  # what clusters should resemble, or are measured by: global | uniform
    network_weight: float = 0.0  # balanced: nats that a second of the slowest pair is worth


@dataclasses.dataclass(frozen=True)
class OffloadSpec:
    """Which edge node trains which cluster."""

    rule: str = "optimal"  # optimal | greedy | random | nearest
    objective: str = "sum"  # sum of the pairs' costs | bottleneck, the largest pair's
    edge_capacity: int = 1  # clusters that one edge node can take; the j-th computes j x slower
    include_cloud: bool = False  # the cloud can take clusters as one more node
    time_weight: float = 1.0  # what a second of a pair costs
    energy_weight: float = 0.0  # what a joule of a pair costs


@dataclasses.dataclass(frozen=True)
class DistillSpec:
    """How edge model and cloud model teach each other."""

    rule: str = "mutual"  # mutual | cloud_to_edge | edge_to_cloud | hard_labels | none
    lambda_edge: float = 0.5  # weight of the cloud's predictions when the edge model learns
    lambda_cloud: float = 0.5  # weight of the edge's predictions when the cloud model learns
    lambda_warmup_rounds: int = 0  # lambda_edge grows linearly over this many rounds
    temperature: float = 2.0  # softening of the predictions when the edge model learns
    temperature_cloud: float | None = None  # the same for the cloud model; None: temperature
    cloud_hard_labels: bool = True  # False: the cloud model sees only the edge's predictions
    epochs: int = 1  # passes over the uploaded smashed data, per direction and round
    batch_size: int = 64  # smashed samples of one distillation step
    learning_rate: float = 0.01  # of both directions
    momentum: float = 0.9  # of both directions
    optimizer_state: str = "reset"  # both optimizers start anew each round | persist: they go on
    upload_steps: int | None = None  # last local steps uploaded; None: as many as a pass


@dataclasses.dataclass(frozen=True)
class CompressionSpec:
    """How features and gradients at the cut are sent."""

    smashed: str = "none"  # smashed data: none | bf16 | int8 | topk
    gradient: str = "none"  # gradients at the cut, likewise
    topk_share: float = 0.1  # topk: share of a sample's values that is sent


@dataclasses.dataclass(frozen=True)
class PrivacySpec:
    """What smashed data gives away, and what is done against it."""

    noise_std: float = 0.0  # of Gaussian noise that a client adds to its smashed data
    probe_size: int = 256  # test images on which leakage is measured; 0: it is not


@dataclasses.dataclass(frozen=True)
class CeflSpec:
    """The parts of the method `cefl`."""

    clustering: ClusteringSpec = ClusteringSpec()
    offload: OffloadSpec = OffloadSpec()
    distill: DistillSpec = DistillSpec()
    compression: CompressionSpec = CompressionSpec()
    privacy: PrivacySpec = PrivacySpec()


@dataclasses.dataclass(frozen=True)
class FedproxSpec:
    """The method `fedprox`."""

    mu: float = 0.01  # weight of half the squared distance from the global model


@dataclasses.dataclass(frozen=True)
class ScaffoldSpec:
    """The method `scaffold`."""

    server_learning_rate: float = 1.0  # of the step by the clients' mean change


@dataclasses.dataclass(frozen=True)
class FedoptSpec:
    """The method `fedopt`: the server's optimizer on the clients' mean change."""

    optimizer: str = "adam"  # adam | yogi | adagrad | sgd
    server_learning_rate: float = 0.01
    beta1: float = 0.9  # adam, yogi: of the first moment; sgd: its momentum
    beta2: float = 0.99  # adam, yogi: of the second moment
    tau: float = 0.001  # adam, yogi, adagrad: how adaptive it is, less with more


@dataclasses.dataclass(frozen=True)
class HierfavgSpec:
    """The method `hierfavg`."""

    edge_rounds: int = 2  # averages of each edge node's clients a round; kappa_2


@dataclasses.dataclass(frozen=True)
class FedgktSpec:
    """The method `fedgkt`."""

    temperature: float = 3.0  # softening of both sides' predictions
    weight: float = 1.0  # of the divergence from the other side, beside the labels
    server_epochs: int = 1  # passes of the server over the features of a round
    server_batch_size: int = 64
    server_learning_rate: float = 0.01
    server_momentum: float = 0.9  # its state persists over the rounds


@dataclasses.dataclass(frozen=True)
class PartitionSpec:
    """Which client holds which examples."""

    name: str = "dirichlet"  # iid | dirichlet | shards | extended_dirichlet | quantity_skew | file
    num_clients: int = 100  # clients in the population; file: as many as it lists, or 100
    alpha: float = 0.3  # dirichlets, quantity_skew: small is skewed, large is even
    labels_per_client: int = 2  # shards, extended_dirichlet
    min_size: int = 10  # dirichlets, quantity_skew: least examples of a client
    path: str | None = None  # file: JSON, [[0, 5], [1]] or {"0": [0, 5], "1": [1]}, of indices


@dataclasses.dataclass(frozen=True)
class NormalizationSpec:
    """How samples are scaled before the model."""

    mean: tuple[float, ...] = (0.286,)  # of bytes as pixels in [0, 1]; one a channel, or for all
    std: tuple[float, ...] = (0.353,)  # likewise


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The examples and how clients hold them."""

    name: str = "fashion_mnist_12k"  # | fashion_mnist | mnist | emnist_letters ... | digits
    path: str | None = None  # folder of IDX files, or the one that torchvision was given
    validation_share: float = 0.0  # of training examples, held out and tested on; 0: the test set
    partition: PartitionSpec = PartitionSpec()
    normalization: NormalizationSpec = NormalizationSpec()


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The edge-side model, its cut, and the cloud model."""

    name: str = "lenet5"  # mlp | lenet5 | cnn
    cut: int = 1  # blocks of the front half, 1 to blocks - 1
    cloud: str = "deep"  # cloud model on the cut-layer features


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """The simulated computing power network."""

    preset: str = "cellular"  # cellular | uniform | hierfavg | device_zoo | file
    path: str | None = None  # file: JSON or YAML description of a network
    num_edges: int = 4  # edge nodes that can train back halves
    dynamics: str = "static"  # how the network changes over the rounds: static | markov | trace
    trace: str | None = None  # trace: .npz of conditions, or .csv of availability
    shadow_std_db: float = 8.0  # markov: standard deviation of a link's shadow fading
    shadow_correlation: float = 0.9  # markov: of a link's fading in one round and the next
    load_mean: float = 0.3  # markov: share of an edge node that others take
    load_std: float = 0.15  # markov: its standard deviation
    load_correlation: float = 0.9  # markov: of a node's load in one round and the next
    leave_probability: float = 0.05  # markov: that an available client leaves in a round
    return_probability: float = 0.5  # markov: that a client away is back in the next round
    deadline_s: float | None = None  # simulated seconds for clients to deliver; None: no limit
    late: str = "drop"  # what a client that did not finish delivers: drop | keep


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer of clients and edge nodes, started anew in each round."""

    name: str = "sgd"  # sgd | adam
    learning_rate: float = 0.05  # of front halves and back halves
    momentum: float = 0.0  # sgd
    weight_decay: float = 0.0  # added to the gradient, as in PyTorch
    clip_norm: float | None = None  # largest global norm of a half's gradient; None: no limit


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Rounds, clients and local training."""

    rounds: int = 100
    clients_per_round: int = 20  # sampled uniformly without replacement
    local_steps: int | None = 10  # batches that a client trains on per round
    local_epochs: int | None = None  # or passes over its data; set one of the two, the other None
    batch_size: int = 20
    optimizer: OptimizerSpec = OptimizerSpec()


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """How the run is executed; does not change what it computes, but for rounding and faults."""

    eval_every: int = 5  # rounds between two evaluations; one compiled call
    checkpoint_every: int | None = 10  # rounds; with an evaluation. None: at the end and on signals
    checkpoint_keep: int = 2  # newest checkpoints that stay, beside the one with the best accuracy
    checkpoint_async: bool = True  # the next rounds are computed while one is written
    resume: str = "auto"  # auto: go on with the run that the workdir holds | never
    client_chunk: int | None = None  # clients of a cluster trained at once; None: automatic
    devices: int | None = None  # devices to spread the edge nodes over; None: automatic
    distill_parts: int | None = None  # of a distillation batch, for the devices; None: automatic
    compute_dtype: str = "float32"  # or "bfloat16", in which models compute; parameters stay f32
    archive_dtype: str = "float32"  # or "bfloat16", in which uploaded features wait
    save_trace: bool = False  # write network_trace.npz, which network.trace replays
    on_nonfinite: str = "stop"  # or skip_client: its update is left out where it is not finite
    deterministic: bool = True  # bitwise the same on any number of devices; False: fast sums
    compile_cache: bool = True  # compiled programs are kept in a folder of the user for later runs


@dataclasses.dataclass(frozen=True)
class Spec:
    """Everything that a run depends on."""

    seed: int = 0
    method: MethodSpec = MethodSpec()
    cefl: CeflSpec = CeflSpec()
    fedprox: FedproxSpec = FedproxSpec()
    scaffold: ScaffoldSpec = ScaffoldSpec()
    fedopt: FedoptSpec = FedoptSpec()
    hierfavg: HierfavgSpec = HierfavgSpec()
    fedgkt: FedgktSpec = FedgktSpec()
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    network: NetworkSpec = NetworkSpec()
    train: TrainSpec = TrainSpec()
    run: RunSpec = RunSpec()
