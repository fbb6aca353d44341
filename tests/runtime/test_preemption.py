"""A first signal is noted, or ends what loses nothing; what nobody can read is dropped."""

import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from cefl_jax.runtime import console, preemption
from cefl_jax.runtime.console import open_lenient
from cefl_jax.runtime.preemption import ASK, PreemptionGuard

ROOT = pathlib.Path(__file__).parents[2]
BEFORE = """
import os, sys, threading, time
from cefl_jax.runtime.preemption import PreemptionGuard

def say(word):
    os.write(1, f"{word}\\n".encode())

def wait(watch, seconds=20):
    for _ in range(int(seconds * 200)):
        if watch.asked:
            return
        time.sleep(0.005)
    sys.exit("nothing was heard")
"""
NOTED = """
with PreemptionGuard() as watch:
    say("ready")
    wait(watch)
    say(f"noted {watch.asked}")
    time.sleep(20)
"""
CLOSED = NOTED.replace("with", "os.close(2)\nwith")  # a terminal
# A compiled call that lasts: one lock taken twice, which no signal interrupts.
AT_ONCE = """
import ctypes
mutex = ctypes.create_string_buffer(128)
take = ctypes.CDLL(None).pthread_mutex_lock
with PreemptionGuard() as watch, watch.exit_immediately(lambda: say("left")):
    take(mutex)
    say("ready")
    take(mutex)
"""
LATER = """
with PreemptionGuard() as watch:
    say("ready")
    wait(watch)
    say("past")
    with watch.exit_immediately(lambda: say("left")):
        say("never")
"""
FULL = """
def leave():
    raise OSError(28, "No space left on device")
with PreemptionGuard() as watch, watch.exit_immediately(leave):
    say("ready")
    time.sleep(20)
"""
TOGETHER = """
with PreemptionGuard() as watch:
    watch.alone = False
    with watch.exit_immediately(lambda: say("left")):
        say("ready")
        wait(watch)
        say("stayed")
"""
LEAVING = """
import atexit
atexit.register(lambda: (say("leaving"), sys.stdin.readline()))
with PreemptionGuard() as watch:
    say("ready")
    wait(watch)
    watch.leave()
"""
STUFFED = """
with PreemptionGuard() as watch:
    say("ready")
    wait(watch)
    time.sleep(0.3)
    say("once")
    while True:
        print("x" * 100_000, flush=True)  # nobody reads
"""
SPEAK = """
import os, sys
from cefl_jax.runtime.console import ignore_write_errors

ignore_write_errors()
taken = os.open(os.devnull, os.O_RDONLY)
for _ in range(3):
    print("said")
    print("said", file=sys.stderr, flush=True)
sys.exit(0 if taken > 2 and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2 else 9)
"""


def handlers():
    return {name: signal.getsignal(getattr(signal, name)) for name in ASK}


@contextlib.contextmanager
def setting(names, handler):
    """While this process, and what it starts, ignores signals, or gets their default."""
    numbers = [getattr(signal, name) for name in names]
    earlier = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


@pytest.fixture(autouse=True)
def _nothing_is_ignored():
    """The tests may run under nohup, or in the background of a shell, which ignore some."""
    ignored = [name for name, handler in handlers().items() if handler == signal.SIG_IGN]
    with setting(ignored, signal.SIG_DFL):
        yield


def start(program, **pipes):
    """A process of a small program that has said that it is ready."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    process = subprocess.Popen([sys.executable, "-c", BEFORE + program], cwd=ROOT, **pipes)
    assert process.stdout.readline() == b"ready\n"
    return process


def send(process, *names):
    for name in names:
        process.send_signal(getattr(signal, name))


def end(process, seconds=15):
    """Exit status, and lines on standard output and error."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out.decode().splitlines(), (err or b"").decode().splitlines()


def wait_for(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("name", ASK)
def test_guard_notes_the_first_signal_but_one_that_was_ignored_at_the_start(name, monkeypatch):
    """SIGHUP is by nohup, SIGINT by a shell's background jobs."""
    monkeypatch.setattr(preemption, "_exit", pytest.fail)  # or the tests would end
    said, others = [], {*ASK} - {name}
    with setting(others, signal.SIG_IGN), PreemptionGuard(said.append) as watch:
        for other in (*others, name):
            os.kill(os.getpid(), getattr(signal, other))
        wait_for(lambda: said)
        assert watch.asked == name
    (line,) = said
    assert line.startswith(f"{name}: saving")
    assert ("once more" in line) == (name == "SIGINT")


@pytest.mark.parametrize(
    ("program", "first", "others"),
    [
        (NOTED, "SIGTERM", []),
        (NOTED, "SIGINT", ["SIGTERM", "SIGUSR1"]),  # these do not lose what is being saved
        (CLOSED, "SIGINT", []),
    ],
)
def test_guard_leaves_at_once_on_a_second_interrupt(program, first, others):
    process = start(program)
    send(process, first)
    assert process.stdout.readline() == f"noted {first}\n".encode()
    send(process, *others)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    send(process, "SIGINT")
    status, _, err = end(process)
    assert status == 130
    assert len(err) == (0 if program is CLOSED else 2)


def test_guard_leaves_at_once_though_its_reader_has_stopped():
    """Both outputs are one full pipe: nothing can be said any more."""
    process = start(STUFFED, stderr=subprocess.STDOUT)
    send(process, "SIGINT")
    assert process.stdout.readline().startswith(b"SIGINT")
    assert process.stdout.readline() == b"once\n"
    time.sleep(0.3)
    send(process, "SIGINT")
    try:
        assert process.wait(15) == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("program", "status", "out"),
    [
        (AT_ONCE, 75, ["left"]),
        (LATER, 75, ["past", "left"]),
        (FULL, 75, []),
        (TOGETHER, 0, ["stayed"]),  # one of several does not leave alone
    ],
)
def test_exit_immediately_leaves_where_nothing_would_be_lost(program, status, out):
    """In a compiled call, after an earlier signal, and on a full disk too."""
    process = start(program)
    send(process, "SIGTERM")
    code, said, err = end(process)
    assert (code, said) == (status, out)
    assert err[0].startswith("SIGTERM: ")
    assert "Traceback" not in "".join(err)


def test_leave_is_not_changed_by_another_signal():
    """The system sends SIGXCPU again and again."""
    process = start(LEAVING, stdin=subprocess.PIPE)
    send(process, "SIGXCPU")
    assert process.stdout.readline() == b"leaving\n"
    send(process, "SIGXCPU", "SIGTERM")
    process.stdin.write(b"\n")
    assert end(process)[0] == 75


def state_of_process():
    """Handlers, where wake-ups go, the number of open files, and of threads."""
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return handlers(), fd, len(os.listdir("/proc/self/fd")), threading.active_count()


def test_guard_leaves_all_as_it_was():
    before = state_of_process()
    with pytest.raises(ZeroDivisionError), PreemptionGuard():
        _ = 1 / (state_of_process() == before)
    assert state_of_process() == before
    with setting(ASK, signal.SIG_IGN):
        ignored = state_of_process()
        with PreemptionGuard():
            assert state_of_process() == ignored
    assert state_of_process() == before


def test_guard_within_another_leaves_that_at_work():
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


def test_guard_notices_nothing_outside_the_main_thread_or_not_entered():
    before, seen = handlers(), []

    def work():
        with PreemptionGuard() as watch, watch.exit_immediately(pytest.fail):
            seen.extend((handlers(), watch.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [before, None]
    assert handlers() == before
    with PreemptionGuard().exit_immediately(pytest.fail):
        pass


def test_guard_gives_a_foreign_handler_the_default(monkeypatch):
    """`signal.signal` returns None for one of a library in C, and does not take None back."""
    with setting(["SIGINT"], signal.default_int_handler):
        with monkeypatch.context() as patch:
            real = signal.signal
            patch.setattr(signal, "signal", lambda *args: real(*args) and None)
            guard = PreemptionGuard().__enter__()
        guard.__exit__()
        assert {*handlers().values()} == {signal.SIG_DFL}


def pipe_without_a_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return [writer]


def full_pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    return [writer, reader]


def closed_terminal():
    keyboard, terminal = os.openpty()
    os.close(keyboard)
    return [terminal]


def full_disk():
    return [os.open("/dev/full", os.O_WRONLY)]


@pytest.mark.parametrize("make", [pipe_without_a_reader, full_pipe, closed_terminal, full_disk])
def test_open_lenient_raises_nothing(make):
    """More is written than a buffer holds."""
    numbers = make()
    with open_lenient(numbers[0], "utf-8") as stream:
        for _ in range(10_000):
            print("a line", file=stream, flush=True)
    if make is full_pipe:
        assert os.read(numbers[1], 7) == b"a line\n"
    for number in numbers:  # they are still open
        os.close(number)


def test_open_lenient_escapes_what_the_encoding_lacks(tmp_path):
    number = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    with open_lenient(number, "ascii") as stream:
        print("━ \udcff", file=stream)
    os.close(number)
    assert (tmp_path / "file").read_bytes() == b"\\u2501 \\udcff\n"


@pytest.mark.usefixtures("capsys")
def test_ignore_write_errors_keeps_streams_that_are_not_the_interpreters():
    before = sys.stdout, sys.stderr
    console.ignore_write_errors()
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("closed", ["", "2>&-", "<&- >&- 2>&-", "| true"])
def test_ignore_write_errors_lets_a_process_exit_as_if_all_had_been_shown(closed):
    """And its files get no number of a standard stream."""
    script = f'set -o pipefail; "$0" -c "$1" {closed}'
    command = ["bash", "-c", script, sys.executable, SPEAK]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ("" if "2>&-" in closed else "said\n" * 3)
    assert done.stdout == ("said\n" * 3 if closed in ("", "2>&-") else "")
