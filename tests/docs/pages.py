"""The fenced blocks of README.md and docs/."""

import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def file(self):
        """The path in the first line, of a block that is a file or a change of one; or None."""
        found = re.match(r"(?:#| ) ([\w/]+\.py)\n", self.text)
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
    """Writes the files of a page below a folder, and makes the changes that its diffs show.

    A block of Python whose first line is `# PATH` is a file. A `diff` block has the path in its
    first line; the lines that it keeps or takes away stand in that file once, in one piece.
    """
    for block in read_blocks(page):
        if block.language == "python" and block.file:
            (root / block.file).write_text(block.text)
        elif block.language == "diff":
            lines = block.text.splitlines(keepends=True)[1:]
            old = "".join(line[1:] for line in lines if line[0] in "- ")
            new = "".join(line[1:] for line in lines if line[0] in "+ ")
            text = (root / block.file).read_text()
            if text.count(old) != 1:
                raise ValueError(f"{page.name}: {block.file} has {text.count(old)} times:\n{old}")
            (root / block.file).write_text(text.replace(old, new))
