"""A first signal is noted, or ends what loses nothing; a second Ctrl-C always ends."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from cefl_jax.runtime.preemption import ASK, PreemptionGuard

ROOT = pathlib.Path(__file__).parents[2]
BEFORE = """
import os, sys, threading, time
from cefl_jax.runtime.preemption import PreemptionGuard

def ready():
    os.write(1, b"ready\\n")

def wait(watch, seconds=20):
    for _ in range(int(seconds * 200)):
        if watch.asked:
            return
        time.sleep(0.005)
    sys.exit("nothing was heard")
"""
NOTED = """
with PreemptionGuard() as watch:
    ready()
    wait(watch)
    print("noted", watch.asked)
"""
TWICE = """
with PreemptionGuard() as watch:
    ready()
    wait(watch)
    os.write(1, b"once\\n")
    time.sleep(20)
"""
# A compiled call that lasts: one lock taken twice, which no signal interrupts.
BLOCKED = """
import ctypes
mutex = ctypes.create_string_buffer(128)

def block():
    take = ctypes.CDLL(None).pthread_mutex_lock
    take(mutex)
    ready()
    take(mutex)
"""
AT_ONCE = (
    BLOCKED
    + """
with PreemptionGuard() as watch, watch.exit_immediately(lambda: os.write(1, b"left\\n")):
    block()
"""
)
LATER = """
with PreemptionGuard() as watch:
    ready()
    wait(watch)
    os.write(1, b"past\\n")
    with watch.exit_immediately(lambda: os.write(1, b"left\\n")):
        os.write(1, b"never\\n")
"""
FULL = """
def leave():
    raise OSError(28, "No space left on device")
with PreemptionGuard() as watch, watch.exit_immediately(leave):
    ready()
    time.sleep(20)
"""
TOGETHER = """
with PreemptionGuard() as watch:
    watch.alone = False
    with watch.exit_immediately(lambda: os.write(1, b"left\\n")):
        ready()
        wait(watch)
        os.write(1, b"stayed\\n")
"""
LEAVING = """
import atexit

def last():
    os.write(1, b"leaving\\n")
    sys.stdin.readline()

atexit.register(last)
with PreemptionGuard() as watch:
    ready()
    wait(watch)
    watch.leave()
"""
CLOSED = """
with PreemptionGuard() as watch:
    os.close(2)
    ready()
    wait(watch)
    os.write(1, b"once\\n")
    time.sleep(20)
"""
STUFFED = """
with PreemptionGuard() as watch:
    ready()
    wait(watch)
    time.sleep(0.3)
    print("once", flush=True)
    while True:
        print("x" * 100_000, flush=True)  # nobody reads
"""


@pytest.fixture(autouse=True)
def _nothing_is_ignored():
    """The tests may run under nohup, or in the background of a shell, whose children ignore some.

    What a process ignores, its children ignore too.
    """
    numbers = [getattr(signal, name) for name in ASK if hasattr(signal, name)]
    earlier = {
        number: signal.signal(number, signal.SIG_DFL)
        for number in numbers
        if signal.getsignal(number) == signal.SIG_IGN
    }
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


def start(program, **pipes):
    """A process of a small program that has said that it is ready."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    process = subprocess.Popen([sys.executable, "-c", BEFORE + program], cwd=ROOT, **pipes)
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process, seconds=15):
    """Exit status, and lines on standard output and error."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out.decode().splitlines(), (err or b"").decode().splitlines()


def test_these_are_the_signals():
    assert set(ASK) == {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGXCPU"])
def test_the_first_signal_is_noted(name):
    process = start(NOTED)
    process.send_signal(getattr(signal, name))
    status, out, err = end(process)
    assert (status, out) == (0, [f"noted {name}"])
    assert len(err) == 1
    assert name in err[0]
    assert ("once more" in err[0]) == (name == "SIGINT")


@contextlib.contextmanager
def ignoring(*names):
    """While this process, and what it starts, ignores signals."""
    numbers = [getattr(signal, name) for name in names]
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGUSR2"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(name):
    """SIGHUP by nohup, SIGINT by a shell's background jobs."""
    with ignoring(name):
        process = start(NOTED)
    process.send_signal(getattr(signal, name))
    process.send_signal(signal.SIGTERM)
    status, out, err = end(process)
    assert (status, out) == (0, ["noted SIGTERM"])
    assert len(err) == 1


def test_where_all_are_ignored_it_notices_nothing_and_leaves_nothing_behind():
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with ignoring(*ASK):
        before = handlers()
        with PreemptionGuard():
            assert handlers() == before
        assert handlers() == before
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)


def test_a_second_interrupt_leaves_at_once():
    for first in (signal.SIGINT, signal.SIGTERM):
        process = start(TWICE)
        process.send_signal(first)
        assert process.stdout.readline() == b"once\n"
        process.send_signal(signal.SIGINT)
        status, _, err = end(process)
        assert status == 130
        assert len(err) == 2


def test_other_signals_do_not_lose_what_is_being_saved():
    process = start(TWICE)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"once\n"
    for name in ("SIGTERM", "SIGUSR1"):
        process.send_signal(getattr(signal, name))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130


def test_where_nothing_would_be_lost_it_leaves_at_once():
    """In the middle of a compiled call too."""
    process = start(AT_ONCE)
    process.send_signal(signal.SIGTERM)
    status, out, err = end(process)
    assert (status, out) == (75, ["left"])
    assert len(err) == 1
    assert "SIGTERM" in err[0]


def test_what_was_asked_before_counts_there_too():
    process = start(LATER)
    process.send_signal(signal.SIGUSR1)
    status, out, _ = end(process)
    assert (status, out) == (75, ["past", "left"])


def test_a_full_disk_does_not_keep_it():
    process = start(FULL)
    process.send_signal(signal.SIGTERM)
    status, _, err = end(process)
    assert status == 75
    assert "Traceback" not in "".join(err)


def test_one_of_several_does_not_leave_alone():
    process = start(TOGETHER)
    process.send_signal(signal.SIGTERM)
    assert end(process)[:2] == (0, ["stayed"])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGXCPU"])
def test_a_signal_while_the_program_ends_changes_nothing(name):
    """The system sends SIGXCPU again and again."""
    process = start(LEAVING, stdin=subprocess.PIPE)
    process.send_signal(getattr(signal, name))
    assert process.stdout.readline() == b"leaving\n"
    process.send_signal(getattr(signal, name))
    process.stdin.write(b"\n")
    assert end(process)[0] == 75


def test_a_closed_terminal_does_not_keep_it():
    process = start(CLOSED)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"once\n"
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 130


def test_a_reader_that_has_stopped_does_not_keep_it():
    """Both outputs are one full pipe: nothing can be said any more."""
    process = start(STUFFED, stderr=subprocess.STDOUT)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline().startswith(b"SIGINT")
    assert process.stdout.readline() == b"once\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(15) == 130
    finally:
        process.kill()
        process.communicate()


def handlers():
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return [signal.getsignal(getattr(signal, name)) for name in ASK], fd


def test_all_is_as_it_was_afterwards():
    before = handlers()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()

    def watch_and_fail():
        with PreemptionGuard():
            assert handlers() != before
            raise RuntimeError("and then")

    with PreemptionGuard():
        assert handlers() != before
    with pytest.raises(RuntimeError, match="and then"):
        watch_and_fail()
    assert handlers() == before
    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads


def test_one_within_another_leaves_the_outer_one_at_work():
    """As the tests of a program that watches do."""
    said = []
    with PreemptionGuard(said.append) as outer:
        with PreemptionGuard(said.append) as inner:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_for(lambda: inner.asked)
        assert outer.asked is None
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: outer.asked)
        assert (inner.asked, outer.asked) == ("SIGUSR1", "SIGTERM")
    assert len(said) == 2


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_outside_the_main_thread_it_notices_nothing_and_harms_nothing():
    before, seen = handlers(), []

    def work():
        with PreemptionGuard() as watch:
            with watch.exit_immediately(lambda: seen.append("left")):
                seen.append(handlers_of(watch))
            seen.append(watch.asked)

    def handlers_of(watch):
        return [signal.getsignal(getattr(signal, name)) for name in ASK]

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [before[0], None]
    assert handlers() == before


def test_one_that_was_not_entered_notices_nothing():
    watch = PreemptionGuard()
    with watch.exit_immediately(pytest.fail):
        pass
    assert watch.asked is None


def test_a_handler_that_python_did_not_set_becomes_the_default(monkeypatch):
    """`signal.signal` returns None for one of a library in C, and does not take None back."""
    real, given = signal.signal, []

    def set_handler(number, handler):
        given.append((number, handler))
        earlier = real(number, handler)
        return None if len(given) == 1 else earlier

    monkeypatch.setattr(signal, "signal", set_handler)
    try:
        with PreemptionGuard():
            foreign = given[0][0]
        assert real(foreign, signal.SIG_DFL) == signal.SIG_DFL
    finally:
        monkeypatch.undo()
