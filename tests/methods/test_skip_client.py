"""Clients whose numbers are not finite: the round is the one in which they do nothing more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cefl_jax.models.split import SplitModel
from tests import world
from tests.compare import assert_close
from tests.methods import replay
from tests.methods.test_federated import memory_of, model_of
from tests.oracles import cefl, federated
from tests.quick import once_jit, quick_jit

DEFAULT = ("cefl", "scaffold", "hierfavg", "fedgkt")
OTHERS = (
    "sequential_split",
    "fedavg",
    "fedprox",
    "fedopt",
    "fednova",
    "splitfed_v1",
    "splitfed_v2",
)
STEEP, HIGH = -900.0, 1e8  # pixels at which Fragile breaks
CLOSE = 2e-5


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
def compiled(method, devices=None):
    """A method's compiled round, on pixels in f32; on a given number of devices for its bits."""
    setup = world.make_setup(
        {
            "method.name": method,
            "run.on_nonfinite": "skip_client",
            "train.rounds": 1,
            "train.optimizer.momentum": 0.9,
            "train.optimizer.weight_decay": 1e-2,
            # With more, nobody learns to upload what is infinite.
            "train.local_steps": 1 if method == "fedgkt" else 3,
            "run.devices": devices or (2 if method == "cefl" else 1),
        }
    )
    setup = setup._replace(
        data=setup.data._replace(images=np.float32(setup.data.images) / 255),
        model=Fragile(**vars(setup.model)) if method == "cefl" else setup.model,
    )
    return replay.compile_setup(setup, once_jit if devices else quick_jit)


@functools.cache
def healthy(method):
    """The round in which nobody breaks."""
    return compiled(method).play()


@functools.cache
def batches(method):
    """{client: example indices of each local step} of the round, in the order of the plan."""
    clients = healthy(method).decision.plan.clients.tolist()
    return dict(zip(clients, replay.made_batches(healthy(method)), strict=True))


def broken_data(setup, odd=(), unlabelled=(), pixel=np.nan):
    """Data in which a pixel of some examples has a value beyond 0..255, and others no label."""
    images, labels = np.array(setup.data.images), np.array(setup.data.labels)
    images[list(odd), 0, 0], labels[list(unlabelled)] = pixel / 255, 99
    return setup.data._replace(images=images, labels=labels)


def break_two(method):
    """Two clients of the round, one without pixels and one without labels, and the data."""
    setup, clients = healthy(method).setup, healthy(method).decision.plan.clients[[0, 3]].tolist()
    return clients, broken_data(setup, *(setup.partition[client] for client in clients))


def seen_in(method, client, step):
    """An example that a client sees in one local step only."""
    others = list(batches(method)[client])
    (example, *_) = sorted({*others.pop(step)} - {*np.concatenate(others).tolist()})
    return example


def assert_same_bits(actual, expected, but=()):
    for name in {*actual._fields} - {*but, "key"}:
        pair = (getattr(state, name) for state in (actual, expected))
        jax.tree.map(np.testing.assert_array_equal, *jax.device_get(tuple(pair)))


@pytest.mark.parametrize(
    "method", [*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_broken_clients_are_as_if_they_did_nothing(method):
    """To the bit, and the cost is that of all clients: they have computed and sent."""
    clients, data = break_two(method)
    got, expected = compiled(method).play(data=data), compiled(method).play(gone=clients)
    assert_same_bits(got.after, expected.after)
    assert got.metrics.train_loss == expected.metrics.train_loss
    assert (got.metrics.skipped, expected.metrics.skipped, got.metrics.counted) == (2, 0, 5)
    assert all(check.passed for check in got.metrics.finite.values())
    whole = healthy(method)
    assert_same_bits(got.after.ledger, whole.after.ledger)
    assert whole.metrics.skipped == 0
    assert abs(whole.metrics.train_loss - got.metrics.train_loss) > 1e-4


@pytest.mark.parametrize(
    ("method", "pixel"),
    [
        ("cefl", HIGH),
        *((name, np.nan) for name in DEFAULT),
        *(pytest.param(name, np.nan, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_a_round_of_broken_clients_changes_nothing_but_what_it_cost(method, pixel):
    run = compiled(method)
    got = run.play(data=broken_data(run.setup, range(160), pixel=pixel))
    assert_same_bits(got.after, run.start, but=("round", "ledger"))
    assert_same_bits(got.after.ledger, healthy(method).after.ledger)
    counts = got.metrics.skipped, got.metrics.counted, got.metrics.finished
    assert counts == (7, 0, 7)
    assert np.isnan(got.metrics.train_loss)
    assert all(check.passed for check in got.metrics.finite.values())


@pytest.mark.slow
@pytest.mark.parametrize("method", [*DEFAULT, *OTHERS])
@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_devices_leaves_the_same_clients_out(method, devices):
    data = break_two(method)[1]
    one, more = (compiled(method, count).play(data=data) for count in (1, devices))
    assert_same_bits(one.after, more.after)
    jax.tree.map(np.testing.assert_array_equal, one.metrics, more.metrics)


@pytest.mark.slow
def test_without_broken_clients_it_is_the_run_that_would_stop():
    changes = {"train.optimizer.momentum": 0.9, "train.optimizer.weight_decay": 1e-2}
    (plain,) = replay.play(changes, 1)
    assert_close(healthy("cefl").after._replace(key=None), plain.after._replace(key=None))
    assert plain.metrics.skipped is None


def assert_equals_cefl(data, broken, learning_rate=0.05):
    """The oracle's round in which broken clients {client: steps} stop early, and do not count."""
    run, whole = compiled("cefl"), healthy("cefl")
    got = run.play(data=data, learning_rate=learning_rate)
    plan = whole.decision.plan
    out = np.isin(plan.clients, list(broken))
    weight, uploaded = (np.where(out, 0, x) for x in (plan.weight, plan.uploaded))
    plan = plan._replace(weight=weight, uploaded=uploaded)
    stopped = whole._replace(decision=whole.decision._replace(plan=plan))
    made = [rows[: broken.get(client, 9)] for client, rows in batches("cefl").items()]
    settings = replay.cefl_settings(run.setup.spec, 0)
    settings = settings._replace(sgd=settings.sgd._replace(learning_rate=learning_rate))
    images = data.images if np.isfinite(data.images).all() else run.setup.data.images
    state = cefl.State(replay.layers(run.start.halves), replay.layers(run.start.cloud))
    x, labels = replay.pixels_of(run.setup, images), run.setup.data.labels
    state, loss = cefl.one_round(state, x, labels, replay.draws(stopped, made), settings)
    assert_close(replay.layers(got.after.halves), state.model, CLOSE)
    assert_close(replay.layers(got.after.cloud), state.cloud, CLOSE)
    assert_close(got.metrics.train_loss, loss, 1e-4)
    assert (got.metrics.skipped, got.metrics.counted) == (len(broken), 7 - len(broken))
    assert all(check.passed for check in got.metrics.finite.values())
    return got


def test_clients_that_break_in_different_steps_equal_the_oracle():
    """One from the first step on, one in each later step, each of another cluster."""
    setup, plan = compiled("cefl").setup, healthy("cefl").decision.plan
    assert np.bincount(plan.cluster).tolist() == [3, 2, 2]
    first, second, third = plan.clients[[1, 0, 6]].tolist()  # these have examples enough
    odd = [*setup.partition[first], seen_in("cefl", second, 1)]
    data = broken_data(setup, odd, [seen_in("cefl", third, 2)])
    got = assert_equals_cefl(data, {first: 0, second: 1, third: 2})
    pair = (replay.layers(played.after.halves)[0][0] for played in (got, healthy("cefl")))
    assert np.abs(np.subtract(*pair)).max() > 1e-3  # they would have made a difference


def test_a_step_too_large_for_the_front_half_ends_a_client_after_it():
    """What it has sent in that step is finite, and its node has learned from it."""
    client = int(healthy("cefl").decision.plan.clients[1])
    data = broken_data(compiled("cefl").setup, batches("cefl")[client][0], pixel=STEEP)
    assert_equals_cefl(data, {client: 1}, 1.2)


def test_a_back_half_that_is_not_finite_takes_its_whole_cluster_out():
    run, plan = compiled("cefl"), healthy("cefl").decision.plan
    cluster = plan.clients[plan.cluster == 2].tolist()
    # In the last step, after which no client notices. Not the first client, which is also computed
    # in a slot past the cluster before it.
    data = broken_data(run.setup, [seen_in("cefl", cluster[1], 2)], pixel=HIGH)
    got, expected = run.play(data=data), run.play(gone=cluster)
    assert_same_bits(got.after, expected.after)
    assert got.metrics.train_loss == expected.metrics.train_loss
    assert (got.metrics.skipped, got.metrics.counted) == (2, 5)
    assert all(check.passed for check in got.metrics.finite.values())


def test_a_client_that_scaffold_leaves_out_keeps_its_control_variate():
    """Where none is zero any more: in the first round again, with those from after it."""
    run, (clients, data) = compiled("scaffold"), break_two("scaffold")
    start = run.start._replace(memory=healthy("scaffold").after.memory)
    got, expected = run.play(start, data), run.play(start, gone=clients)
    assert_same_bits(got.after, expected.after)
    for before, after in zip(*map(jax.tree.leaves, (start.memory, got.after.memory)), strict=True):
        assert not np.array_equal(before, after)
    before, after = (jax.device_get(s.memory.clients) for s in (start, got.after))
    for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        np.testing.assert_array_equal(new[clients], old[clients])


@pytest.mark.parametrize(("method", "step"), [("scaffold", 2), ("hierfavg", 1), ("hierfavg", 4)])
def test_a_client_that_breaks_has_no_part_in_what_follows(method, step):
    """Against the oracle without it, though its edge node has learned from it before."""
    run, clients = compiled(method), replay.clients_of(healthy(method))
    edges = [client.edge for client in clients]
    shared = [c for c in clients if method != "hierfavg" or edges.count(c.edge) > 1]
    gone = max(shared, key=lambda client: client.size)
    data = broken_data(run.setup, unlabelled=[seen_in(method, gone.index, step)])
    got, sgd, model = run.play(data=data), replay.sgd_of(run.setup.spec), model_of(run.start)
    left = [client for client in clients if client.index != gone.index]
    if method == "scaffold":
        memory = federated.start_scaffold(model, 11)
        model, memory, losses = federated.scaffold(model, memory, left, sgd, 1.0)
        assert_close(memory_of(method, got.after.memory), memory, CLOSE)
    else:
        models, losses = dict.fromkeys(edges, model), []
        for r in range(2):
            there = clients if r < step // (gone.planned // 2) else left
            models, more = federated.edge_round(models, there, sgd, r, 2)
            losses += more
        model = federated.average_edges(models, left, model)
    assert_close(model_of(got.after), model, CLOSE)
    assert_close(got.metrics.train_loss, np.mean(losses), 1e-4)
    assert got.metrics.skipped == 1


def test_a_client_whose_upload_is_not_finite_uploads_nothing():
    """Its loss and its model are finite; the logits of its examples afterwards are not."""
    run, rates = compiled("fedgkt"), {"learning_rate": 2e4, "server_learning_rate": 0.0}
    client = int(healthy("fedgkt").decision.plan.clients[2])
    data = broken_data(run.setup, run.setup.partition[client], pixel=3e12)
    got, expected = run.play(data=data, **rates), run.play(gone=[client], **rates)
    assert_same_bits(got.after, expected.after)
    assert (got.metrics.skipped, expected.metrics.skipped) == (1, 0)
    assert all(check.passed for check in got.metrics.finite.values())
    assert 1e5 < got.metrics.train_loss < jnp.inf  # what it has lost until then counts
