"""A folder belongs to one process, as long as that lives."""

import pathlib
import subprocess
import sys

import pytest

from cefl_jax.runtime import workdir as folders
from cefl_jax.runtime.workdir import LOCK, check_workdir, lock_folder, open_workdir, read_config

ROOT = pathlib.Path(__file__).parents[2]
HOLD = """
import pathlib, sys
from cefl_jax.runtime.workdir import lock_folder
lock = lock_folder(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def hold(folder):
    """Another process that has the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.fixture
def run(tmp_path):
    """A folder with a run that can be gone on with."""
    folder = tmp_path / "run"
    with open_workdir(folder) as workdir:
        workdir.write_config({"seed": 3})
        workdir.append_metrics({"round": 1, "train/loss": 0.5})
        workdir.set_status("running", 1)
    return folder


@pytest.mark.parametrize(
    "options", [{"resume": True}, {"overwrite": True}, {"resume": True, "overwrite": True}]
)
@pytest.mark.parametrize("claim", [check_workdir, open_workdir])
def test_a_folder_in_use_is_refused_and_left_as_it_is(run, options, claim, holder):
    holder(run)
    before = contents(run)
    with pytest.raises(ValueError, match="in use by another process") as refusal:
        claim(run, **options)
    assert str(refusal.value).startswith(f"--workdir={run}")
    assert "\n" not in str(refusal.value)
    assert contents(run) == before


@pytest.fixture
def holder():
    """A function that lets another process hold a folder, until the test ends."""
    processes = []

    def begin(folder):
        processes.append(hold(folder))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_process_holds_nobody_up(run, holder):
    process = holder(run)
    with pytest.raises(ValueError, match="in use"):
        open_workdir(run, resume=True)
    process.kill()
    process.wait()
    open_workdir(run, resume=True).close()


def test_the_lock_is_given_back_on_closing(run, holder):
    workdir = open_workdir(run, resume=True)
    with pytest.raises(ValueError, match="in use"):
        open_workdir(run, resume=True)
    with pytest.raises(ValueError, match="in use"):
        lock_folder(run)
    workdir.close()
    holder(run)  # another process gets it
    assert (run / LOCK).exists()


def test_the_lock_is_given_back_when_a_run_fails(run):
    def fail():
        with open_workdir(run, resume=True):
            raise MemoryError("round 7")

    with pytest.raises(MemoryError):
        fail()
    open_workdir(run, resume=True).close()


def test_a_run_that_came_between_the_look_and_the_lock_is_refused(tmp_path, monkeypatch):
    """Another process may have had the folder, and be done with it, after it was looked at."""

    def lock_late(path, real=folders.lock_folder):
        (path / "status.json").write_text("another run")
        return real(path)

    monkeypatch.setattr(folders, "lock_folder", lock_late)
    with pytest.raises(ValueError, match="holds another run"):
        folders.open_workdir(tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "status.json").read_text() == "another run"
    with folders.open_workdir(tmp_path / "run", overwrite=True):  # and the lock is given back
        pass


def test_a_file_system_without_locks_is_told(run, monkeypatch):
    import filelock

    def fail(*_, **__):
        raise OSError(95, "Operation not supported")

    before = contents(run)
    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(ValueError, match=r"cannot be locked.*not supported"):
        open_workdir(run, resume=True)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "no group of values"),
        ("{", "--overwrite"),
        ('{"seed": NaN}', "--overwrite"),
        ("\0\xff", "--overwrite"),
        ("[" * 100_000, "--overwrite"),
    ],
)
def test_a_config_that_cannot_be_read_is_told(run, content, words):
    (run / "config.json").write_text(content)
    with pytest.raises(ValueError, match=words) as refusal:
        read_config(run)
    assert "config.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_settings_of_an_earlier_run(run, tmp_path):
    assert read_config(run) == {"seed": 3}
    assert read_config(tmp_path / "none") is None
