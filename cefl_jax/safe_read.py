"""Files and values from outside: of bounded size, plain data alone, and shown in one line.

A complaint is an `InputFileError` without the file's name, which its reader knows.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

MAX_LEVELS = 50  # of lists and groups in each other; none of our files has ten

_SHOWN = reprlib.Repr()  # of what a few bytes can make endless
_SHOWN.maxlevel = 2
_SHOWN.maxother = _SHOWN.maxstring = _SHOWN.maxlong = 40


class InputFileError(ValueError):
    """What is wrong with a file and what to do: one line without the file's name."""


class MissingError(InputFileError):
    """There is no such file."""


def expand_user(path: str | Path) -> str:
    """Returns a path as a person gave it, with a leading `~` or `~user` as that person's folder.

    The path stays as it is where there is no such user, and what opens it then misses it by name.
    Whoever takes a path from a person calls this, and nobody else expands one.

    Args:
      path: of a file or folder, from a setting or a command line.
    """
    try:
        return str(Path(path).expanduser()) if str(path).startswith("~") else str(path)
    except (RuntimeError, ValueError):  # no such user; ValueError: a name with a NUL
        return str(path)


def read_bytes(path: str | Path, most_bytes: int) -> bytes:
    """The bytes of a regular file; nothing is read of a larger one, or of a pipe or a device.

    Args:
      path: of the file.
      most_bytes: that it may have.
    Returns:
      bytes, as many as the file had when it was opened.
    Raises:
      InputFileError: the file is missing, of another kind, too large, or cannot be read.
    """
    size = check_file(path, most_bytes)
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}; name another") from error


def check_file(path: str | Path, most_bytes: float) -> int:
    """Returns the size of a regular file of at most `most_bytes`, in bytes.

    Raises:
      InputFileError: the file is missing, of another kind, or too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise MissingError("there is no such file; correct the name") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", error)
        raise InputFileError(f"cannot be read: {reason}; correct the name") from error
    if path.is_dir():
        raise InputFileError("is a folder; name a file")
    if not path.is_file():  # it might never end
        raise InputFileError("is a pipe or a device; name a regular file")
    if size > most_bytes:
        raise InputFileError(f"has {size} bytes, and {most_bytes} is the most; name a smaller one")
    return size


def read_json(path: str | Path, most_bytes: int, finite: bool = False) -> Any:
    """Returns what a JSON file holds; as `parse_json` of its `read_bytes`."""
    return parse_json(read_bytes(path, most_bytes), finite)


def parse_json(content: bytes, finite: bool = False) -> Any:
    """Returns what JSON text holds, as dicts, lists, texts and numbers.

    Refused beside what is not JSON: a key that is given twice in a group, more than `MAX_LEVELS`
    levels, a number of thousands of digits, and text that is not Unicode.

    Args:
      content: bytes, in UTF-8.
      finite: NaN and Infinity, which are not JSON though Python writes them, are refused too.
    Returns:
      Whatever the text describes.
    Raises:
      InputFileError: for anything else.
    """
    try:
        made = json.loads(
            decode(content),
            object_pairs_hook=_without_doubles,
            parse_constant=_refuse_constant if finite else None,
        )
    except RecursionError as error:
        raise _too_deep() from error
    except InputFileError:
        raise
    except ValueError as error:
        raise InputFileError(
            f"cannot be read as JSON: {one_line(error):.200}; correct it"
        ) from error
    _check_levels(made)
    return made


def decode(content: bytes) -> str:
    """Returns the text of bytes in UTF-8, less a byte order mark.

    Raises:
      InputFileError: the bytes are something else.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(f"is not UTF-8 text at byte {error.start}; save it as such") from error


def show(value: object) -> str:
    """Returns a value in an error message: one short line, whatever it is."""
    try:
        text = one_line(_SHOWN.repr(value))
    except ValueError:  # Python writes no such number
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text:.57}..."


def one_line(text: object) -> str:
    """Returns the text with a question mark for each character that would not print."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def _without_doubles(pairs):
    made = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {show(key)} is given twice")
        made[key] = value
    return made


def _refuse_constant(name):
    raise ValueError(f"{name} is no number in JSON")


def _check_levels(made):
    """Refuses what is nested deeper than `MAX_LEVELS`, and text with half a surrogate pair."""
    level = [made]
    for _ in range(MAX_LEVELS + 1):
        texts = [one for one in level if isinstance(one, str)]
        groups = [one for one in level if isinstance(one, dict)]
        texts += [key for group in groups for key in group]
        if not all(map(_is_unicode, texts)):
            raise InputFileError(
                "has text that is not Unicode, half of a surrogate pair; correct it"
            )
        lists = [one for one in level if isinstance(one, list)]
        lists += [[*group.values()] for group in groups]
        level = [inner for one in lists for inner in one if isinstance(inner, (str, dict, list))]
        if not level:
            return
    raise _too_deep()


def _too_deep():
    return InputFileError("is nested too deeply; write it flatter")


def _is_unicode(text):
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
