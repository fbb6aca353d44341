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
FILLED = np.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [1, 1, 1, 1]]], bool)  # [K, U, B]
ROWS, COUNT = FILLED.size, int(FILLED.sum())  # 16 rows, 8 filled
SHORT = np.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [1, 1, 0, 0]]], bool)  # 6 filled
direction = make_direction("sgd", momentum=0.9)
make_feature_buffer = quick_jit(distillation.make_feature_buffer)


def linear(params, features):
    return features @ params


def on(devices, parts):
    """A Distillation of one pass, and what its mesh runs on every device."""
    mesh = parallel.make_mesh(devices)
    return Distillation(DistillSpec(epochs=1, batch_size=BATCH), direction, mesh, parts), mesh


@functools.partial(quick_jit, static_argnames="devices")
def predict(params, uploads, devices=1):
    drill, mesh = on(devices, 1)
    run = mesh.spread(
        lambda params, uploads: drill.predict(TrainState(linear, params, None), uploads)
    )
    return run(params, uploads)


@functools.partial(quick_jit, static_argnames=("devices", "parts"))
def learn(params, uploads, logits, weight, temperature, devices=1, parts=1):
    """One pass over the uploads."""
    drill, mesh = on(devices, parts)

    def on_device(params, uploads, lesson):
        learner = TrainState(linear, params, direction.init(params))
        order = distillation.draw_order(uploads, jax.random.key(2), 1, BATCH)
        taught = drill.learn(learner, uploads, lesson, order, np.float32(RATE))
        return taught.params, taught.state

    return mesh.spread(on_device)(params, uploads, DistillTarget(logits, weight, temperature))


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def loss(logits, labels, teacher, weight, temperature):
    """(1 - lambda) CE + lambda T^2 KL(teacher_T || student_T) of each sample."""
    logits, teacher = np.asarray(logits, np.float64), np.asarray(teacher, np.float64)
    hard = -np.log(softmax(logits)[np.arange(len(labels)), labels])
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    return (1 - weight) * hard + weight * temperature**2 * (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize(("weight", "temperature"), [(0, 1), (1, 1), (1, 4), (0.3, 2), (0.5, 0.5)])
def test_loss_and_gradient_are_those_of_the_equation(weight, temperature):
    rng = np.random.default_rng(0)
    logits, teacher = rng.normal(0, 3, (2, 6, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 6).astype(np.int32)
    rest = labels, teacher, np.float32(weight), np.float32(temperature)
    got = distillation.distillation_loss(logits, *rest)
    assert_close(got, loss(logits, *rest), 1e-4)

    summed = quick_jit(jax.grad(lambda *args: distillation.distillation_loss(*args).sum()))
    slope, step = np.zeros(logits.shape), 1e-5
    for i in np.ndindex(*logits.shape):
        nudge = np.zeros(logits.shape)
        nudge[i] = step
        ahead, behind = (loss(logits + sign * nudge, *rest).sum() for sign in (1, -1))
        slope[i] = (ahead - behind) / (2 * step)
    assert_close(summed(logits, *rest), slope, 1e-4)


def uploads_of(features, labels, filled=FILLED):
    shaped = features.reshape(*filled.shape, -1), labels.reshape(filled.shape)
    return make_feature_buffer(*shaped, filled)


def poisoned(filled=FILLED):
    """One-hot rows, so that row r of the parameters is what the model says of sample r.

    Where nothing was uploaded: nan, and a label that does not exist.
    """
    empty = ~filled.ravel()
    features = np.where(empty[:, None], np.nan, np.eye(ROWS)).astype(np.float32)
    labels = np.where(empty, 99, np.arange(ROWS) % NUM_CLASSES).astype(np.int32)
    return uploads_of(features, labels, filled)


def table():
    return np.random.default_rng(1).normal(size=(ROWS, NUM_CLASSES)).astype(np.float32)


def test_uploads_put_the_filled_rows_first_in_order():
    uploads = poisoned()
    assert int(uploads.count) == COUNT
    filled, empty = np.flatnonzero(FILLED), np.flatnonzero(~FILLED)
    assert uploads.order.tolist() == [*filled.tolist(), *empty.tolist()]


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("filled", [FILLED, SHORT], ids=["whole batches", "last batch short"])
def test_predictions_are_those_of_the_filled_rows_and_zero_elsewhere(filled, devices):
    uploads = uploads_of(np.eye(ROWS, dtype=np.float32), np.zeros(ROWS, int), filled)
    got = predict(table(), uploads, devices)
    wanted = np.where(filled.reshape(-1, 1), table(), 0)
    assert_close(got, wanted, 1e-6)


@pytest.mark.parametrize("filled", [FILLED, SHORT], ids=["whole batches", "last batch short"])
@pytest.mark.parametrize("taught", [False, True], ids=["hard labels", "teacher"])
@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (1, 2), (2, 2), (2, 3), (4, 3)])
def test_a_pass_takes_every_filled_row_once_and_no_other(devices, parts, taught, filled):
    """Each row of the table moves by its own gradient over its batch's size, once.

    In the second batch, momentum moves the rows of the first once more, by 0.9 of that.
    """
    weight, temperature = 0.4, 2.0
    start, teacher = table(), np.where(filled.reshape(-1, 1), 2 * table()[::-1], np.nan)
    lesson = (teacher.astype(np.float32), weight, temperature) if taught else (None, 0.0, 1.0)
    params, _ = learn(start, poisoned(filled), *lesson, devices, parts)
    moved = np.asarray(params, np.float64) - start

    labels = np.arange(ROWS) % NUM_CLASSES
    gradient = softmax(start.astype(np.float64)) - np.eye(NUM_CLASSES)[labels]
    if taught:
        soft = softmax(start / temperature) - softmax(teacher / temperature)
        gradient = (1 - weight) * gradient + weight * temperature * soft
    rows, count = np.flatnonzero(filled), int(filled.sum())
    batches = {(1.9, BATCH): 0, (1.0, count - BATCH): 0}  # momentum's factor, size: rows so far
    for row in rows:
        shares = [factor / size for factor, size in batches]
        fits = [np.abs(moved[row] + RATE * s * gradient[row]).max() < 1e-5 for s in shares]
        assert sum(fits) == 1
        batches[list(batches)[fits.index(True)]] += 1
    assert [size for _, size in batches] == list(batches.values())
    assert not moved[np.setdiff1d(np.arange(ROWS), rows)].any()


def test_nothing_uploaded_teaches_nothing():
    params, state = learn(table(), poisoned(np.zeros_like(FILLED)), None, 0.0, 1.0)
    np.testing.assert_array_equal(params, table())
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("filled", [FILLED, SHORT], ids=["whole batches", "last batch short"])
def test_every_pass_has_its_own_order_of_the_same_rows(filled):
    uploads, count = poisoned(filled), int(filled.sum())
    passes = np.asarray(distillation.draw_order(uploads, jax.random.key(3), 6, BATCH))
    for order in passes:
        assert sorted(order[:count]) == np.flatnonzero(filled).tolist()
        assert (order[count:] == ROWS).all()
    assert len({tuple(order) for order in passes}) == len(passes)
