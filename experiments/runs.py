"""Runs of an experiment: cells of settings, each with several seeds, each in a folder of its own.

A run's folder is what `cefl_jax.main` leaves, and its tables are those of `cefl_jax.reports`.
A run that finished with the same settings is not repeated. Runs whose programs are the same share
one compilation.
"""

import argparse
import dataclasses
import json
import pathlib
import time

import jax

from cefl_jax import build, config, experiment, program
from cefl_jax.config.files import has_field
from cefl_jax.data import partition
from cefl_jax.reports import check_libraries, formats, tables
from cefl_jax.reports.formats import PERCENT, Column, Table
from cefl_jax.reports.groups import Group, Section
from cefl_jax.reports.runs import read_runs
from cefl_jax.runtime import console, cpu, preemption
from cefl_jax.safe_read import InputFileError, expand_user, read_json
from cefl_jax.specs import DataSpec

SKEWED = {  # the round in which methods are compared
    "data.partition.name": "dirichlet",
    "data.partition.alpha": 0.1,
    "data.partition.num_clients": 100,
    "train.clients_per_round": 20,
    "train.local_steps": 10,
    "train.batch_size": 20,
    "train.optimizer.learning_rate": 0.05,
    "network.preset": "device_zoo",
    "network.num_edges": 8,
    "run.eval_every": 5,
}
SMOKE = {"data.name": "fashion_mnist_12k", "train.rounds": 10, "train.local_steps": 5}
CPU = {"data.name": "fashion_mnist", "train.rounds": 100}
FULL = {"data.name": "fashion_mnist", "train.rounds": 500}
SCALES = {"smoke": SMOKE, "cpu": CPU, "full": FULL}
SEEDS = {"smoke": 1, "cpu": 3, "full": 10}
TARGET = {"smoke": 0.6, "cpu": 0.8, "full": 0.8}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is run: every cell with every seed, at one of several scales."""

    name: str
    cells: dict[str, dict]  # name: changed fields, by dotted path
    scales: dict[str, dict]  # smoke, cpu, full: changed fields
    seeds: dict[str, int]  # of each scale
    target: dict[str, float]  # test accuracy until which costs are counted, of each scale
    common: dict = dataclasses.field(default_factory=dict)
    tail: int = 10  # last evaluations whose mean is the final accuracy
    stretch: dict = dataclasses.field(default_factory=dict)  # cell: its rounds over the scale's
    more: dict = dataclasses.field(default_factory=dict)  # metric: heading of a column of its own
    of_scale: dict = dataclasses.field(default_factory=dict)  # scale: its cells, where not all

    def cells_of(self, scale):
        """The cells of a scale."""
        names = self.of_scale.get(scale, self.cells)
        return {name: self.cells[name] for name in names}


class Quiet:
    """A display that says a line when a run begins to compile, and one in ten evaluations."""

    def __init__(self, title):
        self.title, self.count = title, 0

    def note(self, text):
        """Says what is going on."""
        print(f"{self.title}: {text}", flush=True)

    warn = note

    def update(self, record):
        """Says how far the run is."""
        self.count += 1
        if self.count % 10 == 0:
            self.note(f"round {record['round']}, test accuracy {record['test/accuracy']:.4f}")


def make_spec(of, scale, cell, seed):
    """The checked settings of one run."""
    spec = config.make_spec(of.common, of.scales[scale], of.cells[cell], {"seed": seed})
    return spec.replace({"train.rounds": spec.train.rounds * of.stretch.get(cell, 1)})


def run_all(of, scale, seeds, folder, only="", watch=None):
    """Runs what has not been run: {cell: [folder of each seed]}.

    Args:
      of: Experiment.
      scale: of its scales.
      seeds: how many, from 0.
      folder: pathlib.Path; a run is in `CELL-SEED` in it.
      only: cells with this in their names.
      watch: preemption.PreemptionGuard; a signal ends it with Preempted.
    """
    folders, compiler = {}, Compiler()
    for cell in filter(lambda name: only in name, of.cells_of(scale)):
        folders[cell] = []
        for seed in range(seeds):
            place = folder / f"{cell.replace(' ', '_').replace('/', '-')}-{seed}"
            spec = make_spec(of, scale, cell, seed)
            if not is_finished(place, spec):
                run_one(spec, place, f"{cell}, seed {seed}", compiler, watch)
            folders[cell].append(place)
    return folders


def read_groups(folders):
    """The finished runs of {cell: [folder of each seed]}: [reports.groups.Group, one a cell]."""
    places = [place for seeds in folders.values() for place in seeds]
    found = {run.folder: run for run in read_runs(places)[0]}
    return [Group(cell, (), [found[place] for place in seeds]) for cell, seeds in folders.items()]


def tabulate(groups, of, scale):
    """Markdown: how the runs were made, and the table of their accuracies and costs."""
    seeds = max(len(group.runs) for group in groups)
    section = Section(of.name, {}, {}, groups)
    table = tables.summarize(section, of.target[scale], of.tail, of.more)
    return f"`{of.name}` at scale `{scale}`, {seeds} seeds.\n\n{formats.to_markdown(table)}"


def tabulate_beside_published(groups, of, scale, heading, take, published):
    """The table of `tabulate`, and one of ours beside published values.

    Args:
      groups, of, scale: as of `tabulate`.
      heading: of the column of ours.
      take: from a run to the accuracy that is compared.
      published: from a cell to the mean and the deviation, percent.
    """
    rows = []
    for group in groups:
        mean, deviation = published(group.label)
        rows.append([tables.estimate(map(take, group.runs)), f"{mean:.2f} ± {deviation:.2f}"])
    columns = Column("ours", heading, PERCENT), Column("published", "published (%)")
    labels = [group.label for group in groups]
    table = Table("published", columns, labels, rows, [tables.INTERVAL])
    return f"{tabulate(groups, of, scale)}\n{formats.to_markdown(table)}"


def run_one(spec, place, title, compiler=None, watch=None):
    """One run with its files, without pictures; it goes on where the same one was interrupted."""
    setup, display = build.prepare(spec), Quiet(title)
    try:
        workdir, past = experiment.claim(setup, place, warn=display.warn)
    except ValueError:  # another one, or none to go on with
        workdir, past = experiment.claim(setup, place, overwrite=True, warn=display.warn)
    with workdir:
        workdir.write_config(config.to_dict(setup.spec))
        workdir.write_partition(partition.to_json(setup.partition))
        workdir.set_status("running", past.round if past else 0)
        experiment.run(setup, workdir, display, compile=compiler, past=past, watch=watch)
        workdir.set_status("finished", spec.train.rounds)


def is_finished(place, spec):
    """Whether a folder holds a finished run of the same settings, however it was executed."""
    try:
        status, known = (read_json(place / name, 2**20) for name in ("status.json", "config.json"))
    except InputFileError:
        return False
    if not isinstance(status, dict) or not has_field(known, "data.partition.name"):
        return False
    wanted = json.loads(json.dumps(config.to_dict(spec)))
    for settings in (known, wanted):
        settings.pop("run", None)
        settings["data"]["partition"].pop("num_clients", None)  # a file's are counted
    return status.get("state") == "finished" and known == wanted


class Compiler:
    """Compiles like `program.compile_program`, but programs that are the same only once."""

    def __init__(self):
        self._known = {}

    def __call__(self, setup, display, meanwhile=lambda: None):
        """As `program.compile_program`."""
        began, inputs = time.monotonic(), program.put_inputs(setup)
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), inputs)
        # Seed and examples come in with the inputs.
        same = dataclasses.replace(setup.spec, seed=0, data=DataSpec())
        key = same, setup.planner.work, setup.planner.bounds, setup.device_names, str(shapes)
        if key not in self._known:
            display.note("compiling")
            self._known[key] = program.compile_both(setup, inputs, meanwhile)
        start, advance = self._known[key]
        return program.begin(setup, start, inputs), advance, inputs, time.monotonic() - began


def parse(of, doc, parents=()):
    """The command line of an experiment: workdir, scale, number of seeds, and which cells.

    Args:
      of: Experiment.
      doc: its docstring.
      parents: parsers of further options.
    """
    parser = make_parser(doc, of.scales, parents)
    parser.add_argument("--only", default="", help="cells with this in their names")
    options = parser.parse_args()
    options.seeds = options.seeds or of.seeds[options.scale]
    try:
        check_libraries("duckdb")
        for cell in of.cells_of(options.scale):
            make_spec(of, options.scale, cell, 0)
    except config.SettingError as error:
        parser.error(f"cell {cell!r}: {error}")
    except ValueError as error:
        parser.error(str(error))
    return options


def make_parser(doc, scales, parents=()):
    """The options that all experiments have; `seeds` is None where it is left out."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0], parents=parents)
    parser.add_argument("--workdir", required=True, type=expand_user)
    parser.add_argument("--scale", choices=scales, default="cpu")
    parser.add_argument("--seeds", type=positive, help="how many seeds: 0, 1, ...")
    return parser


def positive(text):
    """A whole number of at least 1, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: needs to be at least 1")
    return int(text)


def main(of, doc, tabulate=tabulate, parents=()):
    """Runs an experiment, then writes and prints what `tabulate` makes of it.

    Args:
      of: Experiment.
      doc: its docstring.
      tabulate: from groups of runs, Experiment and scale to Markdown.
      parents: as of `parse`.
    """
    console.ignore_write_errors()
    options = parse(of, doc, parents)
    cpu.set_up()
    cpu.use_compile_cache()
    folder = pathlib.Path(options.workdir) / options.scale
    folder.mkdir(parents=True, exist_ok=True)
    with preemption.PreemptionGuard() as watch:
        try:
            folders = run_all(of, options.scale, options.seeds, folder, options.only, watch)
        except preemption.Preempted as ended:
            print(f"preempted: {ended}; the same command goes on from there")
            watch.leave()
    text = tabulate(read_groups(folders), of, options.scale)
    (folder / f"{of.name}.md").write_text(text)
    print(text)
