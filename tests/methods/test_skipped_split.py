"""Broken clients of split training: the round is that of the others, from the broken step on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.models.split import SplitModel
from tests import world
from tests.compare import assert_close
from tests.methods import absence, replay
from tests.methods.absence import assert_same_bits, plain
from tests.methods.test_whole_round import assert_same_models
from tests.oracles import split_round
from tests.oracles.round_types import State
from tests.quick import once_jit, quick_jit

SAME = once_jit  # on any number of devices
STEEP, HIGH = -900.0, 1e8  # pixels at which Fragile breaks


@jax.custom_vjp
def brittle(params, gradient):
    """Parameters; where the gradient f32[] is not 0, it is what comes back to them."""
    return params


brittle.defvjp(
    lambda params, gradient: (params, gradient),
    lambda gradient, grads: (
        jax.tree.map(lambda g: jnp.where(gradient > 0, gradient, g), grads),
        None,
    ),
)


class Fragile(SplitModel):
    """Front halves with gradients that are too large for a step, back halves with infinite ones."""

    def front(self, params, images):
        steep = jnp.where((images < -10).any(), 3e38, 0.0)
        return super().front(brittle(params, steep), images)

    def back(self, params, features):
        high = jnp.where((features > 1e4).any(), jnp.inf, 0.0)
        return super().back(brittle(params, high), features)


@functools.cache
def program(devices=2, jit=quick_jit):
    """The method on three clusters of two and three clients, whose nodes take two at once."""
    changes = {"run.devices": devices, "train.rounds": 1}
    return absence.compile_round(changes, jit, lambda model: Fragile(**vars(model)))


@functools.cache
def batches():
    """{client: example indices of each local step} of the round, on any number of devices."""
    draws = replay.draws(program().setup, program().start, 0)
    return dict(zip(draws.clients, draws.batches, strict=True))


def seen_in(client, step):
    """An example that a client sees in this step, and in none before it."""
    before, now = batches()[client][:step], batches()[client][step]
    return next(e for e in now if all(e not in batch for batch in before))


def mixed(run):
    """Data with a client broken from the first step on, one in each later step, {client: steps}."""
    plan = absence.decided(run)
    assert np.bincount(plan.cluster).tolist() == [3, 2, 2]
    first, second, third = plan.clients[[1, 0, 6]].tolist()  # these have examples enough
    data = run.data(
        odd=[*run.setup.partition[first], seen_in(second, 1)],
        unlabelled=[seen_in(third, 2)],
    )
    return data, {first: 0, second: 1, third: 2}


def assert_equals_the_reference(run, data, broken, learning_rate=None):
    """The slow reading of a round in which broken clients stop early, and count for nothing."""
    got, metrics = run.play(data, **({"learning_rate": learning_rate} if learning_rate else {}))
    model = replay.layers(run.start.halves.front + run.start.halves.back)
    settings = replay.settings(run.setup.spec, 0)
    if learning_rate:
        settings = settings._replace(
            front=settings.front._replace(learning_rate=learning_rate),
            back=settings.back._replace(learning_rate=learning_rate),
        )
    dataset = world.make_dataset()
    reference = split_round.one_round(
        State(model, replay.layers(run.start.cloud)),
        255 * data.images if np.isfinite(data.images).all() else dataset.train_images,
        dataset.train_labels,
        [[] if n in broken else part for n, part in enumerate(run.setup.partition)],
        replay.draws(run.setup, run.start, 0, broken),
        settings,
    )
    assert_same_models(got, reference.state, run.setup.spec.cefl.distill.optimizer_state)
    assert_close(metrics.train_loss, reference.train_loss, 1e-4)
    assert (metrics.skipped, metrics.counted) == (len(broken), 7 - len(broken))
    assert jax.tree.all(metrics.finite)
    return reference


def test_clients_that_break_in_different_steps_equal_the_slow_reading():
    run = program()
    reference = assert_equals_the_reference(run, *mixed(run))
    whole = split_round.one_round(
        State(*(replay.layers(x) for x in (sum(run.start.halves, ()), run.start.cloud))),
        world.make_dataset().train_images,
        world.make_dataset().train_labels,
        run.setup.partition,
        replay.draws(run.setup, run.start, 0),
        replay.settings(run.setup.spec, 0),
    )
    moved = np.abs(whole.state.model[0][0] - reference.state.model[0][0]).max()
    assert moved > 1e-3  # the broken clients would have made a difference


def test_a_step_too_large_for_the_front_half_ends_a_client_after_it():
    """What it has sent in that step is finite, and its node has learned from it."""
    run, rate = program(), 1.2
    client = int(absence.decided(run).clients[1])
    data = run.data(odd=batches()[client][0], pixel=STEEP)
    assert_equals_the_reference(run, data, {client: 1}, rate)


def test_whom_a_broken_client_leaves_alone_is_as_if_it_were_not_there():
    """To the bit, of two clusters' first clients, of which one is also in a slot past the other."""
    run = program()
    gone = absence.decided(run).clients[[0, 3]].tolist()
    got, metrics = run.play(run.data(np.concatenate([run.setup.partition[n] for n in gone])))
    expected, absent = run.play(gone=gone)
    assert_same_bits(got, expected)
    assert metrics.train_loss == absent.train_loss
    assert (metrics.skipped, absent.skipped) == (2, 0)


def test_a_back_half_that_is_not_finite_takes_its_whole_cluster_out():
    run, plan = program(), absence.decided(program())
    cluster = plan.clients[plan.cluster == 1].tolist()
    # Not its first one, which is also computed in a slot past the cluster before it.
    got, metrics = run.play(run.data(run.setup.partition[cluster[1]], pixel=HIGH))
    expected, absent = run.play(gone=cluster)
    assert_same_bits(got, expected)
    assert metrics.train_loss == absent.train_loss
    assert (metrics.skipped, metrics.counted) == (2, 5)
    assert jax.tree.all(metrics.finite)


@pytest.mark.parametrize("pixel", [np.nan, HIGH])
def test_a_round_of_broken_clients_changes_nothing_but_what_it_cost(pixel):
    run = program()
    got, metrics = run.play(run.data(range(160), pixel=pixel))
    whole, _ = run.play()
    before, after = plain(run.start), plain(got)
    for name in ("halves", "cloud", "edge_optimizer", "cloud_optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    # They have all computed and sent.
    jax.tree.map(np.testing.assert_array_equal, after.ledger, plain(whole).ledger)
    assert (metrics.skipped, metrics.counted, metrics.finished) == (7, 0, 7)
    assert np.isnan(metrics.train_loss)
    assert jax.tree.all(metrics.finite)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_leaves_the_same_clients_out(devices):
    for breaks in (lambda run: mixed(run)[0], lambda run: run.data()):
        (one, metrics), (more, others) = (
            run.play(breaks(run)) for run in (program(1, SAME), program(devices, SAME))
        )
        assert_same_bits(one, more)
        jax.tree.map(np.testing.assert_array_equal, metrics, others)


@pytest.mark.slow
def test_without_broken_clients_it_is_the_run_that_would_stop():
    state, step, arrays = world.compile_round(world.make_setup({"train.rounds": 1}), quick_jit)
    (plainly, told), (soundly, metrics) = step(state, *arrays), program().play()
    assert_close(plain(soundly), plain(plainly))
    assert told.skipped is None
    assert metrics.skipped == 0
