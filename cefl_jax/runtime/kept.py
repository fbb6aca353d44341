"""What one process has made and the next would make again, kept on disk: compiled programs."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
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
UNFINISHED, DAY_S = ".unfinished", 86_400
MAX_BYTES = 2**29  # what was used longest ago goes first

T = TypeVar("T")


def open_kept(
    warn: Callable[[str], object] = print, run: Mapping[str, str] = MappingProxyType({})
) -> "Kept | None":
    """Returns what is kept for this kind of machine; None where JAX has a cache of its own.

    A program that JAX has read from its cache (`JAX_COMPILATION_CACHE_DIR`) cannot be kept again.
    Nor is anything where several processes compute together.

    Args:
      warn: as of Kept; also called where there is no folder for it.
      run: as of Kept.
    """
    if jax.config.values["jax_compilation_cache_dir"] or jax.process_count() > 1:
        return None
    try:
        return Kept(cache_folder() / cpu.machine(), warn, run)
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
    Python files of this package, those that are loaded and not installed, and those that were run
    as a config; versions; JAX's settings and the devices. A file counts as it was when it was first
    seen here: what is loaded does not change with it. Where code was loaded from no file that can
    be read, such as a zip, nothing is kept.

    Args:
      folder: made when something is kept; who can write there can run code.
      warn: called with one line where something in it is damaged, or it cannot be written.
      run: the SHA-256 of files that were run without being loaded, by path.
    """

    def __init__(
        self,
        folder: Path,
        warn: Callable[[str], object] = print,
        run: Mapping[str, str] = MappingProxyType({}),
    ):
        self.folder, self.warn, self.run = folder, warn, run
        _hash_sources()  # of what is loaded now, as it is now

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
        sources = _hash_sources()
        if None in sources.values():
            return make()
        text = repr((key, sorted(self.run.values()), sorted(sources.values()), _surroundings()))
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
        except Exception as error:  # a full disk, a device, a class that cannot be pickled
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
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=UNFINISHED, delete=False) as new:
            try:
                new.write(hashlib.sha256(content).digest() + content)
                new.close()
                Path(new.name).replace(path)
            finally:
                Path(new.name).unlink(missing_ok=True)
        self._make_room()

    def _make_room(self):
        """Removes what was used longest ago, until the rest is small enough."""
        held = 0
        for used, size, path in sorted(_stats(self.folder), reverse=True):
            held += size
            left = path.suffix == UNFINISHED and used < time.time() - DAY_S  # by a killed process
            if held > MAX_BYTES or left:
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
    with contextlib.suppress(OSError):  # somebody else's folder, to read alone
        os.utime(path)
    return pickle.loads(content)


def _stats(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in (*folder.glob("*.kept"), *folder.glob(f"*{UNFINISHED}")):
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
    devices = [
        (device.id, device.device_kind, device.client.platform_version) for device in jax.devices()
    ]
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return _versions(), settings, devices, variables


@functools.cache
def _versions():
    return platform.python_version(), *map(importlib.metadata.version, PACKAGES)


def _hash_sources():
    """SHA-256 by path of all Python files that are no installed package's, or this one's."""
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = {__file__, *map(str, Path(__file__).parents[1].rglob("*.py"))}
    theirs = {file for file in loaded if file and file.endswith(".py") and not _is_installed(file)}
    return {file: _hash_file(file) for file in theirs | own}


@functools.cache
def _hash_file(file):
    """None where it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@functools.cache
def _is_installed(file):
    """Whether a file is of an installed package or of Python itself."""
    python = sysconfig.get_paths()
    inside = any(Path(file).is_relative_to(python[kind]) for kind in ("stdlib", "platstdlib"))
    return inside or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
