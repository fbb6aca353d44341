"""The files of one run, and how each of them is written.

Files are written so that a run killed at any moment leaves only whole ones: small files go to a
temporary neighbour that then takes their name, and a line of metrics is one write.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from cefl_jax.runtime.checkpoint import Checkpoint, Checkpoints, CorruptCheckpoint
from cefl_jax.runtime.preemption import Preempted
from cefl_jax.runtime.summary import json_safe, ordered, read_metrics
from cefl_jax.safe_read import InputFileError, MissingError, read_json

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
MAX_BYTES = 2**20  # of config.json, status.json and summary.json
STATES = ("running", "finished", "preempted", "failed")
ENDED = ("finished", "failed")


class FolderInUse(ValueError):
    """Another process has the folder of a run."""


class DamagedRun(ValueError):
    """What a folder holds of a run is not enough to continue it."""


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
    for fault in _faults(Path(path), overwrite, resume):
        raise ValueError(f"--workdir={path}{fault}")
    if not locked and (Path(path) / LOCK).exists():
        lock_folder(Path(path)).release()


def _faults(path, overwrite, resume):
    """Yields what is wrong with a folder, and what to do."""
    exists = os.path.lexists(path)
    if exists and not path.is_dir():
        yield " is not a folder; choose another name"
    if not exists and not path.parent.is_dir():
        yield f": there is no folder {path.parent}; create it or choose another place"
    place = path if exists else path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        yield f": no permission to write in {place}; choose another folder"
    found = [name for name in (*RUN_FILES, *PICTURES) if os.path.lexists(path / name)]
    for name in found:
        if _is_folder(path / name):
            yield f": {name} in it is a folder where the run needs a file; choose another folder"
    if os.path.lexists(path / CHECKPOINTS) and not (path / CHECKPOINTS).is_dir():
        yield f": {CHECKPOINTS} in it is a file where the run needs a folder; choose another folder"
    if found and found[0] in RUN_FILES and not overwrite:
        remedy = "pass --overwrite to replace it or choose another folder"
        if not resume:
            yield f" holds another run ({found[0]}); {remedy}"
        if found[0] != "config.json":
            yield f" holds a run without its config.json, which cannot be gone on with; {remedy}"


def read_config(path: str | Path) -> dict[str, Any] | None:
    """Returns the settings in the `config.json` of a folder, nested; None where it has none.

    Raises:
      ValueError: one line, when it cannot be read.
    """
    return _read_group(Path(path) / "config.json")


def read_status(path: str | Path) -> tuple[str | None, int, str | None]:
    """Returns state, rounds and error in the `status.json` of a folder.

    What is missing, or is not as a run writes it, is None, 0 and None.
    """
    try:
        status = read_json(Path(path) / "status.json", MAX_BYTES)
    except InputFileError:
        return None, 0, None
    status = status if isinstance(status, dict) else {}
    state, rounds, error = (status.get(name) for name in ("state", "round", "error"))
    return (
        state if state in STATES else None,
        rounds if type(rounds) is int else 0,
        error if isinstance(error, str) else None,
    )


def _read_group(file):
    """The group of values in a JSON file; None where there is no such file."""
    try:
        content = read_json(file, MAX_BYTES, finite=True)
    except MissingError:
        return None
    except InputFileError as error:
        raise ValueError(f"{file}: {error}, or pass --overwrite to replace the run") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: is no group of values; pass --overwrite to replace the run")
    return content


def lock_folder(path: Path, wait: bool = False) -> filelock.BaseFileLock:
    """Takes the lock of a folder; its file stays, and blocks nobody when its process is dead.

    Args:
      path: of the folder.
      wait: for whoever has it, instead of refusing.
    """
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout as error:
        raise FolderInUse(
            f"--workdir={path} is in use by another process; wait for it or choose another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"--workdir={path} cannot be locked ({error}); choose a folder on another file system"
        ) from error
    return lock


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


def open_workdir(
    path: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    keep: int = 2,
    background: bool = True,
    warn: Callable[[str], object] = print,
) -> "Workdir":
    """Checks as `check_workdir` does, then takes the folder for this run.

    Replacing an earlier run removes its `RUN_FILES`, `PICTURES`, TensorBoard event files and
    checkpoints, by these names and directly in the folder. Nothing else is removed. Until the
    Workdir is closed, or its process has ended, no other may open the folder.

    Args:
      path, overwrite, resume: as in `check_workdir`.
      keep, background, warn: as in `Checkpoints`.
    Returns:
      Workdir, ready to be written to.
    """
    check_workdir(path, overwrite, resume)
    path = Path(path)
    path.mkdir(exist_ok=True)
    workdir = Workdir(path, lock_folder(path), keep, background, warn)
    with contextlib.ExitStack() as refused:
        refused.callback(workdir.close)
        check_workdir(path, overwrite, resume, locked=True)  # another may have had it meanwhile
        if overwrite:
            workdir.clear()
        refused.pop_all()
    return workdir


class Workdir:
    """The folder of one run, and every file of it.

    A context: what ends it early, an interrupt included, is written to `status.json` as failed, or
    as preempted where it can be gone on with, and goes on to the caller.
    """

    def __init__(self, path, lock=None, keep=2, background=True, warn=print):
        self.path = Path(path)
        folder = self.path.absolute() / CHECKPOINTS
        self.checkpoints = Checkpoints(folder, keep, background, warn)
        self._lock = lock
        self._events = None
        self._round = self._recalled = 0
        self._metrics = hashlib.sha256()
        self._metrics_bytes = 0

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if error is None:
            self.close()
        else:
            self.end(error)

    def end(self, error: BaseException) -> None:
        """Notes what ended the run before its time, and closes."""
        left = isinstance(error, Preempted)
        state = "preempted" if left else "failed"
        reason = str(error) if left else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk should not hide what ended the run
            self.set_status(state, self._round, reason)
        self.close()

    def clear(self) -> None:
        """Removes the files of an earlier run."""
        named = [self.path / name for name in (*RUN_FILES, *PICTURES)]
        for file in [*named, *self.path.glob(EVENTS)]:
            if not _is_folder(file):
                file.unlink(missing_ok=True)
        self.checkpoints.remove_all()

    def recall(
        self, accept: Callable[[dict[str, Any]], object] = lambda facts: None
    ) -> Checkpoint | None:
        """Returns the Checkpoint to go on from, None where nothing was saved.

        The metrics up to it have to be those that were written, line for line; what came after
        them is cut off, so that there will be neither a gap nor a repeat.

        Args:
          accept: called with the facts of a checkpoint before it is used; raises what it likes.
        Raises:
          ValueError: when there are checkpoints, but none of them can be used.
        """
        file = self.path / "metrics.jsonl"

        def check(facts):
            with contextlib.suppress(FileNotFoundError):
                if _digest_start(file, facts["metrics_bytes"]) == facts["metrics_sha256"]:
                    return accept(facts)
            raise CorruptCheckpoint("metrics.jsonl is not what it was then")

        try:
            checkpoint = self.checkpoints.load(check)
        except CorruptCheckpoint as damage:
            raise DamagedRun(
                f"--workdir={self.path}: {damage}; pass --overwrite to start anew"
            ) from damage
        if checkpoint is None and self.is_finished():
            raise DamagedRun(
                f"--workdir={self.path} holds a finished run without checkpoints; pass --overwrite "
                "to replace it, or choose another folder"
            )
        length = checkpoint.facts["metrics_bytes"] if checkpoint else 0
        if file.exists():
            os.truncate(file, length)
            self._metrics.update(file.read_bytes())
        self._metrics_bytes = length
        self._round = self._recalled = checkpoint.round if checkpoint else 0
        return checkpoint

    def save(self, round: int, leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Saves a checkpoint, as `Checkpoints.save`, and which metrics were written before it."""
        metrics = self._metrics.hexdigest()
        written = {"metrics_bytes": self._metrics_bytes, "metrics_sha256": metrics}
        self.checkpoints.save(round, leaves, facts | written)

    def read_metrics(self) -> list[dict[str, float]]:
        """Returns the records written so far; not a number where the file says null."""
        records = read_metrics(self.path / "metrics.jsonl")
        return [
            {key: math.nan if value is None else value for key, value in record.items()}
            for record in records
        ]

    def read_summary(self) -> dict[str, Any] | None:
        """Returns what `write_summary` has written; None where it has not.

        Raises:
          ValueError: one line, the file and what is wrong with it.
        """
        return _read_group(self.path / "summary.json")

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes `config.json`; refuses a number that is not finite: JSON cannot repeat it."""
        self._put("config.json", _json(config, indent=2))

    def write_partition(self, text: str) -> None:
        """Writes `partition.json` from its JSON text, byte for byte."""
        self._put("partition.json", text.encode())

    def set_status(self, state: str, round: int, error: str | None = None) -> None:
        """Writes `status.json`.

        Args:
          state: one of `STATES`.
          round: rounds done.
          error: text of what ended the run, None when nothing did.
        """
        if state not in STATES:
            raise ValueError(f"status is {state!r}; it must be one of {', '.join(STATES)}")
        self._round = round
        self._put("status.json", _json({"state": state, "round": round, "error": error}))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`; a number that is not finite becomes null."""
        self._put("summary.json", _json(json_safe(summary), indent=2))

    def write_timeline(self, timeline: dict[str, Any]) -> None:
        """Writes `timeline.json`, the phases of one simulated round."""
        self._put("timeline.json", _json(timeline))

    def write_trace(self, arrays: dict[str, Any]) -> None:
        """Writes `network_trace.npz` from arrays."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        self._put("network_trace.npz", stream.getvalue())

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one evaluation to `metrics.jsonl` and to the TensorBoard events.

        Keys come in the order of `METRIC_KEYS`; further keys follow in their own order. A number
        that is not finite becomes null: the value was measured, and JSON has no word for it.
        TensorBoard gets the finite values only.

        Args:
          record: Python numbers, with `round`; anything else is refused.
        """
        values = ordered(record)
        line = _json(json_safe(values))
        place = self.path / "metrics.jsonl"
        with _named(place), open(place, "ab", buffering=0) as file:
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(self._metrics_bytes)
                raise
        self._metrics.update(line)
        self._metrics_bytes += len(line)
        with _named(self.path / EVENTS):
            self._write_events(values)

    def close(self) -> None:
        """Ends saves and the TensorBoard file, and gives the folder back."""
        self.checkpoints.wait()
        if self._events is not None:
            with contextlib.suppress(OSError):  # every evaluation has been flushed
                self._events.close()
            self._events = None
        if self._lock is not None:
            self._lock.release()

    def _write_events(self, values):
        """Writes an evaluation for TensorBoard, at once: no thread has it later, on a full disk."""
        # Imported here: it takes a tenth of a second, and check_workdir should not.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if self._events is None:
            self._events = EventsWriter(str(self.path / "events"))
            if self._recalled:  # what an earlier process wrote of the rounds to come is not shown
                start = SessionLog(status=SessionLog.START)
                self._events.write_event(Event(step=self._recalled + 1, session_log=start))
        scalars = [
            Summary.Value(tag=key, simple_value=value)
            for key, value in values.items()
            if key != "round" and math.isfinite(value)
        ]
        self._events.write_event(
            Event(wall_time=time.time(), step=values["round"], summary=Summary(value=scalars))
        )
        self._events.flush()

    def is_finished(self) -> bool:
        """Returns whether the folder says of its run that it is finished."""
        return read_status(self.path)[0] == "finished"

    def _put(self, name, content):
        write_whole(self.path / name, content)


class ReadOnlyWorkdir(Workdir):
    """The folder for a process that writes nothing: of several of a run, the first one writes."""

    def save(self, round: int, leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Nothing."""

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def _put(self, name, content):
        """Nothing."""


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file of a few bytes, whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    with _named(temporary):
        temporary.write_bytes(content)
        os.replace(temporary, file)


def _json(value, indent=None):
    """A value as a line of JSON, or several; refuses a number that is not finite."""
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


@contextlib.contextmanager
def _named(path):
    """Errors of the system name the file, which those of a write do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _digest_start(file, length):
    """SHA-256 of the first bytes of a file; of all, where there are fewer."""
    with open(file, "rb") as opened:
        return hashlib.sha256(opened.read(length)).hexdigest()
