"""Who trains where in a round, against loops over the clients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.data.dataset import Dataset
from cefl_jax.data.federated import make_federated
from cefl_jax.specs import NormalizationSpec, TrainSpec
from cefl_jax.stages import round_plan
from tests.compare import assert_close
from tests.methods.replay import draw_batch
from tests.quick import quick_jit

SIZES = (1, 9, 4, 17, 3, 8, 12)  # of the population
NUM_CLIENTS, NUM_CLUSTERS, BATCH = 5, 3, 4
CASES = [  # local steps, local epochs, uploaded steps
    (3, None, None),
    (6, None, 1),
    (None, 1, None),
    (None, 2, 100),
    (None, 3, 2),
]


@functools.cache
def federation():
    images, labels = np.zeros((60, 1, 1, 1), np.uint8), np.zeros(60, np.int32)
    order = np.random.default_rng(1).permutation(60)[: sum(SIZES)]
    parts = np.split(order, np.cumsum(SIZES)[:-1])
    dataset = Dataset("", images, labels, images, labels, (0,))
    return make_federated(dataset, parts, NormalizationSpec())


def specs(case):
    local_steps, local_epochs, upload_steps = case
    train = TrainSpec(local_steps=local_steps, local_epochs=local_epochs, batch_size=BATCH)
    return train, upload_steps, round_plan.static_bounds(np.array(SIZES), train, upload_steps)


def per_epoch(client):
    return -(-SIZES[client] // BATCH)


def steps_of(client, case):
    return case[0] if case[0] is not None else case[1] * per_epoch(client)


def uploads_of(client, case):
    most = per_epoch(client) if case[2] is None else case[2]
    return min(steps_of(client, case), most)


@functools.cache
def program(case):
    train, upload_steps, extent = specs(case)

    @quick_jit
    def run(clients, cluster, data, key):
        plan = round_plan.make_plan(
            clients, cluster, data.sizes[clients], NUM_CLUSTERS, train, upload_steps
        )
        samples = round_plan.step_samples(plan, BATCH, extent.steps)
        batches = round_plan.draw_batches(data, key, plan.clients, BATCH, extent.steps)
        uploads = round_plan.upload_examples(plan, batches, extent.uploads, data.num_examples)
        return plan, samples, round_plan.uploaded_samples(plan, samples), batches, uploads

    return run


@functools.cache
def batch_of(client, step):
    """The examples of a local step, as `batch_examples` draws them for this round's key."""
    examples, filled = draw_batch(federation(), jax.random.key(8), client, step, BATCH)
    return np.asarray(examples)[np.asarray(filled)].tolist()


@st.composite
def rounds(draw):
    clients = draw(st.permutations(range(len(SIZES))))[:NUM_CLIENTS]
    cluster = draw(
        st.lists(st.integers(-1, NUM_CLUSTERS - 1), min_size=NUM_CLIENTS, max_size=NUM_CLIENTS)
    )
    return clients, cluster


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(deadline=None, max_examples=25)
@given(rounds())
def test_plan_and_samples_are_those_of_a_loop_over_clients(case, drawn):
    clients, cluster = drawn
    arrays = (np.array(x, np.int32) for x in drawn)
    done = program(case)(*arrays, federation(), jax.random.key(8))
    plan, samples, num_uploaded, batches, examples = jax.device_get(done)
    batches = [[batch[batch < 60].tolist() for batch in of_client] for of_client in batches]

    # The clients of cluster 0 in sampling order, then of 1, ..., and those of none at the end.
    order = [k for m in (*range(NUM_CLUSTERS), -1) for k in range(NUM_CLIENTS) if cluster[k] == m]
    assert plan.clients.tolist() == [clients[k] for k in order]
    assert plan.sizes.tolist() == [SIZES[clients[k]] for k in order]
    assert plan.cluster.tolist() == [cluster[k] % (NUM_CLUSTERS + 1) for k in order]
    assert plan.members.tolist() == [cluster.count(m) for m in range(NUM_CLUSTERS)]
    for m in range(NUM_CLUSTERS):
        first = int(plan.first[m])
        own = order[first : first + int(plan.members[m])]
        assert own == [k for k in range(NUM_CLIENTS) if cluster[k] == m]

    for row, k in enumerate(order):
        client, takes_part = clients[k], cluster[k] >= 0
        steps = steps_of(client, case) if takes_part else 0
        uploads = uploads_of(client, case) if takes_part else 0
        assert int(plan.steps[row]) == steps
        assert int(plan.uploaded[row]) == uploads
        for step, count in enumerate(samples[row].tolist()):
            position = step % per_epoch(client) * BATCH  # in the client's pass over its examples
            wanted = min(BATCH, SIZES[client] - position) if step < steps else 0
            assert count == wanted
            assert batches[row][step] == batch_of(client, step)
        uploaded = [len(batch_of(client, steps - uploads + slot)) for slot in range(uploads)]
        assert int(num_uploaded[row]) == sum(uploaded)
        for slot in range(examples.shape[1]):
            step = steps - uploads + slot
            wanted = batch_of(client, step) if slot < uploads else []
            assert examples[row, slot][: len(wanted)].tolist() == wanted
            assert (examples[row, slot][len(wanted) :] == 60).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_extent_is_the_most_that_any_client_of_the_population_needs(case):
    *_, extent = specs(case)
    population = range(len(SIZES))
    assert extent.steps == max(steps_of(client, case) for client in population)
    assert extent.uploads == max(uploads_of(client, case) for client in population)


@settings(deadline=None, max_examples=25)
@given(rounds(), st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=5, max_size=5))
def test_who_drops_out_counts_for_what_it_did_or_for_nothing(drawn, fates):
    case = (6, None, 2)
    clients, cluster = (np.array(x, np.int32) for x in drawn)
    done = program(case)(clients, cluster, federation(), jax.random.key(8))
    plan = jax.device_get(done[0])
    made, counts = (np.array(x) for x in zip(*fates, strict=True))
    steps = np.minimum(made, plan.steps)
    settled = jax.device_get(
        round_plan.apply_dropouts(plan, jnp.asarray(steps), jnp.asarray(counts))
    )
    for k in range(NUM_CLIENTS):
        placed = plan.cluster[k] < NUM_CLUSTERS
        part = steps[k] / 6 * counts[k] * placed
        assert settled.steps[k] == steps[k]
        assert settled.uploaded[k] == (min(2, steps[k]) if counts[k] else 0)
        assert_close(settled.weight[k], SIZES[plan.clients[k]] * part, 1e-6)
    for name in ("clients", "sizes", "cluster", "first", "members"):
        np.testing.assert_array_equal(getattr(settled, name), getattr(plan, name))
