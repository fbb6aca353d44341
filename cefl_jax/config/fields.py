"""What every setting says of itself, by its dotted path, and which settings nothing reads."""

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flax import traverse_util

from cefl_jax.data import sources
from cefl_jax.methods import METHODS, spec_class
from cefl_jax.methods.base import MethodInfo
from cefl_jax.models import zoo
from cefl_jax.network import dynamics
from cefl_jax.network.sources import presets
from cefl_jax.specs import A_VALUE, Clause, ClusteringSpec, Spec
from cefl_jax.stages import clustering, offload

METHOD, RULE = "method.name", "cefl.clustering.rule"


class SettingError(ValueError):
    """A setting that cannot be run; one line with the field, its value and what would be right."""


class Field(NamedTuple):
    """A setting; `specs.setting` says what most of these are."""

    hint: Any  # its type
    default: Any
    meaning: str
    choices: tuple[str, ...]
    open: bool  # choices are the names in a table of methods, rules, data sets, models, networks
    least: float | None
    most: float | None
    above: float | None
    clauses: tuple[Clause, ...]  # it is read where all of them hold


def all_fields() -> dict[str, Field]:
    """Returns every setting by its dotted path, each after those that its clauses name.

    Methods, rules, data sets, models and networks are known from tables of their own. Not to be
    changed: it is made once, and again when one of these tables has changed.
    """
    _check_tables()
    tables = (METHODS, clustering.RULES, offload.RULES)
    return _all_fields(*(tuple(table.items()) for table in tables), tuple(zoo.NAMES))


@functools.cache
def _all_fields(*_: Any) -> dict[str, Field]:
    tables: dict[str, Iterable[str]] = {
        METHOD: METHODS,
        RULE: clustering.RULES,
        "cefl.offload.rule": offload.RULES,
        "data.name": sources.KNOWN,
        "model.name": zoo.NAMES,
        "model.cloud": zoo.CLOUD_NAMES,
        "network.preset": presets.PRESETS,
        "network.dynamics": dynamics.DYNAMICS,
    }
    found = {}
    for path, hint, field, clauses in _walk(spec_class(), "", ()):
        meta = field.metadata
        found[path] = Field(
            hint,
            field.default,
            meta["meaning"],
            tuple(tables.get(path, meta["choices"])),
            path in tables,
            meta["least"],
            meta["most"],
            meta["above"],
            (*clauses, *_clauses_of_tables(path), *meta["when"]),
        )
    return found


def defaults() -> dict[str, Any]:
    """Returns {dotted path: default} of all settings."""
    return {path: field.default for path, field in all_fields().items()}


def choices() -> dict[str, tuple[str, ...]]:
    """Returns {dotted path: values} of the settings that are one of a few words."""
    return {path: field.choices for path, field in all_fields().items() if field.choices}


def hints(group: Any) -> dict[str, Any]:
    """Returns the types of a group's fields by name."""
    return _hints(group)


def flatten(spec: Spec) -> dict[str, Any]:
    """Returns {dotted path: value} of all fields."""
    return traverse_util.flatten_dict(dataclasses.asdict(spec), sep=".")


def find_unread(settings: Mapping[str, Any]) -> dict[str, Clause]:
    """Returns the fields that nothing reads, each with the first of its clauses that does not hold.

    A clause takes a field that is missing, or that nothing reads, to be at its default. It holds
    for a value that is not known here, such as a method of a newer version.

    Args:
      settings: flat, {dotted path: value}; what is no field is read.
    Returns:
      {dotted path: Clause}, in the order of the fields.
    """
    known, found = defaults() | dict(settings), {}
    for path, field in all_fields().items():
        failing = next((clause for clause in field.clauses if not _holds(clause, known)), None)
        if failing is not None:
            found[path], known[path] = failing, field.default
    return found


def without_unread(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flat settings in which the fields that nothing reads are at their defaults."""
    unread, at = find_unread(settings), defaults()
    return {path: at[path] if path in unread else value for path, value in settings.items()}


def _holds(clause, settings):
    fields = all_fields()
    for path, values in clause.items():
        value, known = settings[path], fields[path].choices
        if value in values or (values is A_VALUE and value is not None):
            return True
        if known and value not in known:  # of a newer version
            return True
    return False


@functools.cache
def _hints(group: Any) -> dict[str, Any]:
    return typing.get_type_hints(group)


def _walk(
    group: Any, prefix: str, clauses: tuple[Clause, ...]
) -> Iterator[tuple[str, Any, Any, tuple[Clause, ...]]]:
    """Path, type, field, and clauses about the method, of all fields below a group."""
    for field in dataclasses.fields(group):
        path, hint, of = prefix + field.name, hints(group)[field.name], field.metadata.get("of")
        here = clauses
        if of:
            readers = tuple(name for name, info in METHODS.items() if getattr(info.traits, of))
            here = (*clauses, {METHOD: readers})
        if not dataclasses.is_dataclass(hint):
            yield path, hint, field, here
        elif not prefix and field.name in METHODS and METHODS[field.name].settings:
            yield from _walk(hint, f"{path}.", ({METHOD: (field.name,)},))
        else:
            yield from _walk(hint, f"{path}.", here)


def _check_tables() -> None:
    """Raises ValueError for what a script has added and is no method, or no rule."""
    for name, info in METHODS.items():
        if not isinstance(info, MethodInfo):
            raise ValueError(f"methods.METHODS[{name!r}] needs to be a methods.base.MethodInfo")
    for name, rule in clustering.RULES.items():
        unknown = set(getattr(rule, "reads", ())) - {*hints(ClusteringSpec)}
        if not isinstance(rule, clustering.Rule) or unknown:
            raise ValueError(
                f"stages.clustering.RULES[{name!r}] needs to be a stages.clustering.Rule that reads "
                f"fields among {', '.join(hints(ClusteringSpec))}"
            )


def _clauses_of_tables(path: str) -> tuple[Clause, ...]:
    """Clauses about settings of which a table of rules or data sets says who reads them."""
    if path == "data.path":
        return ({"data.name": tuple(sources.IDX_SETS)},)
    group, _, name = path.rpartition(".")
    readers = tuple(rule for rule, made in clustering.RULES.items() if name in made.reads)
    return ({RULE: readers},) if group == "cefl.clustering" and readers else ()
