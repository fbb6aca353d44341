"""Which runs belong together: sections that are not compared, and groups that differ in the seed.

A section has one dataset, one partition and one model. A group of it has the same settings in all
that changes results.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cefl_jax.config.fields import find_unread
from cefl_jax.reports.runs import Run
from cefl_jax.reports.settings import changes_results, differences, key, text


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


def by_section(runs: Sequence[Run]) -> list[Section]:
    """Returns the runs in sections and groups, in the order of their settings; [] without runs."""
    sections = _gather(
        runs, lambda path: path in ("data.name", "model.name") or path.startswith("data.partition.")
    )
    titles = _titles([section[0].config for section in sections])
    return [_make_section(title, members) for title, members in zip(titles, sections, strict=True)]


def _make_section(title, runs):
    groups = _gather(runs, changes_results)
    configs = [group[0].config for group in groups]
    partition = {
        path.removeprefix("data.partition."): value
        for path, value in _read(configs[0]).items()
        if path.startswith("data.partition.") and value is not None
    }
    named = {"data.name", "model.name", "method.name"}
    common = {
        path: value
        for path, value in differences(configs[0]).items()
        if changes_results(path)
        and path not in named
        and not path.startswith("data.partition.")
        and all(config.get(path) == value for config in configs)
    }
    return Section(
        title,
        partition,
        common,
        [
            Group(
                str(config["method.name"]), apart, sorted(group, key=lambda run: _order(run.seed))
            )
            for config, apart, group in zip(configs, tell_apart(configs), groups, strict=True)
        ],
    )


def _gather(runs, belongs):
    """Lists of the runs that are equal in the fields that belong, in the order of those fields."""
    gathered: dict[frozenset, list[Run]] = {}
    for run in runs:
        gathered.setdefault(key(run.config, belongs), []).append(run)
    in_order = sorted(
        gathered,
        key=lambda fields: sorted(
            (path != "method.name", path, _order(value)) for path, value in fields
        ),
    )
    return [gathered[fields] for fields in in_order]


def _titles(configs):
    """Dataset, kind of partition and model, and the partition's fields that differ among them."""
    varying = [path for path in _varying(configs) if path.startswith("data.partition.")]
    short = _short_names(varying, configs[0] if configs else {})
    titles = []
    for config in configs:
        read = _read(config)
        fields = [
            f"{short[path]}={text(read[path])}"
            for path in varying
            if path != "data.partition.name" and path in read
        ]
        parts = [config["data.name"], config["data.partition.name"], *fields, config["model.name"]]
        titles.append(" · ".join(map(str, parts)))
    return titles


def tell_apart(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns what tells each of some flat configs from the others of its method, with short names.

    A field that is None is not named, nor one that nothing reads.

    Args:
      configs: flat, no two of which are the same; what nothing reads at its default.
    Returns:
      Texts NAME=VALUE of each; with its method each is different from all others.
    """
    varying = [
        path for path in _varying(configs) if changes_results(path) and path != "method.name"
    ]
    short = _short_names(varying, set().union(*configs))
    reads = [_read(config) for config in configs]
    return [
        tuple(f"{short[path]}={text(read[path])}" for path in varying if read.get(path) is not None)
        for read in reads
    ]


def _read(config):
    """The fields of a flat config that something reads."""
    unread = find_unread(config)
    return {path: value for path, value in config.items() if path not in unread}


def _varying(configs):
    paths = dict.fromkeys(path for config in configs for path in config)
    return [path for path in paths if len({config.get(path) for config in configs}) > 1]


def _short_names(paths, known):
    """{path: its shortest end that is no other known field's end}."""
    names = {}
    for path in paths:
        parts = path.split(".")
        ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        names[path] = next(
            (
                end
                for end in ends
                if not any(other != path and f".{other}".endswith(f".{end}") for other in known)
            ),
            path,
        )
    return names


def _order(value):
    """A key that sorts values of any types: numbers by size, others by their text."""
    is_number = isinstance(value, (int, float))
    return (not is_number, value if is_number else 0, "" if is_number else str(value))
