"""Which runs belong together: sections that are not compared, and groups that differ in the seed.

A section has one dataset, one partition and one model. A group of it has the same settings in all
that changes results.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cefl_jax.config.fields import find_unread
from cefl_jax.reports.runs import Run, changes_results, defaults, key

PARTITION = "data.partition."


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    method: str
    settings: tuple  # texts NAME=VALUE of what else tells the groups of the section apart
    runs: list  # in the order of their seeds

    @property
    def label(self) -> str:
        """Method and settings, which no other group of the section has."""
        return " · ".join((self.method, *self.settings))


class Section(NamedTuple):
    """Groups that can be compared."""

    title: str
    partition: dict  # field of data.partition that is read, without that prefix: value
    common: dict  # field that has the same value in all groups, and not its default: that value
    groups: list

    @property
    def runs(self) -> list:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def by_section(runs: Sequence[Run]) -> list[Section]:
    """Returns the runs in sections and groups, in the order of their settings; [] without runs."""
    sections = _gather(
        runs, lambda path: path in ("data.name", "model.name") or path.startswith(PARTITION)
    )
    configs = [section[0].config for section in sections]
    fields = _tell_apart(
        configs, lambda path: path.startswith(PARTITION) and path != "data.partition.name"
    )
    return [_make_section(*each) for each in zip(fields, sections, strict=True)]


def _make_section(apart, runs):
    """Section of some runs, and what tells its partition from others of its kind."""
    grouped = _gather(runs, changes_results)
    configs = [group[0].config for group in grouped]
    data, kind, model = (configs[0][f"{path}.name"] for path in ("data", "data.partition", "model"))
    partition = {
        path.removeprefix(PARTITION): value
        for path, value in _read(configs[0]).items()
        if path.startswith(PARTITION) and value is not None
    }
    common = {
        path: value
        for path, value in differences(configs[0]).items()
        if changes_results(path)
        and path not in ("data.name", "model.name", "method.name")
        and not path.startswith(PARTITION)
        and all(config.get(path) == value for config in configs)
    }
    names = _tell_apart(configs, lambda path: changes_results(path) and path != "method.name")
    groups = [
        Group(str(group[0].config["method.name"]), apart, sorted(group, key=lambda run: run.seed))
        for group, apart in zip(grouped, names, strict=True)
    ]
    return Section(" · ".join((data, kind, *apart, model)), partition, common, groups)


def _gather(runs, belongs):
    """Lists of the runs that are equal in the fields that belong, in the order of those fields."""
    gathered: dict[frozenset, list[Run]] = {}
    for run in runs:
        gathered.setdefault(key(run.config, belongs), []).append(run)

    def order(fields):
        return sorted((path != "method.name", path, _order(value)) for path, value in fields)

    return [gathered[fields] for fields in sorted(gathered, key=order)]


def _order(value):
    """A key that sorts values of any types: numbers by size, others by their text."""
    is_number = isinstance(value, (int, float))
    return (not is_number, value if is_number else 0, "" if is_number else str(value))


def _tell_apart(configs, belongs):
    """Texts NAME=VALUE, for each flat config, of the fields that belong and vary.

    A field that is None is not named, nor one that nothing reads. A name is the shortest end of the
    path that is no other field's end.
    """
    paths = dict.fromkeys(path for config in configs for path in config)
    varying = [
        path
        for path in paths
        if belongs(path) and len({config.get(path) for config in configs}) > 1
    ]
    short = {path: _short_name(path, paths) for path in varying}
    return [
        tuple(f"{short[path]}={text(read[path])}" for path in varying if read.get(path) is not None)
        for read in map(_read, configs)
    ]


def _short_name(path, known):
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    others = [f".{other}" for other in known if other != path]
    return next((end for end in ends if not any(o.endswith(f".{end}") for o in others)), path)


def _read(config):
    """The fields of a flat config that something reads."""
    unread = find_unread(config)
    return {path: value for path, value in config.items() if path not in unread}


def differences(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a flat config that are not at their defaults, unknown ones included."""
    known = defaults()
    return {
        path: value for path, value in config.items() if path not in known or value != known[path]
    }


def command(config: Mapping[str, Any], workdir: str) -> str:
    """Returns the shell command that repeats a run, with each field that is not its default.

    Args:
      config: flat config.
      workdir: folder for the repetition.
    """
    words = ["python", "-m", "cefl_jax.main", "--config=configs/default.py"]
    words += [f"--config.{path}={text(value)}" for path, value in differences(config).items()]
    return shlex.join([*words, f"--workdir={workdir}"])


def text(value: object) -> str:
    """Returns a value as `--config.FIELD=` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
