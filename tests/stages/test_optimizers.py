"""Steps of the optimizers against PyTorch's rules, written down in float64 NumPy."""

import numpy as np
import pytest

from cefl_jax.stages.optimizers import descend, make_direction
from tests.compare import assert_close
from tests.quick import quick_jit

STEPS, RATE = 5, 0.3
RNG = np.random.default_rng(0)
SHAPES = (3, 2), (4,)  # of two leaves, so that a norm is global
PARAMS = [RNG.normal(size=shape).astype(np.float32) for shape in SHAPES]
GRADS = [  # of norms below and above 2
    [(scale * RNG.normal(size=shape)).astype(np.float32) for shape in SHAPES]
    for scale in np.geomspace(0.2, 3, STEPS)
]


def clip(grads, limit):
    """torch.nn.utils.clip_grad_norm_: all leaves shrink alike, to a norm of at most the limit."""
    norm = np.sqrt(sum((g**2).sum() for g in grads))
    return [g * min(1.0, limit / norm) for g in grads]


def sgd(memory, grad, momentum):
    """torch.optim.SGD: the buffer begins as the first gradient, and has no dampening."""
    memory["buffer"] = momentum * memory.get("buffer", 0.0) + grad
    return memory["buffer"]


def adam(memory, grad, _):
    """torch.optim.Adam with its defaults: betas 0.9 and 0.999, eps 1e-8 outside the root."""
    step = memory["step"] = memory.get("step", 0) + 1
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * grad
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * grad**2
    m, v = memory["m"] / (1 - 0.9**step), memory["v"] / (1 - 0.999**step)
    return m / (np.sqrt(v) + 1e-8)


@pytest.mark.parametrize(
    ("name", "momentum", "weight_decay", "clip_norm"),
    [
        ("sgd", 0.0, 0.0, None),
        ("sgd", 0.9, 0.0, None),
        ("sgd", 0.9, 0.01, 2.0),
        ("sgd", 0.0, 0.1, 2.0),
        ("adam", 0.0, 0.0, None),
        ("adam", 0.0, 0.01, 2.0),
    ],
)
def test_descend_makes_the_steps_of_pytorch(name, momentum, weight_decay, clip_norm):
    direction = make_direction(name, momentum, weight_decay, clip_norm)
    step = quick_jit(lambda *args: descend(direction, *args))
    params, state, memories = PARAMS, direction.init(PARAMS), [{} for _ in PARAMS]
    wanted = [leaf.astype(np.float64) for leaf in PARAMS]
    for drawn in GRADS:
        params, state = step(drawn, state, params, np.float32(RATE))
        grads = [leaf.astype(np.float64) for leaf in drawn]
        if clip_norm is not None:
            grads = clip(grads, clip_norm)
        for leaf, (memory, grad) in enumerate(zip(memories, grads, strict=True)):
            grad = grad + weight_decay * wanted[leaf]
            move = {"sgd": sgd, "adam": adam}[name](memory, grad, momentum)
            wanted[leaf] = wanted[leaf] - RATE * move
        assert_close(params, wanted)


def test_make_direction_with_a_limit_leaves_a_gradient_of_zero_alone():
    direction = make_direction("sgd", clip_norm=1.0)
    params = [np.ones(3, np.float32)]
    moved, _ = descend(direction, [np.zeros(3, np.float32)], direction.init(params), params, 1.0)
    np.testing.assert_array_equal(moved[0], params[0])


def test_make_direction_refuses_an_unknown_optimizer():
    with pytest.raises(ValueError, match=r"optimizer\.name='lion' is unknown; known: sgd, adam"):
        make_direction("lion")
