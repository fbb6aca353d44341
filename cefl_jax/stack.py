"""Runs whose program is the same: one after another with one compilation, or side by side."""

import dataclasses
import functools
import time
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from cefl_jax import program
from cefl_jax.build import Setup
from cefl_jax.config import fields
from cefl_jax.methods import METHODS
from cefl_jax.runtime.checkpoint import Checkpoint, check_leaves, flatten, restore
from cefl_jax.runtime.kept import Kept, pack_programs, unpack_programs
from cefl_jax.specs import DataSpec, Spec
from cefl_jax.stages.round_plan import StaticBounds

READ_AS_ARRAYS = ("network.preset", "network.path", "network.trace")
"""Settings of which the program knows the arrays that they make, and nothing else."""

KEPT = 8  # programs that a Compiler holds


class Stack:
    """One run, or several side by side, on the devices.

    Args:
      setups: of the runs; all of one `stack_key`, and with a mesh for stacks if there are several.
      made: from a `Compiler`.
      pasts: the Checkpoint from which each goes on, or None.
    """

    def __init__(self, setups, made, pasts):
        self._stacked = setups[0].mesh.stacked
        self._state, self._advance, self._inputs, self.compile_s = made
        self._state = self._resume(setups[0].mesh, pasts)
        self._leaves = None

    @property
    def first(self) -> tuple[Any, Any]:
        """The state and the inputs of a run that is alone."""
        return self._state, self._inputs

    def advance(self) -> float:
        """Computes one chunk of rounds of every run; returns the seconds that it took."""
        began, self._leaves = time.monotonic(), None
        self._state, chunk = self._advance(self._state, *self._inputs)
        self._chunk = jax.device_get(chunk)
        return time.monotonic() - began

    def chunk(self, run: int) -> Any:
        """Returns the program.Chunk of a run, on the host."""
        return jax.tree.map(lambda x: x[run], self._chunk) if self._stacked else self._chunk

    def leaves(self, run: int) -> dict[str, np.ndarray]:
        """Returns the leaves of a run's state, as `checkpoint.flatten`; all are copied once."""
        if self._leaves is None:
            self._leaves = flatten(self._state)
        if not self._stacked:
            return self._leaves
        return _row(self._leaves, run)

    def _resume(self, mesh, pasts):
        """The state in which runs that have a checkpoint go on from there."""
        if not any(pasts):
            return self._state
        if not self._stacked:
            return restore(pasts[0], self._state, mesh.everywhere)
        fresh = flatten(self._state)
        rows = [past.leaves if past else _row(fresh, run) for run, past in enumerate(pasts)]
        saved = {path: np.stack([row[path] for row in rows]) for path in rows[0]}
        return restore(Checkpoint(0, saved, {}), self._state, mesh.by_run)


def _row(leaves, run):
    """A run's own leaves; arrays, where indexing makes scalars of the last axis."""
    return {path: np.asarray(leaf[run]) for path, leaf in leaves.items()}


def program_settings(spec: Spec) -> Spec:
    """Returns the settings that a program is made of: equal where it may be the same.

    The seed, the data, the network's arrays, and the settings in `program.TRACED` and in
    `MethodInfo.traced` are left out.
    """
    method = spec.method.name
    own = (f"{method}.{name}" for name in METHODS[method].traced)
    known = fields.defaults()
    inputs = {path: known[path] for path in (*program.TRACED.values(), *own, *READ_AS_ARRAYS)}
    return dataclasses.replace(spec.replace(inputs), seed=0, data=DataSpec())


def stack_key(setup: Setup) -> Hashable:
    """Returns what is equal where runs can be side by side: settings, samples and shapes."""
    data = setup.data
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype.name), (data, setup.network))
    samples = data.sha256(), data.mean.tobytes(), data.std.tobytes()
    size = setup.planner.work, len(setup.device_names), str(shapes)
    return program_settings(setup.spec), *size, *samples


def pad(setups: Sequence[Setup], width: int) -> list[Setup]:
    """Returns the first so many setups of a stack; the last stands for those that are missing."""
    held = list(setups[:width])
    return held + held[-1:] * (width - len(held))


def join(setups: Sequence[Setup]) -> list[Setup]:
    """Returns the setups of a stack's runs, each with the largest of their static bounds."""
    every = zip(*(setup.planner.bounds for setup in setups), strict=True)
    bounds = StaticBounds(*map(max, every))
    return [
        setup._replace(planner=dataclasses.replace(setup.planner, bounds=bounds))
        for setup in setups
    ]


def check_past(made: tuple[Any, ...], setups: Sequence[Setup], past: Checkpoint | None) -> None:
    """Raises ValueError where the checkpoint of a run has other leaves than its program's state.

    Args:
      made: from a `Compiler`.
      setups: of the run or of its stack.
      past: Checkpoint, or None.
    """
    if past:
        leaves = flatten(made[0])
        check_leaves(past, _row(leaves, 0) if setups[0].mesh.stacked else leaves)


class Compiler:
    """Puts runs on the devices and compiles, where the program is the same only once.

    Args:
      kept: programs of earlier processes, and of this one for later ones; None for no such thing.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept
        self._known: dict[Hashable, tuple[Any, Any]] = {}
        self._spent_s = 0.0  # on what was compiled to count its bytes

    def forget(self) -> None:
        """Drops all programs, which hold memory of the devices."""
        self._known.clear()

    def __call__(
        self, setups: Sequence[Setup], display: Any
    ) -> tuple[Any, Any, program.Inputs, float]:
        """Compiles one run or a stack.

        Args:
          setups: of the run or of the runs, as of `program.put_inputs`.
          display: console.Display, or one that acts like it.
        Returns:
          The first state, the compiled `advance`, its other arguments, and seconds.
        """
        began, self._spent_s = time.monotonic() - self._spent_s, 0.0
        inputs = program.put_inputs(setups)
        start, advance = self._compiled(setups, inputs, display)
        return program.begin(setups, start, inputs), advance, inputs, time.monotonic() - began

    def bytes(self, setups: Sequence[Setup], display: Any) -> int:
        """Returns the bytes that the program of a stack needs on each device; it is compiled."""
        began = time.monotonic()
        _, advance = self._compiled(setups, program.put_inputs(setups), display)
        self._spent_s += time.monotonic() - began
        return count_bytes(advance)

    def _compiled(self, setups, inputs, display):
        mesh = setups[0].mesh
        key = stack_key(setups[0]), setups[0].planner.bounds, mesh, len(setups)

        def compile():
            many = f" of {len(setups)} runs side by side" if len(setups) > 1 else ""
            display.note(f"compiling the round{many} ...")
            return program.compile_both(setups, inputs)

        if key not in self._known:
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = self._recall(key, mesh, compile)
        return self._known[key]

    def _recall(self, key, mesh, compile):
        """The program that an earlier process has kept, or that `compile` makes."""
        if self._kept is None:
            return compile()
        load = functools.partial(unpack_programs, list(mesh.mesh.devices.flat))
        return self._kept.recall(("program", key), compile, pack_programs, load)


def count_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes that a compiled program needs on each device at once."""
    used: Any = compiled.memory_analysis()
    held = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
    return held - used.alias_size_in_bytes
