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
CASES = [(1203, 1), (1203, 4), (11, 1)]  # three batches, the last short; on more devices; one batch


def make_data(num_test):
    rng = np.random.default_rng(num_test)
    images = rng.integers(0, 256, (num_test, SIDE, SIDE, 1), dtype=np.uint8)
    labels = rng.integers(0, NUM_CLASSES, num_test).astype(np.int32)
    dataset = make_dataset("noise", images, labels, images, labels)
    return make_federated(dataset, [np.arange(num_test)], NormalizationSpec((0.4,), (0.3,)))


def make_state():
    """Two linear classifiers; the biases make blank padding look like a sure answer."""
    rng = np.random.default_rng(1)
    return {
        name: (
            rng.normal(size=(SIDE * SIDE, NUM_CLASSES)).astype(np.float32),
            np.array(bias, np.float32),
        )
        for name, bias in (("", (3, 0, 0)), ("cloud_", (0, 1, 0)))
    }


def predictors(state, images, _):
    flat = images.reshape(len(images), -1)
    return {name: flat @ w + b[None] for name, (w, b) in state.items()}


def by_place(_, images, index):
    return {"": jax.nn.one_hot(index % NUM_CLASSES, NUM_CLASSES)}


def test_the_cases_have_short_batches():
    assert [min(n, evaluation.BATCH) for n, _ in CASES] == [500, 500, 11]


@pytest.mark.parametrize(("num_test", "devices"), CASES)
def test_scores_are_a_plain_count_over_every_sample(num_test, devices):
    data, state, mesh = make_data(num_test), make_state(), parallel.make_mesh(devices)
    arrays = jax.device_put((state, data), mesh.everywhere)
    run = quick_jit(lambda state, data: evaluation.evaluate(predictors, state, data, mesh))
    scores = run(*arrays)
    assert set(scores) == set(state)
    for name, (w, b) in state.items():
        right, loss = 0, 0.0
        for image, label in zip(data.test_images, data.test_labels, strict=True):
            x = (image.astype(np.float64).ravel() / 255 - 0.4) / 0.3
            logits = x @ w.astype(np.float64) + b
            right += int(logits.argmax()) == label
            loss += np.log(np.exp(logits).sum()) - logits[label]
        assert_close(scores[name].accuracy, right / num_test, 0, atol=1e-6)
        assert_close(scores[name].loss, loss / num_test)
        assert 0 < right < num_test


@pytest.mark.parametrize(("num_test", "devices"), CASES)
def test_predictors_are_told_which_images_they_see(num_test, devices):
    data, mesh = make_data(num_test), parallel.make_mesh(devices)
    run = quick_jit(lambda data: evaluation.evaluate(by_place, (), data, mesh))
    right = (data.test_labels == np.arange(num_test) % NUM_CLASSES).sum()
    score = run(jax.device_put(data, mesh.everywhere))[""]
    assert_close(score.accuracy, right / num_test, 0, atol=1e-6)
