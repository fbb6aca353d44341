"""The fenced blocks of README.md and docs/."""

import pathlib
import re
import shlex
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTENDING = ROOT / "docs" / "extending.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def each(pages):
    """A test of each of some pages."""
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def file(self):
        """The path in the first line, `# PATH`, of a block that is a file; or None."""
        found = re.match(r"# ([\w/]+\.py)\n", self.text)
        return found and found[1]


def read_blocks(page, language=None):
    """Returns the blocks of a page, in order: all, or those of a language."""
    blocks = [Block(*match.groups()) for match in FENCE.finditer(page.read_text())]
    return [block for block in blocks if language in (None, block.language)]


def read_prose(page):
    """Returns the text of a page without its blocks."""
    return FENCE.sub("", page.read_text())


def read_commands(page):
    """Returns the commands of a page, each a list of words: of `sh` blocks, and within lines."""
    spans = re.findall(r"`(python -m [^`]+)`", read_prose(page))
    commands = [shlex.split(span) for span in spans if "NAME" not in span]
    for block in read_blocks(page, "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                commands.append(words[:end])
                words = words[end + 1 :]
    return commands


def add_to(root, page):
    """Writes the blocks of a page that are files below a folder."""
    for block in read_blocks(page, "python"):
        if block.file:
            (root / block.file).write_text(block.text)
