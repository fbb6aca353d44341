"""Bytes on the links: messages sent one by one as arrays, and sums that only 64 bits hold."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cefl_jax.models.cost import measure_workload
from cefl_jax.models.split import make_model
from cefl_jax.network.messages import (
    LINKS,
    MESSAGES,
    Payload,
    Sizes,
    Traffic,
    count_bytes,
    split_messages,
)
from cefl_jax.specs import CompressionSpec, ModelSpec, PrivacySpec
from cefl_jax.stages.compression import NAMES
from cefl_jax.stages.link import make_link
from tests.network import rounds
from tests.quick import quick_jit

SPEC, SHAPE, CLASSES = ModelSpec("mlp"), (4, 4, 1), 3
# Samples of each local step, and of how many of the last steps smashed data goes on to the cloud,
# of each client of a cluster on an edge node, and of one on the cloud.
ON_EDGE = [([3, 1, 3], 2), ([2], 1), ([1, 1], 0)]
ON_CLOUD = [([3, 3], 2), ([2, 1, 2], 1)]


def exchange(up, down, samples, feature_shape):
    """One local step's arrays, or their shapes: (message, what crosses) up, and down."""
    message = jax.random.key(0), jnp.ones((samples, *feature_shape)), jnp.ones(samples, bool)
    smashed, gradient = (
        jax.eval_shape(lambda *message: codec.encode(*message), *message)  # noqa: B023
        for codec in (up, down)
    )
    labels = np.zeros(samples, np.int32)
    return [("smashed_data", smashed), ("labels", labels)], [("cut_gradient", gradient)]


def send_round(wire, halves, feature_shape):
    """(link, message, arrays) of everything that crosses in a round of both clusters."""
    front, back = halves
    for clients, in_cloud in ((ON_EDGE, False), (ON_CLOUD, True)):
        if not in_cloud:
            yield "edge_down", "back_half", back
        for steps, uploads in clients:
            yield "client_down", "front_half", front
            for s, samples in enumerate(steps):
                sent, answer = exchange(wire.smashed, wire.gradient, samples, feature_shape)
                for message, arrays in sent:
                    yield "client_up", message, arrays
                    if in_cloud or s >= len(steps) - uploads:
                        yield "edge_up", message, arrays
                for message, arrays in answer:
                    yield "client_down", message, arrays
                    if in_cloud:
                        yield "edge_down", message, arrays
            yield "client_up", "front_half", front
        if not in_cloud:
            yield "edge_up", "back_half", back


def traffic():
    """How often each message of `send_round` is sent."""
    edge, cloud = ([n for steps, _ in clients for n in steps] for clients in (ON_EDGE, ON_CLOUD))
    uploaded = [n for steps, uploads in ON_EDGE for n in steps[len(steps) - uploads :]]
    clients = len(ON_EDGE) + len(ON_CLOUD)
    counts = [clients, clients, 1, 1, len(edge + cloud), sum(edge + cloud)]
    counts += [len(cloud), sum(cloud), len(uploaded), sum(uploaded)]
    return Traffic(*map(jnp.int32, counts))


@functools.cache
def make_parts():
    """A model, its halves, and their Workload."""
    model = make_model(SPEC, SHAPE, CLASSES)
    halves, _ = quick_jit(model.init)(jax.random.key(0))
    return model, halves, measure_workload(SPEC, SHAPE, CLASSES)


@pytest.mark.parametrize("rule", NAMES)
def test_bytes_are_those_of_the_arrays_that_cross(rule):
    """Each rule one way, and the one after it the other way, so that a mix-up shows."""
    other = NAMES[(NAMES.index(rule) + 1) % len(NAMES)]
    wire = make_link(CompressionSpec(rule, other, 0.1), PrivacySpec())
    model, halves, work = make_parts()
    sizes = wire.measure(model, work)
    expected = collections.Counter()
    for link, message, arrays in send_round(wire, halves, model.feature_shape):
        expected[link, message] += sum(
            array.size * array.dtype.itemsize for array in jax.tree.leaves(arrays)
        )
    assert rounds.messages(count_bytes(split_messages(traffic(), sizes))) == expected


def test_rows_and_columns_are_the_links_and_messages():
    """Each count and each size of a kind of its own; nothing else in the table."""
    t = Traffic(*map(jnp.int32, (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)))
    sizes = Sizes(Payload(31, 37), Payload(41, 43), 47, 53, 59)
    table = np.asarray(count_bytes(split_messages(t, sizes)))
    assert table.shape == (len(LINKS), len(MESSAGES))
    assert table.dtype == np.int64
    assert rounds.messages(table) == {
        ("client_up", "front_half"): 3 * 53,
        ("client_up", "smashed_data"): 13 * 31 + 11 * 37,
        ("client_up", "labels"): 13 * 47,
        ("client_down", "front_half"): 2 * 53,
        ("client_down", "cut_gradient"): 13 * 41 + 11 * 43,
        ("edge_up", "smashed_data"): (19 + 29) * 31 + (17 + 23) * 37,
        ("edge_up", "labels"): (19 + 29) * 47,
        ("edge_up", "back_half"): 7 * 59,
        ("edge_down", "cut_gradient"): 19 * 41 + 17 * 43,
        ("edge_down", "back_half"): 5 * 59,
    }


COUNTS = st.integers(0, 2**31 - 1)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[COUNTS] * 10), st.integers(1, 2**31 - 1), st.integers(0, 1000))
def test_bytes_are_exact_beyond_what_integers_of_32_bits_and_floats_count(counts, large, small):
    sizes = Sizes(Payload(50_176, small), Payload(200_704, small), 4, large, 93_000_001)
    t = Traffic(*counts)
    got = rounds.messages(count_bytes(split_messages(Traffic(*map(jnp.int32, counts)), sizes)))
    onward, onward_steps = t.cloud_samples + t.uploaded_samples, t.cloud_steps + t.uploaded_steps
    assert got.get(("client_up", "front_half"), 0) == t.fronts_up * large
    assert got.get(("edge_up", "smashed_data"), 0) == onward * 50_176 + onward_steps * small
    assert got.get(("client_down", "cut_gradient"), 0) == t.samples * 200_704 + t.steps * small
    assert got.get(("edge_down", "back_half"), 0) == t.backs_down * 93_000_001


@given(st.integers(1, 40), st.integers(1, 5))
def test_bits_of_messages(samples, messages):
    sizes = Sizes(Payload(31, 37), Payload(41, 43), 47, 53, 59)
    assert sizes.upward_bits(samples, messages) == 8 * (samples * (31 + 47) + messages * 37)
    assert sizes.downward_bits(samples, messages) == 8 * (samples * 41 + messages * 43)
