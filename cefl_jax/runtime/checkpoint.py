"""Checkpoints of a run: everything that the rounds to come depend on, whole or not at all.

    checkpoints/000050/           an Orbax checkpoint of the state's leaves by their paths
    checkpoints/000050/seal.json  facts, the SHA-256 of every leaf and of every file; written last

What has no seal was never finished. The folder of a run that met a number that is not finite holds
`000057.failed` besides, to be looked at; nothing goes on from there.
"""

import hashlib
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from cefl_jax.safe_read import InputFileError, one_line, read_bytes

SEAL = "seal.json"
MAX_SEAL_BYTES = 2**28
OWN = r"\d{6,}(\.failed)?(\.orbax-checkpoint-tmp.*)?"  # names that a save makes


class CorruptCheckpoint(ValueError):
    """A folder that is not what was sealed; one line says what is wrong with it."""

    def __init__(self, line):
        super().__init__(one_line(line))


class Checkpoint(NamedTuple):
    """What was saved of a run after a round."""

    round: int
    leaves: dict[str, np.ndarray]  # the state's, by path
    facts: dict[str, Any]  # what else was said of the run


class Checkpoints:
    """The checkpoints in one folder.

    Args:
      folder: pathlib.Path, absolute; it may be missing until the first save.
      keep: how many of the newest are kept; the one with the best score is kept besides.
      background: whether a save goes on while the next rounds are computed.
      warn: called with one line when a checkpoint is damaged or cannot be written.
    """

    def __init__(self, folder, keep=2, background=True, warn=print):
        self.folder, self.keep, self.background, self.warn = folder, keep, background, warn
        self._thread = futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving = None

    def save(self, round: int, leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Saves what `flatten` made of a state; waits for the save before it.

        A save that fails makes a warning, and leaves the checkpoints before it as they were.

        Args:
          round: rounds done.
          leaves: from `flatten`.
          facts: what JSON can hold; of its `score`, or None, the best is the largest.
        """
        self.wait()
        self._saving = self._thread.submit(self._save, round, leaves, facts)
        if not self.background:
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being saved any more."""
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def load(
        self, accept: Callable[[dict[str, Any]], object] = lambda facts: None
    ) -> Checkpoint | None:
        """Returns the newest checkpoint that is as it was saved; None where there is none at all.

        Damaged ones make a warning and are passed over; those without a seal are removed.

        Args:
          accept: called with the facts of a checkpoint; raises CorruptCheckpoint to pass it over.
        Raises:
          CorruptCheckpoint: when there are checkpoints, and all of them are damaged.
        """
        for path in self._unfinished():
            if path.name.isdecimal() and path.is_dir():
                self.warn(f"{path} has no {SEAL}: it is not whole, and is removed")
            _remove(path)
        rounds = sorted(self._sealed(), reverse=True)
        for round in rounds:
            try:
                checkpoint = self.load_round(round)
                accept(checkpoint.facts)
            except CorruptCheckpoint as damage:
                self.warn(f"the checkpoint of round {round} is damaged and passed over: {damage}")
                continue
            return checkpoint
        if rounds:
            raise CorruptCheckpoint(f"no checkpoint in {self.folder} can be used")
        return None

    def load_round(self, round: int) -> Checkpoint:
        """Returns the checkpoint of a round, every file and every leaf verified.

        Raises:
          CorruptCheckpoint: it is not what was saved.
        """
        place = self._place(round)
        facts = verify(place)
        digests = facts.pop("leaves", {})
        if facts.get("round", round) != round:
            raise CorruptCheckpoint(f"it is of round {facts['round']}")
        try:
            with _orbax() as orbax:
                leaves = orbax.restore(place)
        except Exception as error:  # Orbax raises whatever its readers do
            raise CorruptCheckpoint(_reason(error)) from error
        for path in sorted({*digests, *leaves}):
            if path not in leaves or _digest(np.asarray(leaves[path])) != digests.get(path):
                raise CorruptCheckpoint(f"{path} is not what was saved")
        return Checkpoint(round, leaves, facts)

    def keep_failed(self, round: int, leaves: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Saves the state of a run that cannot go on, beside the checkpoints."""
        self.wait()
        try:
            self._write(self.folder / f"{round:06d}.failed", leaves, facts)
        except Exception as error:  # it ends with the reason why it cannot go on
            self.warn(f"the state of round {round} could not be saved: {_reason(error)}")

    def remove_all(self) -> None:
        """Removes every checkpoint, and what is left of unfinished ones."""
        for path in self._own():
            _remove(path)

    def _save(self, round, leaves, facts):
        try:
            self._write(self._place(round), leaves, facts)
            self._remove_old(round)
        except Exception as error:  # whatever the disk or Orbax has to say
            self.warn(
                f"the checkpoint of round {round} could not be saved ({_reason(error)}); the run "
                "goes on, and those before it are as they were"
            )

    def _write(self, place, leaves, facts):
        try:
            self.folder.mkdir(exist_ok=True)
            _remove(place)  # damaged, or it would have been gone on from
            with _orbax() as orbax:
                orbax.save(place, leaves)
            digests = {path: _digest(leaf) for path, leaf in leaves.items()}
            seal(place, {**facts, "leaves": digests})
        except Exception:
            for path in (place, *self._unfinished()):
                _remove(path)
            raise

    def _place(self, round):
        return self.folder / f"{round:06d}"

    def _own(self):
        """Everything in the folder that this class has made."""
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if re.fullmatch(OWN, path.name)]

    def _unfinished(self):
        """What was being written, or removed, when a run was killed."""
        return [path for path in self._own() if ".orbax" in path.name or not _is_sealed(path)]

    def _sealed(self):
        return [
            int(path.name) for path in self._own() if path.name.isdecimal() and _is_sealed(path)
        ]

    def _remove_old(self, newest):
        scores = {}
        for round in self._sealed():
            if round > newest:  # was passed over, or the run would have gone on from there
                _remove(self._place(round))
                continue
            try:
                score = read_facts(self._place(round)).get("score")
            except CorruptCheckpoint:
                score = None
            scores[round] = -np.inf if score is None else score
        best = max(scores, key=lambda round: (scores[round], -round))
        for round in sorted(scores)[: -self.keep]:
            if round != best or scores[round] == -np.inf:
                _remove(self._place(round))


def _is_sealed(place):
    return (place / SEAL).exists()


def _digest(leaf):
    """SHA-256 of an array's type, shape and bytes."""
    digest = hashlib.sha256(f"{leaf.dtype.name}{leaf.shape}".encode())
    digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)  # bfloat16 has no buffer
    return digest.hexdigest()


def _remove(place):
    """Removes a checkpoint; its seal first, so that what is left of it is none."""
    if place.is_symlink():
        place.unlink()
    elif place.is_dir():
        (place / SEAL).unlink(missing_ok=True)
        shutil.rmtree(place)


def _reason(error):
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:300]


def _orbax():
    """An Orbax checkpointer of this process alone: of several, one writes and each one reads.

    Orbax's newer interface has no such thing: there, every process takes part in a save.
    """
    # Imported here: it takes a while, and the compiler is at work when it is first needed.
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(_is_not_orbax)  # a failure makes one warning, of ours
    _silence_late_writes()
    here = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _is_not_orbax(record):
    return "orbax" not in record.pathname


def _silence_late_writes():
    """Shows nothing of a save's writes that end after one of them has failed.

    They report to an event loop that Orbax has closed by then, and a full disk makes many of them.
    """
    shown = sys.unraisablehook
    if shown.__module__ == __name__:  # done already
        return

    def show(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = show


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `seal.json` into a folder: facts, and the SHA-256 of every file in it.

    A folder is complete when it has its seal, which is therefore written last.

    Args:
      folder: of the files.
      facts: what JSON can hold, every number finite.
    """
    text = json.dumps({"facts": facts, "files": _file_digests(folder)}, allow_nan=False)
    temporary = folder / f".{SEAL}.tmp"
    temporary.write_text(f"{text}\n{_sha256(text.encode())}\n", encoding="utf-8")
    temporary.replace(folder / SEAL)


def read_facts(folder: Path) -> dict[str, Any]:
    """Returns the facts of a folder's seal, whose own digest is verified, and not yet the files.

    Raises:
      CorruptCheckpoint: the seal is missing or not as it was written.
    """
    return _read_seal(folder)["facts"]


def verify(folder: Path) -> dict[str, Any]:
    """Returns the facts of a folder that is bit for bit as it was sealed.

    Raises:
      CorruptCheckpoint: the seal or a file is missing, has changed, or was not there.
    """
    content = _read_seal(folder)
    try:
        found, sealed = _file_digests(folder), content["files"]
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


def _read_seal(folder):
    """The content of a seal, which is as `seal` wrote it when its digest is right."""
    try:
        whole = read_bytes(folder / SEAL, MAX_SEAL_BYTES)
    except InputFileError as error:
        raise CorruptCheckpoint(f"{SEAL}: {error}") from error
    text, _, digest = whole.partition(b"\n")
    if digest != f"{_sha256(text)}\n".encode():
        raise CorruptCheckpoint(f"{SEAL} has changed")
    return json.loads(text)


def _file_digests(folder):
    """SHA-256 of every file below a folder but its seal, by name relative to it."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (SEAL, f".{SEAL}.tmp"):
            with open(path, "rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def flatten(state: PyTree) -> dict[str, np.ndarray]:
    """Copies the leaves of a state to the host, by path; of keys, their data.

    Leaves without a value are left out. Every process of a run takes part.
    """
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        data = _data(leaf)
        if data.size:
            leaves[jax.tree_util.keystr(path)] = np.array(_fetch(data))
    return leaves


def _fetch(data):
    """An array on the host, of which every process has a part where not each has all."""
    if isinstance(data, jax.Array) and not (data.is_fully_replicated or data.is_fully_addressable):
        return multihost_utils.process_allgather(data, tiled=True)
    return jax.device_get(data)


def restore(checkpoint: Checkpoint, state: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Returns a state with the values of a checkpoint, bit for bit.

    Args:
      checkpoint: of the run.
      state: of the same run, for its structure.
      sharding: of every leaf.
    Raises:
      ValueError: when the checkpoint holds other leaves.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
    needed = {name: data for name, leaf in named.items() if (data := _data(leaf)).size}
    check_leaves(checkpoint, needed)
    with jax.enable_x64(True):  # or 64 bits would become 32
        values = [
            _put(leaf, checkpoint.leaves[name], sharding) if name in needed else leaf
            for name, leaf in named.items()
        ]
    return jax.tree.unflatten(structure, values)


def check_leaves(checkpoint: Checkpoint, needed: Mapping[str, Any]) -> None:
    """Raises ValueError where a checkpoint has other leaves than are needed, of arrays by path."""
    for name in {**needed, **checkpoint.leaves}:
        there, here = (_kind(leaves.get(name)) for leaves in (checkpoint.leaves, needed))
        if there != here:
            raise ValueError(
                f"the checkpoint of round {checkpoint.round} has {there} for {name}, and this "
                f"program needs {here}: it was made by another version; go on with that one, or "
                "pass --overwrite to start anew"
            )


def _put(leaf, saved, sharding):
    value = jax.device_put(saved, sharding)
    if _is_key(leaf):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
    return value


def _kind(leaf):
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
