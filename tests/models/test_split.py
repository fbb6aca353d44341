"""The split model against the unsplit one: values, gradients through the cut, parameters."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cefl_jax.models import zoo
from cefl_jax.models.conv import XLA, conv_block
from cefl_jax.models.split import make_model
from cefl_jax.specs import CompressionSpec, ModelSpec, PrivacySpec
from cefl_jax.stages.link import make_link
from cefl_jax.stages.split_step import split_step
from tests.compare import assert_close
from tests.oracles import conv_net as oracle
from tests.quick import quick_jit

NUM_CLASSES = 5
SAMPLE = {"mlp": (5, 4, 1), "lenet5": (16, 17, 1), "cnn": (6, 7, 3)}  # small, sides unequal
DEPTH = {"mlp": 3, "lenet5": 5, "cnn": 4}
CUTS = [(name, cut) for name in zoo.NAMES for cut in range(1, DEPTH[name])]
VALID = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)  # full, gaps, absent


def made(name, cut):
    """The model, and parameters with biases; drawn here, as compiling `init` takes seconds."""
    model = make_model(ModelSpec(name, cut), SAMPLE[name], NUM_CLASSES)
    rng = np.random.default_rng(1)

    def draw(leaf):
        spread = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    return model, *jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))


def drawn(name):
    """Images [C, B, ...] and labels [C, B] of three clients."""
    rng = np.random.default_rng(2)
    images = rng.normal(size=(*VALID.shape, *SAMPLE[name])).astype(np.float32)
    return images, rng.integers(0, NUM_CLASSES, VALID.shape).astype(np.int32)


def fronts_of(front):
    """Each client's own front half: all moved away from the shared one, each differently."""
    return jax.tree.map(
        lambda x: np.stack([x * (1 + 0.1 * k) + 0.01 * k for k in range(len(VALID))]), front
    )


@functools.cache
def unsplit_gradients(name):
    """From whole models [C, ...] to each client's gradient of its own *summed* loss."""
    by_xla = functools.partial(conv_block, lowering=XLA)
    blocks = zoo.make_blocks(name, NUM_CLASSES, by_xla)

    def summed_loss(params, images, labels, valid):
        x = images
        for block, block_params in zip(blocks, params, strict=True):
            x = block.apply({"params": block_params}, x)
        return (valid * -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1)[:, 0]).sum()

    return quick_jit(jax.vmap(jax.value_and_grad(summed_loss)))


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_front_then_back_is_the_model_of_its_paper(name, cut):
    model, halves, _ = made(name, cut)
    layers = [
        tuple(np.asarray(leaf) for leaf in (p["kernel"], p["bias"]))
        for p in (block.get("Dense_0", block) for block in halves.front + halves.back)
    ]
    images = drawn(name)[0][0]
    whole = quick_jit(lambda h, x: model.back(h.back, model.front(h.front, x)))
    logits = whole(halves, images)
    expected = oracle.forward(name, layers, images)
    assert logits.shape == (len(images), NUM_CLASSES)
    assert_close(logits, expected)


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_exchange_through_the_cut_is_end_to_end_autodiff(name, cut):
    model, halves, _ = made(name, cut)
    fronts, (images, labels) = fronts_of(halves.front), drawn(name)
    backs = jax.tree.map(lambda x: np.stack([x] * len(VALID)), halves.back)
    unsplit = unsplit_gradients(name)(fronts + backs, images, labels, VALID)
    losses, grads = jax.device_get(unsplit)
    wire = make_link(CompressionSpec(), PrivacySpec())
    keys = jax.random.split(jax.random.key(0), len(VALID))
    step = quick_jit(functools.partial(split_step, model, wire, keys))
    got = step(fronts, halves.back, images, labels, VALID)
    assert_close(got.loss, losses.sum())
    # The node sums over the cluster; each client gets the gradient of its own mean loss.
    assert_close(got.back_grad, jax.tree.map(lambda g: g.sum(0), grads[cut:]))
    samples = np.maximum(VALID.sum(1), 1)
    mean = jax.tree.map(lambda g: g / samples.reshape(-1, *[1] * (g.ndim - 1)), grads[:cut])
    assert_close(got.front_grads, mean)
    assert all(np.any(leaf[k]) for leaf in jax.tree.leaves(got.front_grads) for k in (0, 1))
    assert not any(np.any(leaf[2]) for leaf in jax.tree.leaves(got.front_grads))
    # What lies in a masked slot does not matter.
    junk = np.where(VALID[..., None, None, None], images, 7)
    other = step(fronts, halves.back, junk, np.where(VALID, labels, 0), VALID)
    assert_close(got._replace(smashed=0), other._replace(smashed=0))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_init_does_not_depend_on_the_cut(name):
    """One program for all cuts, and so the same numbers; to compile it would take seconds."""

    def program(cut):
        model = make_model(ModelSpec(name, cut), SAMPLE[name], NUM_CLASSES)

        def edge_side(key):
            halves, _ = model.init(key)
            return halves.front + halves.back

        return jax.jit(edge_side).lower(jax.random.key(1)).as_text()

    assert len({program(cut) for cut in range(1, DEPTH[name])}) == 1


@pytest.mark.parametrize(
    ("name", "params"), [("lenet5", 44_426), ("cnn", 1_663_370), ("mlp", 199_210)]
)
def test_init_has_as_many_parameters_as_the_papers(name, params):
    """28x28x1 and 10 classes: McMahan et al. 2017 count the last two; LeNet-5 by layer:
    156 + 2,416 + 256 x 120 + 120 + 120 x 84 + 84 + 84 x 10 + 10."""
    model = make_model(ModelSpec(name, 1), (28, 28, 1), 10)
    halves, _ = jax.eval_shape(model.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(halves)) == params


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_make_model_has_features_that_a_deeper_cloud_model_takes(name, cut):
    """On images of any size, down to the least."""
    least = {"mlp": 1, "lenet5": 16, "cnn": 4}[name]
    for sample_shape in (SAMPLE[name], (least, least, 1), (28, 28, 1), (32, 32, 3)):
        model = make_model(ModelSpec(name, cut), sample_shape, NUM_CLASSES)
        halves, cloud = jax.eval_shape(model.init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((3, *sample_shape), np.float32)
        features = jax.eval_shape(model.front, halves.front, images)
        assert features.shape == (3, *model.feature_shape)
        assert jax.eval_shape(model.cloud, cloud, features).shape == (3, NUM_CLASSES)
        weights = lambda tree: sum(leaf.ndim > 1 for leaf in jax.tree.leaves(tree))  # noqa: E731
        assert weights(cloud) > weights(halves.back) == DEPTH[name] - cut


@pytest.mark.parametrize(
    ("spec", "side", "says"),
    [
        (ModelSpec("lenet5", 0), 28, "model.cut=0: lenet5 has 5 blocks, so the cut is from 1 to 4"),
        (ModelSpec("lenet5", 5), 28, "model.cut=5: "),
        (ModelSpec("mlp", -1), 28, "model.cut=-1: mlp has 3 blocks, so the cut is from 1 to 2"),
        (ModelSpec("vgg", 1), 28, "model.name='vgg' is unknown; known: mlp, lenet5, cnn"),
        (ModelSpec("mlp", 1, "wide"), 28, "model.cloud='wide' is unknown; known: deep"),
        (ModelSpec("lenet5", 1), 15, "'lenet5' needs images of at least 16x16"),
        (ModelSpec("cnn", 1), 3, "'cnn' needs images of at least 4x4"),
    ],
)
def test_make_model_refuses_in_one_line(spec, side, says):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        make_model(spec, (side, side, 1), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("platform", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mlp", pytest.param("lenet5", marks=pytest.mark.slow), "cnn"])
def test_make_model_of_bfloat16_computes_alike_and_leaves_float32(name, platform):
    """In the norm: bfloat16 has 8 bits, so that some ReLU and pools let another value through."""
    lowering = functools.partial(conv_block, platform=platform)
    images, labels = drawn(name)
    _, halves, cloud = made(name, 1)

    def all_of(dtype):
        model = make_model(ModelSpec(name, 1), SAMPLE[name], NUM_CLASSES, lowering, dtype)

        def loss(halves, cloud):
            features = model.front(halves.front, images[0])
            logits = model.back(halves.back, features), model.cloud(cloud, features)
            each = optax.softmax_cross_entropy_with_integer_labels
            losses = [each(x, labels[0]).sum() for x in logits]
            return sum(losses), (features, logits)

        return quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(halves, cloud)

    half, whole = all_of("bfloat16"), all_of("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype("float32")}

    def distance(a, b):
        return np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)

    values, gradients = (jax.tree.leaves(x) for x in jax.tree.map(distance, half, whole))
    assert 1e-4 < max(values) < 0.03  # at all, or nothing was computed in it
    assert max(gradients) < 0.4  # four samples, each with pools
    np.testing.assert_array_equal(*[half[0][1][0].astype(t) for t in ("float32", "bfloat16")])
