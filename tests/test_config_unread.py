"""What a method, an optimizer or a network would not read is refused, and nothing that it reads."""

import pytest

from cefl_jax.config_checks import CHOICES, SettingError
from cefl_jax.config_combinations import check_combinations
from cefl_jax.config_unread import check_unread
from cefl_jax.specs import Spec
from tests.test_config import paths
from tests.world import change

AT_THE_CUT = ("cefl.compression.", "cefl.privacy.")
BROKEN = "run.on_nonfinite"  # clients are, where there are any
OF_METHOD = {  # what a method reads of the settings that not every method reads
    "cefl": ("cefl.", "run.archive_dtype", BROKEN),
    "centralized": (),
    "fedavg": (BROKEN,),
    "fedprox": ("fedprox.", BROKEN),
    "scaffold": ("scaffold.", BROKEN),
    "fedopt": ("fedopt.", BROKEN),
    "hierfavg": ("hierfavg.", BROKEN),
    "splitfed_v1": (*AT_THE_CUT, BROKEN),
    "splitfed_v2": (*AT_THE_CUT, BROKEN),
    "sequential_split": ("cefl.privacy.probe_size", BROKEN),
    "fedgkt": ("fedgkt.", "run.archive_dtype", BROKEN),
}
NOT_OF_ALL = (
    "cefl.", "fedprox.", "scaffold.", "fedopt.", "hierfavg.", "fedgkt.", "run.archive_dtype",
    BROKEN,
)
OF_OPTIMIZER = {
    "adam": {"beta1", "beta2", "tau"},
    "yogi": {"beta1", "beta2", "tau"},
    "adagrad": {"tau"},
    "sgd": {"beta1"},
}
CHOSEN = {  # so that a field is read as far as anything but the method goes
    "network": {"network.dynamics": "markov"},
    "network.path": {"network.preset": "file"},
    "network.trace": {"network.dynamics": "trace"},
    "data.partition.path": {"data.partition.name": "file"},
}
FIELDS = {path: default for path, default in paths() if path != "method.name"}


def another(path, default):
    """A value of the same kind; the default where there is but one."""
    if path in CHOICES:
        return next((choice for choice in CHOICES[path] if choice != default), default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return (0.25,)
    if default is None and path.endswith((".path", ".trace")):
        return "somewhere"
    return (default or 0) + 1


def spec_of(changes):
    """The default settings with dotted fields changed."""
    spec = Spec()
    for path, value in changes.items():
        spec = change(spec, path, value)
    return spec


def refusal(changes):
    """The one line about such settings."""
    with pytest.raises(SettingError) as caught:
        check_unread(spec_of(changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_method_is_spoken_of():
    assert set(OF_METHOD) == set(CHOICES["method.name"])


@pytest.mark.parametrize("method", OF_METHOD)
def test_what_a_method_does_not_read_is_refused_and_nothing_else(method):
    for path, default in FIELDS.items():
        value = another(path, default)
        group = path if path in CHOSEN else path.split(".")[0]
        changes = CHOSEN.get(group, {}) | {"method.name": method, path: value}
        if not path.startswith(NOT_OF_ALL) or path.startswith(OF_METHOD[method]):
            check_unread(spec_of(changes))
            continue
        line = refusal(changes)
        assert line.startswith(f"{path}={value!r}: not read with method.name={method!r}; set that")
        assert line.endswith(f", or {path} to {default!r}")
        for name in CHOICES["method.name"]:  # the other remedy
            reads = path.startswith(OF_METHOD[name])
            assert (f" {name!r}" in line.split(";")[1]) == reads
            if reads:
                check_unread(spec_of(changes | {"method.name": name}))


@pytest.mark.parametrize("optimizer", OF_OPTIMIZER)
def test_what_an_optimizer_of_the_server_does_not_read(optimizer):
    for name in ("beta1", "beta2", "tau"):
        changes = {"method.name": "fedopt", "fedopt.optimizer": optimizer, f"fedopt.{name}": 0.5}
        if name in OF_OPTIMIZER[optimizer]:
            check_unread(spec_of(changes))
        else:
            line = refusal(changes)
            assert line.startswith(f"fedopt.{name}=0.5: not read with fedopt.optimizer=")


@pytest.mark.parametrize("method", [name for name in OF_METHOD if name != "cefl"])
def test_other_methods_need_no_room_for_clusters(method):
    """The defaults of `cefl` may not be set with them, so that they cannot be held against them."""
    few = {"train.clients_per_round": 1, "network.num_edges": 1, "method.name": method}
    check_combinations(spec_of(few))
    with pytest.raises(SettingError, match=r"^cefl\.clustering\.num_clusters=4: needs to be"):
        check_combinations(spec_of(few | {"method.name": "cefl"}))
