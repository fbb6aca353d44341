"""A run of a few seconds in a process of its own, and what it left."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from tests.runtime.examples import timeless_records

ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = f"--config={ROOT / 'configs' / 'quickstart.py'}"
SETTINGS = {
    "model.name": "mlp",
    "data.partition.num_clients": 10,
    "train.rounds": 30,
    "train.clients_per_round": 4,
    "train.local_steps": 1,
    "train.batch_size": 4,
    "cefl.clustering.num_clusters": 2,
    "cefl.distill.batch_size": 8,
    "network.num_edges": 2,
    "run.eval_every": 1,
    "run.checkpoint_every": 3,
}


def parse(doc, **numbers):
    """The options of a script: a new folder, and numbers with their defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=None)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    options.workdir = options.workdir or pathlib.Path(tempfile.mkdtemp())
    options.workdir.mkdir(exist_ok=True)
    return options


def start(workdir, *flags, devices=None, **changes):
    """The process of a run; its output is piped.

    Args:
      workdir: folder of the run.
      *flags: of the command, besides.
      devices: CPU devices that it has; None for as many as there are cores.
      **changes: fields that differ from `SETTINGS`, with two underscores for a dot.
    """
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    command = [sys.executable, "-m", "cefl_jax.main", f"--workdir={workdir}", QUICKSTART, *flags]
    command += [f"--config.{field}={value}" for field, value in settings.items()]
    environment = os.environ | ({"JAX_NUM_CPU_DEVICES": str(devices)} if devices else {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def finish(process, seconds=600):
    """Exit status and output of a process, which may take so long."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def run(workdir, *flags, **changes):
    """A run from its start, or from where it was left, to its end; its result."""
    code, output = finish(start(workdir, *flags, **changes))
    assert code == 0, output
    return result(workdir)


def result(workdir):
    """What a run computed: its metrics but for wall-clock keys, and digests of its last state."""
    last = max(path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    seal = json.loads((last / "seal.json").read_text().splitlines()[0])
    return timeless_records(workdir), seal["facts"]["leaves"]


def status(workdir):
    """The state that a run's `status.json` gives; None where there is no such file."""
    file = workdir / "status.json"
    return json.loads(file.read_text()) if file.exists() else None
