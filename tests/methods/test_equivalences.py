"""Where the method degenerates to one that everybody knows, it equals it; and what must not matter
does not: the chunk width. (For padding see test_padding.py.)"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cefl_jax.parallel import AXIS
from cefl_jax.specs import CompressionSpec, PrivacySpec
from cefl_jax.stages.link import make_link
from cefl_jax.stages.optimizers import descend, make_direction
from cefl_jax.stages.split_step import split_step
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.quick import quick_jit

CLOSE = 2e-5


def train_alone(setup, params, client, learning_rate, num_steps):
    """Plain SGD of the unsplit model on one client's batches of round 0."""
    key = round_key(jax.random.key(setup.spec.seed), 0, Purpose.BATCHES)
    data, model, cut = setup.data, setup.model, setup.spec.model.cut

    @quick_jit
    def step(params, images, labels, valid):
        def loss(params):
            logits = model.back(params[cut:], model.front(params[:cut], images))
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.where(valid, losses, 0).sum() / valid.sum()

        return jax.tree.map(lambda p, g: p - learning_rate * g, params, jax.grad(loss)(params))

    for index in range(num_steps):
        examples, valid = replay.draw_batch(data, key, client, index, setup.spec.train.batch_size)
        examples = np.minimum(examples, len(data.labels) - 1)
        pixels = data.images[examples] / 255.0
        images = (pixels - data.mean) / data.std
        params = step(params, jnp.float32(images), data.labels[examples], valid)
    return params


def sampled(setup):
    key = round_key(jax.random.key(setup.spec.seed), 0, Purpose.SAMPLING)
    return replay.sample_clients(
        key, len(setup.partition), setup.spec.train.clients_per_round
    ).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 2])
def test_singletons_without_distillation_are_fedavg_on_the_unsplit_model(cut):
    setup = world.make_setup(
        {
            "cefl.clustering.rule": "singleton",
            "cefl.distill.rule": "none",
            "network.num_edges": 7,
            "model.cut": cut,
            "train.local_steps": None,
            "train.local_epochs": 2,
        }
    )
    start, step, arrays = world.compile_round(setup, quick_jit)
    params, clients = start.halves.front + start.halves.back, sampled(setup)
    sizes = np.diff(setup.data.offsets)[clients]
    steps = 2 * -(-sizes // setup.spec.train.batch_size)
    trained = [
        train_alone(setup, params, client, 0.05, count)
        for client, count in zip(clients, steps.tolist(), strict=True)
    ]
    weights = sizes / sizes.sum()
    fedavg = jax.tree.map(lambda *leaves: sum(map(np.multiply, weights, leaves)), *trained)
    state, _ = step(start, *arrays)
    assert_close(state.halves.front + state.halves.back, fedavg, CLOSE)


def test_one_cluster_of_one_client_is_centralised_sgd():
    setup = world.make_setup(
        {
            "cefl.clustering.rule": "single",
            "cefl.distill.rule": "none",
            "train.clients_per_round": 1,
            "train.local_steps": 6,
        }
    )
    start, step, arrays = world.compile_round(setup, quick_jit)
    params = start.halves.front + start.halves.back
    alone = train_alone(setup, params, sampled(setup)[0], 0.05, 6)
    state, _ = step(start, *arrays)
    assert_close(state.halves.front + state.halves.back, alone, CLOSE)


@pytest.mark.slow
def test_the_chunk_width_changes_nothing():
    changes = {"cefl.clustering.rule": "patent", "train.optimizer.momentum": 0.9}
    outcomes = []
    for chunk in (1, 3, 7):
        setup = world.make_setup(changes | {"run.client_chunk": chunk})
        state, metrics = world.run_rounds(setup, 1)
        outcomes.append((state.halves, state.cloud, state.ledger, metrics))
    for other in outcomes[1:]:
        assert_close(other, outcomes[0], 1e-4)


def test_the_back_half_step_agrees_with_pmap():
    """One step of four clusters, mapped by the mesh and by jax.pmap."""
    setup = world.make_setup({"run.devices": 4})
    model, direction = setup.model, make_direction("sgd", momentum=0.9)
    wire = make_link(CompressionSpec(), PrivacySpec())
    halves, _ = quick_jit(model.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    images = jnp.float32(rng.normal(size=(4, 3, 5, 8, 8, 1)))
    labels = jnp.int32(rng.integers(0, 4, (4, 3, 5)))
    valid = jnp.asarray(rng.random((4, 3, 5)) < 0.8)
    fronts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, *leaf.shape)), halves.front)

    def back_step(images, labels, valid):
        keys = jax.random.split(jax.random.key(1), 3)
        sent = split_step(model, wire, keys, fronts, halves.back, images, labels, valid)
        grad = jax.tree.map(lambda g: g / valid.sum(), sent.back_grad)
        state = direction.init(halves.back)
        return descend(direction, grad, state, halves.back, 0.1)[0]

    pmapped = jax.pmap(back_step, axis_name=AXIS)(images, labels, valid)
    one = lambda i, images, labels, valid: back_step(images[i], labels[i], valid[i])  # noqa: E731
    mapped = quick_jit(lambda *batch: setup.mesh.map(one, 4, *batch))(images, labels, valid)
    assert_close(mapped, pmapped)
