"""The table of a sweep, from the folders of its runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cefl_jax.reports import formats, tables
from cefl_jax.reports.formats import PERCENT, Column, Table
from cefl_jax.reports.groups import Group, Section
from cefl_jax.reports.runs import Run, read_runs
from cefl_jax.sweeps.definition import Sweep, SweepRun


def read_groups(
    folder: Path, runs: Sequence[SweepRun], warn: Callable[[str], object] = print
) -> list[Group]:
    """Returns the finished runs of a sweep by cell and point, in the order of the sweep.

    Args:
      folder: of the sweep.
      runs: those that have finished.
      warn: called with one line about each that cannot be read.
    """
    whole, left_out = read_runs([folder / run.id for run in runs])
    for other in left_out:
        warn(f"{other.folder} is left out: {other.reason}")
    found = {run.folder: run for run in whole}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if folder / run.id in found:
            groups.setdefault(run.group, []).append(found[folder / run.id])
    return [Group(name, (), members) for name, members in groups.items()]


def tabulate(groups: Sequence[Group], sweep: Sweep, scale: str) -> str:
    """Returns Markdown: how the runs were made, and the table of their accuracies and costs."""
    seeds = max(len(group.runs) for group in groups)
    section = Section(sweep.name, {}, {}, [*groups])
    target = sweep.at(sweep.target, scale)
    table = tables.summarize(section, target, sweep.tail, sweep.more)
    return f"`{sweep.name}` at scale `{scale}`, {seeds} seeds.\n\n{formats.to_markdown(table)}"


def tabulate_beside_published(
    groups: Sequence[Group],
    sweep: Sweep,
    scale: str,
    heading: str,
    take: Callable[[Run], float],
    published: Callable[[str], tuple[float, float]],
) -> str:
    """Returns the table of `tabulate`, and one of ours beside published values.

    Args:
      groups, sweep, scale: as of `tabulate`.
      heading: of the column of ours.
      take: from a run to the accuracy that is compared.
      published: from a group's name to the mean and the deviation, percent.
    """
    rows = []
    for group in groups:
        mean, deviation = published(group.label)
        rows.append([tables.estimate(map(take, group.runs)), f"{mean:.2f} ± {deviation:.2f}"])
    columns = Column("ours", heading, PERCENT), Column("published", "published (%)")
    labels = [group.label for group in groups]
    table = Table("published", columns, labels, rows, [tables.INTERVAL])
    return f"{tabulate(groups, sweep, scale)}\n{formats.to_markdown(table)}"
