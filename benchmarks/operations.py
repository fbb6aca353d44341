"""What the operations of a compiled program are, and how long each took under the profiler."""

import collections
import glob
import gzip
import json
import re
import tempfile
from typing import NamedTuple

import jax

CONTAINERS = frozenset({"while", "conditional", "call"})
"""Opcodes that only run others, which the profiler lists too."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\S+).*?\s([a-z][\w\-]*)\(")
_CALLED = re.compile(r"calls=%?([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


class Operation(NamedTuple):
    """An instruction of a compiled program."""

    opcode: str
    shape: str  # of its result, or the first word of a tuple's
    op_name: str  # path of named scopes that it was traced in; "" where the compiler says nothing
    called: str | None  # computation that a fusion runs
    inside: str | None  # computation that it is in; None for the program itself


def read_operations(text):
    """{name: Operation} of the text of a compiled program."""
    operations, inside = {}, None
    for line in text.splitlines():
        if begins := _COMPUTATION.match(line):
            inside = None if begins[1] else begins[2]
        elif found := _INSTRUCTION.match(line):
            called, op_name = _CALLED.search(line), _OP_NAME.search(line)
            operations[found[1]] = Operation(
                found[3], found[2], op_name[1] if op_name else "", called and called[1], inside
            )
    return operations


def name_stages(operations, stage_of):
    """{name: stage or None}, an operation without an op_name being like those around it.

    Args:
      operations: from `read_operations`.
      stage_of: from an op_name to a stage, or None where it names none.
    """
    stages = {name: stage_of(operation.op_name) for name, operation in operations.items()}
    within = collections.defaultdict(collections.Counter)
    for name, operation in operations.items():
        if stages[name] is not None:
            within[operation.inside][stages[name]] += 1
    for name, operation in operations.items():
        if operation.op_name:
            continue
        for computation in (operation.called, operation.inside):
            if computation is not None and within[computation]:
                ((stages[name], _),) = within[computation].most_common(1)
                break
    return stages


def trace(work):
    """Milliseconds and number of executions of every operation while `work()` runs.

    Args:
      work: a function of no arguments that waits until its results are there.
    Returns:
      Two Counters by operation.
    Raises:
      RuntimeError: where the profiler lists no operations.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            work()
        (path,) = glob.glob(f"{folder}/**/perfetto_trace.json.gz", recursive=True)
        with gzip.open(path) as lines:
            events = json.load(lines)
    events = events["traceEvents"] if isinstance(events, dict) else events
    took, times = collections.Counter(), collections.Counter()
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and name is not None:
            took[name] += 1e-3 * event["dur"]
            times[name] += 1
    if not took:
        raise RuntimeError("the profiler listed no operations of the compiled program")
    return took, times
