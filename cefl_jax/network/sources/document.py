"""JSON and YAML documents that somebody else wrote: reading, and checking entry by entry.

Every complaint is a DocumentError of one line that names the entry, as in `edges[1].device`.
"""

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from cefl_jax.safe_read import InputFileError, decode, parse_json, read_bytes, show

MOST_BYTES = 50_000_000
MOST_YAML_BYTES = 5_000_000  # a minute to read
MOST_NAMES = 30  # in a message
LEAST, MOST = 1e-25, 1e25  # of a positive number: float32 holds it, and 100 dB of fading more


class DocumentError(ValueError):
    """What is wrong in a document, without the document's name."""


def read_document(path: str | Path) -> Any:
    """What a file holds, as dicts, lists, texts and numbers.

    YAML makes no other objects, has no keys but texts, and merges none (`<<`): a few lines could
    merge into more than memory holds. A number such as 5e9 is one, as in YAML 1.2, and 1:30 is not.

    Args:
      path: of a *.json, *.yaml or *.yml file in UTF-8.
    Returns:
      Whatever the file describes.
    Raises:
      DocumentError: for a file that is missing, too large, or not such a document; and for a key
        that is given twice.
    """
    kind = Path(path).suffix.lower()
    if kind not in (".json", ".yaml", ".yml"):
        raise DocumentError("its name needs to end in .json, .yaml or .yml; rename it")
    try:
        if kind == ".json":
            return parse_json(read_bytes(path, MOST_BYTES))
        return _parse_yaml(decode(read_bytes(path, MOST_YAML_BYTES)))
    except InputFileError as error:
        raise DocumentError(str(error)) from error


def _parse_yaml(text):
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError as error:
        raise DocumentError("is nested too deeply; write it flatter") from error
    except Exception as error:  # tags with wrong contents make PyYAML fail in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DocumentError(f"cannot be read as YAML: {reason:.200}; correct it") from error


def check_keys(
    value: Any, where: str, required: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Raises DocumentError for anything but a mapping of the required and some optional keys."""
    known = (*required, *optional)
    if not isinstance(value, dict):
        raise DocumentError(
            f"{where or 'the file'} is {show(value)}, and needs to be a mapping of "
            f"{', '.join(known)}"
        )
    inside = f"{where}." if where else ""
    for key in value:
        if key not in known:
            raise DocumentError(f"{inside}{show_key(key)} is unknown; {suggest(key, known)}")
    for key in required:
        if key not in value:
            raise DocumentError(f"{inside}{key} is missing; add it")


def check_list(value: Any, where: str, length: int | None = None) -> None:
    """Raises DocumentError for anything but a list of some entries, or of `length`."""
    wanted = "at least one" if length is None else length
    if not isinstance(value, list):
        raise DocumentError(f"{where}={show(value)} needs to be a list of {wanted} entries")
    if not value or (length is not None and len(value) != length):
        raise DocumentError(f"{where} has {len(value)} entries, and needs {wanted}; correct it")


def check_number(value: Any, where: str, zero: bool = False) -> None:
    """Raises DocumentError for anything but a number from LEAST to MOST, or 0 where it may be."""
    if type(value) not in (int, float):  # true is an int, but no number
        raise DocumentError(f"{where}={show(value)} needs to be a number")
    if zero and value == 0:
        return
    if not LEAST <= value <= MOST:  # nor is nan
        wanted = "0, or " if zero else ""
        raise DocumentError(
            f"{where}={show(value)} needs to be {wanted}from {LEAST:g} to {MOST:g}; correct it"
        )


def suggest(name: Any, known: Collection[str]) -> str:
    """What somebody may have meant who wrote `name`."""
    close = difflib.get_close_matches(name[:40], known, 1) if isinstance(name, str) else ()
    hint = f"did you mean {show_key(close[0])}? " if close else ""
    first = ", ".join(map(show_key, [*known][:MOST_NAMES]))
    return f"{hint}known: {first}{', ...' if len(known) > MOST_NAMES else ''}"


def show_key(key: Any) -> str:
    """A key in an error message, as `show` shows a value."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) <= 40 else show(key)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader with texts as keys, none of them double or merged."""

    def flatten_mapping(self, node):
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"merge key in line {line}: write it out")
            if key.tag != "tag:yaml.org,2002:str":  # others can be made to hash alike
                raise yaml.YAMLError(f"the key in line {line} is no text: put it in quotes")

    def construct_mapping(self, node, deep=False):
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise yaml.YAMLError(
                f"a key is given twice in the mapping of line {node.start_mark.line + 1}"
            )
        return made


def _number(construct):
    """A constructor of numbers that takes none of base 60, whose time grows with their square."""

    def construct_decimal(loader, node):
        if ":" in node.value:
            raise yaml.YAMLError(f"the number in line {node.start_mark.line + 1} has a colon")
        return construct(loader, node)

    return construct_decimal


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _number(yaml.SafeLoader.construct_yaml_int))
_PlainLoader.add_constructor(
    "tag:yaml.org,2002:float", _number(yaml.SafeLoader.construct_yaml_float)
)
_PlainLoader.add_implicit_resolver(  # YAML 1.1 takes 5e9 for text
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    [*"-+0123456789"],
)
