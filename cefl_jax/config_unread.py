"""Which settings nothing would read: one that is not its default is refused, in one line."""

import dataclasses
import functools

from cefl_jax.config_checks import CHOICES, SettingError
from cefl_jax.specs import Spec

OWN = ("fedprox", "scaffold", "fedopt", "hierfavg", "fedgkt")  # settings of the method of that name
CUT = ("cefl", "splitfed_v1", "splitfed_v2")  # train with what arrives at the other side
SPLIT = (*CUT, "sequential_split")
WITH_CLIENTS = tuple(name for name in CHOICES["method.name"] if name != "centralized")
MARKOV = (
    "shadow_std_db",
    "shadow_correlation",
    "load_mean",
    "load_std",
    "load_correlation",
    "leave_probability",
    "return_probability",
)
READ_WITH = {
    "cefl.clustering": ("method.name", ("cefl",)),
    "cefl.offload": ("method.name", ("cefl",)),
    "cefl.distill": ("method.name", ("cefl",)),
    "cefl.compression": ("method.name", CUT),
    "cefl.privacy.noise_std": ("method.name", CUT),
    "cefl.privacy.probe_size": ("method.name", SPLIT),
    "run.archive_dtype": ("method.name", ("cefl", "fedgkt")),
    "run.on_nonfinite": ("method.name", WITH_CLIENTS),
    **{name: ("method.name", (name,)) for name in OWN},
    "cefl.clustering.network_weight": ("cefl.clustering.rule", ("balanced",)),
    "fedopt.beta1": ("fedopt.optimizer", ("adam", "yogi", "sgd")),
    "fedopt.beta2": ("fedopt.optimizer", ("adam", "yogi")),
    "fedopt.tau": ("fedopt.optimizer", ("adam", "yogi", "adagrad")),
    "data.partition.path": ("data.partition.name", ("file",)),
    "network.path": ("network.preset", ("file",)),
    "network.trace": ("network.dynamics", ("trace",)),
    **{f"network.{name}": ("network.dynamics", ("markov",)) for name in MARKOV},
    "train.optimizer.momentum": ("train.optimizer.name", ("sgd",)),
}
"""Fields, and groups of them, that are read only while another field has one of these values."""


def check_unread(spec: Spec) -> None:
    """Refuses a setting that is not its default, and that nothing would read.

    Args:
      spec: Spec that `check_fields` passes.
    Raises:
      SettingError: for the first such setting.
    """
    defaults = Spec()
    for path, (chooser, values) in READ_WITH.items():
        chosen = _at(spec, chooser)
        pairs = zip(_fields(spec, path), _fields(defaults, path), strict=True)
        for (field, value), (_, default) in pairs if chosen not in values else ():
            if value != default:
                raise SettingError(
                    f"{field}={value!r}: not read with {chooser}={chosen!r}; set that to "
                    f"{' or '.join(map(repr, values))}, or {field} to {default!r}"
                )


def _at(spec, path):
    return functools.reduce(getattr, path.split("."), spec)


def _fields(spec, path):
    """Path and value of the field at a path, or of all fields below it."""
    value = _at(spec, path)
    if not dataclasses.is_dataclass(value):
        return [(path, value)]
    inner = (_fields(spec, f"{path}.{item.name}") for item in dataclasses.fields(value))
    return [pair for pairs in inner for pair in pairs]
