"""The same rounds in both programs: equal initial weights, batches and orders, equal results."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.cefl_worker import make_round
from benchmarks.torch_baseline import draws, models
from benchmarks.torch_baseline.worker import make_rounds
from cefl_jax import compiler
from cefl_jax.stages import round_plan
from cefl_jax.stages.distillation import draw_order, make_feature_buffer
from cefl_jax.types import Purpose, round_key


class Drawn(NamedTuple):
    """What our program draws in a round."""

    plan: round_plan.Plan
    examples: jax.Array  # i32[K, S, B]
    valid: jax.Array  # bool[K, S, B], which of them there are
    order: jax.Array  # i32[R] rows of uploads, the filled ones first
    count: jax.Array  # i32[] filled rows
    rows: jax.Array  # i32[2, steps, B] rows of each step of distillation, for edge and cloud
    used: jax.Array  # bool[2, steps, B], which of them count


class Played(NamedTuple):
    """What our program did."""

    start: tuple  # Halves and cloud parameters, NumPy
    end: tuple
    rounds: list  # of Drawn
    losses: list  # mean loss of each round


def play_ours(setup, rounds=2, jit=compiler.jit):
    """The Played of our first rounds; `jit` compiles them."""
    state, step, arrays = make_round([setup], jit)
    step, draw = jit(step), jit(lambda *arrays: draw_ours(setup, *arrays))
    start, drawn, losses = jax.device_get((state.halves, state.cloud)), [], []
    for _ in range(rounds):
        drawn.append(jax.device_get(draw(state, *arrays[1:])))
        state, loss = step(state, *arrays)
        losses.append(float(loss))
    return Played(start, jax.device_get((state.halves, state.cloud)), drawn, losses)


def compare(setup, played, method, variant):
    """How far PyTorch ends from ours after the same rounds.

    Args:
      setup: build.Setup.
      played: Played.
      method: of `cases.METHODS`.
      variant: of `cases.VARIANTS`.
    Returns:
      The largest difference of any parameter array, as a share of how far the rounds have moved it
      (both as Euclidean norms), or of any round's mean loss, as a share of it.
    """
    data, settings, shape = setup.data, setup.spec.model, setup.model.sample_shape
    model = models.make_model(settings.name, settings.cut, shape, data.label_counts.shape[1])
    models.load_params(model, *played.start, shape)
    examples = draws.make_examples(data.images, data.labels, setup.spec.data.normalization)
    theirs = make_rounds(method, variant, model, examples, setup.spec)
    worst = 0.0
    for drawn, loss in zip(played.rounds, played.losses, strict=True):
        if theirs.distillation:
            theirs.distillation.orders = distillation_orders(drawn)
        worst = max(worst, abs(float(theirs.round(clusters_of(drawn))) - loss) / loss)
    ended = models.read_params(model, *played.start, shape)
    leaves = (jax.tree.leaves(tree) for tree in (played.start, played.end, ended))
    for before, ours, other in zip(*leaves, strict=True):
        moved, apart = (np.linalg.norm(ours - to) for to in (before, other))
        if apart:
            worst = max(worst, float(apart / moved) if moved else np.inf)
    return worst


def draw_ours(setup, state, data, network):
    """The Drawn of the next round of a CeflState."""
    spec, extent = setup.spec, setup.planner.bounds
    distill, size = spec.cefl.distill, spec.train.batch_size
    planner = setup.planner
    plan = planner.decide(state.key, state.round, state.conditions, data, network).plan
    key = round_key(state.key, state.round, Purpose.BATCHES)
    examples = round_plan.draw_batches(data, key, plan.clients, size, extent.steps)
    kept = round_plan.upload_examples(plan, examples, extent.uploads, data.num_examples)
    uploads = make_feature_buffer(jnp.zeros((*kept.shape, 1)), kept, kept < data.num_examples)
    keys = jnp.stack(
        [
            round_key(state.key, state.round, purpose)
            for purpose in (Purpose.DISTILL_EDGE, Purpose.DISTILL_CLOUD)
        ]
    )
    draw = jax.vmap(lambda key: draw_order(uploads, key, distill.epochs, distill.batch_size))
    rows = draw(keys).reshape(2, -1, distill.batch_size)
    used = rows < uploads.order.shape[0]
    valid = examples < data.num_examples
    return Drawn(plan, examples, valid, uploads.order, uploads.count, rows, used)


def clusters_of(drawn):
    """Clusters, lists of draws.Client, of a Drawn of NumPy arrays."""
    plan = drawn.plan
    clusters = []
    for first, members in zip(plan.first, plan.members, strict=True):
        cluster = []
        for k in range(first, first + members):
            batches = [
                torch.from_numpy(drawn.examples[k, step][drawn.valid[k, step]]).long()
                for step in range(plan.steps[k])
            ]
            cluster.append(draws.Client(batches, int(plan.uploaded[k]), float(plan.weight[k])))
        clusters.append(cluster)
    return [cluster for cluster in clusters if cluster]


def distillation_orders(drawn):
    """For edge and cloud, lists of i64[b]: the rows of each step, counted among the filled ones."""
    rank = np.empty_like(drawn.order)
    rank[drawn.order] = np.arange(len(rank))
    return [
        [
            torch.from_numpy(rank[row[use]]).long()
            for row, use in zip(rows, used, strict=True)
            if use.any()
        ]
        for rows, used in zip(drawn.rows, drawn.used, strict=True)
    ]
