"""The product of dense layers with its own gradient, against JAX's derivative of one."""

import jax
import numpy as np
import pytest

from cefl_jax.models.zoo import dot_general
from tests.quick import quick_jit


def drawn(batch, inputs, outputs, num_clients=3):
    """Inputs, kernels and gradients by the outputs of every client; integers, so sums are exact."""
    rng = np.random.default_rng(0)
    shapes = (batch, inputs), (inputs, outputs), (batch, outputs)
    return [rng.integers(-9, 10, (num_clients, *shape)).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("sizes", [(4, 7, 5), (1, 6, 3), (5, 1, 1)], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_dot_general_and_its_gradients_are_those_of_a_matrix_product(sizes, shared):
    """Every client with a kernel of its own, or all with the first one's."""
    x, kernels, grads = drawn(*sizes)
    kernel, axis = (kernels[0], None) if shared else (kernels, 0)

    def outcome(product):
        value, pull = jax.vjp(jax.vmap(product, in_axes=(0, axis)), x, kernel)
        return value, *pull(grads)

    ours = lambda x, k: dot_general(x, k, (((1,), (0,)), ((), ())))  # noqa: E731
    got, wanted = quick_jit(lambda: (outcome(ours), outcome(lambda x, k: x @ k)))()
    for values, correct in zip(got, wanted, strict=True):
        assert np.any(correct)
        np.testing.assert_array_equal(values, correct)
