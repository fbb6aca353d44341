"""Rounds of the library, and what happened in them in the words of the oracles."""

import functools
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np

from cefl_jax import build, program
from cefl_jax.data.federated import batch_examples
from cefl_jax.stages import round_plan
from cefl_jax.stages.distillation import FeatureBuffer, draw_order
from cefl_jax.stages.round_planner import RoundPlanner
from cefl_jax.types import Purpose, round_key
from tests import world
from tests.oracles import cefl, federated, mlp
from tests.oracles.mlp import Sgd
from tests.quick import quick_jit

TEACHES = {  # rule: (the cloud the edge model, the edge model the cloud)
    "mutual": (True, True),
    "cloud_to_edge": (True, False),
    "edge_to_cloud": (False, True),
    "hard_labels": (False, False),
}

make_plan = quick_jit(round_plan.make_plan, static_argnums=(3, 4, 5))
draw_rows = quick_jit(draw_order, static_argnums=(2, 3))


class Round(NamedTuple):
    """One round of the library."""

    setup: object
    before: object  # state
    after: object
    metrics: object  # RoundMetrics
    decision: object  # round_planner.Decision
    cost: object  # ledger.RoundCost


class Program(NamedTuple):
    """A compiled round, in which some clients of the population may do nothing."""

    setup: object
    start: object  # the first state
    step: object  # (state, HParams, data, network, gone bool[N]) -> after, metrics, decision, cost
    arrays: tuple  # HParams, data, network

    def play(self, state=None, data=None, gone=(), **hparams):
        """The Round from a state, or the first one; on other data, or by other HParams."""
        values, own, network = self.arrays
        values = world.change_hparams(values, hparams)
        absent = np.isin(np.arange(len(self.setup.partition)), list(gone))
        before = self.start if state is None else state
        args = before, values, own if data is None else data, network, absent
        # All of them alike each time, or it is compiled anew.
        after, *seen = self.step(*jax.device_put(args, self.setup.mesh.everywhere))
        return Round(self.setup, before, after, *jax.device_get(seen))

    def rounds(self, count, **hparams):
        """The first Rounds of a run."""
        state, played = None, []
        for _ in range(count):
            played.append(self.play(state, **hparams))
            state = played[-1].after
        return played


def compile_setup(setup, jit=quick_jit):
    """The Program of a Setup."""

    def step(state, hparams, data, network, gone):
        seen = {}

        def decide(self, *args):
            decision = decide_as_ever(self, *args)
            out = gone.at[decision.plan.clients].get(mode="fill", fill_value=False)
            plan = round_plan.exclude_clients(decision.plan, out)
            seen["decision"] = decision._replace(plan=plan)
            return seen["decision"]

        def cost(self, *args):
            seen["cost"] = cost_as_ever(self, *args)
            return seen["cost"]

        decide_as_ever, cost_as_ever = RoundPlanner.decide, RoundPlanner.cost
        with mock.patch.multiple(RoundPlanner, decide=decide, cost=cost):
            after, metrics = program.make_method(setup, data, network).round(state, hparams)
        return after, metrics, seen["decision"], seen["cost"]

    start, _, arrays = world.compile_round(setup)
    return Program(setup, start, jit(step), arrays)


def play(changes, count, present=None, sizes=None, **hparams):
    """The first Rounds of a run; each program is compiled once, whatever the HParams.

    Args:
      changes: of `world.make_spec`.
      count: of rounds.
      present: of each round, how many of the 11 clients are there, and of one more; who goes does
        so within the round before. None: the network stands still.
      sizes: of the clients, where not the usual ones.
      **hparams: that differ from the settings.
    """
    return _compile(tuple(sorted(changes.items())), present, sizes).rounds(count, **hparams)


@functools.cache
def _compile(changes, present, sizes):
    parts = world.make_parts(sizes) if sizes else world.make_parts()
    setup = build.build(world.make_spec(dict(changes)), world.make_dataset(), parts)
    if present:
        available = [np.arange(11) >= 11 - count for count in present]
        setup = world.follow(setup, world.make_trace(setup, available))
    return compile_setup(setup)


def layers(params):
    """Flax's dense blocks as the oracles' list of (W, b)."""
    if hasattr(params, "front"):
        params = params.front + params.back
    dense = [block["Dense_0"] for block in params]
    return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in dense]


def momentum(optimizer_state):
    """The momentum buffer, as layers."""
    (trace,) = [part for part in optimizer_state if hasattr(part, "trace")]
    return layers(trace.trace)


def stacked(tree):
    """Leaves [N, ...] as a list of N networks."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return [layers(jax.tree.map(lambda x, n=n: x[n], tree)) for n in range(count)]


def sgd_of(spec):
    """The clients' optimizer."""
    own = spec.train.optimizer
    return Sgd(own.learning_rate, own.momentum, own.weight_decay, own.clip_norm)


@functools.partial(quick_jit, static_argnums=4)
def draw_batch(data, key, client, step, batch_size):
    """The examples of one client's local step in the round of the key, and which there are."""
    examples = batch_examples(data, jax.random.fold_in(key, client), client, step, batch_size)
    return examples, examples < data.num_examples


def pixels_of(setup, images=None):
    """[n, pixels] of all training examples, or of other images, as bytes or as shares of 255."""
    images = setup.data.images if images is None else images
    images = images if images.dtype == np.uint8 else 255 * np.float64(images)
    return mlp.features_of(images, setup.data.mean, setup.data.std)


def made_batches(played):
    """[K][S] lists of examples of the local steps that the clients of a plan make."""
    setup, plan = played.setup, played.decision.plan
    key = round_key(played.before.key, int(played.before.round), Purpose.BATCHES)
    batches = []
    for client, steps in zip(plan.clients.tolist(), plan.steps.tolist(), strict=True):
        batches.append([])
        for step in range(steps):
            rows = draw_batch(setup.data, key, client, step, setup.spec.train.batch_size)
            examples, valid = map(np.asarray, rows)
            batches[-1].append(examples[valid].tolist())
            assert {*batches[-1][-1]} <= {*setup.partition[client].tolist()}
    return batches


def planned_steps(setup, size):
    """Local steps of a client with so many examples that stays."""
    train = setup.planner.spec.train
    return train.local_steps or train.local_epochs * -(-size // train.batch_size)


def clients_of(played, batches=None):
    """The clients of a round of whole models, list of federated.Client."""
    setup, decision, clients = played.setup, played.decision, []
    x, labels = pixels_of(setup), setup.data.labels
    batches = made_batches(played) if batches is None else batches
    counts = decision.schedule.counts.ravel() & (decision.plan.weight > 0)
    for k, client in enumerate(decision.plan.clients.tolist()):
        if client == len(setup.partition):  # an empty place
            assert not batches[k]
            assert not counts[k]
            continue
        size = len(setup.partition[client])
        made = [(x[rows], labels[rows]) for rows in batches[k]]
        far = ((setup.network.client_km[client] - setup.network.edge_km) ** 2).sum(1)
        edge = min(range(len(far)), key=far.tolist().__getitem__)
        planned = planned_steps(setup, size)
        clients.append(federated.Client(client, size, planned, made, bool(counts[k]), edge))
    return clients


def draws(played, batches=None, learning=None):
    """The cefl.Draws of a round.

    Args:
      played: Round.
      batches: [K][S], of the plan, where some clients broke off.
      learning: passes and rows of a minibatch; None: of the settings of distillation.
    """
    setup, plan = played.setup, played.decision.plan
    distill, slots = setup.planner.spec.cefl.distill, setup.planner.bounds.uploads
    there = [k for k, client in enumerate(plan.clients) if client < len(setup.partition)]
    batches = made_batches(played) if batches is None else batches
    uploads = [
        (k, s)
        for k in there
        for s in range(int(plan.steps[k] - plan.uploaded[k]), int(plan.steps[k]))
    ]
    rows, width = {}, setup.spec.train.batch_size  # as they lie in the buffer
    for k, s in uploads:
        slot = s - int(plan.steps[k] - plan.uploaded[k])
        for b in range(len(batches[k][s])):
            rows[(k * slots + slot) * width + b] = (there.index(k), s, b)
    return cefl.Draws(
        plan.clients[there].tolist(),
        plan.weight[there].tolist(),
        plan.cluster[there].tolist(),
        [batches[k] for k in there],
        [(there.index(k), s) for k, s in uploads],
        *(
            _minibatches(played, purpose, rows, distill) if rows else ()
            for purpose in (Purpose.DISTILL_EDGE, Purpose.DISTILL_CLOUD)
        ),
    )


def _minibatches(played, purpose, rows, distill):
    """Lists of (position, step, slot), one pass after another."""
    key = round_key(played.before.key, int(played.before.round), purpose)
    filled, count, size = np.array(sorted(rows)), len(rows), distill.batch_size
    slots = played.setup.planner.bounds.uploads * played.setup.spec.train.batch_size
    assert filled.max() < slots * len(played.decision.plan.clients)
    passes = draw_rows(
        FeatureBuffer(None, None, filled, np.int32(count)), key, distill.epochs, size
    )
    return [
        [rows[r] for r in drawn[at : min(at + size, count)].tolist()]
        for drawn in np.asarray(passes)
        for at in range(0, count, size)
    ]


def cefl_settings(spec, index):
    """What the oracle of `cefl` reads of the settings in round `index`."""
    distill, sgd = spec.cefl.distill, sgd_of(spec)
    if distill.rule == "none":
        return cefl.Settings(spec.model.cut, sgd, None, None)
    own = Sgd(distill.learning_rate, distill.momentum)
    cloud_teaches, edge_teaches = TEACHES[distill.rule]
    ramp = min(1, index / distill.lambda_warmup_rounds) if distill.lambda_warmup_rounds else 1
    of_cloud = distill.lambda_cloud if distill.cloud_hard_labels else 1
    temperature = distill.temperature_cloud or distill.temperature
    return cefl.Settings(
        spec.model.cut,
        sgd,
        cefl.Teaching(distill.lambda_edge * ramp * cloud_teaches, distill.temperature, own),
        cefl.Teaching(of_cloud * edge_teaches, temperature, own),
    )
