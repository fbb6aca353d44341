"""What a federation of very many clients costs before a round, in it, and in memory.

    python -m benchmarks.federation_size [--clients=10000,100000,1000000] [--json=FILE]
                                         [--set FIELD=VALUE ...]

Each population in a process of its own, on one device: 4 of the digits at each client, as in
`benchmarks.scaling_worker`, 1,000 clients in the round, 32 clusters on 64 edge nodes, unless fields
say otherwise. Prints a row for each: seconds to set up, to write down and draw the partition, to
compile and of a round (median of 5); and megabytes of the program's arguments and of its temporary
buffers, as compiled, beside the arguments by `argument_bytes`, and the most that the process held
before it compiled and in all.
"""

import multiprocessing
import pathlib
import statistics
import tempfile
import time

import jax

from benchmarks.scaling_worker import peak_mb, tile
from benchmarks.settings import about_machine, make_parser, make_spec, write_json
from cefl_jax import build, experiment, program
from cefl_jax.data import partition, sources
from cefl_jax.runtime import cpu

SETTINGS = (
    "data.name=digits",
    "train.clients_per_round=1000",
    "train.local_steps=2",
    "train.batch_size=4",
    "cefl.clustering.num_clusters=32",
    "network.num_edges=64",
    "model.name=mlp",
    "run.devices=1",
    "run.eval_every=1",
)
EXAMPLES = 4  # of a client
COLUMNS = {
    "clients": "clients",
    "set up, s": "setup_s",
    "files, s": "files_s",
    "compile, s": "compile_s",
    "round, s": "round_s",
    "arguments, MB": "argument_mb",
    "by formula, MB": "formula_mb",
    "temporary, MB": "temporary_mb",
    "host before, MB": "before_mb",
    "host, MB": "peak_mb",
}


def argument_bytes(setup):
    """Returns the bytes that a run holds on each device from round to round, but for its models.

    Args:
      setup: build.Setup.
    """
    data, (num_clients, links) = setup.data, setup.network.up_snr.shape
    num_labels = data.label_counts.shape[1]
    samples = data.images.nbytes + data.test_images.nbytes
    labels = 4 * (len(data.labels) + len(data.test_labels))
    client = 8 * links + 4 * num_labels + 37  # offset, device, bandwidth, position, availability
    if setup.spec.network.dynamics == "markov":
        client += 4 * links
    return samples + labels + 4 * len(data.members) + client * num_clients


def measure(spec, pipe):
    """Sends the facts of one population; in a process of its own."""
    cpu.set_up(spec.run.devices)
    jax.config.update("jax_enable_compilation_cache", False)
    dataset = sources.load(spec.data.name, spec.data.path)
    count = spec.data.partition.num_clients
    began = time.perf_counter()
    parts = tile(dataset.train_labels, count, EXAMPLES, spec.seed)
    setup = build.make_setup(spec, dataset, list(parts))
    made = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "partition.json").write_text(partition.to_json(setup.partition))
        setup.hashes()
        experiment.draw_start(setup, pathlib.Path(folder), "")
    drawn = time.perf_counter()
    facts = {"clients": count, "setup_s": made - began, "files_s": drawn - made}
    facts |= {"before_mb": peak_mb(), "formula_mb": 1e-6 * argument_bytes(setup)}
    inputs = program.put_inputs([setup])
    drawn = time.perf_counter()
    start, advance = program.compile_both([setup], inputs)
    facts["compile_s"] = time.perf_counter() - drawn
    state, sizes, rounds = program.begin([setup], start, inputs), advance.memory_analysis(), []
    for _ in range(6):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(advance(state, *inputs))
        rounds.append(time.perf_counter() - began)
    facts |= {"round_s": statistics.median(rounds[1:]), "peak_mb": peak_mb()}
    facts |= {"argument_mb": 1e-6 * sizes.argument_size_in_bytes}
    facts |= {"temporary_mb": 1e-6 * sizes.temp_size_in_bytes}
    pipe.send(facts)


def main():
    """Measures one population after another and prints a row for each."""
    parser = make_parser(__doc__)
    parser.add_argument("--clients", default="10000,100000,1000000")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    rows, spawn = [], multiprocessing.get_context("spawn")
    print(row(COLUMNS), row(["---:"] * len(COLUMNS)), sep="\n")
    for count in options.clients.split(","):
        fields = [*SETTINGS, f"data.partition.num_clients={count}", *options.set]
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=measure, args=(make_spec(fields), theirs))
        process.start()
        theirs.close()  # or an end without an answer is not noticed
        rows.append(ours.recv())
        process.join()
        cells = [rows[-1][name] for name in COLUMNS.values()]
        print(row(f"{x:.2f}" if x < 10 else f"{x:,.0f}" for x in cells), flush=True)
    write_json(options.json, {"rows": rows, "fields": options.set} | about_machine())


def row(cells):
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
