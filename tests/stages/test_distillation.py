"""Distillation: the loss from its equation, and which rows a model sees how often."""

import functools

import jax
import numpy as np
import pytest

from cefl_jax import parallel
from cefl_jax.specs import DistillSpec
from cefl_jax.stages import distillation
from cefl_jax.stages.distillation import Distillation, DistillTarget, TrainState
from cefl_jax.stages.optimizers import make_direction
from tests.compare import assert_close
from tests.quick import quick_jit

NUM_CLASSES, BATCH, RATE = 3, 4, 0.7
WHOLE = np.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [1, 1, 1, 1]]], bool)  # [K, U, B]
SHORT = np.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [1, 1, 0, 0]]], bool)
ROWS = WHOLE.size  # 16, of which 8 are filled, or 6: the last batch is short
TABLE = np.random.default_rng(1).normal(size=(ROWS, NUM_CLASSES)).astype(np.float32)
EACH_FILLED = pytest.mark.parametrize("filled", [WHOLE, SHORT], ids=["whole", "short"])
direction = make_direction("sgd", momentum=0.9)
make_feature_buffer = quick_jit(distillation.make_feature_buffer)


def make_uploads(filled):
    """One-hot rows, so that row r of a linear model's parameters is its logits of sample r.

    Where nothing was uploaded: nan, and a label that does not exist.
    """
    empty = ~filled.ravel()
    features = np.where(empty[:, None], np.nan, np.eye(ROWS)).astype(np.float32)
    labels = np.where(empty, 99, np.arange(ROWS) % NUM_CLASSES).astype(np.int32)
    shape = filled.shape
    return make_feature_buffer(features.reshape(*shape, -1), labels.reshape(shape), filled)


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def loss_and_gradient(logits, labels, teacher, weight, temperature):
    """(1 - lambda) CE + lambda T^2 KL(teacher_T || student_T) of each sample, by its logits too."""
    hard = -np.log(softmax(logits)[np.arange(len(labels)), labels])
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    loss = (1 - weight) * hard + weight * temperature**2 * (p * np.log(p / q)).sum(-1)
    of_hard = softmax(logits) - np.eye(logits.shape[1])[labels]
    return loss, (1 - weight) * of_hard + weight * temperature * (q - p)


@pytest.mark.parametrize(("weight", "temperature"), [(0, 1), (1, 1), (1, 4), (0.3, 2), (0.5, 0.5)])
def test_distillation_loss_is_that_of_the_equation(weight, temperature):
    rng = np.random.default_rng(0)
    logits, teacher = rng.normal(0, 3, (2, 6, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 6).astype(np.int32)
    rest = labels, teacher, np.float32(weight), np.float32(temperature)
    gradient = quick_jit(jax.grad(lambda *args: distillation.distillation_loss(*args).sum()))
    got = distillation.distillation_loss(logits, *rest), gradient(logits, *rest)
    assert_close(got, loss_and_gradient(logits, *rest), 1e-4)


@EACH_FILLED
def test_make_feature_buffer_puts_the_filled_rows_first_in_order(filled):
    uploads = make_uploads(filled)
    assert int(uploads.count) == filled.sum()
    wanted = [*np.flatnonzero(filled), *np.flatnonzero(~filled)]
    assert uploads.order.tolist() == wanted


def make_distillation(devices, parts):
    """A Distillation of one pass, and what its mesh runs on every device."""
    mesh = parallel.make_mesh(devices)
    return Distillation(DistillSpec(epochs=1, batch_size=BATCH), direction, mesh, parts), mesh


def linear(params, features):
    return features @ params


@functools.partial(quick_jit, static_argnames="devices")
def predict(params, uploads, devices):
    distil, mesh = make_distillation(devices, 1)
    run = mesh.spread(
        lambda params, uploads: distil.predict(TrainState(linear, params, None), uploads)
    )
    return run(params, uploads)


@EACH_FILLED
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_predict_gives_the_filled_rows_and_zero_elsewhere(filled, devices):
    uploads = make_uploads(filled)._replace(features=np.eye(ROWS, dtype=np.float32))
    wanted = np.where(filled.reshape(-1, 1), TABLE, 0)
    assert_close(predict(TABLE, uploads, devices), wanted, 1e-6)


@functools.partial(quick_jit, static_argnames=("devices", "parts"))
def learn(uploads, target, devices=1, parts=1):
    """The change of a model that starts as TABLE in one pass over the uploads."""
    distil, mesh = make_distillation(devices, parts)

    def on_device(uploads, target):
        student = TrainState(linear, TABLE, direction.init(TABLE))
        order = distillation.draw_order(uploads, jax.random.key(2), 1, BATCH)
        after = distil.learn(student, uploads, target, order, np.float32(RATE))
        return after.params - TABLE, after.state

    return mesh.spread(on_device)(uploads, target)


@EACH_FILLED
@pytest.mark.parametrize("teacher", [False, True], ids=["hard labels", "teacher"])
@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (1, 2), (2, 3), (4, 3)])
def test_learn_takes_every_filled_row_once_and_no_other(devices, parts, teacher, filled):
    """Each row of the table moves by its own gradient over its batch's size, once.

    In the second batch, momentum moves the rows of the first once more, by 0.9 of that.
    """
    weight, temperature = (0.4, 2.0) if teacher else (0.0, 1.0)
    logits = np.float32(np.where(filled.reshape(-1, 1), 2 * TABLE[::-1], np.nan))
    target = DistillTarget(logits if teacher else None, weight, temperature)
    moved, _ = jax.device_get(learn(make_uploads(filled), target, devices, parts))
    labels = np.arange(ROWS) % NUM_CLASSES
    _, gradient = loss_and_gradient(TABLE, labels, 2 * TABLE[::-1], weight, temperature)
    batches = {(1.9, BATCH): 0, (1.0, int(filled.sum()) - BATCH): 0}  # momentum's factor, size
    for row in np.flatnonzero(filled):
        fits = [
            batch
            for batch in batches
            if np.abs(moved[row] + RATE * batch[0] / batch[1] * gradient[row]).max() < 1e-5
        ]
        assert len(fits) == 1
        batches[fits[0]] += 1
    assert all(rows == size for (_, size), rows in batches.items())
    assert not moved[~filled.ravel()].any()


def test_learn_of_nothing_uploaded_changes_nothing():
    target = DistillTarget(None, 0.0, 1.0)
    change = learn(make_uploads(np.zeros_like(WHOLE)), target)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(change))


@EACH_FILLED
def test_draw_order_has_the_same_rows_in_a_new_order_each_pass(filled):
    uploads, count = make_uploads(filled), int(filled.sum())
    passes = np.asarray(distillation.draw_order(uploads, jax.random.key(3), 6, BATCH))
    for order in passes:
        assert sorted(order[:count]) == np.flatnonzero(filled).tolist()
        assert (order[count:] == ROWS).all()
    assert len({tuple(order) for order in passes}) == len(passes)
