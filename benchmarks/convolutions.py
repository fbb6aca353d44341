"""What a convolution block costs in each lowering: forward and its gradients.

    python -m benchmarks.convolutions [--only=WORD] [--batches=20,64] [--seconds=0.3] [--json=FILE]

Every convolution that training makes at the default cut, in programs of its own, the lowerings
taking turns; needs only jax, flax, optax and numpy. `10x20` is ten clients of 20 images, each with
a kernel of its own, under `vmap`. Gradients are by kernel and bias, and by images where a block
lies before. `--only` takes the convolutions with WORD in their names.
"""

import math
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.settings import about_machine, make_parser, write_json
from cefl_jax import compiler
from cefl_jax.models.conv import XLA, Lowering, choose_lowering, conv_block
from cefl_jax.models.split import make_model
from cefl_jax.runtime import cpu
from cefl_jax.specs import ModelSpec

MODELS = {"lenet5": (28, 28, 1), "cnn": (28, 28, 1)}
BATCHES = "20,10x20,64,100"
LOWERINGS = (
    XLA,
    Lowering("patches"),
    *(Lowering("tiles", tile) for tile in (1, 2, 3)),
    *(Lowering("winograd", tile) for tile in (2, 3, 4)),
)
CALL_S, MAX_CALLS = 0.005, 100  # a call repeats the block for so long, and so often is called


def find_convolutions():
    """{name: (image shape, kernel shape, padding, pool, whether images have a gradient)}."""
    found = {}
    for model, sample_shape in MODELS.items():
        made = []

        def record(images, kernel, bias, padding, pool, made=made):
            made.append((images.shape[1:], kernel.shape, padding, pool))
            return conv_block(images, kernel, bias, padding, pool, XLA)

        split = make_model(ModelSpec(model), sample_shape, 10, record)
        halves, cloud = jax.eval_shape(split.init, jax.random.key(0))
        made.clear()
        images = jax.ShapeDtypeStruct((1, *sample_shape), jnp.float32)
        features = jax.ShapeDtypeStruct((1, *split.feature_shape), jnp.float32)
        jax.eval_shape(split.front, halves.front, images)
        jax.eval_shape(split.back, halves.back, features)
        edge = len(made)
        jax.eval_shape(split.cloud, cloud, features)
        for i, block in enumerate(made):
            name = f"{model} c{i + 1}" if i < edge else f"{model} cloud c{i - edge + 1}"
            found[name] = *block, i not in (0, edge)
    return found


def draw(block, clients, batch):
    """Images, kernels, biases and gradients by the outputs, `[clients, ...]` if there are any."""
    image, kernel, padding, pool, _ = block
    shapes = (batch, *image), kernel, kernel[3:]
    flat = lambda x, k, b: conv_block(x, k, b, padding, pool, XLA)  # noqa: E731
    outputs = jax.eval_shape(flat, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).shape
    several = (clients,) if clients else ()
    scales = 1.0, 1 / math.sqrt(math.prod(kernel[:3])), 0.1, 1.0
    keys = jax.random.split(jax.random.key(0), len(scales))
    return [
        scale * jax.random.normal(key, (*several, *shape))
        for key, scale, shape in zip(keys, scales, (*shapes, outputs), strict=True)
    ]


def make_program(block, lowering, clients):
    """The block and its gradients, `repeats` times over; each time needs the one before."""
    *_, padding, pool, by_images = block

    def one(images, kernel, bias):
        return conv_block(
            images, kernel, bias, padding, pool, lowering, platform=jax.default_backend()
        )

    convolve = jax.vmap(one) if clients else one

    def step(_, carry, d_outputs):
        images, kernel, bias = carry
        if by_images:
            outputs, pull = jax.vjp(convolve, images, kernel, bias)
            d_images, d_kernel, d_bias = pull(d_outputs)
        else:
            outputs, pull = jax.vjp(lambda k, b: convolve(images, k, b), kernel, bias)
            (d_kernel, d_bias), d_images = pull(d_outputs), bias.mean()  # no loop invariant
        bias = bias - 1e-9 * (d_bias + outputs.mean())
        return images - 1e-9 * d_images, kernel - 1e-9 * d_kernel, bias

    def program(repeats, images, kernel, bias, d_outputs):
        again = lambda i, carry: step(i, carry, d_outputs)  # noqa: E731
        return jax.lax.fori_loop(0, repeats, again, (images, kernel, bias))

    return compiler.jit(program)


def call(program, repeats, arrays):
    """Seconds of one block."""
    began = time.perf_counter()
    jax.block_until_ready(program(repeats, *arrays))
    return (time.perf_counter() - began) / repeats


def measure(block, clients, batch, seconds):
    """{lowering: seconds of each call's block}, the lowerings taking turns."""
    arrays = draw(block, clients, batch)
    kernel, timed, repeats = block[1], {}, {}
    for lowering in LOWERINGS:
        if lowering.kind == "winograd" and max(kernel[:2]) + lowering.tile - 1 > 8:
            continue
        program = make_program(block, lowering, clients)
        call(program, 1, arrays)  # compiles
        repeats[lowering] = program, max(1, round(CALL_S / call(program, 1, arrays)))
        timed[lowering] = []
    began = time.perf_counter()
    for _ in range(MAX_CALLS):
        for lowering, (program, times) in repeats.items():
            timed[lowering].append(call(program, times, arrays))
        if time.perf_counter() - began > seconds * len(timed) and len(timed[lowering]) >= 3:
            break
    return timed


def output_sides(block):
    """Rows and columns before pooling."""
    image, kernel, padding, *_ = block
    lost = [size - 1 if padding == "VALID" else 0 for size in kernel[:2]]
    return [side - less for side, less in zip(image[:2], lost, strict=True)]


def direct_flop(block, samples):
    """Multiplications and additions of the convolution as it is defined, and of its gradients.

    Products with padding are counted too.
    """
    products = samples * math.prod(output_sides(block)) * math.prod(block[1])
    return 2 * products * (3 if block[-1] else 2)


def name_of(lowering):
    """As a column's head."""
    sized = lowering.kind in ("tiles", "winograd")
    return f"{lowering.kind} {lowering.tile}" if sized else lowering.kind


def choose(block):
    """What `choose_lowering` takes for the block here."""
    image, kernel, _, pool, _ = block
    sides = [side // 2 * 2 if pool else side for side in output_sides(block)]
    return choose_lowering(jax.default_backend(), image[:2], kernel, sides)


def main():
    """Times, prints a table, and writes JSON where asked to."""
    parser = make_parser(__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--seconds", type=float, default=0.3, help="of timing, for each cell")
    options = parser.parse_args()
    cpu.set_up(1)
    jax.config.update("jax_enable_compilation_cache", False)
    rows = []
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; median us (GFLOP/s)\n")
    heads = ["convolution", "image", "kernel", "batch", *map(name_of, LOWERINGS), "chosen"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name, block in find_convolutions().items():
        for text in options.batches.split(",") if options.only in name else ():
            *several, batch = map(int, text.split("x"))
            clients = several[0] if several else 0
            timed = measure(block, clients, batch, options.seconds)
            flop = direct_flop(block, max(clients, 1) * batch)
            medians = {lowering: statistics.median(calls) for lowering, calls in timed.items()}
            print(table_row(name, block, text, medians, flop), flush=True)
            rows.append({"convolution": name, "block": block, "batch": text, "flop": flop})
            rows[-1] |= {"chosen": name_of(choose(block))}
            rows[-1] |= {"calls_s": {name_of(lowering): calls for lowering, calls in timed.items()}}
    write_json(options.json, {"rows": rows} | about_machine())


def table_row(name, block, batch, medians, flop):
    """Markdown; the best in bold, and how much longer than it the chosen one takes."""
    best, cells = min(medians.values()), []
    for lowering in LOWERINGS:
        if lowering not in medians:
            cells.append("")
            continue
        cell = f"{1e6 * medians[lowering]:.0f} ({1e-9 * flop / medians[lowering]:.0f})"
        cells.append(f"**{cell}**" if medians[lowering] == best else cell)
    image, kernel = ("x".join(map(str, shape)) for shape in block[:2])
    chosen = choose(block)
    says = f"{name_of(chosen)}, {medians[chosen] / best:.2f} x"
    return "| " + " | ".join([name, image, kernel, batch, *cells, says]) + " |"


if __name__ == "__main__":
    main()
