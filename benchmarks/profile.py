"""The stages of a round: time of their operations under the profiler, and their FLOPs."""

import collections
import glob
import gzip
import json
import re
import tempfile
from typing import NamedTuple

import jax

from cefl_jax.stages.distillation import TEACHES

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


STAGES = (
    "sampling",
    "clustering",
    "offloading",
    "schedule",
    "batches",
    "forward",
    "backward",
    "local updates",
    "aggregation",
    "distillation, forward",
    "distillation, backward",
    "distillation, batches and updates",
    "ledger",
    "elsewhere",
)
MODEL = ("forward", "backward", "distillation, forward", "distillation, backward")
SCOPES = frozenset({*STAGES, "training", "distillation"})


def stage_of(op_name):
    """The stage that an op_name's scopes name, or None."""
    words = re.findall(r"\w+", op_name)
    scope = next((word for word in words if word in SCOPES), None)
    way = "backward" if "transpose(" in op_name else "forward"
    if scope == "training":
        if "batches" in words:
            return "batches"
        return way if "gradients" in words else "local updates"
    if scope == "distillation":
        # Modules of the model have capitals; a teacher's predictions are outside of any gradient.
        models = "jvp(" in op_name or re.search(r"/[A-Z]\w*/", op_name)
        return f"distillation, {way if models else 'batches and updates'}"
    return scope


def count_flop(work, spec, samples, uploaded):
    """{stage: FLOPs} of so many samples trained on and so many uploaded; see `Workload`."""
    back_backward = work.back_train_flop - work.back_forward_flop
    flop = {
        "forward": samples * (work.front_forward_flop + work.back_forward_flop),
        "backward": samples * (work.front_backward_flop + back_backward),
    }
    if spec.rule != "none":
        cloud_teaches, edge_teaches = TEACHES[spec.rule]
        back, cloud = work.back_forward_flop, work.cloud_forward_flop
        forward = (spec.epochs + edge_teaches) * back + (spec.epochs + cloud_teaches) * cloud
        backward = work.back_distill_flop - back + work.cloud_train_flop - cloud
        flop["distillation, forward"] = uploaded * forward
        flop["distillation, backward"] = uploaded * spec.epochs * backward
    return flop


def split_time(text, work, round_ms):
    """`round_ms` divided among the stages, and the operations by their part of it.

    Returns:
      {stage: ms}, list of dicts, and the milliseconds of all operations under the profiler.
    """
    operations = read_operations(text)
    stages = name_stages(operations, stage_of)
    took, times = trace(work)
    took = {
        name: ms
        for name, ms in took.items()
        if name in operations and operations[name].opcode not in CONTAINERS
    }
    traced_ms = sum(took.values())
    scale = round_ms / traced_ms
    shared, listed = collections.Counter(), []
    for name, ms in sorted(took.items(), key=lambda item: -item[1]):
        stage, operation = stages[name] or "elsewhere", operations[name]
        shared[stage] += scale * ms
        listed.append(
            {
                "name": name,
                "stage": stage,
                "ms": scale * ms,
                "times": times[name],
                "shape": operation.shape,
                "op_name": operation.op_name,
            }
        )
    return dict(shared), listed[:40], traced_ms
