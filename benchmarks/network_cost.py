"""What dynamics, offloading and the ledger add to a round's time: with and without, alternating.

    python -m benchmarks.network_cost [--repeats=7] [--data=fashion_mnist] [--json=FILE]

100 clients a round, 10 edge nodes, 10 clusters, LeNet-5 on Fashion-MNIST, Dirichlet(0.1), mutual
distillation. Without: the same sampling, clustering and training, cluster m on node m, a network
that never changes and a ledger that is never charged. Nobody leaves, so both train alike. The
decisions of both are timed without training as well, since that difference is small beside a round.
"""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.settings import about_machine, make_parser, write_json
from cefl_jax import build, compiler, config, program
from cefl_jax.network.ledger import RoundCost, empty_ledger
from cefl_jax.network.schedule import Schedule
from cefl_jax.runtime import cpu
from cefl_jax.stages.round_planner import RoundPlanner

SETTINGS = {
    "data.partition.alpha": 0.1,
    "train.clients_per_round": 100,
    "data.partition.num_clients": 200,
    "cefl.clustering.num_clusters": 10,
    "network.preset": "device_zoo",
    "network.num_edges": 10,
}
DYNAMICS = {
    "markov": {"network.dynamics": "markov", "network.leave_probability": 0.0},
    "static": {"network.dynamics": "static"},
}


class Bare(RoundPlanner):
    """Decides who trains with whom, and nothing of the network."""

    def _place(self, key, plan, samples, network):
        return jnp.where(plan.members > 0, jnp.arange(self.num_clusters), -1), jnp.float32(0)

    def _simulate(self, task, network):
        steps = (task.samples > 0).sum(1, dtype=jnp.int32)
        everyone = steps > 0
        nothing = dict.fromkeys(Schedule._fields)
        return Schedule(**nothing | {"steps": steps, "finished": everyone, "counts": everyone})

    def cost(self, decision, num_kinds):
        """Nothing."""
        return RoundCost(*empty_ledger(num_kinds))


def make_setup(data, dynamics):
    """The checked run; without a network where nothing changes."""
    setup = build.prepare(config.make_spec(SETTINGS, {"data.name": data}, DYNAMICS[dynamics]))
    return without_network(setup) if dynamics == "static" else setup


def without_network(setup):
    """The same run with decisions that know nothing of the network."""
    return setup._replace(planner=Bare(**vars(setup.planner)))


def make_decision(setup):
    """Returns the decision of a round, not yet jitted, with the arguments of a round."""
    planner = setup.planner

    def decide(state, hparams, data, network):
        decision = planner.decide(state.key, state.round, state.conditions, data, network)
        cost = planner.cost(decision, len(setup.device_names))
        kept = decision.plan, cost
        return state._replace(round=state.round + 1, conditions=decision.conditions), kept

    return decide


def compile_round(setup, train=True):
    """A function of no arguments that does one more round, or only decides it; and seconds."""
    began = time.monotonic()
    arrays = jax.device_put((setup.data, setup.network), setup.mesh.everywhere)
    start, step = program.make_round(setup)
    step = step if train else make_decision(setup)
    state = compiler.jit(start)(jax.random.key(setup.spec.seed), *arrays)
    hparams = program.make_hparams(setup.spec)
    compiled = compiler.compile_lowered(jax.jit(step).lower(state, hparams, *arrays))
    holder = [state]

    def advance():
        result = compiled(holder[0], hparams, *arrays)
        holder[0] = jax.block_until_ready(result)[0]

    return advance, time.monotonic() - began


def alternate(first, second, repeats):
    """Milliseconds of each call of two functions, in turns, the first calls of both left out."""
    times = [], []
    for repeat in range(repeats + 1):
        for advance, taken in zip((first, second), times, strict=True):
            began = time.perf_counter()
            advance()
            if repeat:
                taken.append(1000.0 * (time.perf_counter() - began))
    return times


def main():
    """Times, prints a table, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--data", default="fashion_mnist")
    options = parser.parse_args()
    cpu.set_up(1)
    whole, bare = make_setup(options.data, "markov"), make_setup(options.data, "static")
    rows = {}
    for name, train, repeats in (
        ("round", True, options.repeats),
        ("decisions alone", False, 10 * options.repeats),
    ):
        pairs = (compile_round(whole, train), compile_round(bare, train))
        times = alternate(*(advance for advance, _ in pairs), repeats)
        for kind, taken, (_, compile_s) in zip(("with", "without"), times, pairs, strict=True):
            rows[f"{name}, {kind}"] = {
                "median_ms": statistics.median(taken),
                "least_ms": min(taken),
                "most_ms": max(taken),
                "calls": len(taken),
                "compile_s": compile_s,
            }
    print("| program | median ms | least | most | calls | compile s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['median_ms']:.2f} | {row['least_ms']:.2f} | {row['most_ms']:.2f} "
            f"| {row['calls']} | {row['compile_s']:.1f} |"
        )
    median = {name: row["median_ms"] for name, row in rows.items()}
    ratio = median["round, with"] / median["round, without"]
    added = median["decisions alone, with"] - median["decisions alone, without"]
    share = added / median["round, without"]
    print(f"a round with / without: {ratio:.3f}; decisions add {added:.2f} ms, {share:.2%} of it")
    facts = {"rows": rows, "ratio": ratio, "share": share} | about_machine()
    write_json(options.json, facts)


if __name__ == "__main__":
    main()
