"""What one process has made and the next would make again, kept on disk: compiled programs."""

import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import site
import sys
import sysconfig
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.experimental import serialize_executable

from cefl_jax.runtime import cpu
from cefl_jax.safe_read import one_line

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
UNREAD = ("cache", "log", "traceback", "debug", "dump")  # of JAX's settings: change no program
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
NOT_KEPT = (
    "compiled programs cannot be kept for later runs: {}; make room or rights there, or pass "
    "--config.run.compile_cache=False"
)
MAX_BYTES = 2**29  # what was used longest ago goes first

T = TypeVar("T")


def open_kept(warn: Callable[[str], object] = print) -> "Kept | None":
    """Returns what is kept for this kind of machine; None where JAX has a cache of its own.

    A program that JAX has read from its cache (`JAX_COMPILATION_CACHE_DIR`) cannot be kept again.
    Nor is anything where several processes compute together.

    Args:
      warn: as of Kept; also called where there is no folder for it.
    """
    if jax.config.values["jax_compilation_cache_dir"] or jax.process_count() > 1:
        return None
    try:
        return Kept(cache_folder() / cpu.machine(), warn)
    except OSError as error:
        warn(NOT_KEPT.format(one_line(str(error))))
        return None


def cache_folder() -> Path:
    """The folder for all machines: below `XDG_CACHE_HOME` where that is absolute, or `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise OSError(str(error)) from error
    return base / "cefl_jax"


class Kept:
    """A folder of what pure functions of settings have returned.

    A key holds besides what is given for it everything else that such a function depends on: all
    Python files of this package and those that are loaded and not installed, such as a person's
    model; versions; JAX's settings and the devices.

    Args:
      folder: made when something is kept; who can write there can run code.
      warn: called with one line where something in it is damaged, or it cannot be written.
    """

    def __init__(self, folder: Path, warn: Callable[[str], object] = print):
        self.folder, self.warn = folder, warn

    def recall(
        self,
        key: Hashable,
        make: Callable[[], T],
        pack: Callable[[T], Any] = lambda made: made,
        unpack: Callable[[Any], T] = lambda packed: packed,
    ) -> T:
        """Returns what was kept under a key; makes it and keeps it where there is nothing.

        Args:
          key: what tells it from others, by its `repr`.
          make: what makes it.
          pack: from it to what can be pickled.
          unpack: the inverse.
        """
        text = repr((key, _surroundings()))
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.kept"
        try:
            return unpack(_read(path))
        except FileNotFoundError:
            pass
        except Exception as error:  # of a damaged file, or of a device's driver that has changed
            self.warn(f"{path} cannot be used, and is made anew: {one_line(str(error))}")
        made = make()
        try:
            self._write(path, pack(made))
        except (OSError, ValueError, NotImplementedError) as error:
            self.warn(NOT_KEPT.format(one_line(str(error))))
        return made

    def remember(self, function: Callable[..., T]) -> Callable[..., T]:
        """Returns a pure function that looks first for what it has returned earlier."""

        def recalled(*arguments):
            key = function.__qualname__, arguments
            return self.recall(key, lambda: function(*arguments))

        return recalled

    def _write(self, path, packed):
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = pickle.dumps(packed)
        new = path.with_suffix(f".{os.getpid()}")
        try:
            new.write_bytes(hashlib.sha256(content).digest() + content)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        self._make_room()

    def _make_room(self):
        """Removes what was used longest ago, until the rest is small enough."""
        known = sorted(_stats(self.folder), reverse=True)
        held = 0
        for _, size, path in known:
            held += size
            if held > MAX_BYTES:
                path.unlink(missing_ok=True)


def pack_programs(programs: tuple[jax.stages.Compiled, ...]) -> list[tuple[Any, ...]]:
    """Returns compiled functions as what can be pickled.

    Raises:
      ValueError, NotImplementedError: where a device's compiler has no such thing.
    """
    return [serialize_executable.serialize(program) for program in programs]


def unpack_programs(
    devices: list[jax.Device], packed: list[tuple[Any, ...]]
) -> tuple[jax.stages.Compiled, ...]:
    """Returns the functions of `pack_programs` for the devices for which they were compiled."""
    load = functools.partial(serialize_executable.deserialize_and_load, execution_devices=devices)
    return tuple(load(*program) for program in packed)


def _read(path):
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is damaged")
    os.utime(path)
    return pickle.loads(content)


def _stats(folder) -> Iterator[tuple[float, int, Path]]:
    for path in folder.glob("*.kept"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process has made room
            continue
        yield stat.st_mtime, stat.st_size, path


def _surroundings():
    """What a program depends on besides its settings."""
    settings = {
        name: value
        for name, value in sorted(jax.config.values.items())
        if not any(word in name for word in UNREAD)
    }
    devices = [(device.id, device.device_kind, device.platform) for device in jax.devices()]
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return _versions(), _hash_sources(), settings, devices, variables


@functools.cache
def _versions():
    return platform.python_version(), *map(importlib.metadata.version, PACKAGES)


def _hash_sources():
    """The SHA-256 of all Python files that are no installed package's, or this one's."""
    installed = [*site.getsitepackages(), *sysconfig.get_paths().values()]
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = Path(__file__).parents[1]
    files = {
        Path(file)
        for file in loaded
        if file and file.endswith(".py") and not file.startswith(tuple(installed))
    }
    digest = hashlib.sha256()
    for path in sorted(files | {*own.rglob("*.py")}):
        digest.update(f"{path.name}\n".encode())
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
