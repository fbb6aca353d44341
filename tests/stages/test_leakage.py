"""Distance correlation against its definition, and what noise and codecs do to it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cefl_jax.stages import leakage
from cefl_jax.stages.link import Codec
from tests.compare import assert_close
from tests.quick import quick_jit

correlation = quick_jit(leakage.distance_correlation)
KEY = jax.random.key(7)


def centre(points):
    """Euclidean distances less the means of their row and column, plus the mean of all."""
    n = len(points)
    flat = [np.asarray(point, np.float64).ravel() for point in points]
    d = [[math.dist(a, b) for b in flat] for a in flat]
    row = [sum(d[i]) / n for i in range(n)]
    whole = sum(row) / n
    return [[d[i][j] - row[i] - row[j] + whole for j in range(n)] for i in range(n)]


def oracle(x, y):
    """Szekely, Rizzo and Bakirov (2007), equations 2.8 to 2.10, in float64."""
    if all(np.array_equal(x[0], a) for a in x) or all(np.array_equal(y[0], b) for b in y):
        return 0.0

    def covariance(a, b):
        n = len(a)
        return sum(a[i][j] * b[i][j] for i in range(n) for j in range(n)) / n**2

    a, b = centre(x), centre(y)
    return math.sqrt(max(covariance(a, b), 0) / math.sqrt(covariance(a, a) * covariance(b, b)))


@st.composite
def pairs(draw):
    """Few different values, so that some points coincide, on any scale, or far from zero."""
    n = draw(st.sampled_from([1, 2, 7]))
    offset, scale = draw(st.sampled_from([(0, 1), (1000, 2.0**-12), (0, 1e-30), (0, 1e25)]))
    x, y = (
        draw(hnp.arrays(np.float32, (n, *shape), elements=st.integers(-2, 2).map(float)))
        for shape in ((2, 2), (3,))
    )
    moved = np.float32(offset) + x * np.float32(scale)
    return draw(st.sampled_from([(moved, y), (y, moved), (moved, -3 * moved)]))


@settings(deadline=None, max_examples=150)
@given(pairs())
def test_distance_correlation_is_that_of_the_definition(pair):
    assert_close(float(correlation(*pair)) ** 2, oracle(*pair) ** 2, 0, atol=5e-6)


def draw_points(*shape, seed=0):
    return np.float32(np.random.default_rng(seed).normal(0, 1, shape))


X, Y = draw_points(40, 3, 2), draw_points(40, 3, seed=1)
LINE = np.float32([[-1], [0], [1]])
SAME = np.ones((40, 3), np.float32)
ROTATION, _ = np.linalg.qr(draw_points(6, 6, seed=2))


@pytest.mark.parametrize(
    ("x", "y", "wanted"),
    [
        # Centred distances, times 9: -10 2 8 / 2 -4 2 / 8 2 -10, and -2 4 -2 / 4 -8 4 / -2 4 -2.
        (LINE, LINE**2, math.sqrt(72 / math.sqrt(360 * 144))),
        (X, X, 1),
        (X, 3 - 0.2 * X.reshape(40, 6) @ ROTATION, 1),
        (X[:2], Y[:2], 1),
        (X, 0.1 * SAME, 0),
        (1e30 * SAME, X, 0),
        (-1234.567 * SAME, 0.1 * SAME, 0),
        (X[:1], Y[:1], 0),
        (X, np.nan * SAME, np.nan),
        (X + np.where(X > 2, np.float32(np.inf), 0), Y, np.nan),
    ],
)
def test_distance_correlation_of_copies_constants_and_what_diverged(x, y, wanted):
    assert_close(correlation(x, y), wanted, 0, atol=1e-5 if wanted else 0)


def test_distance_correlation_is_not_below_0_nor_above_1_by_rounding():
    """Every value of x beside every value of y has dCov 0; 3 x gives all of x away."""
    for x, y in draw_points(40, 2, 3, 1):
        x, y = np.repeat(x, 3, 0), np.tile(y, (3, 1))
        assert 0 <= float(correlation(x, y)) < 1e-3
        assert 1 - 1e-6 < float(correlation(x, 3 * x)) <= 1


def test_add_noise_has_the_standard_deviation_asked_for():
    """Of n normal values the mean deviates by std / sqrt(n), the deviation by std / sqrt(2 n)."""
    features = jnp.full((100, 200), 3.0)
    traced = quick_jit(leakage.add_noise)
    noise = np.asarray(traced(KEY, features, 0.5), np.float64) - 3
    assert abs(noise.mean()) < 5 * 0.5 / math.sqrt(noise.size)
    assert_close(noise.std(), 0.5, 0, atol=5 * 0.5 / math.sqrt(2 * noise.size))
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5
    assert_close(leakage.add_noise(KEY, features, 0.5), noise + 3, 1e-6)
    np.testing.assert_array_equal(traced(KEY, features, 0.0), features)


@pytest.mark.parametrize("std", [0, -0.0, np.float32(0)])
def test_add_noise_computes_nothing_without_noise(std):
    features = jnp.ones((2, 3))
    assert leakage.add_noise(KEY, features, std) is features


PARAMS, IMAGES = 0.4 * draw_points(8, 5), draw_points(30, 2, 4, 1, seed=1)


def front(params, images):
    return jnp.tanh(images.reshape(len(images), -1) @ params)


FEATURES = np.asarray(front(PARAMS, IMAGES))


def measure(noise_std, codec):
    return leakage.measure_leakage(front, PARAMS, IMAGES, noise_std=noise_std, codec=codec, key=KEY)


def test_measure_leakage_is_of_what_the_codec_delivers():
    """All of the features, or one value of five per sample; these rules draw no random numbers."""
    kept = np.where(np.abs(FEATURES) == np.abs(FEATURES).max(1, keepdims=True), FEATURES, 0)
    none, topk = (measure(0.0, Codec(rule, 0.2)) for rule in ("none", "topk"))
    assert_close((none, topk), (oracle(IMAGES, FEATURES), oracle(IMAGES, kept)), 0, atol=1e-5)
    assert abs(float(none) - float(topk)) > 0.01


def test_measure_leakage_adds_noise_before_the_codec_by_a_key_of_its_own():
    sent = []

    class Recorder(Codec):
        def transmit(self, key, x, valid):
            sent.append((key, x, valid))
            return jnp.zeros_like(x)

    assert float(measure(0.5, Recorder("none", 1.0))) == 0
    ((key, x, valid),) = sent
    noise = (np.asarray(x) - FEATURES) / 0.5
    assert valid.shape == (30,)
    assert valid.all()
    assert 0.8 < noise.std() < 1.2
    for other in (key, KEY):
        assert np.abs(noise - jax.random.normal(other, x.shape)).max() > 0.1
