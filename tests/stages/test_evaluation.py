"""Scores on a whole test set against a plain count."""

import jax
import numpy as np
import pytest

from cefl_jax import parallel
from cefl_jax.data.dataset import make_dataset
from cefl_jax.data.federated import make_federated
from cefl_jax.specs import NormalizationSpec
from cefl_jax.stages import evaluation
from tests.compare import assert_close
from tests.quick import quick_jit

NUM_CLASSES, SIDE = 3, 2
# Two linear classifiers; the biases make blank padding look like a sure answer.
WEIGHT = np.random.default_rng(1).normal(size=(SIDE * SIDE, NUM_CLASSES)).astype(np.float32)
BIAS = {"": np.float32([3, 0, 0]), "cloud_": np.float32([0, 1, 0])}


def make_data(num_test):
    rng = np.random.default_rng(num_test)
    images = rng.integers(0, 256, (num_test, SIDE, SIDE, 1), dtype=np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_test).astype(np.int32)
    dataset = make_dataset("noise", images, labels, images, labels)
    return make_federated(dataset, [np.arange(num_test)], NormalizationSpec((0.4,), (0.3,)))


def predictors(weight, images, index):
    """The classifiers, and one that goes by the place of an image in the test set."""
    flat = images.reshape(len(images), -1)
    linear = {name: flat @ weight + bias[None] for name, bias in BIAS.items()}
    return linear | {"place": jax.nn.one_hot(index % NUM_CLASSES, NUM_CLASSES)}


@pytest.mark.parametrize(
    ("num_test", "devices", "flat"),
    [
        (2 * parallel.ROWS + 203, 1, False),
        (2 * parallel.ROWS + 203, 4, False),
        (11, 1, False),
        (parallel.FLAT_ROWS + 203, 1, True),
        (parallel.FLAT_ROWS + 203, 4, True),
        (11, 4, True),
    ],
)
def test_evaluate_is_a_plain_count_over_every_sample(num_test, devices, flat):
    data, mesh = make_data(num_test), parallel.make_mesh(devices, flat=flat)
    run = quick_jit(lambda weight, data: evaluation.evaluate(predictors, weight, data, mesh))
    scores = run(*jax.device_put((WEIGHT, data), mesh.everywhere))
    images, labels = np.asarray(data.test_images, np.float64), np.asarray(data.test_labels)
    flat = (images.reshape(num_test, -1) / 255 - 0.4) / 0.3
    logits = {name: flat @ WEIGHT + bias[None] for name, bias in BIAS.items()}
    logits["place"] = np.eye(NUM_CLASSES)[np.arange(num_test) % NUM_CLASSES]
    assert set(scores) == set(logits)
    for name, of_each in logits.items():
        right = int((of_each.argmax(1) == labels).sum())
        loss = np.log(np.exp(of_each).sum(1)) - of_each[np.arange(num_test), labels]
        assert 0 < right < num_test
        assert_close(scores[name].accuracy, right / num_test, 0, atol=1e-6)
        assert_close(scores[name].loss, loss.mean())
