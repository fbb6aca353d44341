"""What starts the workers of a sweep: each is the same command with a `--shard` of its own.

`local` starts processes here, `slurm` jobs of an array (submitit), `ray` a fixed pool of actors.
Workers meet in the folder of the sweep and nowhere else; their output is in `workers/` there.
"""

import argparse
import functools
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
FAILED_RUNS = 3  # exit status of a worker whose runs have all ended, some of them failed
PACKAGES = {"local": None, "slurm": "submitit", "ray": "ray"}
LAUNCHERS = tuple(PACKAGES)
OWN = ("--launcher", "--workers", "--launch_option")  # flags that workers do not get
ALONE = ("--retry",)  # likewise, without a value
COUNT = "import jax; print(len(jax.local_devices()), jax.default_backend())"


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
        key, found, value = text.partition("=")
        if not found or not key.isidentifier():
            raise SettingError(f"--launch_option={text}: needs to be NAME=VALUE")
        if name == "local":
            raise SettingError(f"--launch_option={text}: --launcher=local has none; leave it out")
        if name == "ray" and key not in ("address", "num_gpus", "num_cpus"):
            raise SettingError(
                f"--launch_option={text}: ray has address, num_gpus and num_cpus; use one of them"
            )
        if name == "ray" and key != "address" and not value.replace(".", "", 1).isdecimal():
            raise SettingError(f"--launch_option={text}: needs to be a number")
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
      RuntimeError: one line, a worker ended with an error.
    """
    given = dict(text.split("=", 1) for text in options.launch_option)
    logs = folder / "workers"
    logs.mkdir(exist_ok=True)
    count = options.workers or _count_devices()[0]
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
    if stopped:
        raise Preempted(f"{watch.asked}; the workers were asked to save and leave")
    for i, code in enumerate(ended):
        if code not in (0, FAILED_RUNS, PREEMPTED):
            raise RuntimeError(f"worker {i} ended with status {code}; see {logs}")


def _command(words, shard):
    """The command of a worker."""
    kept, skip = [], False
    for word in words:
        if word in ALONE:
            continue
        if skip or word.split("=")[0] in OWN:
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return [sys.executable, "-m", "cefl_jax.sweep", *kept, f"--shard={shard}"]


def _count_devices():
    """Accelerators of this machine and their kind, asked by a process that gives them back."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(
            f"--workers: devices cannot be counted ({done.stderr[-300:]}); pass a number"
        )
    count, platform = done.stdout.split()[-2:]
    return int(count), platform


def _start_local(
    commands: Sequence[list[str]], logs: Path, given: dict[str, str]
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Starts a process for each command, with an accelerator of its own where there are any.

    Raises:
      ValueError: one line, for more workers than accelerators.
    """
    count, platform = _count_devices()
    variable = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}.get(platform)
    if variable and len(commands) > count:
        raise ValueError(f"--workers={len(commands)}: there are {count} accelerators; lower it")
    visible = os.environ.get(variable or "", "") or ",".join(map(str, range(count)))
    processes = []
    for i, command in enumerate(commands):
        mine = {variable: visible.split(",")[i]} if variable else {}
        if platform == "tpu":  # a process with one chip of the host
            mine |= {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
        with open(logs / f"local-{i}.log", "ab") as log:
            started = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | mine, start_new_session=True
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
        process = subprocess.Popen(self.command)
        self._stop = functools.partial(_stop, process)
        try:
            return process.wait()
        except BaseException:
            self._stop()
            raise

    def checkpoint(self, *_: Any) -> Any:
        """Returns the same job, to be submitted anew, once the worker has saved and left."""
        import submitit

        self._stop()
        return submitit.helpers.DelayedSubmission(Shard(self.command))


def _stop(process):
    """Asks a worker to save and leave, and waits until it has."""
    if process.poll() is None:
        process.terminate()
        process.wait()


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
            return 0

        def poll(self):
            return self.process.poll()

        def stop(self):
            self.process.send_signal(signal.SIGTERM)

    actors = [ray.remote(Worker).options(**resources).remote() for _ in commands]
    starts = [
        actor.start.remote(command, str(logs.absolute() / f"ray-{i}.log"), str(Path.cwd()))
        for i, (actor, command) in enumerate(zip(actors, commands, strict=True))
    ]

    def ask(calls):
        """Results of calls, None for one that is not there yet, and 2 where its actor is lost."""
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=POLL_S)
        found = []
        for call in calls:
            try:
                found.append(ray.get(call) if call in ready else None)
            except ray.exceptions.RayError:
                found.append(2)
        return found

    def poll():
        started = ask(starts)
        if None in started:
            return None
        codes = [
            code or found
            for code, found in zip(
                started, ask([actor.poll.remote() for actor in actors]), strict=True
            )
        ]
        if None in codes:
            return None
        ray.shutdown()
        return codes

    def stop():
        ask([actor.stop.remote() for actor in actors])

    return poll, stop
