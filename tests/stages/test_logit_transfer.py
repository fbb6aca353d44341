"""Knowledge transfer: the losses from their equations, and what is kept of what was said."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cefl_jax.stages import logit_transfer
from tests.compare import assert_close

LABELS = np.array([2, 0, 1, 1])


def drawn(seed):
    return np.random.default_rng(seed).normal(scale=2, size=(4, 3))


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def loss_of(logits, teacher, weight, temperature):
    """CE + weight KL(teacher_T || student_T) of each sample: no T^2, no 1 - weight."""
    hard = -np.log(softmax(logits)[np.arange(4), LABELS])
    p, q = softmax(teacher / temperature), softmax(logits / temperature)
    return hard + weight * (p * np.log(p / q)).sum(1)


def test_the_divergence_stands_beside_the_cross_entropy():
    logits, teacher = drawn(0), drawn(1)
    for weight, temperature in ((1.0, 3.0), (0.0, 2.0), (2.5, 0.5)):
        got = logit_transfer.transfer_loss(logits, LABELS, teacher, weight, temperature)
        assert_close(got, loss_of(logits, teacher, weight, temperature))


def test_a_client_hears_only_of_what_was_said():
    logits, known = drawn(0), np.array([True, False, True, False])
    told = logit_transfer.TeacherLogits(jnp.float32(drawn(1)), known)
    got = logit_transfer.client_loss(2.0, 3.0)(logits, LABELS, told)
    said, unsaid = (loss_of(logits, drawn(1), weight, 3.0) for weight in (2.0, 0.0))
    assert_close(got, np.where(known, said, unsaid))


def test_without_weight_the_gradient_is_that_of_the_labels_to_the_bit():
    told = logit_transfer.TeacherLogits(jnp.float32(drawn(1)), np.full(4, True))
    loss = lambda z: logit_transfer.client_loss(0.0, 3.0)(z, LABELS, told).sum()  # noqa: E731
    alone = lambda z: optax.losses.softmax_cross_entropy_with_integer_labels(z, LABELS).sum()  # noqa: E731
    got, expected = (jax.grad(f)(jnp.float32(drawn(0))) for f in (loss, alone))
    np.testing.assert_array_equal(got, expected)


def test_what_is_said_lasts_until_something_else_is():
    told = logit_transfer.init_teacher_logits(5, 3)
    examples = np.array([[[4, 1]], [[0, 2]]])
    filled = np.array([[[True, True]], [[True, False]]])
    told = logit_transfer.update_teacher_logits(told, examples, filled, jnp.float32(drawn(0)))
    later = np.array([[[1, 3]], [[5, 5]]])
    told = logit_transfer.update_teacher_logits(
        told, later, np.array([[[True, True]], [[False, False]]]), jnp.float32(drawn(1))
    )
    np.testing.assert_array_equal(told.known, [True, True, False, True, True])
    first, then, zero = np.float32(drawn(0)), np.float32(drawn(1)), np.zeros(3)
    rows = [first[2], then[0], zero, then[1], first[0]]
    np.testing.assert_array_equal(told.logits, rows)
