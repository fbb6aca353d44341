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
def test_batch_examples_takes_each_of_the_clients_examples_once_an_epoch(client):
    """In full batches but the last; a slot that is not filled is one past the end."""
    examples, filled = drawn(5)
    size, per_epoch = SIZES[client], -(-SIZES[client] // BATCH)
    for epoch in epochs(5, client):
        assert sorted(epoch.tolist()) == make_parts()[client].tolist()
    for step in range(len(filled[client])):
        last = step % per_epoch == per_epoch - 1
        wanted = size - BATCH * (per_epoch - 1) if last else BATCH
        assert filled[client, step].tolist() == [slot < wanted for slot in range(BATCH)]
    assert (examples[client][~filled[client]] == NUM_EXAMPLES).all()


def test_batch_examples_order_follows_epoch_and_key_alone():
    client = SIZES.index(17)  # by chance alike once in 17! = 4e14 times
    orders = [tuple(epoch) for seed in (5, 6) for epoch in epochs(seed, client)]
    assert len(set(orders)) == 2 * EPOCHS
    drawn.cache_clear()
    assert [tuple(epoch) for epoch in epochs(5, client)] == orders[:EPOCHS]


def test_make_federated_holds_one_copy_of_the_images_and_an_index():
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


@pytest.mark.parametrize(
    ("mean", "std", "kind"),
    [
        ((0.2, 0.4), (0.5, 0.25), np.uint8),
        ((0.3,), (0.6,), np.uint8),
        ((0.2, 0.4), (0.25,), np.float32),
    ],
)
def test_normalise_goes_by_channel_or_all_alike(mean, std, kind):
    """Bytes are divided by 255, and floats in the unit range are not."""
    data = make_federated(make_dataset(), make_parts(), NormalizationSpec(mean, std))
    pixels = data.images.astype(np.float64) / 255
    got = data.normalise(data.images if kind == np.uint8 else np.float32(pixels))
    assert_close(got, (pixels - np.array(mean)) / np.array(std))
    assert got.dtype == np.float32


def test_normalise_of_a_row_of_a_table_goes_by_column():
    mean, std = tuple(np.linspace(-1, 1, 7).tolist()), (0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 4.0)
    rows = np.random.default_rng(0).normal(0, 3, (NUM_EXAMPLES, 7)).astype(np.float32)
    dataset = make_dataset()._replace(train_images=rows, test_images=rows)
    data = make_federated(dataset, make_parts(), NormalizationSpec(mean, std))
    assert_close(data.normalise(data.images), (rows.astype(np.float64) - mean) / std)
