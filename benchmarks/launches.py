"""What a round launches on an accelerator that need not be there: kernels by stage, and memory.

    python -m benchmarks.launches [--config=FILE] [--set FIELD=VALUE ...] [--target=h100|v5e|cpu]
                                  [--devices=D] [--stack=R] [--text=FILE] [--json=FILE]

Compiles one round, with its evaluation, for devices of the target and counts what its program
launches: fusions, copies, sorts, scatters and library calls, those in a loop as often as it turns.
Of a loop whose length the compiler does not know, whose condition goes to the host each time, one
turn is counted, and the loop is listed, as all loops of a TPU's program are; of branches, all are
counted. With `--stack`, of R runs as one program. Of several devices, counts the megabytes too
that each sends over the interconnect, as collectives around a ring do it.
Needs a JAX with the target's compiler, in an environment of its own:
`pip install 'jax[cuda12]'`, or `'jax[tpu]'`; cpu: none, the devices are pretended.
"""

import collections
import math
import os
import pathlib
import re
import time

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from benchmarks.settings import make_parser, set_fields, write_json
from cefl_jax import build, config, parallel, program
from cefl_jax.runtime import cpu

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
STAGES = (
    "sampling",
    "clustering",
    "offloading",
    "schedule",
    "batches",
    "training",
    "aggregation",
    "distillation",
    "ledger",
    "evaluation",
)
FREE = {  # nothing is launched for these
    "after-all",
    "async-done",
    "bitcast",
    "constant",
    "copy-done",
    "get-tuple-element",
    "opt-barrier",
    "optimization-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\([^=]*?\)|\S+) ([a-z][\w\-]*)\(")
ARRAY = re.compile(r"\b([a-z]+)(\d*)\[([\d,]*)\]")
RING = {  # bytes that a device sends around a ring of D, by those of the result
    "all-gather": lambda size, d: size * (d - 1) / d,
    "all-reduce": lambda size, d: 2 * size * (d - 1) / d,
    "all-to-all": lambda size, d: size * (d - 1) / d,
    "collective-permute": lambda size, d: size,
    "reduce-scatter": lambda size, d: size * (d - 1),
}


class Launches:
    """Counts the kernels of a compiled program.

    Args:
      text: of the program, as XLA prints it once compiled.
      devices: D of the program.
    """

    def __init__(self, text: str, devices: int = 1):
        self.computations, self.entry = read_computations(text)
        self.devices = devices
        self.by_stage: collections.Counter[str] = collections.Counter()
        self.sent: collections.Counter[tuple[str, str]] = collections.Counter()  # bytes, by stage
        self.unknown: list[tuple[str, int, float]] = []  # name; kernels and bytes of one turn
        self._count(self.entry, 1)

    def _count(self, name, times):
        for line in self.computations[name]:
            found = INSTRUCTION.match(line)
            if not found:
                continue
            operation, where = found[2], name_of(line)
            if operation == "while":
                turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                before, sent = self.by_stage.total(), self.sent.total()
                inner = times * (int(turns[1]) if turns else 1)
                self._count(called(line, "body"), inner)
                if turns is None:
                    self._count(called(line, "condition"), inner)
                    kernels = (self.by_stage.total() - before) // times
                    self.unknown.append((where, kernels, (self.sent.total() - sent) / times))
            elif operation == "call":
                self._count(called(line, "to_apply"), times)
            elif operation == "conditional":
                for branch in re.search(r"branch_computations=\{([^}]*)\}", line)[1].split(","):
                    self._count(branch.strip().lstrip("%"), times)
            elif operation not in FREE:
                self.by_stage[stage_of(where)] += times
                kind = operation.removesuffix("-start")
                if kind in RING:
                    size = size_of(found[1], last=operation == "all-gather-start")
                    self.sent[stage_of(where), kind] += times * RING[kind](size, self.devices)


def read_computations(text):
    """Returns {computation: its lines}, and the name of the entry."""
    computations, entry, lines = {}, None, []
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*-> .*\{", line)
        if head:
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("  "):
            lines.append(line)
    return computations, entry


def size_of(shape, last=False):
    """Returns the bytes of the arrays of a shape, or of the last one."""
    sizes = [
        max(int(bits or 8) // 8, 1) * math.prod(map(int, filter(None, sides.split(","))))
        for _, bits, sides in ARRAY.findall(re.sub(r"\{[^}]*\}", "", shape))
    ]
    return sizes[-1] if last else sum(sizes)


def called(line, key):
    """Returns the computation that an instruction calls."""
    return re.search(rf"{key}=%?([\w.\-]+)", line)[1]


def name_of(line):
    """Returns where an instruction comes from, as JAX names it."""
    found = re.search(r'op_name="([^"]*)"', line)
    return found[1] if found else ""


def stage_of(name):
    """Returns the outermost stage in a name, or "other"."""
    parts = re.findall(r"\w+", name)
    return next((part for part in parts if part in STAGES), "other")


def make_mesh(target, count):
    """Returns a mesh of devices of a target that need not be there."""
    if target == "h100":
        os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        named = {"topology_name": "x", "topology": f"1x1x{count}", "target_config": H100}
        devices = topologies.get_topology_desc(platform="cuda", **named).devices
    elif target == "v5e":
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        shape = next(
            x for x in ("2x2", "4x4", "8x8", "16x16") if math.prod(map(int, x.split("x"))) >= count
        )
        devices = topologies.get_topology_desc(f"v5e:{shape}", platform="tpu").devices
    jax.config.update("jax_platforms", "cpu")
    cpu.set_up(count if target == "cpu" else 1)
    if target == "cpu":
        devices = jax.devices()
    return Mesh(devices[:count], (parallel.AXIS,), axis_types=(AxisType.Auto,))


def compile_round(spec, mesh, stack):
    """Returns a compiled round of a run, or of a stack of runs, for the devices of a mesh."""
    parallel.make_mesh = lambda _, deterministic, flat: parallel.EdgeMesh(
        mesh, deterministic and not flat, flat
    )
    setup = build.prepare(spec)
    start, advance = program.make_program(setup)
    inputs = jax.device_get((program.make_hparams(spec), setup.data, setup.network))
    axes = (None, None, None) if stack is None else program.STACK_AXES
    key = jax.eval_shape(jax.random.key, 0)
    if stack is not None:
        start = jax.vmap(start, (0, *axes[1:]))
        advance = jax.vmap(advance, (0, *axes))
        inputs = jax.tree.map(
            lambda axis, tree: (
                tree
                if axis is None
                else jax.tree.map(lambda x: np.broadcast_to(x, (stack, *np.shape(x))), tree)
            ),
            axes,
            inputs,
            is_leaf=lambda x: x is None,
        )
        key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), stack))
    traced = jax.jit(start).trace(key, *inputs[1:])
    state = jax.tree.unflatten(jax.tree.structure(traced.out_info), traced.jaxpr.out_avals)
    everywhere = setup.mesh.everywhere
    jitted = jax.jit(advance, donate_argnums=0, in_shardings=everywhere, out_shardings=everywhere)
    return jitted.lower(state, *inputs).compile()


def main():
    """Compiles, and prints a table with a row for each stage."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--target", choices=("h100", "v5e", "cpu"), default="h100")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--stack", type=int, help="runs in one program; one alone by default")
    parser.add_argument("--text", type=pathlib.Path, help="where to write the program's text")
    options = parser.parse_args()
    mesh = make_mesh(options.target, options.devices)
    alone = ["run.devices=1", "run.eval_every=1", "train.rounds=1", "run.layout=flat"]
    settings = set_fields(config.load(options.config), [*alone, *options.set])
    began = time.monotonic()
    compiled = compile_round(config.to_spec(settings), mesh, options.stack)
    seconds = time.monotonic() - began
    text = compiled.as_text()
    if options.text:
        options.text.write_text(text)
    found, memory = Launches(text, options.devices), compiled.memory_analysis()
    print("| stage | kernels |", "| --- | ---: |", sep="\n")
    for stage in (*STAGES, "other"):
        print(f"| {stage} | {found.by_stage[stage]:,} |")
    print(f"| all | {found.by_stage.total():,} |")
    for (stage, kind), sent in found.sent.items():
        print(f"sent by each device in {stage}, {kind}: {sent / 1e6:,.3f} MB")
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    print(f"\ncompiled in {seconds:.0f} s; {held / 1e6:,.0f} MB on the device")
    print(f"loops whose length is not known before they run: {len(found.unknown)}")
    for name, kernels, sent in found.unknown:
        moved = f", {sent / 1e6:,.3f} MB sent" if sent else ""
        print(f"  {kernels} kernels{moved} a turn: {name}")
    facts = {"kernels": found.by_stage, "loops": found.unknown, "bytes": held, "seconds": seconds}
    facts["sent"] = {" ".join(key): sent for key, sent in found.sent.items()}
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
