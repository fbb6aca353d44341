"""How time and memory of a round grow, one axis at a time; each point a process, taking turns.

    python -m benchmarks.scaling [--axes=K,N] [--data=fashion_mnist] [--json=FILE] [FIELD=VALUE ...]

Axes: N clients in the population, K in the round, E edge nodes, C clients of a cluster, S local
steps, model, D devices. A point differs from the others of its axis in that alone, but that the
clusters of C are as many as it takes. Clients are those of `benchmarks.scaling_worker`; fields hold
for every point. Memory: most that the process has held (of the device, where that tells), of which
the compiler may have taken most, before the first round; and what the compiled program itself says
of its arguments and its temporary buffers.
"""

from benchmarks.settings import make_parser, write_json
from benchmarks.timing import Contender, alternate, environment

BASE = {
    "data.partition.num_clients": 1000,
    "train.clients_per_round": 20,
    "train.local_steps": 5,
    "train.batch_size": 20,
    "cefl.clustering.num_clusters": 4,
    "network.num_edges": 4,
}
C_CLIENTS = 40  # in the round, on the axis C


def clusters_of(size):
    """Fields that divide the clients of the axis C into clusters of a size."""
    return {
        "train.clients_per_round": C_CLIENTS,
        "cefl.clustering.num_clusters": C_CLIENTS // size,
        "network.num_edges": C_CLIENTS,
    }


AXES = {
    "N": {n: {"data.partition.num_clients": n} for n in (100, 1000, 10_000, 100_000)},
    "K": {k: {"train.clients_per_round": k} for k in (10, 30, 100, 300, 1000)},
    "E": {e: {"network.num_edges": e} for e in (4, 16, 64)},
    "C": {c: clusters_of(c) for c in (1, 2, 5, 10, 40)},
    "S": {s: {"train.local_steps": s} for s in (1, 5, 20, 50)},
    "model": {name: {"model.name": name} for name in ("mlp", "lenet5", "cnn")},
    "D": {d: {"run.devices": d, "run.client_chunk": 1} for d in (1, 2, 4)},
}


def contender(axis, value, data, examples, fields):
    """The Contender of one point."""
    settings = BASE | {"data.name": data} | AXES[axis][value]
    texts = [f"{path}={text}" for path, text in settings.items()]
    worker = ("-m", "benchmarks.scaling_worker", f"--examples={examples}")
    return Contender(f"{axis} = {value}", (*worker, *texts, *fields))


def table(axis, timings):
    """Markdown of one axis; the last two columns against the axis's first point."""
    lines = [
        f"| {axis} | round, median ms | quartiles | peak MB | before rounds MB | arguments MB "
        "| temporary MB | ready after, s | time / first | peak / first |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    first = timings[0]
    for timing in timings:
        (low, high), about = timing.spread_ms, timing.about
        lines.append(
            f"| {timing.name} | {timing.median_ms:.1f} | {low:.1f} to {high:.1f} "
            f"| {about['peak_mb']:.0f} | {about['peak_before_rounds_mb']:.0f} "
            f"| {about['argument_mb']:.1f} | {about['temporary_mb']:.1f} "
            f"| {about['prepare_s']:.1f} | {timing.median_ms / first.median_ms:.3f} "
            f"| {about['peak_mb'] / first.about['peak_mb']:.3f} |"
        )
    return "\n".join(lines)


def main():
    """Times axis after axis, prints a table of each, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--data", default="fashion_mnist_12k")
    parser.add_argument("--examples", type=int, default=20, help="of each client")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4, help="of a turn")
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    options = parser.parse_args()
    axes = options.axes.split(",")
    for axis in axes:
        if axis not in AXES:
            parser.error(f"--axes: {axis!r} is unknown; known: {', '.join(AXES)}")
    facts = {"environment": environment("jax", "jaxlib", "numpy"), "axes": {}}
    for axis in axes:
        points = [
            contender(axis, value, options.data, options.examples, options.fields)
            for value in AXES[axis]
        ]
        timings = alternate(points, options.turns, options.rounds)
        print(f"{table(axis, timings)}\n", flush=True)
        facts["axes"][axis] = [timing.to_json() for timing in timings]
        write_json(options.json, facts)


if __name__ == "__main__":
    main()
