"""A folder of files sealed against damage: no bit of it can change without being noticed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from cefl_jax.safe_read import InputFileError, one_line, read_bytes

SEAL = "seal.json"
MOST_BYTES = 2**28  # of a seal


class CorruptCheckpoint(ValueError):
    """A folder that is not what was sealed; one line says what is wrong with it."""

    def __init__(self, line):
        super().__init__(one_line(line))


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `seal.json` into a folder: facts, and the SHA-256 of every file in it.

    A folder is complete when it has its seal, which is therefore written last.

    Args:
      folder: of the files.
      facts: what JSON can hold, every number finite.
    """
    content = {"facts": facts, "files": _digests(folder)}
    text = json.dumps(content, allow_nan=False)
    temporary = folder / f".{SEAL}.tmp"
    temporary.write_text(f"{text}\n{_digest(text.encode())}\n", encoding="utf-8")
    temporary.replace(folder / SEAL)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a folder's seal, whose own digest is verified, and not yet the files.

    Raises:
      CorruptCheckpoint: when the seal is missing or not as it was written.
    """
    return _read(folder)["facts"]


def verify(folder: Path) -> dict[str, Any]:
    """The facts of a folder that is bit for bit as it was sealed.

    Raises:
      CorruptCheckpoint: when the seal or any file is missing, changed, or was not there.
    """
    content = _read(folder)
    try:
        found, sealed = _digests(folder), content["files"]
    except OSError as error:
        raise CorruptCheckpoint(f"{error.filename} cannot be read ({error.strerror})") from error
    for name in sorted({*found, *sealed}):
        if name not in found:
            raise CorruptCheckpoint(f"{name} is missing")
        if name not in sealed:
            raise CorruptCheckpoint(f"{name} was not there when it was sealed")
        if found[name] != sealed[name]:
            raise CorruptCheckpoint(f"{name} has changed")
    return content["facts"]


def _read(folder):
    try:
        whole = read_bytes(folder / SEAL, MOST_BYTES)
    except InputFileError as error:
        raise CorruptCheckpoint(f"{SEAL}: {error}") from error
    text, _, rest = whole.partition(b"\n")
    if rest != f"{_digest(text)}\n".encode():
        raise CorruptCheckpoint(f"{SEAL} has changed")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpoint(f"{SEAL} is not JSON") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), dict) for name in ("facts", "files")
    ):
        raise CorruptCheckpoint(f"{SEAL} lacks facts or files")
    return content


def _digests(folder):
    """SHA-256 of every file below a folder but its seal, by name relative to it."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (SEAL, f".{SEAL}.tmp"):
            with open(path, "rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _digest(data):
    return hashlib.sha256(data).hexdigest()
