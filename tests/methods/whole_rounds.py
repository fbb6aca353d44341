"""Rounds of the small federation by any method, and what their clients did, for an oracle."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from cefl_jax import build
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.methods import replay
from tests.methods.replay import draw_batch
from tests.oracles.whole_model import Client
from tests.quick import quick_jit

EMPTYING = {  # 11 of 11 clients are there, then 4, then nobody; who goes does so within the round
    "train.local_steps": None,
    "train.local_epochs": 2,
    "network.late": "keep",
    "run.client_chunk": 2,
}
PRESENT = (11, 4, 0, 11)


class Rounds(NamedTuple):
    """A run: its states from the initial one on, and the metrics of each round."""

    setup: object
    states: list
    metrics: list


def play(method, changes=None, emptying=False, rounds=2, sizes=None, **hparams):
    """The Rounds of a method; each program is compiled once, whatever the HParams.

    `sizes` are those of the clients, where not the usual ones.
    """
    run = _Program.of(method, tuple(sorted((changes or {}).items())), emptying, sizes)
    values, *others = run.arrays
    values = world.change_hparams(values, hparams)
    states, metrics = [run.start], []
    for _ in range(rounds):
        state, told = run.step(states[-1], values, *others)
        states.append(state)
        metrics.append(jax.device_get(told))
    return Rounds(run.setup, states, metrics)


class _Program(NamedTuple):
    setup: object
    start: object
    step: object
    arrays: tuple

    @staticmethod
    @functools.cache
    def of(method, changes, emptying, sizes):
        settings = (EMPTYING if emptying else {}) | dict(changes) | {"method.name": method}
        parts = world.make_parts(sizes) if sizes else world.make_parts()
        setup = build.build(world.make_spec(settings), world.make_dataset(), parts)
        if emptying:
            order = np.random.default_rng(0).permutation(len(setup.partition))
            setup = world.follow(
                setup, world.make_trace(setup, [order < count for count in PRESENT])
            )
        return _Program(setup, *world.compile_round(setup, quick_jit))


def clients_of(run, index):
    """What the clients of a round do: list of oracles.whole_model.Client."""
    setup, state, course = run.setup, run.states[index], run.metrics[index].round_trace
    key, clients = round_key(state.key, index, Purpose.BATCHES), []
    batch_size = setup.spec.train.batch_size
    rows = zip(
        course.clients.tolist(),
        course.schedule.steps.tolist(),
        course.schedule.counts.tolist(),
        strict=True,
    )
    for client, made, counts in rows:
        if client == len(setup.partition):  # an empty place
            assert (made, counts) == (0, False)
            continue
        batches = [_batch(setup, key, client, step, batch_size) for step in range(made)]
        size = len(setup.partition[client])
        weight = size * made / planned_steps(setup, size) if counts else 0
        clients.append(Client(client, weight, batches))
    return clients


def planned_steps(setup, size):
    """Local steps of a client with so many examples that stays."""
    train = setup.spec.train
    return train.local_steps or train.local_epochs * -(-size // train.batch_size)


def _batch(setup, key, client, step, batch_size):
    examples, valid = draw_batch(setup.data, key, client, step, batch_size)
    examples = np.asarray(examples)[np.asarray(valid)]
    assert set(examples.tolist()) <= set(setup.partition[client].tolist())
    normal = setup.spec.data.normalization
    x = (setup.data.images[examples] / 255 - normal.mean[0]) / normal.std[0]
    return x.reshape(len(examples), -1), setup.data.labels[examples]


def sgd_of(spec):
    """The client's optimizer in the oracle's words."""
    return replay.settings(spec, 0).front


def layers(params):
    """A model, or what has its shape, as the oracle's list of (W, b)."""
    return replay.layers(params)
