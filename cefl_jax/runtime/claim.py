"""Whose a folder is: what is refused before anything is written, and the lock of who has it."""

import os
from pathlib import Path
from typing import Any

import filelock

from cefl_jax import safe_read

RUN_FILES = (
    "config.json",
    "metrics.jsonl",
    "status.json",
    "summary.json",
    "partition.json",
    "timeline.json",
    "network_trace.npz",
)
PICTURES = ("learning_curve.png", "partition.png", "gantt.png", "map.png")
EVENTS = "events.out.tfevents.*"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
MOST_CONFIG_BYTES = 2**20


def check_workdir(
    path: str | Path, overwrite: bool = False, resume: bool = False, locked: bool = False
) -> None:
    """Refuses a folder that a run may not have, and writes nothing.

    Args:
      path: the folder; it may be missing when its parent is there.
      overwrite: an earlier run in the folder may be replaced.
      resume: an earlier run in the folder may be gone on with.
      locked: this process has its lock.
    Raises:
      ValueError: one line that names `--workdir`, its value and the remedy.
    """
    if not os.fspath(path):
        raise ValueError("--workdir is empty; name a folder for the files of this run")
    path = Path(path)
    _check_place(path)
    found = [name for name in (*RUN_FILES, *PICTURES) if os.path.lexists(path / name)]
    folders = [name for name in found if is_folder(path / name)]
    if folders:
        raise ValueError(
            f"--workdir={path}: {folders[0]} in it is a folder where the run needs "
            "a file; choose another folder"
        )
    if os.path.lexists(path / CHECKPOINTS) and not (path / CHECKPOINTS).is_dir():
        raise ValueError(
            f"--workdir={path}: {CHECKPOINTS} in it is a file where the run needs a "
            "folder; choose another folder"
        )
    if found and found[0] in RUN_FILES and not overwrite:
        if not resume:
            raise ValueError(
                f"--workdir={path} holds another run ({found[0]}); pass --overwrite "
                "to replace it or choose another folder"
            )
        if found[0] != "config.json":
            raise ValueError(
                f"--workdir={path} holds a run without its config.json, which cannot "
                "be gone on with; pass --overwrite to replace it or choose another "
                "folder"
            )
    if not locked and (path / LOCK).exists():
        lock_folder(path).release()


def read_config(path: str | Path) -> dict[str, Any] | None:
    """The settings in the `config.json` of a folder, as a nested dict; None where it has none.

    Raises:
      ValueError: one line, when it cannot be read.
    """
    file = Path(path) / "config.json"
    if not file.exists():
        return None
    try:
        config = safe_read.read_json(file, MOST_CONFIG_BYTES, finite=True)
    except safe_read.InputFileError as error:
        raise ValueError(f"{file}: {error}, or pass --overwrite to replace the run") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file}: is no group of settings; pass --overwrite to replace the run")
    return config


def lock_folder(path: Path) -> filelock.BaseFileLock:
    """The lock of a folder, taken; its file stays, and holds nobody up when its process is dead."""
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"--workdir={path} is in use by another process; wait for it or choose another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"--workdir={path} cannot be locked ({error}); choose a folder on another file system"
        ) from error
    return lock


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _check_place(path):
    exists = os.path.lexists(path)
    if exists and not path.is_dir():
        raise ValueError(f"--workdir={path} is not a folder; choose another name")
    if not exists and not path.parent.is_dir():
        raise ValueError(
            f"--workdir={path}: there is no folder {path.parent}; create it or choose another place"
        )
    place = path if exists else path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(
            f"--workdir={path}: no permission to write in {place}; choose another folder"
        )
