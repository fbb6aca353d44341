"""What starts the workers of a sweep: each is the same command with a `--shard` of its own.

`local` starts processes here, `slurm` jobs of an array (submitit), `ray` a fixed pool of actors.
Workers meet in the folder of the sweep and nowhere else; their output is in `workers/` there.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cefl_jax.config import SettingError
from cefl_jax.runtime.preemption import PREEMPTED, Preempted, PreemptionGuard
from cefl_jax.sweeps.progress import SweepDisplay

POLL_S = 0.5
PACKAGES = {"local": None, "slurm": "submitit", "ray": "ray"}
LAUNCHERS = tuple(PACKAGES)
OWN = ("--launcher", "--workers", "--launch_option")  # flags that workers do not get
COUNT = "import jax; d = jax.local_devices(); print(len(d), d[0].platform)"


def check(options: argparse.Namespace) -> None:
    """Refuses a launcher whose package is missing, and options that it does not take.

    Raises:
      SettingError: one line, with what to install or to write.
    """
    name, package = options.launcher, PACKAGES[options.launcher]
    if package and importlib.util.find_spec(package) is None:
        raise SettingError(
            f"--launcher={name}: {package} cannot be imported; pip install 'cefl_jax[{name}]'"
        )
    for text in options.launch_option:
        key, found, _ = text.partition("=")
        if not found or not key.isidentifier():
            raise SettingError(f"--launch_option={text}: needs to be NAME=VALUE")
        if name == "local":
            raise SettingError(f"--launch_option={text}: --launcher=local has none; leave it out")
        if name == "ray" and key not in ("address", "num_gpus", "num_cpus"):
            raise SettingError(
                f"--launch_option={text}: ray has address, num_gpus and num_cpus; use one of them"
            )
    if name != "local" and options.workers is None:
        raise SettingError(f"--launcher={name} needs --workers=N, how many it is to start")


def launch(
    options: argparse.Namespace,
    words: Sequence[str],
    folder: Path,
    display: SweepDisplay,
    watch: PreemptionGuard,
) -> None:
    """Starts the workers and returns when all have ended.

    Args:
      options: of the command line, checked.
      words: of the command line.
      folder: of the sweep.
      display: SweepDisplay.
      watch: PreemptionGuard; a signal is passed on to the workers.
    Raises:
      Preempted: after a signal.
      ValueError: a worker ended with an error, the first line of which it has.
    """
    given = dict(text.split("=", 1) for text in options.launch_option)
    logs = folder / "workers"
    logs.mkdir(exist_ok=True)
    count = options.workers or _count_devices()
    commands = [_command(words, f"{i}/{count}") for i in range(count)]
    display.note(f"{count} workers by {options.launcher}; their output is in {logs}")
    start = {"local": _start_local, "slurm": _start_slurm, "ray": _start_ray}[options.launcher]
    poll, stop = start(commands, logs, given)
    stopped = False
    while (ended := poll()) is None:
        if watch.asked and not stopped:
            stop()
            stopped = True
        display.refresh()
        time.sleep(POLL_S)
    if watch.asked:
        raise Preempted(f"{watch.asked}; the workers have saved")
    for i, code in enumerate(ended):
        if code not in (0, 1, PREEMPTED):  # 1: runs that failed, of which their folders tell
            raise ValueError(f"worker {i} ended with status {code}; see {logs}")


def _command(words, shard):
    """The command of a worker."""
    kept, skip = [], False
    for word in words:
        if skip or word.split("=")[0] in OWN:
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return [sys.executable, "-m", "cefl_jax.sweep", *kept, f"--shard={shard}"]


def _count_devices():
    """Accelerators of this machine, asked by a process that gives them back; at least 1."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(
            f"--workers: devices cannot be counted ({done.stderr[-300:]}); pass a number"
        )
    return int(done.stdout.split()[0])


def _start_local(
    commands: Sequence[list[str]], logs: Path, given: dict[str, str]
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Starts a process for each command, with an accelerator of its own where there are any."""
    processes = []
    for i, command in enumerate(commands):
        with open(logs / f"local-{i}.log", "ab") as log:
            mine = {"CUDA_VISIBLE_DEVICES": str(i), "TPU_VISIBLE_DEVICES": str(i)}
            started = subprocess.Popen(
                command, stdout=log, stderr=log, env=mine | os.environ, start_new_session=True
            )
        processes.append(started)

    def poll():
        codes = [process.poll() for process in processes]
        return None if None in codes else codes

    def stop():
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    return poll, stop


class Shard:
    """A worker as submitit starts it; a job that is preempted is queued again.

    Args:
      command: of the worker.
    """

    def __init__(self, command):
        self.command = command

    def __call__(self):
        return subprocess.run(self.command, check=False).returncode

    def checkpoint(self, *_: Any) -> Any:
        """Returns the same job, to be submitted anew; the runs go on from their checkpoints."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _start_slurm(commands, logs, given):
    import submitit

    cluster = given.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(logs / "slurm", cluster=cluster)
        numbers = {name: int(text) if text.isdecimal() else text for name, text in given.items()}
        executor.update_parameters(name="cefl_jax", **numbers)
        with executor.batch():
            jobs = [executor.submit(Shard(command)) for command in commands]
    except (RuntimeError, NameError, TypeError, OSError) as error:
        raise ValueError(f"--launcher=slurm: {error}; correct --launch_option") from error

    def poll():
        if not all(job.done() for job in jobs):
            return None
        return [job.result() if job.exception() is None else 2 for job in jobs]

    def stop():
        for job in jobs:
            job.cancel()

    return poll, stop


def _start_ray(commands, logs, given):
    address = given.pop("address", None)
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported
    if address is None:  # Ray's switch for systems on which it listens on the loopback alone
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    dashboard = {} if address else {"include_dashboard": False}
    ray.init(address=address, log_to_driver=False, configure_logging=False, **dashboard)
    resources = {name: float(text) for name, text in given.items()}

    class Worker:
        """A process with accelerators of its own, in which the command of a worker runs."""

        def start(self, command, log, place):
            with open(log, "ab") as file:
                self.process = subprocess.Popen(command, stdout=file, stderr=file, cwd=place)

        def poll(self):
            return self.process.poll()

        def stop(self):
            self.process.send_signal(signal.SIGTERM)

    actors = [ray.remote(Worker).options(**resources).remote() for _ in commands]
    for i, (actor, command) in enumerate(zip(actors, commands, strict=True)):
        actor.start.remote(command, str(logs.absolute() / f"ray-{i}.log"), str(Path.cwd()))

    def poll():
        codes = ray.get([actor.poll.remote() for actor in actors])
        if None in codes:
            return None
        ray.shutdown()
        return codes

    def stop():
        ray.get([actor.stop.remote() for actor in actors])

    return poll, stop
