"""Which settings can be run: each check passes, or says in one line what to change."""

import functools
import math

from cefl_jax.data import sources
from cefl_jax.models import zoo
from cefl_jax.network import dynamics
from cefl_jax.network.sources import presets
from cefl_jax.specs import Spec

CHOICES = {
    "method.name": (
        "cefl",
        "centralized",
        "fedavg",
        "fedprox",
        "scaffold",
        "fedopt",
        "hierfavg",
        "splitfed_v1",
        "splitfed_v2",
        "sequential_split",
        "fedgkt",
    ),
    "fedopt.optimizer": ("adam", "yogi", "adagrad", "sgd"),
    "cefl.clustering.rule": ("patent", "balanced", "astraea", "random", "single", "singleton"),
    "cefl.clustering.target": ("global", "uniform"),
    "cefl.offload.rule": ("optimal", "greedy", "random", "nearest"),
    "cefl.offload.objective": ("sum", "bottleneck"),
    "cefl.compression.smashed": ("none", "bf16", "int8", "topk"),
    "cefl.compression.gradient": ("none", "bf16", "int8", "topk"),
    "cefl.distill.rule": ("mutual", "cloud_to_edge", "edge_to_cloud", "hard_labels", "none"),
    "cefl.distill.optimizer_state": ("reset", "persist"),
    "data.name": sources.KNOWN,
    "data.partition.name": (
        "iid",
        "dirichlet",
        "shards",
        "extended_dirichlet",
        "quantity_skew",
        "file",
    ),
    "model.name": zoo.NAMES,
    "model.cloud": zoo.CLOUD_NAMES,
    "network.preset": presets.PRESETS,
    "network.dynamics": dynamics.DYNAMICS,
    "network.late": ("drop", "keep"),
    "run.compute_dtype": ("float32", "bfloat16"),
    "run.archive_dtype": ("float32", "bfloat16"),
    "run.on_nonfinite": ("stop", "skip_client"),
    "run.resume": ("auto", "never"),
    "train.optimizer.name": ("sgd", "adam"),
}
MOST = 2**31 - 1  # counts have 32 bits on the device
SIDE = 100_000  # most that one side of an array on the device can sensibly be
RANGES = {
    (0, 2**32 - 1): ("seed",),
    (1, 1000): ("run.checkpoint_keep",),
    (1, 256): ("run.devices", "run.distill_parts"),
    (0, MOST): ("cefl.distill.lambda_warmup_rounds",),
    (1, MOST): (
        "data.partition.num_clients",
        "data.partition.labels_per_client",
        "data.partition.min_size",
        "train.rounds",
        "run.checkpoint_every",
        "run.eval_every",
    ),
    (1, SIDE): (
        "cefl.clustering.num_clusters",
        "cefl.clustering.min_size",
        "cefl.clustering.max_size",
        "cefl.offload.edge_capacity",
        "cefl.distill.epochs",
        "cefl.distill.batch_size",
        "cefl.distill.upload_steps",
        "fedgkt.server_batch_size",
        "fedgkt.server_epochs",
        "hierfavg.edge_rounds",
        "model.cut",
        "network.num_edges",
        "train.clients_per_round",
        "train.local_steps",
        "train.local_epochs",
        "train.batch_size",
        "run.client_chunk",
    ),
    (0, 1): (
        "cefl.compression.topk_share",
        "cefl.distill.lambda_edge",
        "cefl.distill.lambda_cloud",
        "cefl.distill.momentum",
        "fedgkt.server_momentum",
        "fedopt.beta1",
        "fedopt.beta2",
        "network.shadow_correlation",
        "network.load_correlation",
        "network.load_std",
        "network.leave_probability",
        "network.return_probability",
        "train.optimizer.momentum",
    ),
    (0, 0.9): ("data.validation_share",),
    (0, 0.95): ("network.load_mean",),
    (0, 15): ("network.shadow_std_db",),  # six of them stay within what a trace may hold
    (0, 4096): ("cefl.privacy.probe_size",),
    (0, 10**9): (
        "cefl.clustering.network_weight",
        "cefl.offload.time_weight",
        "cefl.offload.energy_weight",
        "cefl.privacy.noise_std",
    ),
    (0, math.inf): ("fedgkt.weight", "fedprox.mu", "train.optimizer.weight_decay"),
}
ABOVE_ZERO = (
    "cefl.compression.topk_share",
    "cefl.distill.temperature",
    "cefl.distill.temperature_cloud",
    "cefl.distill.learning_rate",
    "data.normalization.std",
    "data.partition.alpha",
    "fedgkt.server_learning_rate",
    "fedgkt.temperature",
    "fedopt.server_learning_rate",
    "fedopt.tau",
    "network.deadline_s",
    "scaffold.server_learning_rate",
    "train.optimizer.learning_rate",
    "train.optimizer.clip_norm",
)


class SettingError(ValueError):
    """A setting that cannot be run; one line with the field, its value and what would be right."""


def check_fields(spec: Spec) -> None:
    """Refuses a value that is out of its range, or not among the known ones.

    Args:
      spec: Spec, every field of its type and every number finite.
    Raises:
      SettingError: for the first such field.
    """
    for path, known in CHOICES.items():
        (value,) = _values(spec, path)
        if value not in known:
            raise SettingError(f"{path}={value!r} is unknown; known: {', '.join(known)}")
    for (least, most), paths in RANGES.items():
        wanted = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        for path in paths:
            if not all(least <= value <= most for value in _values(spec, path)):
                raise SettingError(f"{path}={_field(spec, path)}: needs to be {wanted}")
    for path in ABOVE_ZERO:
        if not all(value > 0 for value in _values(spec, path)):
            raise SettingError(f"{path}={_field(spec, path)}: needs to be more than 0")


def _values(spec, path):
    """The values of a field: none for None, those of a tuple."""
    value = _field(spec, path)
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _field(spec, path):
    return functools.reduce(getattr, path.split("."), spec)
