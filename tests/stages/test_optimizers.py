"""Steps of the optimizers against PyTorch's rules, written down in float64 NumPy."""

import itertools

import numpy as np
import pytest

from cefl_jax.stages.optimizers import descend, make_direction
from tests.compare import assert_close
from tests.quick import quick_jit

STEPS, RATE = 5, 0.3
CASES = [  # name, momentum, weight decay, clip norm; gradients have norms from about 0.5 to 8
    ("sgd", 0.0, 0.0, None),
    ("sgd", 0.9, 0.0, None),
    ("sgd", 0.9, 0.01, 2.0),
    ("sgd", 0.0, 0.1, 2.0),
    ("adam", 0.0, 0.0, None),
    ("adam", 0.0, 0.01, 2.0),
]


def drawn():
    """First parameters, and a gradient for every step; two leaves, so that a norm is global."""
    rng = np.random.default_rng(0)
    shapes = ((3, 2), (4,))
    params = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    scales = np.geomspace(0.2, 3, STEPS)
    grads = [[(s * rng.normal(size=shape)).astype(np.float32) for shape in shapes] for s in scales]
    return params, grads


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


def expected(name, momentum, weight_decay, clip_norm):
    """The parameters after every step."""
    params, all_grads = drawn()
    params = [p.astype(np.float64) for p in params]
    memories, path = [{} for _ in params], []
    for grads in all_grads:
        grads = [g.astype(np.float64) for g in grads]
        if clip_norm is not None:
            grads = clip(grads, clip_norm)
        rule = {"sgd": sgd, "adam": adam}[name]
        for leaf, (memory, grad) in enumerate(zip(memories, grads, strict=True)):
            grad = grad + weight_decay * params[leaf]
            params[leaf] = params[leaf] - RATE * rule(memory, grad, momentum)
        path.append(list(params))
    return path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_are_those_of_pytorch(case):
    direction = make_direction(*case)
    params, all_grads = drawn()
    state = direction.init(params)
    step = quick_jit(lambda *args: descend(direction, *args))
    path = expected(*case)
    for grads, wanted in zip(all_grads, path, strict=True):
        params, state = step(grads, state, params, np.float32(RATE))
        for leaf, correct in zip(params, wanted, strict=True):
            assert_close(leaf, correct)


def test_the_cases_tell_the_rules_apart():
    """Clipping acts on some steps and not on others, and no two cases agree."""
    norms = [np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads)) for grads in drawn()[1]]
    assert min(norms) < 2.0 < max(norms)
    ends = [np.concatenate([leaf.ravel() for leaf in expected(*case)[-1]]) for case in CASES]
    assert all(np.abs(a - b).max() > 1e-2 for a, b in itertools.combinations(ends, 2))


def test_a_limit_leaves_a_gradient_of_zero_alone():
    direction = make_direction("sgd", clip_norm=1.0)
    params = [np.ones(3, np.float32)]
    moved, _ = descend(direction, [np.zeros(3, np.float32)], direction.init(params), params, 1.0)
    np.testing.assert_array_equal(moved[0], params[0])


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.name='lion' is unknown; known: sgd, adam"):
        make_direction("lion")
