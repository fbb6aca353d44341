"""What a sweep is: settings in cells and along axes, each with several seeds."""

import collections
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cefl_jax import config
from cefl_jax.config import fields
from cefl_jax.config.files import run_definition, wrong_file
from cefl_jax.reports.runs import changes_results
from cefl_jax.specs import Spec

ID_DIGITS = 12  # of a hash: two of a million runs have the same one with probability 2e-3


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is run: every cell at every point of the axes, with every seed, at one of some scales.

    A cell is a change of some fields, {dotted path: value}. Axes are fields and their values:

    - `grid`: every combination of them;
    - `zip`: the first values together, then the second ones, and so on;
    - `random`: `num_random` draws of all of them, from a frozen distribution of `scipy.stats` or
      from a tuple of values; the same ones each time, with four digits.
    """

    cells: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    zip: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    random: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_random: int = 0
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fields of all runs
    scales: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: {"full": {}}
    )  # changed fields of each scale, of which the command line chooses one
    seeds: Mapping[str, int] | int = 1  # how many, 0, 1, ...; of each scale
    target: Mapping[str, float] | float = 0.8  # accuracy until which costs are counted
    tail: int = 10  # last evaluations whose mean is the final accuracy
    stretch: Mapping[str, int] = dataclasses.field(default_factory=dict)  # cell: times the rounds
    more: Mapping[str, str] = dataclasses.field(default_factory=dict)  # metric: a column's heading
    of_scale: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=dict
    )  # scale: its cells, where not all
    name: str = ""  # of its file

    def default_scale(self) -> str:
        """Returns "cpu" where there is such a scale, else the first one."""
        return "cpu" if "cpu" in self.scales else next(iter(self.scales), "")

    def at(self, values: Any, scale: str) -> Any:
        """Returns what `seeds` or `target` say of a scale."""
        return values[scale] if isinstance(values, Mapping) else values

    def points(self) -> dict[str, dict[str, Any]]:
        """Returns the changes at every point of the axes, by a label such as "alpha=0.1".

        Raises:
          SettingError: for an axis without values, unequal axes of `zip`, a field on two axes.
        """
        axes = [*self.grid, *self.zip, *self.random]
        held = (self.common, *self.scales.values(), *self.cells.values())
        if "seed" in axes or any("seed" in changes for changes in held):
            raise config.SettingError("seed is set; say with seeds how many there are")
        for path, count in collections.Counter(axes).items():
            if count > 1:
                raise config.SettingError(f"{path} is on two axes; leave one of them")
            for cell, changes in self.cells.items():
                if path in changes:
                    raise config.SettingError(
                        f"{path} is on an axis, and changed by the cell {cell!r}; leave one of them"
                    )
        for path, values in {**self.grid, **self.zip}.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise config.SettingError(f"{path}={values!r}: an axis needs a list of values")
        for path, values in self.grid.items():
            if len({repr(value) for value in values}) < len(values):
                raise config.SettingError(f"{path}={values!r}: a value is there twice; leave one")
        lengths = {path: len(values) for path, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            raise config.SettingError(
                f"zip has axes of unequal lengths, {lengths}; make them equal"
            )
        if bool(self.random) != (self.num_random > 0):
            raise config.SettingError(
                f"num_random={self.num_random}: needs to be above 0 with axes in random, and 0 "
                "without"
            )
        sides = [[{path: value} for value in values] for path, values in self.grid.items()]
        if self.zip:
            rows = zip(*self.zip.values(), strict=True)
            sides.append([dict(zip(self.zip, row, strict=True)) for row in rows])
        if self.random:
            sides.append(self._draw())
        found = [
            {path: value for part in point for path, value in part.items()}
            for point in itertools.product(*sides)
        ]
        return {_label(point, axes): point for point in found}

    def _draw(self):
        """The drawn points of `random`."""
        drawn = {}
        for path, values in self.random.items():
            generator = np.random.default_rng([*path.encode()])
            if hasattr(values, "rvs"):
                draws = [values.rvs(random_state=generator) for _ in range(self.num_random)]
                drawn[path] = [_round(value) for value in draws]
            elif isinstance(values, Sequence) and not isinstance(values, str) and values:
                chosen = generator.integers(len(values), size=self.num_random)
                drawn[path] = [values[at] for at in chosen]
            else:
                raise config.SettingError(
                    f"{path}={values!r}: needs a frozen distribution of scipy.stats, or a tuple of "
                    "values"
                )
        return [
            {path: values[at] for path, values in drawn.items()} for at in range(self.num_random)
        ]


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    group: str  # cell and point of the axes
    seed: int
    spec: Spec

    @functools.cached_property
    def id(self) -> str:
        """A hash of all settings that its results depend on: the name of its folder."""
        flat = fields.flatten(self.spec)
        unread = fields.find_unread(flat)
        named = {
            path: value
            for path, value in flat.items()
            if path not in unread and (path == "seed" or changes_results(path))
        }
        text = json.dumps(named, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]

    @property
    def title(self) -> str:
        """The run as a person reads it."""
        return f"{self.group}, seed {self.seed}" if self.group else f"seed {self.seed}"


def load_definition(file: str) -> tuple[Sweep, dict[str, Any]]:
    """Returns the Sweep that a Python file names EXPERIMENT, and all else that the file defines.

    Raises:
      SettingError: one line, for a file that is missing or fails, and one without a Sweep.
    """
    made = run_definition(file)
    sweep = made.get("EXPERIMENT")
    if not isinstance(sweep, Sweep):
        raise wrong_file(file, "needs EXPERIMENT = cefl_jax.sweeps.Sweep(...)", "--experiment")
    return dataclasses.replace(sweep, name=sweep.name or Path(file).stem), made


def expand(
    sweep: Sweep,
    scale: str,
    num_seeds: int | None = None,
    only: str = "",
    changes: Mapping[str, Any] | None = None,
) -> list[SweepRun]:
    """Returns the runs of a sweep, all settings checked.

    Args:
      sweep: Sweep.
      scale: of its scales.
      num_seeds: None for as many as it says.
      only: groups with this in their names.
      changes: fields set for all runs, over everything else.
    Raises:
      SettingError: one line that names the group and what is wrong with it; or there is none.
    """
    _check_scale(sweep, scale)
    points, runs = sweep.points(), []
    if "seed" in (changes or {}):
        raise config.SettingError("--config.seed: a sweep has seeds 0, 1, ...; pass --seeds=N")
    for path in changes or {}:
        varied = [path in cell for cell in sweep.cells.values()]
        if path in next(iter(points.values())) or any(varied):
            raise config.SettingError(
                f"--config.{path}: {sweep.name} varies that field; leave one of them, or use --only"
            )
    for cell in sweep.of_scale.get(scale, sweep.cells):
        for label, point in points.items():
            group = ", ".join(filter(None, (cell, label)))
            if only not in group:
                continue
            held = sweep.common, sweep.scales[scale], sweep.cells[cell], point
            try:
                spec = config.make_spec(*held, {"seed": 0}, changes or {})
            except config.SettingError as error:
                where = f" at {group!r}" if group else ""
                raise config.SettingError(f"{sweep.name}{where}: {error}") from error
            spec = spec.replace({"train.rounds": spec.train.rounds * sweep.stretch.get(cell, 1)})
            seeds = range(num_seeds or sweep.at(sweep.seeds, scale))
            runs += [SweepRun(group, seed, spec.replace({"seed": seed})) for seed in seeds]
    if not runs:
        remedy = f" with --only={only!r}; choose another text" if only else "; give it cells"
        raise config.SettingError(f"{sweep.name} has no runs{remedy}")
    _check_distinct(sweep, runs)
    return runs


def _check_scale(sweep, scale):
    """Refuses a scale that there is not, and what the sweep says of other scales and cells."""
    if scale not in sweep.scales:
        raise config.SettingError(
            f"--scale={scale}: {sweep.name} has {', '.join(sweep.scales)}; choose one of them"
        )
    for name in ("seeds", "target"):
        values = getattr(sweep, name)
        if isinstance(values, Mapping) and scale not in values:
            raise config.SettingError(f"{sweep.name}: {name} says nothing of the scale {scale!r}")
    for cell in (*sweep.of_scale.get(scale, ()), *sweep.stretch):
        if cell not in sweep.cells:
            raise config.SettingError(
                f"{sweep.name}: of_scale or stretch names {cell!r}, which is no cell"
            )
    count = sweep.at(sweep.seeds, scale)
    if type(count) is not int or count < 1:
        raise config.SettingError(f"{sweep.name}: seeds={count!r}: needs to be at least 1")
    if any(type(times) is not int or times < 1 for times in sweep.stretch.values()):
        raise config.SettingError(f"{sweep.name}: stretch needs whole numbers of at least 1")


def _check_distinct(sweep, runs):
    first: dict[str, SweepRun] = {}
    for run in runs:
        same = first.setdefault(run.id, run)
        if same is not run:
            raise config.SettingError(
                f"{sweep.name}: {same.title!r} and {run.title!r} have the same settings; leave one "
                "of them out"
            )


def _round(value):
    """A drawn number as Python's own, with four digits if it is a float."""
    value = getattr(value, "item", lambda: value)()
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _label(point, axes):
    ends = collections.Counter(path.rpartition(".")[2] for path in axes)
    names = {path: path.rpartition(".")[2] for path in point}
    return ", ".join(
        f"{path if ends[names[path]] > 1 else names[path]}={value}" for path, value in point.items()
    )
