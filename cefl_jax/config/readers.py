"""Who reads which setting: what nothing would read is refused, and left out of comparisons."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from flax import traverse_util

from cefl_jax.config.validate import CHOICES, SettingError
from cefl_jax.data import sources
from cefl_jax.specs import Spec

Clause: TypeAlias = dict[str, tuple[str | bool | None, ...]]
"""Fields and their values; it holds where one of the fields has one of its values."""

SET = ("a value",)  # in place of values: every one but None
MOST_NAMED = 4  # of the values that would do

METHOD, CLUSTERING, DISTILL = "method.name", "cefl.clustering.rule", "cefl.distill.rule"
PARTITION, DYNAMICS, SERVER = "data.partition.name", "network.dynamics", "fedopt.optimizer"


def _all_but(path: str, *values: str) -> Clause:
    return {path: tuple(choice for choice in CHOICES[path] if choice not in values)}


CEFL: Clause = {METHOD: ("cefl",)}
CUT: Clause = {METHOD: ("cefl", "splitfed_v1", "splitfed_v2")}  # train with what the cut lets pass
SPLIT: Clause = {METHOD: (*CUT[METHOD], "sequential_split")}
HALVES: Clause = {METHOD: (*SPLIT[METHOD], "fedgkt")}  # clients hold the model up to the cut
TWO_MODELS: Clause = {METHOD: ("cefl", "fedgkt")}  # one of them in the cloud
FEDOPT: Clause = {METHOD: ("fedopt",)}
WITH_CLIENTS = _all_but(METHOD, "centralized")
SIDE_BY_SIDE = _all_but(METHOD, "centralized", "splitfed_v2", "sequential_split")
LEFT = _all_but(METHOD, "centralized", "hierfavg", "fedgkt")  # by clients who deliver a part
LATE = _all_but(METHOD, "centralized", "hierfavg", "fedgkt", "sequential_split")
DISTILS = _all_but(DISTILL, "none")
EDGE_TAUGHT: Clause = {DISTILL: ("mutual", "cloud_to_edge")}
CLOUD_TAUGHT: Clause = {DISTILL: ("mutual", "edge_to_cloud")}
DRAWN: Clause = {PARTITION: ("dirichlet", "extended_dirichlet", "quantity_skew")}
MARKOV: Clause = {DYNAMICS: ("markov",)}

ALWAYS: tuple[str, ...] = (
    "seed",
    METHOD,
    "data.name",
    "data.validation_share",
    PARTITION,
    "data.partition.num_clients",  # that of a file is held against it
    "data.normalization.mean",
    "data.normalization.std",
    "model.name",
    "network.preset",
    "network.num_edges",
    DYNAMICS,
    "train.rounds",
    "train.clients_per_round",
    "train.local_steps",
    "train.local_epochs",
    "train.batch_size",
    "train.optimizer.name",
    "train.optimizer.learning_rate",
    "train.optimizer.weight_decay",
    "train.optimizer.clip_norm",
    "run.eval_every",
    "run.checkpoint_every",
    "run.checkpoint_keep",
    "run.checkpoint_async",
    "run.resume",
    "run.devices",
    "run.compute_dtype",
    "run.save_trace",
    "run.deterministic",
    "run.compile_cache",
)
READ_WITH: dict[str, tuple[Clause, ...]] = {
    **dict.fromkeys(ALWAYS, ()),
    CLUSTERING: (CEFL,),
    "cefl.clustering.num_clusters": (CEFL, _all_but(CLUSTERING, "single", "singleton")),
    "cefl.clustering.min_size": (CEFL, {CLUSTERING: ("patent",)}),
    "cefl.clustering.max_size": (CEFL, {CLUSTERING: ("patent", "astraea")}),
    "cefl.clustering.target": (CEFL,),  # cluster/kl_mean and kl_max by every rule
    "cefl.clustering.network_weight": (CEFL, {CLUSTERING: ("balanced",)}),
    "cefl.offload.rule": (CEFL,),
    "cefl.offload.objective": (CEFL,),  # offload/cost by every rule, and so are the weights
    "cefl.offload.edge_capacity": (CEFL,),
    "cefl.offload.include_cloud": (CEFL,),
    "cefl.offload.time_weight": (CEFL,),
    "cefl.offload.energy_weight": (CEFL,),
    DISTILL: (CEFL,),
    "cefl.distill.cloud_hard_labels": (CEFL, CLOUD_TAUGHT),
    "cefl.distill.lambda_edge": (CEFL, EDGE_TAUGHT),
    "cefl.distill.lambda_cloud": (CEFL, CLOUD_TAUGHT, {"cefl.distill.cloud_hard_labels": (True,)}),
    "cefl.distill.lambda_warmup_rounds": (CEFL, EDGE_TAUGHT),
    "cefl.distill.temperature_cloud": (CEFL, CLOUD_TAUGHT),
    "cefl.distill.temperature": (
        CEFL,
        _all_but(DISTILL, "hard_labels", "none"),
        {**EDGE_TAUGHT, "cefl.distill.temperature_cloud": (None,)},
    ),
    "cefl.distill.epochs": (CEFL, DISTILS),
    "cefl.distill.batch_size": (CEFL, DISTILS),
    "cefl.distill.learning_rate": (CEFL, DISTILS),
    "cefl.distill.momentum": (CEFL, DISTILS),
    "cefl.distill.optimizer_state": (CEFL, DISTILS),
    "cefl.distill.upload_steps": (CEFL, DISTILS),
    "cefl.compression.smashed": (CUT,),
    "cefl.compression.gradient": (CUT,),
    "cefl.compression.topk_share": (
        CUT,
        {"cefl.compression.smashed": ("topk",), "cefl.compression.gradient": ("topk",)},
    ),
    "cefl.privacy.noise_std": (CUT,),
    "cefl.privacy.probe_size": (SPLIT,),
    "fedprox.mu": ({METHOD: ("fedprox",)},),
    "scaffold.server_learning_rate": ({METHOD: ("scaffold",)},),
    SERVER: (FEDOPT,),
    "fedopt.server_learning_rate": (FEDOPT,),
    "fedopt.beta1": (FEDOPT, _all_but(SERVER, "adagrad")),
    "fedopt.beta2": (FEDOPT, {SERVER: ("adam", "yogi")}),
    "fedopt.tau": (FEDOPT, _all_but(SERVER, "sgd")),
    "hierfavg.edge_rounds": ({METHOD: ("hierfavg",)},),
    **dict.fromkeys(
        (f"fedgkt.{field.name}" for field in dataclasses.fields(Spec().fedgkt)),
        ({METHOD: ("fedgkt",)},),
    ),
    "data.path": ({"data.name": tuple(sources.IDX_SETS)},),
    "data.partition.alpha": (DRAWN,),
    "data.partition.labels_per_client": ({PARTITION: ("shards", "extended_dirichlet")},),
    "data.partition.min_size": (DRAWN,),
    "data.partition.path": ({PARTITION: ("file",)},),
    "model.cut": (HALVES,),
    "model.cloud": (TWO_MODELS, DISTILS),
    "network.path": ({"network.preset": ("file",)},),
    "network.trace": ({DYNAMICS: ("trace",)},),
    "network.shadow_std_db": (MARKOV,),
    "network.shadow_correlation": (MARKOV,),
    "network.load_mean": (MARKOV,),
    "network.load_std": (MARKOV,),
    "network.load_correlation": (MARKOV,),
    "network.leave_probability": (MARKOV,),
    "network.return_probability": (MARKOV,),
    "network.deadline_s": (LATE,),
    "network.late": (LEFT, {DYNAMICS: ("markov", "trace"), "network.deadline_s": SET}),
    "train.optimizer.momentum": ({"train.optimizer.name": ("sgd",)},),
    "run.client_chunk": (SIDE_BY_SIDE,),
    "run.distill_parts": (TWO_MODELS, DISTILS),
    "run.archive_dtype": (TWO_MODELS, DISTILS),
    "run.on_nonfinite": (WITH_CLIENTS,),
}
"""Every field, after those that its clauses name: it is read where all its clauses hold."""


def flatten(spec: Spec) -> dict[str, Any]:
    """Returns {dotted path: value} of all fields."""
    return traverse_util.flatten_dict(dataclasses.asdict(spec), sep=".")


DEFAULTS = flatten(Spec())


def find_unread(settings: Mapping[str, Any]) -> dict[str, Clause]:
    """Returns the fields that nothing reads, each with the first of its clauses that does not hold.

    A clause takes a field that is missing, or that nothing reads, to be at its default. It holds
    for a value that is not known here, such as a method of a newer version.

    Args:
      settings: flat, {dotted path: value}; fields that the table lacks are read.
    Returns:
      {dotted path: Clause}, in the order of the table.
    """
    known, found = {**DEFAULTS, **settings}, {}
    for path, clauses in READ_WITH.items():
        failing = next((clause for clause in clauses if not _holds(clause, known)), None)
        if failing is not None:
            found[path], known[path] = failing, DEFAULTS[path]
    return found


def without_unread(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flat settings in which the fields that nothing reads are at their defaults."""
    unread = find_unread(settings)
    return {path: DEFAULTS[path] if path in unread else value for path, value in settings.items()}


def check_unread(spec: Spec) -> None:
    """Refuses a setting that is not its default, and that nothing would read.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such setting.
    """
    settings = flatten(spec)
    for path, clause in find_unread(settings).items():
        if settings[path] != DEFAULTS[path]:
            held = " and ".join(f"{chooser}={settings[chooser]!r}" for chooser in clause)
            remedies = [
                f"{chooser if len(clause) > 1 else 'that'} to {_list(values)}"
                for chooser, values in clause.items()
            ]
            raise SettingError(
                f"{path}={settings[path]!r}: not read with {held}; set {', or '.join(remedies)}, "
                f"or {path} to {DEFAULTS[path]!r}"
            )


def _holds(clause, settings):
    for path, values in clause.items():
        value = settings[path]
        if value in values or (values is SET and value is not None):
            return True
        if path in CHOICES and value not in CHOICES[path]:
            return True
    return False


def _list(values):
    more = " or ..." if len(values) > MOST_NAMED else ""
    return SET[0] if values is SET else " or ".join(map(repr, values[:MOST_NAMED])) + more
