"""What the decisions of a round cost: clustering, offloading, and the simulated network.

    python -m benchmarks.decisions [--only=WORD] [--shape=K,M,E] [--seconds=1] [--json=FILE]

Each alone, as a program of its own, for K clients, M clusters and E edge nodes, on the accelerator
where there is one, and compiled as runs are. `--only` takes the programs with WORD in their
names. Label counts are Dirichlet(0.1) of 10 classes, costs uniform, links and devices log-normal;
clients make 50 local steps. `singleton` means M = K.
"""

import statistics
import time

import jax
import numpy as np

from benchmarks.settings import about_machine, make_parser, write_json
from cefl_jax.compiler import compile_lowered
from cefl_jax.models.cost import Workload
from cefl_jax.network.costs.pair_costs import pair_costs
from cefl_jax.network.messages import Payload, Sizes
from cefl_jax.network.schedule import simulate
from cefl_jax.network.step_times import Task
from cefl_jax.network.topology import Devices, RoundNetwork
from cefl_jax.runtime import cpu
from cefl_jax.specs import ClusteringSpec
from cefl_jax.stages.clustering import ClientSeconds, cluster_clients
from cefl_jax.stages.offload import match

SHAPES = ((20, 4, 4), (100, 10, 10), (1000, 64, 64))  # K, M, E
STEPS, LABELS, MAX_CALLS = 50, 10, 100
RULES = ("patent", "balanced", "astraea", "random", "singleton")
FEATURE_BYTES, MODEL_BYTES = 4 * 1176, 4 * 22000
WORK = Workload(2e5, 4e5, 6e5, 2e6, 2e6, 6e6, 2e6, FEATURE_BYTES, MODEL_BYTES, MODEL_BYTES, 0)
SIZES = Sizes(Payload(FEATURE_BYTES, 0), Payload(FEATURE_BYTES, 0), 4, MODEL_BYTES, MODEL_BYTES)


def make_counts(rng, num_clients):
    """Label counts i32[K, Y], each label's examples dealt by Dirichlet(0.1)."""
    shares = rng.dirichlet(np.full(num_clients, 0.1), size=LABELS)
    return np.int32([rng.multinomial(60 * num_clients, p) for p in shares]).T


def make_network(rng, num_clients, num_edges):
    """A RoundNetwork of uneven devices and links."""

    def spread(middle, *shape):
        return np.float32(middle * np.exp(rng.normal(0, 0.5, shape)))

    def devices(flop_per_s, *shape):
        leaves = [spread(x, *shape) for x in (flop_per_s, 2.0, 8.0, 0.2)]
        return Devices(*leaves, np.zeros(shape, np.int32))

    k, e = num_clients, num_edges
    links = [spread(2e7, k, e) for _ in range(2)]
    fronts = [spread(2e7, k) for _ in range(2)]
    return RoundNetwork(
        devices(1e9, k), devices(1e11, e), devices(1e11), devices(1e13), spread(0.3, k, e),
        *links, *links, *fronts, spread(1e8, e),
    )  # fmt: skip


def make_task(rng, num_clients, num_clusters, num_edges):
    """A Task of clients in the order of their clusters."""
    samples = np.full((num_clients, STEPS), 20, np.int32)
    cluster = np.sort(np.arange(num_clients, dtype=np.int32) % num_clusters)
    placement = rng.integers(0, num_edges, num_clusters).astype(np.int32)
    return Task(samples, cluster, placement, *np.full((2, num_clients), STEPS, np.int32))


def programs(num_clients, num_clusters, num_edges):
    """{name: (function, arguments)} of one shape."""
    rng = np.random.default_rng(0)
    counts, key = make_counts(rng, num_clients), jax.random.key(0)
    network = make_network(rng, num_clients, num_edges)
    cost = np.float32(rng.uniform(1, 10, (num_clusters, num_edges)))
    rules = {}

    def clusters(name, spec):
        def run(key, counts, seconds):
            return cluster_clients(key, counts, spec, counts.sum(1) >= 0, seconds)

        seconds = ClientSeconds(*np.float32(rng.gamma(1, 5, (2, num_clients, num_edges))))
        rules[f"cluster {name}"] = run, (key, counts, seconds)

    for rule in RULES:
        clusters(rule, ClusteringSpec(rule, num_clusters))
    if num_clients <= 100:
        clusters("joint", ClusteringSpec("balanced", num_clusters, network_weight=0.01))
    for objective in ("sum", "bottleneck"):
        run = lambda cost, objective=objective: match(cost, objective)  # noqa: E731
        rules[f"match {objective}"] = run, (cost,)
    for name, m in (("", num_clusters), (", singleton", num_clients)):
        task = make_task(rng, num_clients, m, num_edges)

        def price(task, network, m=m):
            return pair_costs(task.samples, task.uploads, task.cluster, network, WORK, SIZES, m)

        rules[f"pair_costs{name}"] = price, (task, network)
        run = lambda task, network: simulate(task, network, WORK, SIZES)  # noqa: E731
        rules[f"simulate{name}"] = run, (task, network)
        run = lambda task, network: simulate(task, network, WORK, SIZES, 60.0, True)  # noqa: E731
        rules[f"simulate, late kept{name}"] = run, (task, network)
    return rules


def measure(function, arguments, seconds):
    """Seconds of tracing and compiling, and milliseconds of each call after the first."""
    arguments = jax.device_put(arguments)
    began = time.perf_counter()
    lowered = jax.jit(function).lower(*arguments)
    traced = time.perf_counter()
    compiled = compile_lowered(lowered)
    done = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    taken = []
    while len(taken) < 3 or (1e-3 * sum(taken) < seconds and len(taken) < MAX_CALLS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        taken.append(1000.0 * (time.perf_counter() - start))
    return {"trace_s": traced - began, "compile_s": done - traced, "calls_ms": taken}


def main():
    """Times, prints a table, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--shape", metavar="K,M,E", help="in place of three others")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    cpu.set_up(1)
    jax.config.update("jax_enable_compilation_cache", False)
    measure(lambda x: x + 1, (np.float32(0),), 0.0)  # starts the device
    rows = []
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    print("| program | K | M | E | median ms | least | most | calls | trace s | compile s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    shapes = [tuple(map(int, options.shape.split(",")))] if options.shape else SHAPES
    for shape in shapes:
        for name, (function, arguments) in programs(*shape).items():
            if options.only not in name:
                continue
            row = measure(function, arguments, options.seconds)
            row |= {"median_ms": statistics.median(row["calls_ms"])}
            rows.append({"program": name, "shape": shape, **row})
            taken, sizes = row["calls_ms"], " | ".join(map(str, shape))
            print(
                f"| {name} | {sizes} | {row['median_ms']:.3f} | {min(taken):.3f} "
                f"| {max(taken):.3f} | {len(taken)} | {row['trace_s']:.2f} "
                f"| {row['compile_s']:.2f} |",
                flush=True,
            )
    write_json(options.json, {"rows": rows} | about_machine())


if __name__ == "__main__":
    main()
