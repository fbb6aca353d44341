"""The federated data set on the device, and the batches that clients draw from it."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax.data.dataset import Dataset
from cefl_jax.data.federated import batch_examples, make_federated
from cefl_jax.specs import NormalizationSpec
from tests.compare import assert_close
from tests.quick import quick_jit

NUM_EXAMPLES, NUM_TEST, BATCH = 60, 7, 4
SIZES = (1, 9, 4, 17, 3, 8)  # one example; last batches of one, none, and three; smaller than one
EPOCHS = 3


def make_dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_EXAMPLES + NUM_TEST, 2, 3, 2), dtype=np.uint8)
    labels = rng.integers(0, 4, NUM_EXAMPLES + NUM_TEST)
    train, test = slice(None, NUM_EXAMPLES), slice(NUM_EXAMPLES, None)
    return Dataset(
        "noise", images[train], labels[train], images[test], labels[test], (0, 1, 2, 3, 4)
    )


def make_parts():
    """Disjoint clients over the examples in random order; some examples are nobody's."""
    order = np.random.default_rng(1).permutation(NUM_EXAMPLES)[: sum(SIZES)]
    return [np.sort(part) for part in np.split(order, np.cumsum(SIZES)[:-1])]


@functools.cache
def federation():
    normalization = NormalizationSpec(mean=(0.2, 0.4), std=(0.5, 0.25))
    return make_federated(make_dataset(), make_parts(), normalization)


@functools.cache
def drawn(seed):
    """Every client's batches, [N, S, B] examples and [N, S, B] whether the slot is filled."""
    num_steps = EPOCHS * -(-max(SIZES) // BATCH)
    data = jax.tree.map(np.asarray, federation())

    def client(data, key, k):
        key = jax.random.fold_in(key, k)
        step = jax.vmap(lambda s: batch_examples(data, key, k, s, BATCH))
        return step(np.arange(num_steps))

    clients = quick_jit(jax.vmap(client, (None, None, 0)))
    examples = np.asarray(clients(data, jax.random.key(seed), np.arange(len(SIZES))))
    return examples, examples < NUM_EXAMPLES


def epochs(seed, client):
    """The examples of each of a client's whole epochs, in order."""
    examples, filled = drawn(seed)
    per_epoch = -(-SIZES[client] // BATCH)
    return [
        examples[client, first : first + per_epoch][filled[client, first : first + per_epoch]]
        for first in range(0, EPOCHS * per_epoch, per_epoch)
    ]


@pytest.mark.parametrize("client", range(len(SIZES)))
def test_every_epoch_takes_each_of_the_clients_own_examples_once(client):
    for epoch in epochs(5, client):
        assert sorted(epoch.tolist()) == make_parts()[client].tolist()


@pytest.mark.parametrize("client", range(len(SIZES)))
def test_batches_are_full_but_the_last_of_an_epoch(client):
    examples, filled = drawn(5)
    size = SIZES[client]
    per_epoch = -(-size // BATCH)
    for step in range(len(filled[client])):
        last = step % per_epoch == per_epoch - 1
        wanted = size - BATCH * (per_epoch - 1) if last else BATCH
        assert filled[client, step].tolist() == [slot < wanted for slot in range(BATCH)]
    assert (examples[client][~filled[client]] == NUM_EXAMPLES).all()


def test_order_changes_with_epoch_key_and_nothing_else():
    client = SIZES.index(17)  # by chance alike once in 17! = 4e14 times
    orders = [tuple(epoch) for seed in (5, 6) for epoch in epochs(seed, client)]
    assert len(set(orders)) == 2 * EPOCHS
    drawn.cache_clear()
    assert [tuple(epoch) for epoch in epochs(5, client)] == orders[:EPOCHS]


def test_memory_is_one_copy_of_the_images_and_an_index():
    dataset, parts = make_dataset(), make_parts()
    data = make_federated(dataset, parts, NormalizationSpec((0.5,), (0.5,)))
    assert data.images is dataset.train_images
    assert data.images.dtype == data.test_images.dtype == np.uint8
    assert data.members.shape == (sum(SIZES),)
    assert data.offsets.shape == (len(SIZES) + 1,)
    for indices in (data.members, data.offsets, data.labels, data.test_labels, data.label_counts):
        assert indices.dtype == np.int32
    for k, part in enumerate(parts):
        held = data.members[data.offsets[k] : data.offsets[k + 1]]
        assert sorted(held.tolist()) == part.tolist()
        counts = np.bincount(dataset.train_labels[part], minlength=dataset.num_classes)
        assert data.label_counts[k].tolist() == counts.tolist()
    assert data.sizes.tolist() == list(SIZES)
    np.testing.assert_array_equal(data.labels, dataset.train_labels)
    np.testing.assert_array_equal(data.test_images, dataset.test_images)
    np.testing.assert_array_equal(data.test_labels, dataset.test_labels)


@pytest.mark.parametrize(("mean", "std"), [((0.2, 0.4), (0.5, 0.25)), ((0.3,), (0.6,))])
def test_images_are_normalised_by_channel_or_all_alike(mean, std):
    data = make_federated(make_dataset(), make_parts(), NormalizationSpec(mean, std))
    got = np.asarray(data.normalise(data.images))
    for channel in range(2):
        m, s = mean[channel % len(mean)], std[channel % len(std)]
        expected = (data.images[..., channel].astype(np.float64) / 255 - m) / s
        assert_close(got[..., channel], expected)
    assert got.dtype == np.float32
