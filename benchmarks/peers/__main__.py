"""Times one FedAvg round here and in other frameworks, in turns.

    python -m benchmarks.peers --envs=ENVS [--peers=pfl,fedlab:serial] [--turns=5] [--rounds=3]
        [--threads=2] [--json=FILE]

LeNet-5 on the Fashion-MNIST extract, 100 clients with 100 examples each, 10 of them a round, five
local steps of 20 images, plain SGD; nothing is evaluated in a timed round. `benchmarks.peers.setup`
makes the environments. A peer is timed in each way that it can run, unless `--peers` names one.
"""

import json
import os
import pathlib
import subprocess
import sys

from benchmarks.peers import setting
from benchmarks.peers.setup import WAYS, command_of, python_of
from benchmarks.settings import make_parser, write_json
from benchmarks.timing import Contender, alternate, environment
from benchmarks.timing import table as table_of

OURS = "cefl_jax"
FIELDS = (  # each client is a cluster of its own and nothing is distilled: FedAvg
    "cefl.clustering.rule=singleton",
    "cefl.distill.rule=none",
    f"network.num_edges={setting.CLIENTS_PER_ROUND}",
    "data.name=fashion_mnist_12k",
    "data.partition.name=iid",
    f"data.partition.num_clients={setting.CLIENTS}",
    f"data.normalization.mean=({setting.MEAN},)",
    f"data.normalization.std=({setting.STD},)",
    "model.name=lenet5",
    f"train.clients_per_round={setting.CLIENTS_PER_ROUND}",
    f"train.local_steps={setting.LOCAL_STEPS}",
    f"train.batch_size={setting.BATCH_SIZE}",
    f"train.optimizer.learning_rate={setting.LEARNING_RATE}",
)
THREADED = ("pfl", "flower", "fedlab", "blazefl")  # those that take --threads


def make_contenders(folder, names, threads):
    """Ours, and the peers whose environments are there.

    Args:
      folder: of the environments.
      names: of peers, with a colon and a way where a peer has several.
      threads: of those on PyTorch.
    Returns:
      List of timing.Contender, ours first, and list of the peers whose environments are missing.
    """
    contenders, missing = [Contender(OURS, ("-m", "benchmarks.cefl_worker", *FIELDS))], []
    for name in names:
        peer, _, way = name.partition(":")
        python = python_of(folder, peer)
        if python.exists():
            options = [f"--threads={threads}"] if peer in THREADED else []
            options += [f"--way={way}"] if way else []
            arguments = ("-m", f"benchmarks.peers.{peer}", *options)
            contenders.append(Contender(name, arguments, str(python)))
        elif peer not in missing:
            missing.append(peer)
    return contenders, missing


def name_ways(words):
    """Returns the names of contenders that words such as "flower", "pfl", "pfl:serial" stand for.

    Raises:
      ValueError: for a peer or a way that there is not.
    """
    names = []
    for word in words:
        peer, _, way = word.partition(":")
        known = [f"{peer}:{one}" for one in WAYS.get(peer, ())] or [peer]
        if peer not in WAYS or (way and word not in known):
            each = [f"{one}:{'|'.join(ways)}" if ways else one for one, ways in WAYS.items()]
            raise ValueError(f"--peers has {word!r}; known: {', '.join(each)}")
        names += [word] if way else known
    return names


def check_parameters(timings):
    """Ends with one line if the models differ in size."""
    counts = {timing.name: timing.about.get("parameters") for timing in timings}
    counts[OURS] = counts[OURS][0]  # the second is the cloud model's, which FedAvg leaves alone
    if any(count != setting.PARAMETERS for count in counts.values()):
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        sys.exit(
            f"parameters differ: {told}; each should have {setting.PARAMETERS}, so make the "
            "models equal before timing them"
        )


def table(timings, missing, folder):
    """Markdown: of the timings, and a line for each peer that was not measured."""
    lines = [table_of(timings)]
    for name in missing:
        lines.append(f"| {name} | not measured: `{command_of(folder, name)}` | | | | |")
    return "\n".join(lines)


def versions_in(python):
    """Version of every distribution in an interpreter's environment, and of the interpreter."""
    script = (
        "import importlib.metadata as m, json, platform; "
        "print(json.dumps({'python': platform.python_version(), "
        "'versions': {d.metadata['Name']: d.version for d in m.distributions()}}))"
    )
    told = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    return json.loads(told.stdout)


def parse(arguments=None):
    """The checked options."""
    parser = make_parser(__doc__)
    parser.add_argument("--envs", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--peers", default=",".join(WAYS), help="names, with commas between")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of a turn")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="of the peers on PyTorch")
    options = parser.parse_args(arguments)
    try:
        options.peers = name_ways(options.peers.split(","))
    except ValueError as error:
        parser.error(str(error))
    for option in ("turns", "rounds", "threads"):
        if getattr(options, option) < 1:
            parser.error(f"--{option}={getattr(options, option)}: needs to be at least 1")
    return options


def main():
    """Times, prints a table, and writes JSON where asked to."""
    options = parse()
    contenders, missing = make_contenders(options.envs, options.peers, options.threads)
    machine = environment("jax", "jaxlib", "flax", "optax", "numpy")
    try:
        timings = alternate(contenders, options.turns, options.rounds)
    except RuntimeError as error:
        sys.exit(f"{error}; what it said is above, and --peers leaves a peer out")
    check_parameters(timings)
    print(table(timings, missing, options.envs))
    if options.json:
        facts = {
            "rows": [timing.to_json() for timing in timings],
            "not_measured": {name: command_of(options.envs, name) for name in missing},
            "environment": machine,
            "environments": {one.name: versions_in(one.python) for one in contenders},
        }
        write_json(options.json, facts)


if __name__ == "__main__":
    main()
