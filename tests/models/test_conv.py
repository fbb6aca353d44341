"""Convolution blocks, in every lowering, against one loop over the kernel's taps in float64."""

import functools
import itertools

import jax
import numpy as np
import pytest

from cefl_jax.models import conv, zoo
from cefl_jax.models.conv import Lowering, choose_lowering
from cefl_jax.models.split import make_model
from cefl_jax.specs import ModelSpec
from tests.compare import assert_close
from tests.oracles import conv_net as oracle
from tests.quick import quick_jit

NUM_CLIENTS, BATCH = 2, 2
EXACT = [Lowering("xla"), Lowering("patches"), *(Lowering("tiles", tile) for tile in (1, 2, 3))]
WINOGRAD = [Lowering("winograd", tile) for tile in (2, 3, 4)]

# Sizes that differ in every axis: even and odd, one row, one column, kernels larger than a side.
CORNERS = [  # image [H, W, I], kernel [R, C, I, O], padding, pool
    ((6, 7, 3), (1, 1, 3, 4), "SAME", False),
    ((6, 7, 3), (2, 3, 3, 4), "SAME", False),
    ((6, 7, 3), (2, 3, 3, 4), "SAME", True),
    ((7, 5, 2), (4, 2, 2, 3), "VALID", False),
    ((7, 5, 2), (4, 2, 2, 3), "VALID", True),
    ((3, 1, 2), (3, 5, 2, 3), "SAME", True),  # a pooled row leaves none
    ((1, 4, 2), (2, 2, 2, 3), "SAME", False),
    ((4, 6, 50), (3, 2, 50, 3), "VALID", True),
]


def shapes_of_the_zoo():
    """Every convolution that a model of the zoo makes, at every cut, on both sizes of image."""
    shapes = set()

    def record(images, kernel, bias, padding, pool):
        shapes.add((images.shape[1:], kernel.shape, padding, pool))
        return conv.conv_block(images, kernel, bias, padding, pool, conv.XLA)

    for sample_shape in ((28, 28, 1), (32, 32, 3)):
        for name in zoo.NAMES:
            for cut in range(1, len(zoo.make_blocks(name, 10))):
                model = make_model(ModelSpec(name, cut), sample_shape, 10, record)
                jax.eval_shape(model.init, jax.random.key(0))
    return sorted(shapes)


ZOO = shapes_of_the_zoo()
CASES = ZOO + CORNERS


@functools.cache
def drawn(case, batch=BATCH):
    """Images, kernel and bias of every client, and the gradients by the outputs.

    An output that float32's rounding could bring past ReLU's bend, or to another place of its
    window, has gradient 0: its own would be a matter of luck.
    """
    image, kernel, *how = case
    rng = np.random.default_rng(0)
    images, kernels, biases = (
        rng.normal(size=(NUM_CLIENTS, *shape)).astype(np.float32)
        for shape in ((batch, *image), kernel, kernel[3:])
    )
    margins = [
        oracle.conv_block_margin(*client, *how)
        for client in zip(images, kernels, biases, strict=True)
    ]
    sure = np.stack(margins) > 1e-4 * np.sqrt(np.prod(kernel[:3]))
    assert sure.size == 0 or sure.mean() > 0.97
    d_outputs = (sure * rng.normal(size=sure.shape)).astype(np.float32)
    return images, kernels, biases, d_outputs


def outcomes(lowerings, case, arrays):
    """Value and gradients by each lowering, all clients at once, each with a kernel of its own."""

    def by(lowering, images, kernels, biases, d_outputs):
        block = jax.vmap(lambda x, k, b: conv.conv_block(x, k, b, *case[2:], lowering))
        outputs, pull = jax.vjp(block, images, kernels, biases)
        return outputs, *pull(d_outputs)

    def each(*arrays):
        return [by(lowering, *arrays) for lowering in lowerings]

    return quick_jit(each)(*arrays)


def expected(case, arrays):
    """Value, and gradients by images, kernel and bias."""
    clients = [
        (oracle.conv_block(x, k, b, *case[2:]), *oracle.conv_block_gradients(x, k, b, *case[2:], d))
        for x, k, b, d in zip(*arrays, strict=True)
    ]
    return [np.stack(values) for values in zip(*clients, strict=True)]


def fitting(kernel):
    """Winograd's lowerings whose window the points suffice for."""
    return [low for low in WINOGRAD if max(kernel[:2]) + low.tile - 1 <= 8]


def assert_all_close(got, wanted, says, tolerance=1e-5):
    """Sums of at most 1,600 float32 products, judged by the largest value."""
    names = ("value", "images", "kernel", "bias")[: len(wanted)]
    for name, values, correct in zip(names, got, wanted, strict=True):
        assert values.shape == correct.shape
        assert_close(values, correct, tolerance, err_msg=f"{name} by {says}")


def test_the_zoo_makes_the_convolutions_that_its_page_names():
    assert ((28, 28, 1), (5, 5, 1, 6), "VALID", True) in ZOO
    assert ((32, 32, 3), (5, 5, 3, 32), "SAME", True) in ZOO
    assert {kernel[:2] for _, kernel, _, _ in ZOO} == {(5, 5), (3, 3)}
    assert min(image[0] for image, *_ in ZOO) == 2  # deep cloud model after lenet5's last
    assert {pool for *_, pool in ZOO} == {False, True}


@pytest.mark.parametrize(
    "case",
    [  # of the models' layers every other one by default
        pytest.param(case, marks=pytest.mark.slow) if case in ZOO[1::2] else case for case in CASES
    ],
    ids=str,
)
def test_conv_block_and_its_gradients_equal_the_loop_over_taps(case):
    lowerings = EXACT + fitting(case[1])
    wanted = expected(case, drawn(case))
    for lowering, got in zip(lowerings, outcomes(lowerings, case, drawn(case)), strict=True):
        tolerance = 3e-5 if lowering in WINOGRAD else 1e-5
        assert_all_close(got, wanted, lowering, tolerance)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("lowering", EXACT, ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 8, 2), (2, 7, 9, 2)], ids=str)
def test_conv_block_gives_the_gradient_to_the_first_of_equals(shape, lowering, platform):
    """Small integers, exact in float32 whatever the order of sums: ties everywhere, some at 0."""
    rng = np.random.default_rng(3)
    images = rng.integers(-1, 2, shape).astype(np.float32)
    kernel = rng.integers(-1, 2, (3, 3, 2, 2)).astype(np.float32)
    bias = np.float32([0, 1])
    how = "SAME", True
    outputs = oracle.conv_block(images, kernel, bias, *how)
    d_outputs = rng.integers(1, 9, outputs.shape).astype(np.float32)
    margin = oracle.conv_block_margin(images, kernel, bias, *how)
    assert np.sum((margin == 0) & (outputs > 0)) > 5
    assert np.sum((margin == 0) & (outputs == 0)) > 0

    def all_four(*arrays):
        block = functools.partial(conv.conv_block, lowering=lowering, platform=platform)
        got, pull = jax.vjp(lambda *arrays: block(*arrays, *how), *arrays)
        return got, *pull(d_outputs)

    got = quick_jit(all_four)(images, kernel, bias)
    wanted = outputs, *oracle.conv_block_gradients(images, kernel, bias, *how, d_outputs)
    for values, correct in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(values, correct)


@pytest.mark.parametrize("lowering", [Lowering("tiles", 2), Lowering("winograd", 3)], ids=str)
@pytest.mark.parametrize("pool", [False, True])
def test_conv_block_in_blocks_is_the_batch_at_once(lowering, pool, monkeypatch):
    """Five samples in blocks of two: the last block is half empty."""
    case = (7, 6, 3), (3, 3, 3, 4), "SAME", pool
    arrays = drawn(case, 5)
    down, across = (-(-side // lowering.tile) for side in ((6, 6) if pool else (7, 6)))
    sample = (lowering.tile + 2) ** 2 * 3 * down * across
    monkeypatch.setattr(conv, "BLOCK_VALUES", 2 * sample)
    assert conv._split(5, sample, conv.BLOCK_VALUES) == (3, 2)
    (got,) = outcomes([lowering], case, arrays)
    assert_all_close(got, expected(case, arrays), f"{lowering} in blocks", 2e-5)


def test_split_holds_the_batch_within_the_limit_and_no_block_is_idle():
    for batch, values, limit in itertools.product(
        (1, 2, 5, 20, 100), (1, 7, 100, 1001), (100, 999, None)
    ):
        blocks, block = conv._split(batch, values, limit)
        assert (blocks - 1) * block < batch <= blocks * block
        if limit is None:
            assert blocks == 1
        else:
            assert block * values <= limit or block == 1
            # With fewer blocks some block would be over the limit.
            assert blocks == 1 or -(-batch // (blocks - 1)) * values > limit


def test_conv_block_has_blocks_only_where_there_are_caches_to_fit(monkeypatch):
    """On an accelerator the batch stays whole, however little one block may hold."""
    monkeypatch.setattr(conv, "BLOCK_VALUES", 1)
    arrays = [x[0] for x in drawn(CASES[0], 3)[:3]]

    def loops(platform):
        how = *CASES[0][2:], Lowering("tiles", 2), platform
        made = jax.make_jaxpr(lambda x, k, b: conv.conv_block(x, k, b, *how))(*arrays)
        return any(equation.primitive.name == "scan" for equation in made.eqns)

    assert loops("cpu")
    assert not loops("gpu")


TILES = Lowering("tiles", 2)


@pytest.mark.parametrize(
    ("platform", "image", "kernel", "sides", "lowering"),
    [
        ("cpu", (28, 28), (5, 5, 1, 6), (24, 24), TILES),  # few channels
        ("cpu", (28, 28), (5, 5, 3, 32), (28, 28), TILES),
        ("cpu", (4, 4), (3, 3, 16, 32), (4, 4), Lowering("winograd", 4)),
        ("cpu", (14, 14), (5, 5, 32, 64), (14, 14), Lowering("winograd", 4)),
        ("cpu", (6, 6), (3, 3, 64, 64), (6, 6), Lowering("winograd", 3)),
        ("cpu", (2, 2), (3, 3, 64, 64), (2, 2), Lowering("winograd", 2)),
        ("cpu", (9, 9), (7, 3, 64, 64), (9, 9), Lowering("winograd", 2)),  # no larger window
        ("cpu", (9, 9), (8, 8, 64, 64), (9, 9), TILES),
        ("cpu", (224, 224), (3, 3, 4, 4), (224, 224), TILES),  # transforms of long sides
        ("gpu", (12, 12), (5, 5, 1, 6), (8, 8), TILES),  # where it was measured
        ("gpu", (8, 8), (3, 3, 64, 64), (8, 8), TILES),
        ("tpu", (8, 8), (3, 3, 64, 64), (8, 8), Lowering("patches")),  # where nothing was
    ],
)
def test_choose_lowering_is_the_documented_one(platform, image, kernel, sides, lowering):
    assert choose_lowering(platform, image, kernel, sides) == lowering


def test_choose_lowering_takes_no_winograd_window_that_lacks_points():
    for rows, columns in np.ndindex(12, 12):
        kernel = rows + 1, columns + 1, 64, 64
        for side in (1, 2, 3, 5, 8, 14):
            sides = side, side + 1
            lowering = choose_lowering("cpu", sides, kernel, sides)
            assert lowering.kind in ("tiles", "winograd")
            assert lowering.kind == "tiles" or max(kernel[:2]) + lowering.tile - 1 <= 8
