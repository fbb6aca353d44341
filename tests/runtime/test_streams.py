"""What cannot be shown is not shown, and nothing else happens."""

import fcntl
import os
import pathlib
import subprocess
import sys

import pytest

from cefl_jax.runtime.preemption import open_lenient

ROOT = pathlib.Path(__file__).parents[2]
SPEAK = """
import os, sys
from cefl_jax.runtime import preemption

preemption.ignore_write_errors()
taken = os.open(os.devnull, os.O_RDONLY)
for _ in range(3):
    print("said")
    print("said", file=sys.stderr, flush=True)
sys.exit(0 if taken > 2 and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2 else 9)
"""


def write_to(number, text="a line\n"):
    """Writes more than a buffer holds."""
    with open_lenient(number, "utf-8") as stream:
        for _ in range(10_000):
            print(text, file=stream, flush=True)


def test_a_pipe_without_a_reader_raises_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    write_to(writer)
    os.close(writer)


def test_a_full_pipe_that_must_not_be_waited_for_raises_nothing():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    write_to(writer)
    assert os.read(reader, 7) == b"a line\n"
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_raises_nothing():
    full = os.open("/dev/full", os.O_WRONLY)
    write_to(full)
    os.close(full)


def test_a_terminal_that_is_gone_raises_nothing():
    keyboard, terminal = os.openpty()
    os.close(keyboard)
    write_to(terminal)
    os.close(terminal)


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path):
    file = tmp_path / "file"
    number = os.open(file, os.O_WRONLY | os.O_CREAT)
    with open_lenient(number, "ascii") as stream:
        print("━ \udcff", file=stream)
    os.close(number)
    assert file.read_bytes() == b"\\u2501 \\udcff\n"


def test_streams_that_are_not_the_interpreters_stay(capsys):
    from cefl_jax.runtime import preemption

    before = sys.stdout, sys.stderr
    preemption.ignore_write_errors()
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"])
def test_a_process_exits_as_if_all_had_been_shown(closed):
    """And its files get no number of a standard stream."""
    script = f'set -o pipefail; "$0" -c "$1" {closed}'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, SPEAK], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ("" if "2>&-" in closed else "said\n" * 3)
    assert done.stdout == ("said\n" * 3 if closed in ("", "2>&-") else "")
