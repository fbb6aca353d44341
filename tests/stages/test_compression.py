"""Codecs against NumPy: what arrives, what it weighs, and that nobody else has a say in it."""

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cefl_jax.stages.compression import NAMES, Codec
from tests.compare import assert_close
from tests.quick import quick_jit

encode = quick_jit(lambda codec, *message: codec.encode(*message), static_argnums=0)
transmit = quick_jit(lambda codec, *message: codec.transmit(*message), static_argnums=0)
vmapped = quick_jit(lambda codec, *messages: jax.vmap(codec.transmit)(*messages), static_argnums=0)

INT8 = Codec("int8", 0.5)
KEY = jax.random.key(3)
EVERY = pytest.mark.parametrize("codec", [Codec(rule, 0.3) for rule in NAMES], ids=NAMES)


def messages(shape):
    """A message of many scales, with zeros and equal magnitudes, and which of its samples count."""
    values = st.floats(-4, 4, width=32) | st.sampled_from([0.0, 1.0, -1.0, 3.0])
    scale = st.sampled_from([1e-20, 1e-3, 1.0, 1e6])
    whole = st.tuples(hnp.arrays(np.float32, shape, elements=values), scale)
    return st.tuples(
        whole.map(lambda drawn: drawn[0] * np.float32(drawn[1])), hnp.arrays(bool, shape[:1])
    )


def rounded_to_bf16(x):
    """Nearest f32 whose lower half is zero, ties to the even upper half."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


def largest(x, count):
    """Each sample's largest magnitudes and where they are; of equal ones, the first."""
    flat = x.reshape(len(x), -1)
    places = [sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:count] for row in flat]
    kept = np.zeros_like(flat)
    for row, own in enumerate(places):
        kept[row, own] = flat[row, own]
    return places, kept.reshape(x.shape)


@settings(deadline=None, max_examples=60)
@given(messages((3, 2, 3)), st.integers(0, 2**31 - 1))
def test_int8_rounds_down_after_a_random_share_of_a_step(message, seed):
    x, valid = message
    key = jax.random.key(seed)
    values, scale = map(np.asarray, encode(INT8, key, x, valid))
    counted = np.where(valid[:, None, None], x, 0).astype(np.float64)
    assert values.dtype == np.int8
    assert values.shape == x.shape
    assert scale.dtype == np.float32
    assert_close(scale, np.abs(counted).max() / 127, 1e-6)
    share = np.asarray(jax.random.uniform(key, x.shape), np.float64)
    step = np.abs(counted).max() / 127
    exact = counted / (step if step >= np.finfo(np.float32).tiny else np.inf) + share
    sure = np.abs(exact - np.rint(exact)) > 1e-4
    np.testing.assert_array_equal(values[sure], np.floor(exact)[sure])
    assert np.abs(values).max() <= 127
    arrived = np.asarray(transmit(INT8, key, x, valid))
    np.testing.assert_array_equal(arrived, values.astype(np.float32) * scale)
    assert np.abs(arrived - counted).max() <= scale * 1.0001


def test_int8_arrives_as_x_on_average_each_value_by_its_own_chance():
    x = np.linspace(-1.0, 0.9, 12, dtype=np.float32).reshape(2, 6)
    keys = jax.random.split(KEY, 4000)
    send = quick_jit(jax.vmap(INT8.transmit, (0, None, None)))
    steps = np.asarray(send(keys, x, np.ones(2, bool)), np.float64).reshape(4000, -1) * 127
    # A step is 1; a value rounds up with a chance p, so its variance is p (1 - p) <= 1/4.
    chance = x.ravel().astype(np.float64) * 127 % 1
    deviation = np.sqrt(chance * (1 - chance) / len(keys))
    assert np.all(np.abs(steps.mean(0) - x.ravel() * 127.0) <= 5 * deviation + 1e-4)
    odd = steps[:, deviation > 0.1 / np.sqrt(len(keys))]
    correlation = np.corrcoef(odd.T) - np.eye(odd.shape[1])
    assert odd.shape[1] > 8
    assert np.abs(correlation).max() < 5 / np.sqrt(len(keys))


@pytest.mark.parametrize("peak", [0.0, 1e-37, 1e-45])
@pytest.mark.parametrize("counts", [True, False])
def test_int8_sends_zeros_for_what_has_no_scale(peak, counts):
    x = np.full((3, 2, 3), peak, np.float32)
    values, scale = encode(INT8, KEY, x, np.full(3, counts))
    assert not np.asarray(values).any()
    assert scale == 0
    np.testing.assert_array_equal(transmit(INT8, KEY, x, np.full(3, counts)), np.zeros_like(x))


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_diverged_does_not_arrive_as_finite(codec, bad):
    x = np.ones((3, 2, 3), np.float32)
    x[1, 1, 1] = bad
    assert not np.isfinite(np.asarray(transmit(codec, KEY, x, np.ones(3, bool)))[1, 1, 1])


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint32, (3, 2, 3)))
def test_bf16_rounds_to_nearest_and_ties_to_even(bits):
    exponent = np.clip(bits >> 23 & 0xFF, 1, 0xFD) << 23  # no subnormal numbers, none infinite
    x = (bits & 0x807FFFFF | exponent).astype(np.uint32).view(np.float32)
    codec = Codec("bf16", 0.5)
    (values,) = encode(codec, KEY, x, np.ones(3, bool))
    assert values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(values, np.float32), rounded_to_bf16(x))
    np.testing.assert_array_equal(transmit(codec, KEY, x, np.ones(3, bool)), rounded_to_bf16(x))


def test_bf16_is_rounded_where_a_compiler_could_keep_more():
    """Of eight bits: half a step above 1 falls to the even 1, three halves rise to two steps.

    A pair of conversions may be dropped by a compiler, on other machines than this one perhaps, so
    the program must ask for the rounding itself.
    """
    step = 2.0**-7
    x = np.float32([[1, 1 + step / 2, 1 + 3 * step / 2, -1 - step / 2, 1 + 0.6 * step]])
    wanted = np.float32([[1, 1, 1 + 2 * step, -1, 1 + step]])
    send = jax.jit(lambda x: 1.0 * Codec("bf16", 0.5).transmit(KEY, 1.0 * x, np.ones(1, bool)))
    np.testing.assert_array_equal(send(x), wanted)
    assert "reduce_precision[exponent_bits=8 mantissa_bits=7]" in str(jax.make_jaxpr(send)(x))


@settings(deadline=None, max_examples=60)
@given(messages((3, 2, 3)), st.sampled_from([0.01, 0.5, 0.7, 1.0]))
def test_topk_sends_the_largest_magnitudes_of_each_sample(message, share):
    x, valid = message
    codec = Codec("topk", share)
    values, index = map(np.asarray, encode(codec, KEY, x, valid))
    places, kept = largest(x, {0.01: 1, 0.5: 3, 0.7: 5, 1.0: 6}[share])
    assert index.dtype == np.uint8
    np.testing.assert_array_equal(index, places)
    np.testing.assert_array_equal(values, np.take_along_axis(x.reshape(3, -1), index, 1))
    np.testing.assert_array_equal(transmit(codec, KEY, x, valid), kept)


@pytest.mark.parametrize(
    ("share", "num_values"),
    [(0.07, 100), (0.1, 30), (0.1, 31), (0.1, 1), (1e-5, 3), (0.3, 10), (0.5, 3), (1.0, 5), (1, 5)],
)
def test_topk_takes_the_share_as_it_is_written(share, num_values):
    """0.07 of 100 is 7, though 0.07 * 100 is above 7 in binary."""
    count = math.ceil(decimal.Decimal(str(share)) * num_values)
    assert Codec("topk", share).size((num_values,)) == (count * (4 + 1), 0)


@pytest.mark.parametrize(
    ("num_values", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_topk_indices_are_of_the_smallest_type(num_values, dtype):
    x = jax.ShapeDtypeStruct((2, num_values), jnp.float32)
    _, index = jax.eval_shape(Codec("topk", 0.1).encode, KEY, x, np.ones(2, bool))
    assert index.dtype == dtype


def test_topk_reaches_the_last_value_of_each_index_type():
    for num_values in (256, 257):
        x = np.zeros((2, num_values), np.float32)
        x[:, -1] = 5
        np.testing.assert_array_equal(transmit(Codec("topk", 0.001), KEY, x, np.ones(2, bool)), x)


@EVERY
@pytest.mark.parametrize("shape", [(1,), (9,), (3, 2, 50)], ids=str)
def test_size_is_that_of_the_arrays_sent(codec, shape):
    payload = codec.size(shape)
    for count in (1, 2, 7):
        message = KEY, jnp.ones((count, *shape)), jnp.ones(count, bool)
        packet = jax.eval_shape(lambda *message: codec.encode(*message), *message)
        sent = sum(array.size * array.dtype.itemsize for array in packet)
        assert payload.of(count, 1) == sent
    assert {type(part) for part in payload} == {int}


def test_sizes_worked_out_by_hand():
    """Of 300 values: 4, 2 or 1 bytes each, and 30 values of 4 bytes with indices of 2."""
    assert [Codec(rule, 0.1).size((3, 100)) for rule in NAMES] == [
        (1200, 0),
        (600, 0),
        (300, 4),
        (180, 0),
    ]


@EVERY
@settings(deadline=None, max_examples=20)
@given(messages((3, 2, 3)), st.sampled_from([0.0, 1.0, -7.5, 3e38]))
def test_samples_that_do_not_count_have_no_say(codec, message, padding):
    x, valid = message
    padded = np.where(valid[:, None, None], x, np.float32(padding))
    arrived = np.asarray(transmit(codec, KEY, x, valid))
    beside_padding = np.asarray(transmit(codec, KEY, padded, valid))
    np.testing.assert_array_equal(arrived[valid], beside_padding[valid])
    assert np.isfinite(beside_padding).all()


@EVERY
@pytest.mark.parametrize("shape", [(3, 1), (5, 7)], ids=str)
def test_a_client_gets_the_same_bits_beside_any_others(codec, shape):
    rng = np.random.default_rng(5)
    x = np.float32(rng.normal(0, 1, (5, *shape)) * 10.0 ** rng.integers(-3, 3, (5, 1, 1)))
    valid = np.arange(shape[0]) < np.array([[shape[0]], [1], [2], [0], [shape[0]]])
    keys = jax.random.split(KEY, 5)
    alone = [np.asarray(transmit(codec, keys[k], x[k], valid[k])) for k in range(5)]

    def one_after_another(i, sent):
        return sent.at[i].set(codec.transmit(keys[i], jnp.asarray(x)[i], jnp.asarray(valid)[i]))

    looped = quick_jit(lambda: jax.lax.fori_loop(0, 5, one_after_another, jnp.zeros(x.shape)))()
    np.testing.assert_array_equal(vmapped(codec, keys, x, valid), alone)
    np.testing.assert_array_equal(vmapped(codec, keys[3:], x[3:], valid[3:]), alone[3:])
    np.testing.assert_array_equal(looped, alone)
    np.testing.assert_array_equal(codec.transmit(keys[0], x[0], valid[0]), alone[0])


def test_int8_follows_its_key():
    x, valid = np.float32(np.random.default_rng(1).normal(0, 1, (3, 2, 3))), np.ones(3, bool)
    same, other = (transmit(INT8, jax.random.key(seed), x, valid) for seed in (3, 4))
    np.testing.assert_array_equal(same, transmit(INT8, KEY, x, valid))
    assert not np.array_equal(same, other)


def test_none_costs_nothing():
    x = jnp.ones((2, 3))
    assert Codec("none", 0.1).transmit(KEY, x, np.ones(2, bool)) is x


@EVERY
def test_decode_undoes_encode_as_transmit_does(codec):
    x = np.float32(np.random.default_rng(2).normal(0, 1, (3, 2, 3)))
    valid = np.array([True, False, True])
    packet = codec.encode(KEY, x, valid)
    arrived = codec.decode(packet, x.shape)
    assert arrived.dtype == np.float32
    np.testing.assert_array_equal(arrived, codec.transmit(KEY, x, valid))
    again = codec.decode(codec.encode(KEY, arrived, valid), x.shape)
    if codec.rule != "int8":
        np.testing.assert_array_equal(again, arrived)


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
def test_bad_settings_are_refused(rule, share, message):
    with pytest.raises(ValueError, match=message):
        Codec(rule, share)
