"""The stages of a round: which operations of the compiled program are of which, and their FLOPs."""

import collections
import re

from benchmarks.operations import CONTAINERS, name_stages, read_operations, trace
from cefl_jax.stages.distillation import TEACHES

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
