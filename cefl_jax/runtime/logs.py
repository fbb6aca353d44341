"""The files of one run: who may have a folder, and how each file in it is written.

Files are written so that a run killed at any moment leaves only whole ones: small files go to a
temporary neighbour that then takes their name, and a line of metrics is one write.
"""

import contextlib
import json
import math
import os
from pathlib import Path

import numpy as np

from cefl_jax.runtime.records import json_safe, ordered

RUN_FILES = ("config.json", "metrics.jsonl", "status.json", "summary.json", "partition.json",
             "timeline.json", "network_trace.npz")
PICTURES = ("learning_curve.png", "partition.png", "gantt.png", "map.png")
EVENTS = "events.out.tfevents.*"

STATES = ("running", "finished", "preempted", "failed")


def check_workdir(path, overwrite=False):
    """Refuses a folder that a run may not have, and writes nothing.

    Args:
      path: the folder; it may be missing when its parent is there.
      overwrite: an earlier run in the folder may be replaced.
    Raises:
      ValueError: one line that names `--workdir`, its value and the remedy.
    """
    if not os.fspath(path):
        raise ValueError("--workdir is empty; name a folder for the files of this run")
    path = Path(path)
    _check_place(path)
    found = [name for name in (*RUN_FILES, *PICTURES) if os.path.lexists(path / name)]
    folders = [name for name in found if _is_folder(path / name)]
    if folders:
        raise ValueError(f"--workdir={path}: {folders[0]} in it is a folder where the run needs "
                         "a file; choose another folder")
    if found and found[0] in RUN_FILES and not overwrite:
        raise ValueError(f"--workdir={path} holds another run ({found[0]}); pass --overwrite to "
                         "replace it or choose another folder")


def open_workdir(path, overwrite=False):
    """Checks as `check_workdir` does, then takes the folder for this run.

    Replacing an earlier run removes its `RUN_FILES`, `PICTURES` and TensorBoard event files, by
    these names and directly in the folder. Nothing else is removed, `checkpoints/` included.

    Returns:
      Workdir, ready to be written to.
    """
    check_workdir(path, overwrite)
    path = Path(path)
    path.mkdir(exist_ok=True)
    if overwrite:
        earlier = [path / name for name in (*RUN_FILES, *PICTURES)] + list(path.glob(EVENTS))
        for file in earlier:
            if not _is_folder(file):
                file.unlink(missing_ok=True)
    return Workdir(path)


class Workdir:
    """The folder of one run, and every file of it.

    A context: what ends it early, an interrupt included, is written to `status.json` as failed and
    goes on to the caller.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._events = None
        self._round = 0

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if error is not None:
            with contextlib.suppress(OSError):  # a full disk should not hide what ended the run
                self.set_status("failed", self._round, f"{type(error).__name__}: {error}")
        self.close()

    def write_config(self, config):
        """Writes `config.json`; refuses a number that is not finite: JSON cannot repeat it."""
        _replace(self.path / "config.json", json.dumps(config, indent=2, allow_nan=False) + "\n")

    def write_partition(self, text):
        """Writes `partition.json` from its JSON text, byte for byte."""
        _replace(self.path / "partition.json", text)

    def set_status(self, state, round, error=None):
        """Writes `status.json`.

        Args:
          state: one of `STATES`.
          round: rounds done.
          error: text of what ended the run, None when nothing did.
        """
        if state not in STATES:
            raise ValueError(f"status is {state!r}; it must be one of {', '.join(STATES)}")
        self._round = round
        status = {"state": state, "round": round, "error": error}
        _replace(self.path / "status.json", json.dumps(status) + "\n")

    def write_summary(self, summary):
        """Writes `summary.json`; a number that is not finite becomes null."""
        text = json.dumps(json_safe(summary), indent=2, allow_nan=False)
        _replace(self.path / "summary.json", text + "\n")

    def write_timeline(self, timeline):
        """Writes `timeline.json`, the course of one simulated round."""
        _replace(self.path / "timeline.json", json.dumps(timeline, allow_nan=False) + "\n")

    def write_trace(self, arrays):
        """Writes `network_trace.npz` from a dict of arrays."""
        file = self.path / "network_trace.npz"
        temporary = file.with_name(f".{file.name}.tmp")
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(temporary, file)

    def append_metrics(self, record):
        """Adds one evaluation to `metrics.jsonl` and to the TensorBoard events.

        Keys come in the order of `METRIC_KEYS`; further keys follow in their own order. A number
        that is not finite becomes null: the value was measured, and JSON has no word for it.
        TensorBoard gets the finite values only.

        Args:
          record: flat dict of Python numbers, with `round`.
        """
        record = ordered(record)
        line = json.dumps(json_safe(record), allow_nan=False) + "\n"
        with open(self.path / "metrics.jsonl", "ab", buffering=0) as file:
            file.write(line.encode())
        events = self._open_events()
        for key, value in record.items():
            if key != "round" and math.isfinite(value):
                events.add_scalar(key, value, record["round"])
        events.flush()

    def close(self):
        """Ends the TensorBoard file; a later `append_metrics` starts another one."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open_events(self):
        if self._events is None:
            # Imported here: it takes a tenth of a second, and check_workdir should not.
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(logdir=str(self.path))
        return self._events


def _check_place(path):
    exists = os.path.lexists(path)
    if exists and not path.is_dir():
        raise ValueError(f"--workdir={path} is not a folder; choose another name")
    if not exists and not path.parent.is_dir():
        raise ValueError(f"--workdir={path}: there is no folder {path.parent}; create it or "
                         "choose another place")
    place = path if exists else path.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--workdir={path}: no permission to write in {place}; choose another "
                         "folder")


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


def _replace(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
