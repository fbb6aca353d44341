"""What a run in processes of its own survives: kills, other devices, other processes.

`kills`, `damage`, `signals` and `soak` beside this file are scripts for longer ones.
"""

import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.compare import assert_close
from tests.survival import damage, kills, signals, small, sweep_kills

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("peace") / "run"
    small.run(folder)
    return folder


def start_pair(workdir, **changes):
    """Two processes of one run, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    return [
        small.start(workdir, address, "--processes=2", f"--process={i}", devices=1, **changes)
        for i in range(2)
    ]


@pytest.mark.parametrize("background", [True, False])
def test_run_survives_a_kill(peace, tmp_path, background):
    after_s = random.Random(int(background)).uniform(4, 9)
    assert kills.trial(tmp_path / "run", after_s, background)[0] == small.result(peace)


def test_run_survives_a_damaged_checkpoint(peace, tmp_path):
    assert damage.flips(peace, tmp_path / "flipped", 30, random.Random(0)) == 30
    assert damage.resume_damaged(peace, tmp_path / "damaged", random.Random(1))


def test_run_survives_signals(tmp_path):
    """While compiling, then, in the same run, in the middle of a chunk."""
    workdir = tmp_path / "run"
    for moment in ("while compiling", "in the middle of a chunk"):
        clean, how = signals.interrupt(workdir, moment)
        assert clean, how
    peace = small.run(tmp_path / "peace", **signals.LONG)
    assert small.run(workdir, **signals.LONG) == peace


def test_run_has_the_same_bits_on_any_number_of_devices(tmp_path):
    """In one go on one, and on 2 and then 8; tests/methods has runs in one go on 1, 2, 4 and 8."""
    clusters = {
        "train__clients_per_round": 8,
        "cefl__clustering__num_clusters": 8,
        "network__num_edges": 8,
    }
    for devices in (2, 8):
        changed = clusters | {"train__rounds": devices}
        code, output = small.finish(small.start(tmp_path / "any", devices=devices, **changed))
        assert code == 0, output
        assert f"run.devices={devices} " in output
    alone = small.run(tmp_path / "alone", devices=1, **clusters, train__rounds=8)
    assert small.result(tmp_path / "any") == alone


def test_run_of_two_processes_is_that_of_one(tmp_path):
    """They leave after the same round, whichever gets a signal, and go on together."""
    workdir = tmp_path / "run"
    processes = start_pair(workdir, train__rounds=2000)
    while not (workdir / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # not the one that writes
    for code, output in map(small.finish, processes):
        assert code == 75, output
    left = small.status(workdir)
    assert left["state"] == "preempted"
    rounds = left["round"] + 2
    for code, output in map(small.finish, start_pair(workdir, train__rounds=rounds)):
        assert code == 0, output
    assert small.result(workdir) == small.run(tmp_path / "one", devices=2, train__rounds=rounds)


def test_run_that_one_process_refuses_is_refused_by_all(peace):
    for code, output in map(small.finish, start_pair(peace, train__rounds=5)):
        assert code == 2
        assert "Traceback" not in output


def test_stack_of_runs_is_the_same_over_two_processes(tmp_path):
    """Four devices of each, the axes `run` and `edge` both spread over them, and eight of one."""
    command = [sys.executable, "-m", "tests.survival.stacks"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    alone = subprocess.Popen([*command, tmp_path / "one.npz"], cwd=small.ROOT)
    assert alone.wait() == 0
    pair = [
        subprocess.Popen([*command, tmp_path / "two.npz", address, str(i)], cwd=small.ROOT)
        for i in range(2)
    ]
    assert [process.wait() for process in pair] == [0, 0]
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert set(one) == set(two)
        for name in one:
            assert_close(two[name], one[name])


def test_sweep_survives_killed_workers(tmp_path):
    assert sweep_kills.compare(tmp_path, 16, seed=0)[0] == []
