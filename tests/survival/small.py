"""A run of a few seconds in a process of its own, and what it left."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
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


def start(workdir, *flags, devices=None, **changes):
    """The process of a run; its output is piped.

    Args:
      workdir: folder of the run.
      *flags: of the command, besides.
      devices: CPU devices that it has; None for as many as there are cores.
      **changes: fields that differ from `SETTINGS`, with two underscores for a dot.
    """
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    command = [sys.executable, "-m", "cefl_jax.main", f"--workdir={workdir}", *flags]
    command += [f"--config={ROOT / 'configs' / 'quickstart.py'}"]
    command += [f"--config.{field}={value}" for field, value in settings.items()]
    environment = dict(os.environ)
    if devices:
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=600):
    """Exit status and output of a process, which may take so long."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def result(workdir):
    """What a run computed: its metrics but for wall-clock keys, and digests of its last state."""
    folder = pathlib.Path(workdir)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record.pop("wall/round_ms")
    last = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
    seal = json.loads((last / "seal.json").read_text().splitlines()[0])
    return records, seal["facts"]["leaves"]


def status(workdir):
    """The state that a run's `status.json` gives."""
    return json.loads((pathlib.Path(workdir) / "status.json").read_text())
