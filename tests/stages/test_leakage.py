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
from cefl_jax.stages.compression import Codec
from tests.compare import assert_close
from tests.quick import quick_jit

correlation = quick_jit(leakage.distance_correlation)
NONE = Codec("none", 0.1)
KEY = jax.random.key(7)


def centred(points):
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

    a, b = centred(x), centred(y)
    return math.sqrt(max(covariance(a, b), 0) / math.sqrt(covariance(a, a) * covariance(b, b)))


def points(n, shape):
    """Few different values, so that some points coincide, or close together far from zero."""
    whole = hnp.arrays(np.float32, (n, *shape), elements=st.integers(-2, 2).map(np.float32))
    close = whole.map(lambda x: np.float32(1000) + x * np.float32(2.0**-12))
    return whole | close | whole.map(lambda x: x * np.float32(1e-15))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([1, 2, 7]).flatmap(lambda n: st.tuples(points(n, (2, 2)), points(n, (3,)))))
def test_distance_correlation_is_that_of_the_definition(pair):
    x, y = pair
    got = float(correlation(x, y))
    assert_close(got**2, oracle(x, y) ** 2, 0, atol=5e-6)
    assert 0 <= got <= 1


def test_distance_correlation_worked_out_by_hand():
    """Of -1, 0, 1 and their squares: 81 n^2 dCov^2 = 72, and the variances 360 and 144.

    Centred distances, times 9: -10 2 8 / 2 -4 2 / 8 2 -10, and -2 4 -2 / 4 -8 4 / -2 4 -2.
    """
    x = np.float32([[-1], [0], [1]])
    wanted = math.sqrt(72 / math.sqrt(360 * 144))
    assert_close(oracle(x, x**2), wanted)
    assert_close(correlation(x, x**2), wanted, 0, atol=1e-6)


def example(n=40):
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(0, 1, (n, 3, 2)))
    return rng, x, np.float32(np.tanh(x[:, :, 0] + 0.3 * rng.normal(0, 1, (n, 3))))


def test_a_shifted_scaled_and_rotated_copy_gives_all_away():
    rng, x, _ = example()
    rotation, _ = np.linalg.qr(rng.normal(0, 1, (6, 6)))
    copy = np.float32(3 - 0.2 * x.reshape(40, 6) @ rotation)
    assert_close(correlation(x, x), 1, 0, atol=1e-6)
    assert_close(correlation(x, copy), 1, 0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e4, 1e25])
def test_units_and_origin_do_not_matter(scale):
    rng, x, y = example()
    rotation, _ = np.linalg.qr(rng.normal(0, 1, (6, 6)))
    moved = np.float32((x.reshape(40, 6) @ rotation + 2) * scale)
    wanted = float(correlation(x, y))
    assert 0.3 < wanted < 0.95
    assert_close(correlation(moved, y), wanted, 0, atol=1e-5)
    assert_close(correlation(y, moved), wanted, 0, atol=1e-5)


@pytest.mark.parametrize(("features", "low", "high"), [(1, 0.1, 0.3), (60, 0.8, 1.0)])
def test_independent_observations_correlate_by_chance_the_more_the_wider(features, low, high):
    """The sample value is biased: as wide as they are many, independent points look dependent."""
    rng = np.random.default_rng(1)
    x, y = (np.float32(rng.normal(0, 1, (60, features))) for _ in range(2))
    got = float(correlation(x, y))
    assert_close(got, oracle(x, y), 0, atol=1e-5)
    assert low < got < high


@pytest.mark.parametrize("constant", [0.0, 0.1, -1234.567, 1e30])
def test_what_never_changes_gives_nothing_away(constant):
    _, x, _ = example()
    y = np.full((40, 3), constant, np.float32)
    assert float(correlation(x, y)) == 0
    assert float(correlation(y, x)) == 0
    assert float(correlation(y, y)) == 0


def test_rounding_leads_neither_below_nothing_nor_above_everything():
    """Every value of x beside every value of y has dCov 0; 3 x gives all of x away."""
    rng = np.random.default_rng(2)
    for _ in range(40):
        x, y = np.float32(rng.normal(0, 1, (2, 3, 1)))
        none = float(correlation(np.repeat(x, 3, 0), np.tile(y, (3, 1))))
        everything = float(correlation(np.repeat(x, 3, 0), 3 * np.repeat(x, 3, 0)))
        assert 0 <= none < 1e-3
        assert 1 - 1e-6 < everything <= 1


def test_two_points_differ_or_they_do_not():
    x = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    assert_close(float(correlation(x, np.float32([[5, 1, 2], [0, 0, 1]]))), 1, 0, atol=1e-6)
    assert float(correlation(x, np.zeros((2, 3), np.float32))) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_diverged_has_no_correlation(bad):
    _, x, y = example()
    y[7, 1] = bad
    assert np.isnan(correlation(x, y))


def test_noise_has_the_standard_deviation_asked_for():
    """Of n normal values the mean deviates by std / sqrt(n), the deviation by std / sqrt(2 n)."""
    features = jnp.full((100, 200), 3.0)
    noise = np.asarray(leakage.add_noise(KEY, features, 0.5), np.float64) - 3
    assert abs(noise.mean()) < 5 * 0.5 / math.sqrt(noise.size)
    assert_close(noise.std(), 0.5, 0, atol=5 * 0.5 / math.sqrt(2 * noise.size))
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5


def test_noise_may_be_traced():
    features = jnp.linspace(-1, 1, 6).reshape(2, 3)
    traced = quick_jit(leakage.add_noise)
    np.testing.assert_array_equal(traced(KEY, features, 0.0), features)
    assert_close(traced(KEY, features, 0.5), leakage.add_noise(KEY, features, 0.5), 1e-6)


@pytest.mark.parametrize("std", [0, 0.0, -0.0, np.float32(0)])
def test_without_noise_nothing_is_computed(std):
    features = jnp.ones((2, 3))
    assert leakage.add_noise(KEY, features, std) is features


def front(params, images):
    return jnp.tanh(images.reshape(len(images), -1) @ params)


def probe():
    rng = np.random.default_rng(3)
    return (np.float32(rng.normal(0, 0.4, (8, 5))), np.float32(rng.normal(0, 1, (30, 2, 4, 1))))


def test_leakage_falls_as_noise_grows():
    params, images = probe()
    measure = quick_jit(
        lambda std: leakage.measure_leakage(
            front, params, images, noise_std=std, codec=NONE, key=KEY
        )
    )
    values = [float(measure(std)) for std in (0.0, 0.5, 1.5, 5.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.2
    assert_close(values[0], oracle(images, np.asarray(front(params, images))), 0, atol=1e-5)


def test_leakage_is_of_what_the_codec_delivers():
    """One value of five per sample arrives; the rule draws no random numbers."""
    params, images = probe()
    features = np.asarray(front(params, images))
    kept = np.where(np.abs(features) == np.abs(features).max(1, keepdims=True), features, 0)
    got = leakage.measure_leakage(
        front, params, images, noise_std=0.0, codec=Codec("topk", 0.2), key=KEY
    )
    assert_close(got, oracle(images, kept), 0, atol=1e-5)
    assert abs(float(got) - oracle(images, features)) > 0.01


def test_noise_comes_before_the_codec_and_by_a_key_of_its_own():
    params, images = probe()
    sent = []

    class Recorder(Codec):
        def transmit(self, key, x, valid):
            sent.append((key, x, valid))
            return jnp.zeros_like(x)

    recorded = leakage.measure_leakage(
        front, params, images, noise_std=0.5, codec=Recorder("none", 1.0), key=KEY
    )
    ((key, x, valid),) = sent
    noise = (np.asarray(x) - front(params, images)) / 0.5
    assert float(recorded) == 0
    assert valid.shape == (30,)
    assert valid.all()
    assert 0.8 < noise.std() < 1.2
    for other in (key, KEY):
        assert np.abs(noise - jax.random.normal(other, x.shape)).max() > 0.1
