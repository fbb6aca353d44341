"""Rounds with broken clients, and the rounds of the same program in which these do nothing."""

import functools
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np

from cefl_jax import program
from cefl_jax.stages import round_plan
from cefl_jax.stages.round_planner import RoundPlanner
from tests import world
from tests.quick import quick_jit


class Program(NamedTuple):
    """A compiled round of a method that leaves broken clients out."""

    setup: object  # its images are f32, so that a pixel may be anything
    start: object  # the first state
    step: object  # (state, hparams, data, network, gone bool[N]) -> (state, RoundMetrics)
    arrays: tuple  # HParams, data, network

    def play(self, data=None, gone=(), start=None, **hparams):
        """The state after one round on other data, or without some clients, and its metrics."""
        values, own, network = self.arrays
        values = world.change_hparams(values, hparams)
        absent = np.isin(np.arange(len(self.setup.partition)), list(gone))
        start = self.start if start is None else start
        args = start, values, own if data is None else data, network, absent
        # All of them alike each time, or it is compiled anew.
        return self.step(*jax.device_put(args, self.setup.mesh.everywhere))

    def data(self, odd=(), unlabelled=(), pixel=np.nan):
        """Data in which a pixel of some examples has a value beyond 0..255, and others no label."""
        images, labels = np.array(self.setup.data.images), np.array(self.setup.data.labels)
        images[list(odd), 0, 0], labels[list(unlabelled)] = pixel / 255, 99
        return self.setup.data._replace(images=images, labels=labels)


def compile_round(changes, jit=quick_jit, wrap=lambda model: model):
    """The Program of a setup by `world.make_setup`; `wrap` makes its model another one."""
    setup = world.make_setup({"run.on_nonfinite": "skip_client"} | changes)
    data = setup.data._replace(images=np.float32(setup.data.images) / 255)
    setup = setup._replace(data=data, model=wrap(setup.model))

    def step(state, hparams, data, network, gone):
        decide = functools.partialmethod(decide_without, RoundPlanner.decide, gone)
        with mock.patch.object(RoundPlanner, "decide", decide):
            return program.make_method(setup, data, network).round(state, hparams)

    start, _, arrays = world.compile_round(setup, quick_jit)
    return Program(setup, start, jit(step), arrays)


def decide_without(self, decide, gone, *args):
    """A Decision in which some clients of the population, bool[N], do nothing."""
    decision = decide(self, *args)
    out = gone.at[decision.plan.clients].get(mode="fill", fill_value=False)
    return decision._replace(plan=round_plan.exclude_clients(decision.plan, out))


def decided(run):
    """The Plan of the first round."""
    return world.row_of(world.decide_rounds(run.setup)[0], 0).plan


def plain(state):
    """A state as NumPy arrays, its key as bits."""
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def assert_same_bits(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, plain(actual), plain(expected))
