"""Knowledge transfer: the losses from their equations, and which logits are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cefl_jax.stages import logit_transfer
from tests.compare import assert_close

LABELS = np.array([2, 0, 1, 1])
LOGITS, TEACHER = np.random.default_rng(0).normal(scale=2, size=(2, 4, 3)).astype(np.float32)
KNOWN = np.array([True, False, True, False])


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def loss_of(weight, temperature):
    """CE + weight KL(teacher_T || student_T) of each sample: no T^2, no 1 - weight."""
    hard = -np.log(softmax(LOGITS)[np.arange(4), LABELS])
    p, q = softmax(TEACHER / temperature), softmax(LOGITS / temperature)
    return hard + weight * (p * np.log(p / q)).sum(1)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 3.0), (0.0, 2.0), (2.5, 0.5)])
def test_losses_are_those_of_the_equation_and_of_the_labels_where_nothing_is_known(
    weight, temperature
):
    got = logit_transfer.transfer_loss(LOGITS, LABELS, TEACHER, weight, temperature)
    assert_close(got, loss_of(weight, temperature))
    known = logit_transfer.TeacherLogits(jnp.asarray(TEACHER), KNOWN)
    got = logit_transfer.client_loss(weight, temperature)(LOGITS, LABELS, known)
    assert_close(got, np.where(KNOWN, loss_of(weight, temperature), loss_of(0.0, temperature)))


def test_client_loss_without_weight_has_the_gradient_of_the_labels_to_the_bit():
    known = logit_transfer.TeacherLogits(jnp.asarray(TEACHER), np.full(4, True))

    def loss(logits):
        return logit_transfer.client_loss(0.0, 3.0)(logits, LABELS, known).sum()

    def alone(logits):
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, LABELS).sum()

    got, expected = (jax.grad(f)(jnp.asarray(LOGITS)) for f in (loss, alone))
    np.testing.assert_array_equal(got, expected)


def test_update_teacher_logits_keeps_the_last_of_each_example():
    kept = logit_transfer.init_teacher_logits(5, 3)
    for examples, filled, logits in [
        ([[[4, 1]], [[0, 2]]], [[[True, True]], [[True, False]]], LOGITS),
        ([[[1, 3]], [[5, 5]]], [[[True, True]], [[False, False]]], TEACHER),
    ]:
        kept = logit_transfer.update_teacher_logits(
            kept, np.array(examples), np.array(filled), logits
        )
    np.testing.assert_array_equal(kept.known, [True, True, False, True, True])
    rows = [LOGITS[2], TEACHER[0], np.zeros(3), TEACHER[1], LOGITS[0]]
    np.testing.assert_array_equal(kept.logits, rows)
