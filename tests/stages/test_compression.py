"""Codecs against NumPy: what arrives, what it weighs, and that no other sample changes it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cefl_jax.stages.link import NAMES, Codec
from tests.compare import assert_close
from tests.quick import quick_jit

encode = quick_jit(lambda codec, *message: codec.encode(*message), static_argnums=0)
transmit = quick_jit(lambda codec, *message: codec.transmit(*message), static_argnums=0)
vmapped = quick_jit(lambda codec, *messages: jax.vmap(codec.transmit)(*messages), static_argnums=0)

SHAPE = (3, 2, 3)
KEY = jax.random.key(3)
EVERY = pytest.mark.parametrize("codec", [Codec(rule, 0.3) for rule in NAMES], ids=NAMES)
drawn = settings(deadline=None, max_examples=60)


@st.composite
def messages(draw, scales=(1e-20, 1e-3, 1.0, 1e6)):
    """A message of many scales, with zeros and equal magnitudes, and which of its samples count."""
    values = st.integers(-(2**18), 2**18).map(lambda n: n / 2**16) | st.sampled_from(
        [0.0, 1.0, -1.0]
    )
    x = draw(hnp.arrays(np.float32, SHAPE, elements=values))
    x *= np.float32(draw(st.sampled_from(scales)))
    return x, draw(hnp.arrays(bool, SHAPE[:1]))


@drawn
@given(messages((1e-37, 1e-20, 1.0, 1e6)), st.integers(0, 2**31 - 1))
def test_int8_rounds_down_after_a_random_share_of_a_step(message, seed):
    """So that x arrives on average; multiples of a step too small for its reciprocal are zeros."""
    x, valid = message
    key = jax.random.key(seed)
    values, scale = map(np.asarray, encode(Codec("int8", 0.5), key, x, valid))
    counted = np.where(valid[:, None, None], x, 0).astype(np.float64)
    step = np.abs(counted).max() / 127
    step = step if step >= np.finfo(np.float32).tiny else 0.0
    share = np.asarray(jax.random.uniform(key, x.shape), np.float64)
    exact = counted / (step or np.inf) + share
    sure = np.abs(exact - np.rint(exact)) > 1e-4
    assert values.dtype == np.int8
    assert_close(scale, np.float32(step), 1e-6)
    np.testing.assert_array_equal(values[sure], np.floor(exact)[sure])
    assert np.abs(values).max() <= 127
    arrived = transmit(Codec("int8", 0.5), key, x, valid)
    np.testing.assert_array_equal(arrived, values.astype(np.float32) * scale)


def round_to_bf16(x):
    """Nearest f32 whose lower half is zero, ties to the even upper half."""
    bits = x.view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


@drawn
@given(hnp.arrays(np.uint32, SHAPE))
def test_bf16_rounds_to_nearest_and_ties_to_even(bits):
    exponent = np.clip(bits >> 23 & 0xFF, 1, 0xFD) << 23  # no subnormal numbers, none infinite
    x = (bits & 0x807FFFFF | exponent).astype(np.uint32).view(np.float32)
    codec, valid = Codec("bf16", 0.5), np.ones(3, bool)
    (values,) = encode(codec, KEY, x, valid)
    assert values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(values, np.float32), round_to_bf16(x))
    np.testing.assert_array_equal(transmit(codec, KEY, x, valid), round_to_bf16(x))


def test_bf16_asks_the_compiler_for_the_rounding():
    """A pair of conversions may be dropped by a compiler, on other machines than this one."""
    send = lambda x: Codec("bf16", 0.5).transmit(KEY, x, np.ones(1, bool))  # noqa: E731
    made = str(jax.make_jaxpr(send)(np.ones((1, 2), np.float32)))
    assert "reduce_precision[exponent_bits=8 mantissa_bits=7]" in made


@drawn
@given(messages(), st.sampled_from([(0.01, 1), (0.5, 3), (0.7, 5), (1.0, 6)]))
def test_topk_sends_the_largest_magnitudes_of_each_sample(message, share_and_count):
    """Of equal ones the first; the others arrive as 0."""
    (x, valid), (share, count) = message, share_and_count
    flat, kept = x.reshape(3, -1), np.zeros((3, 6), np.float32)
    order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :count]
    np.put_along_axis(kept, order, np.take_along_axis(flat, order, 1), 1)
    values, index = encode(Codec("topk", share), KEY, x, valid)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(values, np.take_along_axis(flat, order, 1))
    arrived = transmit(Codec("topk", share), KEY, x, valid)
    np.testing.assert_array_equal(arrived, kept.reshape(SHAPE))


@pytest.mark.parametrize("num_values", [256, 257])
def test_topk_reaches_the_last_value_of_each_index_type(num_values):
    x = np.zeros((2, num_values), np.float32)
    x[:, -1] = 5
    np.testing.assert_array_equal(transmit(Codec("topk", 0.001), KEY, x, np.ones(2, bool)), x)


@pytest.mark.parametrize(
    ("rule", "share", "shape", "per_sample"),
    [
        ("none", 0.1, (3, 100), 4 * 300),
        ("bf16", 0.1, (3, 100), 2 * 300),
        ("int8", 0.1, (3, 100), 300),
        ("topk", 0.1, (3, 100), 30 * (4 + 2)),  # a value and its index, of the smallest type
        ("topk", 0.1, (1,), 1 * 5),
        ("topk", 0.1, (256,), 26 * 5),
        ("topk", 0.1, (257,), 26 * 6),
        ("topk", 0.1, (65_536,), 6554 * 6),
        ("topk", 0.1, (65_537,), 6554 * 8),
        ("topk", 0.07, (100,), 7 * 5),  # though 0.07 * 100 is above 7 in binary
        ("topk", 0.3, (10,), 3 * 5),
        ("topk", 0.5, (3,), 2 * 5),
        ("topk", 1e-5, (3,), 1 * 5),
        ("topk", 1, (5,), 5 * 5),
    ],
)
def test_size_is_that_of_the_arrays_sent(rule, share, shape, per_sample):
    codec = Codec(rule, share)
    payload = codec.size(shape)
    assert payload == (per_sample, 4 if rule == "int8" else 0)  # with the scale of a message
    assert {type(part) for part in payload} == {int}
    packet = jax.eval_shape(codec.encode, KEY, jnp.ones((7, *shape)), jnp.ones(7, bool))
    assert payload.of(7, 1) == sum(array.size * array.dtype.itemsize for array in packet)


@EVERY
def test_transmit_is_the_same_beside_any_clients_and_padding(codec):
    rng = np.random.default_rng(5)
    x = np.float32(rng.normal(0, 1, (5, 5, 7)) * 10.0 ** rng.integers(-3, 3, (5, 1, 1)))
    valid = np.arange(5) < np.array([[5], [1], [2], [0], [5]])
    padded = np.where(valid[..., None], x, np.float32(3e38))
    keys = jax.random.split(KEY, 5)
    alone = np.stack([transmit(codec, keys[k], x[k], valid[k]) for k in range(5)])

    @quick_jit
    def one_after_another():
        send = lambda message: codec.transmit(*message)  # noqa: E731
        return jax.lax.map(send, (keys, jnp.asarray(x), jnp.asarray(valid)))

    assert alone.dtype == np.float32
    np.testing.assert_array_equal(vmapped(codec, keys, x, valid), alone)
    np.testing.assert_array_equal(one_after_another(), alone)
    np.testing.assert_array_equal(codec.transmit(keys[0], x[0], valid[0]), alone[0])
    beside_padding = np.asarray(vmapped(codec, keys, padded, valid))
    np.testing.assert_array_equal(beside_padding[valid], alone[valid])
    assert np.isfinite(beside_padding).all()


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_transmit_of_what_diverged_is_not_finite(codec, bad):
    x = np.ones(SHAPE, np.float32)
    x[1, 1, 1] = bad
    assert not np.isfinite(np.asarray(transmit(codec, KEY, x, np.ones(3, bool)))[1, 1, 1])


def test_transmit_costs_nothing_with_none():
    x = jnp.ones((2, 3))
    assert Codec("none", 0.1).transmit(KEY, x, np.ones(2, bool)) is x


@pytest.mark.parametrize(
    ("rule", "share", "message"),
    [
        ("fp8", 0.1, r"^compression rule='fp8' is unknown; known: none, bf16, int8, topk$"),
        ("topk", 0.0, r"^compression topk_share=0\.0 is the share .* above 0 and at most 1$"),
        ("topk", 1.01, r"^compression topk_share=1\.01 "),
        ("none", -0.1, r"^compression topk_share=-0\.1 "),
        ("topk", math.nan, r"^compression topk_share=nan "),
    ],
)
def test_codec_refuses_bad_settings(rule, share, message):
    with pytest.raises(ValueError, match=message):
        Codec(rule, share)
