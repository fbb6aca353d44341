"""Every command and snippet of README.md and docs/ works."""

import shutil
import subprocess
import sys

import pytest
import yaml

from cefl_jax.data import partition
from cefl_jax.network.sources.network_file import read_network
from tests.docs.commands import check_page
from tests.docs.pages import EXTENDING, PAGES, ROOT, add_to, each, read_blocks

RUN = ("README", "resuming")
"""Pages whose runs are run with `-m slow`, and not only checked."""

LANGUAGES = {"", "sh", "python", "json", "yaml", "bibtex", "math"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the config files that commands name."""
    for name in ("configs", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@each([page for page in PAGES if page != EXTENDING])
def test_every_command_is_taken(page, folder):
    (folder / "partition.json").write_text("[[0], [1]]")
    add_to(folder, page)
    check_page(page)


@each(PAGES)
def test_every_block_says_its_language(page):
    assert {block.language for block in read_blocks(page)} <= LANGUAGES


@each([page for page in PAGES if page != EXTENDING])
def test_every_snippet_runs(page, folder):
    for block in read_blocks(page, "python"):
        exec(compile(block.text, page.name, "exec"), {"__name__": page.stem})


@each(PAGES)
def test_every_json_block_is_a_partition(page, tmp_path):
    for block in read_blocks(page, "json"):
        (tmp_path / "partition.json").write_text(block.text)
        assert partition.from_file(tmp_path / "partition.json", 10)


@each(PAGES)
def test_every_yaml_block_is_a_network(page, tmp_path):
    for block in read_blocks(page, "yaml"):
        (tmp_path / "network.yaml").write_text(block.text)
        listed = yaml.safe_load(block.text)
        clients = sum(group.get("count", 1) for group in listed["clients"])
        read_network(tmp_path / "network.yaml", clients, len(listed["edges"]))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """The repository with all that docs/extending.md adds to it."""
    root = tmp_path_factory.mktemp("extended")
    for name in ("cefl_jax", "configs", "tests", "benchmarks", "pyproject.toml", "docs"):
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "experiments", root / "experiments")
    add_to(root, EXTENDING)
    return root


def take(root, mode):
    """Takes the commands of docs/extending.md in a process that imports what is added."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.commands", str(EXTENDING), mode],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_addition_is_taken(extended):
    take(extended, "check")


@pytest.mark.slow
def test_every_addition_runs(extended):
    take(extended, "run")


@pytest.mark.slow
@each([page for page in PAGES if page.stem in RUN])
def test_every_run_of_some_pages_runs(page, folder):
    """In a small form, with the reports that are made of them."""
    check_page(page, "run")


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
