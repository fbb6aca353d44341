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
    MessageCounts,
    Payload,
    Sizes,
    count_bytes,
    split_messages,
)
from cefl_jax.specs import CompressionSpec, ModelSpec, PrivacySpec
from cefl_jax.stages.link import NAMES, make_link
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
    return MessageCounts(*map(jnp.int32, counts))


@functools.cache
def make_parts():
    """A model, its halves, and their Workload."""
    model = make_model(SPEC, SHAPE, CLASSES)
    halves, _ = quick_jit(model.init)(jax.random.key(0))
    return model, halves, measure_workload(SPEC, SHAPE, CLASSES)


@pytest.mark.parametrize("rule", NAMES)
def test_count_bytes_are_those_of_the_arrays_that_cross(rule):
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


COUNTS = st.integers(0, 2**31 - 1)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[COUNTS] * 10), st.integers(1, 2**31 - 1), st.integers(0, 1000))
def test_count_bytes_is_exact_beyond_integers_of_32_bits_and_floats(counts, large, small):
    sizes = Sizes(Payload(50_176, small), Payload(200_704, small), 4, large, 93_000_001)
    t = MessageCounts(*counts)
    table = count_bytes(split_messages(MessageCounts(*map(jnp.int32, counts)), sizes))
    got = rounds.messages(table)
    onward, onward_steps = t.cloud_samples + t.uploaded_samples, t.cloud_steps + t.uploaded_steps
    assert table.shape == (len(LINKS), len(MESSAGES))
    assert got.get(("client_up", "front_half"), 0) == t.fronts_up * large
    assert got.get(("edge_up", "smashed_data"), 0) == onward * 50_176 + onward_steps * small
    assert got.get(("client_down", "cut_gradient"), 0) == t.samples * 200_704 + t.steps * small
    assert got.get(("edge_down", "back_half"), 0) == t.backs_down * 93_000_001
