"""Training methods: each a pair of pure functions, as an optimizer is in optax."""

import dataclasses
import functools
import importlib
from typing import Any

from cefl_jax.methods.base import MethodInfo
from cefl_jax.specs import Spec

NAMES = (
    "cefl",
    "centralized",
    "fedavg",
    "fedprox",
    "scaffold",
    "fedopt",
    "fednova",
    "hierfavg",
    "splitfed_v1",
    "splitfed_v2",
    "sequential_split",
    "fedgkt",
)
"""Modules of this package; each has a `METHOD`, which says all of it."""

METHODS: dict[str, MethodInfo] = {
    name: importlib.import_module(f"cefl_jax.methods.{name}").METHOD for name in NAMES
}
"""By name. A script may add a method of its own before it makes settings."""


def spec_class() -> Any:
    """Returns the dataclass of all settings: Spec, and a group for each method that has its own."""
    own = {name: info.settings for name, info in METHODS.items() if getattr(info, "settings", None)}
    for name in own:
        if not name.isidentifier() or name in {field.name for field in dataclasses.fields(Spec)}:
            raise ValueError(
                f"methods.METHODS[{name!r}]: settings of a method are a group of its name, which "
                "needs to be an identifier and no group of every run; rename it"
            )
    return _spec_class(tuple(own.items()))


def default_spec() -> Any:
    """Returns the default settings."""
    return spec_class()()


@functools.cache
def _spec_class(groups):
    fields = [(name, group, group()) for name, group in groups]
    namespace = {"__reduce__": _reduce}  # pickle would look for the class in a module
    return dataclasses.make_dataclass(
        "Spec", fields, bases=(Spec,), frozen=True, namespace=namespace
    )


def _reduce(spec):
    return _restore, tuple(vars(spec).items())


def _restore(*values):
    """The settings of an unpickled run, with methods that are known here."""
    return spec_class()(**dict(values))
