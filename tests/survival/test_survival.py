"""What a run in processes of its own survives: kills, other devices, other processes.

`kills`, `damage`, `signals` and `soak` beside this file are scripts for longer ones.
"""

import random
import signal
import socket
import time

import pytest

from tests.survival import damage, kills, signals, small

pytestmark = pytest.mark.slow

PAIR = {"train__rounds": 12}


@pytest.fixture(scope="module")
def peace(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("peace") / "run"
    code, output = small.finish(small.start(folder))
    assert code == 0, output
    return folder


def pair(workdir, **changes):
    """Two processes of one run, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    return [
        small.start(workdir, address, "--processes=2", f"--process={i}", devices=1, **changes)
        for i in range(2)
    ]


@pytest.mark.parametrize("background", [True, False])
def test_a_killed_run_goes_on_as_if_it_had_not_been(peace, tmp_path, background):
    draw = random.Random(int(background))
    for number in range(2):
        workdir = tmp_path / f"run{number}"
        assert kills.trial(workdir, draw.uniform(4, 9), background)[0] == small.result(peace)


def test_a_damaged_checkpoint_is_passed_over(peace, tmp_path):
    assert damage.flips(peace, tmp_path / "flipped", 30, random.Random(0)) == 30
    assert damage.go_on_damaged(peace, tmp_path / "damaged", random.Random(1))


@pytest.mark.parametrize("name", ["while compiling", "in the middle of a chunk"])
def test_a_signal_leaves_a_run_that_goes_on(tmp_path, name):
    workdir = tmp_path / "run"
    code, output, _ = signals.interrupt(workdir, name, small.start(workdir, **signals.LONG))
    assert code == 75, output
    assert small.status(workdir)["state"] == "preempted"
    assert small.finish(small.start(workdir, **signals.LONG))[0] == 0
    assert small.finish(small.start(tmp_path / "peace", **signals.LONG))[0] == 0
    assert small.result(workdir) == small.result(tmp_path / "peace")


def test_the_number_of_devices_changes_no_bit_not_even_on_the_way(tmp_path):
    """1, 2, 4 and 8 devices; and a run that is on another number each time it goes on."""
    clusters = {
        "train__clients_per_round": 8,
        "cefl__clustering__num_clusters": 8,
        "network__num_edges": 8,
        "train__rounds": 12,
    }
    results = []
    for devices in (1, 2, 4, 8):
        workdir = tmp_path / f"on{devices}"
        code, output = small.finish(small.start(workdir, devices=devices, **clusters))
        assert code == 0, output
        assert f"run.devices={devices} " in output
        results.append(small.result(workdir))
        changed = clusters | {"train__rounds": 3 * len(results)}
        code, output = small.finish(small.start(tmp_path / "any", devices=devices, **changed))
        assert code == 0, output
    assert all(result == results[0] for result in results)
    assert small.result(tmp_path / "any") == results[0]


def test_two_processes_compute_what_one_does(tmp_path):
    assert small.finish(small.start(tmp_path / "one", devices=2, **PAIR))[0] == 0
    for code, output in map(small.finish, pair(tmp_path / "two", **PAIR)):
        assert code == 0, output
    assert small.result(tmp_path / "two") == small.result(tmp_path / "one")


def test_two_processes_leave_after_the_same_round_and_go_on(tmp_path):
    workdir, long = tmp_path / "run", {"train__rounds": 2000}
    processes = pair(workdir, **long)
    while not (workdir / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)  # not the one that writes
    for code, output in map(small.finish, processes):
        assert code == 75, output
    left = small.status(workdir)
    assert left["state"] == "preempted"
    rounds = left["round"] + 2
    for code, output in map(small.finish, pair(workdir, train__rounds=rounds)):
        assert code == 0, output
    code, output = small.finish(small.start(tmp_path / "one", devices=2, train__rounds=rounds))
    assert code == 0, output
    assert small.result(workdir) == small.result(tmp_path / "one")


def test_a_run_that_one_process_refuses_is_refused_by_all(peace, tmp_path):
    for code, output in map(small.finish, pair(peace, train__rounds=5)):
        assert code == 2
        assert "Traceback" not in output
