"""What split training costs when runs are stacked: one round of R runs at once, by R.

    python -m benchmarks.widths [--model=lenet5] [--widths=1,8,64] [--seconds=0.5] [--json=FILE]
                                [--lowerings=xla,patches,tiles2]

All clients of a round on one axis, each with its own front half, reading its cluster's back half;
the gradients of a back half are summed over its cluster; local steps are one scan of fixed length.
`jax.vmap` stacks R runs with parameters and batches of their own over shared images. No sampling,
offloading, ledger or distillation. Needs only jax, flax, optax and numpy.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import optax

from benchmarks.convolutions import MODELS
from benchmarks.settings import make_parser, write_json
from cefl_jax import compiler
from cefl_jax.models.conv import Lowering, conv_block
from cefl_jax.models.split import make_model
from cefl_jax.specs import ModelSpec
from cefl_jax.types import Halves

CLIENTS, CLUSTERS, STEPS, BATCH, EXAMPLES, RATE = 20, 4, 10, 20, 10_000, 0.05


def make_round(model):
    """Makes a round of stacked split training: halves, key, images, labels -> halves, loss."""
    cluster = jnp.arange(CLIENTS) % CLUSTERS

    def client_loss(front, back, images, labels):
        logits = model.back(back, model.front(front, images))
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(images, labels, halves, rows):
        fronts, backs = halves
        own_backs = jax.tree.map(lambda leaf: leaf[cluster], backs)
        gradient = jax.vmap(jax.value_and_grad(client_loss, (0, 1)))
        losses, grads = gradient(fronts, own_backs, images[rows] / 255.0, labels[rows])
        share = CLUSTERS / CLIENTS
        summed = jax.tree.map(
            lambda leaf: share * jax.ops.segment_sum(leaf, cluster, CLUSTERS), grads[1]
        )
        descend = functools.partial(jax.tree.map, lambda value, grad: value - RATE * grad)
        return (descend(fronts, grads[0]), descend(backs, summed)), losses.mean()

    def round(halves, key, images, labels):
        rows = jax.random.randint(key, (STEPS, CLIENTS, BATCH), 0, EXAMPLES)
        stacked = [
            jax.tree.map(lambda leaf, size=size: jnp.broadcast_to(leaf, (size, *leaf.shape)), half)
            for half, size in zip(halves, (CLIENTS, CLUSTERS), strict=True)
        ]
        stacked, losses = jax.lax.scan(
            functools.partial(step, images, labels), tuple(stacked), rows
        )
        return Halves(*jax.tree.map(lambda leaf: leaf.mean(0), stacked)), losses.mean()

    return round


def measure(name, lowering, width, seconds):
    """Returns a row: milliseconds of a round of `width` runs, seconds of its compilation."""
    shape = MODELS[name]
    model = make_model(ModelSpec(name), shape, 10, functools.partial(conv_block, lowering=lowering))
    keys = jax.random.split(jax.random.key(0), width)
    halves = compiler.jit(jax.vmap(lambda key: model.init(key)[0]))(keys)
    images = jax.random.randint(keys[0], (EXAMPLES, *shape), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(keys[0], (EXAMPLES,), 0, 10)
    arrays = keys, images, labels
    began = time.perf_counter()
    jitted = jax.jit(jax.vmap(make_round(model), in_axes=(0, 0, None, None)), donate_argnums=0)
    compiled = compiler.compile_lowered(jitted.lower(halves, *arrays))
    compile_s = time.perf_counter() - began
    taken, until = [], time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        halves, losses = jax.block_until_ready(compiled(halves, *arrays))
        taken.append(1000.0 * (time.perf_counter() - began))
    if not jnp.isfinite(losses).all():
        raise RuntimeError(f"{name}, {lowering}, width {width}: a loss is not finite")
    memory = compiled.memory_analysis()
    return {
        "model": name,
        "runs": width,
        "median_ms": statistics.median(taken[1:]),
        "compile_s": compile_s,
        "temporary_mb": 1e-6 * memory.temp_size_in_bytes,
    }


def main():
    """Reads the command line, and prints a table row by row."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="lenet5")
    parser.add_argument("--widths", default="1,8,64")
    parser.add_argument("--lowerings", default="xla,patches,tiles2")
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    print("| model | lowering | runs | median ms | ms a run | compile, s | temporary memory, MB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    rows = []
    for word in options.lowerings.split(","):
        kind = word.rstrip("0123456789")
        lowering = Lowering(kind, int(word.removeprefix(kind) or 1))
        for width in map(int, options.widths.split(",")):
            row = measure(options.model, lowering, width, options.seconds) | {"lowering": word}
            rows.append(row)
            print(
                f"| {row['model']} | {word} | {width} | {row['median_ms']:.3f} "
                f"| {row['median_ms'] / width:.4f} | {row['compile_s']:.1f} "
                f"| {row['temporary_mb']:.0f} |",
                flush=True,
            )
            write_json(options.json, rows)


if __name__ == "__main__":
    main()
