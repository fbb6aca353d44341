"""Where the time of a round goes, stage by stage, against this device's own matmul rate.

    python -m benchmarks.roofline [--config=configs/patent.py] [FIELD=VALUE ...] [--json=FILE]

A stage's time is its part of the operations' times under the profiler, scaled to the same rounds
without the profiler; a fused operation counts where its result belongs. FLOPs are those that the
model needs, with convolutions as convolutions, on the samples of these very rounds and not on
padding. Forward and backward are those of split training; distillation has its own.
"""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.cefl_worker import make_round
from benchmarks.profile import MODEL, STAGES, count_flop, split_time
from benchmarks.settings import make_parser, set_fields, write_json
from benchmarks.timing import environment
from cefl_jax import build, compiler, config, program
from cefl_jax.runtime import cpu
from cefl_jax.stages import round_plan
from cefl_jax.stages.evaluation import evaluate

MATMUL_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def measure_matmul(repeats=7):
    """FLOP/s of a large float32 matrix product at the program's own precision."""
    side = MATMUL_SIDE[jax.default_backend()]
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = compiler.jit(jnp.matmul)
    product(a, a).block_until_ready()
    return 2 * side**3 / statistics.median(_seconds(lambda: product(a, a), repeats))


def profile_rounds(setup, rounds, repeats):
    """The rounds after the first, each timed alone and then once more under the profiler.

    Returns:
      dict with `rounds_ms`, the median of each; `samples` and `uploaded` of a round; `stages`,
      milliseconds of a round; `operations`, those that took longest; and the state after them.
    """
    state, step, arrays = make_round([setup])
    compiled = compiler.compile_lowered(jax.jit(step).lower(state, *arrays))
    states, rounds_ms = [compiled(state, *arrays)[0]], []
    for _ in range(rounds):
        taken = _seconds(lambda: compiled(states[-1], *arrays), repeats)
        rounds_ms.append(1000.0 * statistics.median(taken))
        states.append(compiled(states[-1], *arrays)[0])
    samples, uploaded = _count_samples(setup, states[:-1], arrays)

    def again():
        for state in states[:-1]:
            jax.block_until_ready(compiled(state, *arrays))

    round_ms = statistics.mean(rounds_ms)
    stages, operations, traced_ms = split_time(compiled.as_text(), again, round_ms)
    facts = {
        "rounds_ms": rounds_ms,
        "round_ms": round_ms,
        "traced_ms": traced_ms / rounds,
        "samples": samples,
        "uploaded": uploaded,
        "stages": stages,
        "operations": operations,
    }
    return facts, states[-1]


def measure_evaluation(setup, state, repeats):
    """Milliseconds of each evaluation as the run does it, and its FLOPs."""
    work, arrays = (
        setup.planner.work,
        jax.device_put((setup.data, setup.network), setup.mesh.everywhere),
    )

    def score(state, data, network):
        method = program.make_method(setup, data, network)
        return evaluate(method.predictors, state, data, setup.mesh), method.measures(state)

    compiled = compiler.compile_lowered(jax.jit(score).lower(state, *arrays))
    jax.block_until_ready(compiled(state, *arrays))
    taken = _seconds(lambda: compiled(state, *arrays), repeats)
    both = setup.spec.cefl.distill.rule != "none"
    of_each = work.front_forward_flop + work.back_forward_flop + both * work.cloud_forward_flop
    probe = min(setup.spec.cefl.privacy.probe_size, len(setup.data.test_labels))
    flop = len(setup.data.test_labels) * of_each + probe * work.front_forward_flop
    return [1000.0 * second for second in taken], flop


def table(facts):
    """Markdown of what `main` found out."""
    round_ms, rate, flop = facts["round_ms"], facts["matmul_flop_per_s"], facts["flop"]
    lines = [
        "| stage | ms of a round | share | GFLOP | GFLOP/s | of the matmul rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]

    def add(name, ms, gflop, share):
        cells = "| | | |"
        if gflop:
            cells = f"| {gflop:.3f} | {gflop / ms * 1e3:.1f} | {gflop / ms * 1e12 / rate:.1%} |"
        lines.append(f"| {name} | {ms:.2f} | {share:.1%} {cells}")

    stages = {name: facts["stages"].get(name, 0.0) for name in STAGES}
    for name, ms in stages.items():
        add(name, ms, 1e-9 * flop.get(name, 0.0), ms / round_ms)
    groups = {"**split training, forward + backward**": MODEL[:2]}
    groups["**distillation, forward + backward**"] = MODEL[2:]
    groups["**everything else**"] = [name for name in STAGES if name not in MODEL]
    groups["**round**"] = STAGES
    for title, names in groups.items():
        ms = sum(stages[name] for name in names)
        add(title, ms, 1e-9 * sum(flop.get(name, 0.0) for name in names), ms / round_ms)
    every, ms = facts["eval_every"], statistics.median(facts["evaluations_ms"])
    gflop = 1e-9 * facts["evaluation_flop"]
    add(f"evaluation, once in {every} rounds", ms / every, gflop / every, ms / every / round_ms)
    lines += ["", "| operation | stage | ms of a round | times | result | where |"]
    lines.append("|---|---|---:|---:|---|---|")
    for operation in facts["operations"][:10]:
        lines.append(
            f"| {operation['name']} | {operation['stage']} | {operation['ms']:.2f} "
            f"| {operation['times'] / len(facts['rounds_ms']):.0f} "
            f"| {operation['shape'].split('{')[0]} | …{operation['op_name'][-60:]} |"
        )
    return "\n".join(lines)


def _count_samples(setup, states, arrays):
    """Samples trained on and samples uploaded in the round after each state, their means."""
    spec, steps = setup.spec, setup.planner.bounds.steps
    planner = setup.planner

    @compiler.jit
    def count(state, data, network):
        decision = planner.decide(state.key, state.round, state.conditions, data, network)
        samples = round_plan.step_samples(decision.plan, spec.train.batch_size, steps)
        return samples.sum(), decision.uploaded

    counts = [count(state, *arrays[1:]) for state in states]
    return tuple(statistics.mean(map(int, column)) for column in zip(*counts, strict=True))


def _seconds(work, repeats):
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work())
        taken.append(time.perf_counter() - began)
    return taken


def main():
    """Measures, prints two tables, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", default="configs/patent.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    options = parser.parse_args()
    cpu.set_up(1)
    settings = set_fields(config.load(options.config), options.fields)
    jax.config.update("jax_enable_compilation_cache", False)
    setup = build.prepare(config.to_spec(settings))
    before = environment("jax", "jaxlib", "numpy")
    facts, state = profile_rounds(setup, options.rounds, options.repeats)
    distill = setup.spec.cefl.distill
    facts["flop"] = count_flop(setup.planner.work, distill, facts["samples"], facts["uploaded"])
    evaluations_ms, flop = measure_evaluation(setup, state, 2 * options.repeats)
    facts |= {
        "evaluations_ms": evaluations_ms,
        "evaluation_flop": flop,
        "eval_every": setup.spec.run.eval_every,
        "matmul_flop_per_s": measure_matmul(),
        "device": jax.devices()[0].device_kind,
        "spec": config.to_dict(setup.spec),
        "environment": before,
    }
    print(
        f"{facts['device']}: matmul {1e-9 * facts['matmul_flop_per_s']:.0f} GFLOP/s; a round takes "
        f"{facts['round_ms']:.1f} ms for {facts['samples']:.0f} samples, of which "
        f"{facts['uploaded']:.0f} are uploaded; its operations {facts['traced_ms']:.1f} ms under "
        "the profiler\n"
    )
    print(table(facts))
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
