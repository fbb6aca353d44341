"""Which revision of the program made a run: that of its own checkout, whatever is around it."""

import shutil
import subprocess

import pytest

from cefl_jax.runtime import summary

git = shutil.which("git")
pytestmark = pytest.mark.skipif(git is None, reason="needs git")


def call(folder, *words):
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        [git, "-C", str(folder), *names, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a commit, in the place of the program's own."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr(summary, "ROOT", folder)
    call(folder, "init", "-q")
    (folder / "code.py").write_text("one")
    call(folder, "add", ".")
    call(folder, "commit", "-q", "-m", "one")
    return folder


def test_a_clean_one(checkout):
    assert summary.read_revision() == {
        "commit": call(checkout, "rev-parse", "HEAD"),
        "dirty": False,
    }
    (checkout / "notes").write_text("not tracked, and no part of the program")
    assert not summary.read_revision()["dirty"]


def test_one_that_differs_from_its_commit(checkout):
    (checkout / "code.py").write_text("two")
    assert summary.read_revision()["dirty"]
    call(checkout, "add", ".")
    assert summary.read_revision()["dirty"]
    call(checkout, "commit", "-q", "-m", "two")
    assert not summary.read_revision()["dirty"]
    (checkout / "code.py").unlink()
    assert summary.read_revision()["dirty"]


def test_a_second_working_tree(checkout, tmp_path, monkeypatch):
    call(checkout, "worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    monkeypatch.setattr(summary, "ROOT", tmp_path / "second")
    assert summary.read_revision()["commit"] == call(checkout, "rev-parse", "HEAD")


def test_none_around_it_is_meant(checkout, monkeypatch):
    """A program that is installed below somebody's repository is not of it."""
    installed = checkout / "site-packages"
    installed.mkdir()
    monkeypatch.setattr(summary, "ROOT", installed)
    assert summary.read_revision() is None


def test_none_that_the_environment_names_is_meant(checkout, tmp_path, monkeypatch):
    """As within a hook of git, or of another program that git has started."""
    mine = summary.read_revision()
    other = tmp_path / "other"
    other.mkdir()
    call(other, "init", "-q")
    (other / "file").write_text("other")
    call(other, "add", ".")
    call(other, "commit", "-q", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert summary.read_revision() == mine


def test_without_git_or_a_commit_there_is_none(checkout, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    call(empty, "init", "-q")
    with monkeypatch.context() as patch:
        patch.setattr(summary, "ROOT", empty)
        assert summary.read_revision() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert summary.read_revision() is None
