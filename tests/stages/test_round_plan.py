"""Who trains where in a round, against loops over the clients."""

import functools

import jax
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
NUM_CLIENTS, NUM_CLUSTERS, BATCH, EXAMPLES = 5, 3, 4, 60
KEY = jax.random.key(8)
CASES = [  # local steps, local epochs, uploaded steps
    (3, None, None),
    (6, None, 1),
    (None, 1, None),
    (None, 2, 100),
    (None, 3, 2),
]


@functools.cache
def federation():
    images, labels = np.zeros((EXAMPLES, 1, 1, 1), np.uint8), np.zeros(EXAMPLES, np.int32)
    order = np.random.default_rng(1).permutation(EXAMPLES)[: sum(SIZES)]
    parts = np.split(order, np.cumsum(SIZES)[:-1])
    dataset = Dataset("", images, labels, images, labels, (0,))
    return make_federated(dataset, parts, NormalizationSpec())


def count_steps(client, case):
    """Steps of one pass, of all passes, and those that are uploaded."""
    local_steps, local_epochs, upload_steps = case
    per_epoch = -(-SIZES[client] // BATCH)
    steps = local_steps or local_epochs * per_epoch
    return per_epoch, steps, min(steps, upload_steps or per_epoch)


@functools.cache
def make_program(case):
    """The StaticBounds, and a function from a round to the Plan and what follows from it."""
    local_steps, local_epochs, upload_steps = case
    train = TrainSpec(local_steps=local_steps, local_epochs=local_epochs, batch_size=BATCH)
    bounds = round_plan.static_bounds(np.array(SIZES), train, upload_steps)

    @quick_jit
    def run(clients, cluster, data):
        sizes = data.sizes[clients]
        plan = round_plan.make_plan(clients, cluster, sizes, NUM_CLUSTERS, train, upload_steps)
        samples = round_plan.step_samples(plan, BATCH, bounds.steps)
        batches = round_plan.draw_batches(data, KEY, plan.clients, BATCH, bounds.steps)
        uploads = round_plan.upload_examples(plan, batches, bounds.uploads, data.num_examples)
        return plan, samples, round_plan.uploaded_samples(plan, samples), batches, uploads

    return bounds, run


@functools.cache
def batch_of(client, step):
    """The examples of a local step, as `batch_examples` draws them for this round's key."""
    examples, filled = draw_batch(federation(), KEY, client, step, BATCH)
    return np.asarray(examples)[np.asarray(filled)].tolist()


def pad(batch):
    return batch + [EXAMPLES] * (BATCH - len(batch))


@st.composite
def rounds(draw):
    clients = draw(st.permutations(range(len(SIZES))))[:NUM_CLIENTS]
    of_each = st.integers(-1, NUM_CLUSTERS - 1)
    return clients, draw(st.lists(of_each, min_size=NUM_CLIENTS, max_size=NUM_CLIENTS))


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(deadline=None, max_examples=25)
@given(rounds())
def test_make_plan_and_samples_are_those_of_a_loop_over_clients(case, drawn):
    clients, cluster = drawn
    bounds, run = make_program(case)
    done = run(*(np.array(x, np.int32) for x in drawn), federation())
    plan, samples, num_uploaded, batches, uploads = jax.device_get(done)

    # The clients of cluster 0 in sampling order, then of 1, ..., and those of none at the end.
    order = [k for m in (*range(NUM_CLUSTERS), -1) for k in range(NUM_CLIENTS) if cluster[k] == m]
    assert plan.clients.tolist() == [clients[k] for k in order]
    assert plan.sizes.tolist() == [SIZES[clients[k]] for k in order]
    assert plan.weight.tolist() == [SIZES[clients[k]] * (cluster[k] >= 0) for k in order]
    assert plan.cluster.tolist() == [cluster[k] % (NUM_CLUSTERS + 1) for k in order]
    assert plan.members.tolist() == [cluster.count(m) for m in range(NUM_CLUSTERS)]
    for m, (first, members) in enumerate(zip(plan.first, plan.members, strict=True)):
        assert (plan.cluster[first : first + members] == m).all()

    for row, k in enumerate(order):
        client = clients[k]
        per_epoch, steps, uploaded = count_steps(client, case)
        steps, uploaded = (count * (cluster[k] >= 0) for count in (steps, uploaded))
        assert (plan.steps[row], plan.uploaded[row]) == (steps, uploaded)
        assert batches[row].tolist() == [pad(batch_of(client, s)) for s in range(bounds.steps)]
        for step, count in enumerate(samples[row].tolist()):
            position = step % per_epoch * BATCH  # in the client's pass over its examples
            assert count == (min(BATCH, SIZES[client] - position) if step < steps else 0)
        sent = [batch_of(client, step) for step in range(steps - uploaded, steps)]
        assert num_uploaded[row] == sum(map(len, sent))
        sent += [[]] * (bounds.uploads - uploaded)
        assert uploads[row].tolist() == list(map(pad, sent))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_static_bounds_are_the_most_that_any_client_of_the_population_needs(case):
    counts = [count_steps(client, case)[1:] for client in range(len(SIZES))]
    assert make_program(case)[0] == tuple(map(max, zip(*counts, strict=True)))


@settings(deadline=None, max_examples=25)
@given(rounds(), st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=5, max_size=5))
def test_apply_dropouts_counts_what_a_client_did_or_nothing(drawn, fates):
    _, run = make_program((6, None, 2))
    done = run(*(np.array(x, np.int32) for x in drawn), federation())
    plan = jax.device_get(done[0])
    made, counts = (np.array(x) for x in zip(*fates, strict=True))
    steps = np.minimum(made, plan.steps)
    after = jax.device_get(quick_jit(round_plan.apply_dropouts)(plan, steps, counts))
    assert after.steps.tolist() == steps.tolist()
    assert after.uploaded.tolist() == np.where(counts, np.minimum(2, steps), 0).tolist()
    share = np.where(counts & (plan.cluster < NUM_CLUSTERS), steps / 6, 0.0)
    assert_close(after.weight, plan.sizes * share, 1e-6)
    for name in ("clients", "sizes", "cluster", "first", "members"):
        np.testing.assert_array_equal(getattr(after, name), getattr(plan, name))
