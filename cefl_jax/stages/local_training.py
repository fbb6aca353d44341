"""Local training: every client of a round steps a model of its own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float32, Int, Int32, PyTree

from cefl_jax import parallel
from cefl_jax.data.federated import FederatedData
from cefl_jax.numerics import finite_rows, reciprocal, sum_in_order, take, weighted_sum, where_rows
from cefl_jax.stages.losses import cross_entropy
from cefl_jax.stages.optimizers import descend
from cefl_jax.stages.round_plan import Plan, read_batches
from cefl_jax.types import AnyArray, Number


class LocalResult(NamedTuple):
    """What the local training of a round yields."""

    sums: Any  # leaves f32[G, ...], each group's models times their weights; None unless summed
    weight: Float32[Array, "G"]  # of each group's clients together
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on
    models: Any  # leaves f32[K, ...], every client's model; None unless kept
    skipped: Any = None  # bool[K], who is left out; None: nobody ever is


def label_loss(
    logits: Float32[Array, "B Y"], labels: Int[Array, "B"], _: Any
) -> Float32[Array, "B"]:
    """Returns the cross-entropy f32[B] of logits f32[B, Y] and labels i32[B], nats."""
    return cross_entropy(logits, labels)


@dataclasses.dataclass(frozen=True)
class LocalTraining:
    """Local training of one round: what every client shares.

    Clients are computed `chunk` at once; chunks are dealt to the devices in turn. A client without
    samples in a step does not move. Clients belong to groups, which start from models of their own.

    With `skips`, a client is left out whose model or summed loss is not finite in the end: it
    weighs nothing, has the model that it started from, and its samples and losses are not counted.
    """

    apply: Callable  # from parameters and normalised images f32[B, ...] to logits f32[B, Y]
    direction: optax.GradientTransformation  # of every client, started anew in each round
    chunk: int  # clients computed at once
    mesh: parallel.EdgeMesh
    correct: Callable | None = None  # (grads, params, start) -> grads
    keep_models: bool = False
    sum_models: bool = True
    loss: Callable = label_loss  # (logits f32[B, Y], labels i32[B], targets) -> f32[B]
    skips: bool = False  # clients are left out whose numbers are not finite

    def train(
        self,
        starts: PyTree,
        group: Int32[Array, "K"],
        plan: Plan,
        data: FederatedData,
        batches: Int32[Array, "K S B"],
        learning_rate: Number,
        corrections: PyTree = None,
        steps: tuple | None = None,
        targets: PyTree = None,
        max_steps: int | None = None,
    ) -> LocalResult:
        """Trains all clients of a plan.

        Args:
          starts: leaves f32[G, ...] models that the groups start from.
          group: i32[K] group of each client, G for none.
          plan: Plan.
          data: FederatedData.
          batches: i32[K, S, B] of `round_plan.draw_batches`.
          learning_rate: f32[].
          corrections: leaves f32[K, ...] added to the direction of each step of a client, which the
            optimizer does not see; or None.
          steps: i32[K] first local step of each client and i32[K] one past its last, where this is
            but a part of the plan's; None for all. Batches go on from where they were.
          targets: leaves [n, ...] with a row for each example, of which `loss` takes a batch's.
          max_steps: static bound of the steps between the two of `steps`; None for S.
        Returns:
          LocalResult.
        """
        shared = starts, group, plan, data, batches, learning_rate, corrections, steps, targets
        return self.mesh.spread(functools.partial(self._on_device, max_steps))(*shared)

    def train_sequentially(
        self,
        start: PyTree,
        plan: Plan,
        data: FederatedData,
        batches: Int32[Array, "K S B"],
        learning_rate: Number,
    ) -> tuple[PyTree, Float32[Array, ""], Int32[Array, ""], Bool[Array, "K"] | None]:
        """Trains the clients of a plan one after another, each from the model of the one before.

        The model that a client without weight has trained is not handed on, nor that of one that is
        left out. All devices do all of it. `chunk` is 1, and the models are kept.

        Args:
          start: leaves f32[...], the model of the first client.
          plan: Plan.
          data: FederatedData.
          batches: i32[K, S, B] of `round_plan.draw_batches`.
          learning_rate: f32[].
        Returns:
          The model of the last client; and f32[] loss, i32[] samples and bool[K] as in LocalResult.
        """

        def on_device(start, plan, data, batches, learning_rate):
            group = jnp.zeros_like(plan.clients)

            def one_client(k, carry):
                model, loss, samples, skipped = carry
                starts = jax.tree.map(lambda x: x[None], model)
                run = _Run(self, starts, group, plan, data, batches, learning_rate)
                one = run.train_chunk(k)
                model = jax.tree.map(
                    lambda new, old: jnp.where(plan.weight[k] > 0, new[0], old), one.models, model
                )
                skipped = jax.tree.map(lambda all, one: all.at[k].set(one[0]), skipped, one.skipped)
                return model, loss + one.loss, samples + one.samples, skipped

            skipped = jnp.zeros(group.shape, bool) if self.skips else None
            first = start, jnp.float32(0), jnp.int32(0), skipped
            return jax.lax.fori_loop(0, plan.clients.shape[0], one_client, first)

        return self.mesh.spread(on_device)(start, plan, data, batches, learning_rate)

    def _on_device(self, max_steps, *shared):
        run = _Run(self, *shared)._replace(max_steps=max_steps)
        num_clients = run.plan.clients.shape[0]
        num_chunks = -(-num_clients // self.chunk)
        results = parallel.local_map(run.train_chunk, num_chunks, self.mesh.flat)
        counted = results.weight, results.loss, results.samples
        of_clients = results.models, results.skipped
        counted, of_clients = parallel.gather_items((counted, of_clients), num_chunks)
        sums = results.sums
        if self.mesh.deterministic:
            sums = parallel.gather_items(sums, num_chunks)
        sums, counted = map(sum_in_order, (sums, counted))
        if not self.mesh.deterministic:
            sums = parallel.total(sums)
        of_clients = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_clients], of_clients)
        return LocalResult(sums, *counted, *of_clients)


class _Chunk(NamedTuple):
    """Some clients, computed at once."""

    rows: Int32[Array, "C"]  # of the plan, past the last for none
    there: Bool[Array, "C"]
    first: Int32[Array, "C"]  # local step
    past: Int32[Array, "C"]  # the last
    group: Int32[Array, "C"]  # G for none
    start: Any  # leaves f32[C, ...]
    correction: Any  # likewise, or None


class _Run(NamedTuple):
    """One call of `LocalTraining.train`."""

    training: LocalTraining
    starts: Any
    group: Int32[Array, "K"]
    plan: Plan
    data: FederatedData
    batches: Int32[Array, "K S B"]
    learning_rate: Float32[Array, ""]
    corrections: Any = None
    steps: Any = None
    targets: Any = None
    max_steps: int | None = None

    def train_chunk(self, j):
        """Returns the LocalResult of the j-th chunk of clients, with that chunk's models."""
        training, chunk = self.training, self._read_chunk(j)
        # Losses and samples are counted by client where a client may be left out in the end.
        shape = chunk.rows.shape if training.skips else ()
        counted = jnp.zeros(shape), jnp.zeros(shape, jnp.int32)
        carry = chunk.start, jax.vmap(training.direction.init)(chunk.start), *counted
        num_steps = self._count_steps(chunk)
        step = functools.partial(self._local_step, chunk)
        models, _, loss, samples = jax.lax.fori_loop(0, num_steps, step, carry)
        weight, skipped = take(self.plan.weight, chunk.rows), None
        if training.skips:
            finite = finite_rows((models, loss))
            skipped, models = chunk.there & ~finite, where_rows(finite, models, chunk.start)
            weight, loss, samples = (jnp.where(finite, x, 0) for x in (weight, loss, samples))
        num_groups = jax.tree.leaves(self.starts)[0].shape[0]
        in_group = chunk.group[None] == jnp.arange(num_groups)[:, None]  # [G, C]
        share = jnp.where(in_group, weight[None], 0.0)
        sums = weighted_sum(models if training.sum_models else None, share)
        kept = models if training.keep_models else None
        return LocalResult(sums, share.sum(1), loss.sum(), samples.sum(), kept, skipped)

    def _read_chunk(self, j):
        rows = j * self.training.chunk + jnp.arange(self.training.chunk)
        num_groups = jax.tree.leaves(self.starts)[0].shape[0]

        def read(x, fill_value=0):
            return take(x, rows, fill_value)

        group, past = read(self.group, num_groups), read(self.plan.steps)
        start = jax.tree.map(lambda x: take(x, group, None), self.starts)
        correction = jax.tree.map(lambda x: take(x, rows, None), self.corrections)
        there, first = rows < self.plan.clients.shape[0], jnp.zeros_like(past)
        if self.steps is not None:
            first, last = map(read, self.steps)
            past = jnp.minimum(last, past)
        return _Chunk(rows, there, first, past, group, start, correction)

    def _count_steps(self, chunk):
        """Length of the loop over local steps: the most that one of these clients makes."""
        if not self.training.mesh.flat:
            return jnp.where(chunk.there, chunk.past - chunk.first, 0).max()
        return self.batches.shape[1] if self.max_steps is None else self.max_steps

    def _local_step(self, chunk, s, carry):
        """Returns models, optimizer states, losses and samples after the s-th step of a chunk."""
        training, (models, states, loss, samples) = self.training, carry
        step = chunk.first + s
        valid, grads, losses = self._gradients(chunk, models, step)
        if training.correct is not None:
            grads = training.correct(grads, models, chunk.start)
        descend_one = functools.partial(
            descend, training.direction, learning_rate=self.learning_rate
        )
        moved, new_states = jax.vmap(descend_one)(grads, states, models)
        if chunk.correction is not None:
            moved = jax.tree.map(lambda p, c: p - self.learning_rate * c, moved, chunk.correction)
        models, states = where_rows(valid.any(1), (moved, new_states), (models, states))
        total = jnp.asarray if training.skips else jnp.sum
        return models, states, loss + total(losses), samples + total(valid.sum(1))

    def _gradients(self, chunk, models, step):
        """Returns bool[C, B], which samples count, and each client's gradients and summed loss."""
        with jax.named_scope("batches"):
            there = chunk.there & (step < chunk.past)
            num_examples = self.data.num_examples
            examples = read_batches(self.batches, chunk.rows, step, there, num_examples)
            images, labels, valid = read_examples(self.data, examples)
            targets = jax.tree.map(lambda x: take(x, examples), self.targets)
        with jax.named_scope("gradients"):
            mean = functools.partial(mean_loss, self.training.apply, loss=self.training.loss)
            gradient = jax.vmap(jax.grad(mean, has_aux=True))
            grads, losses = gradient(models, images, labels, valid, targets)
        return valid, grads, losses


def read_examples(
    data: FederatedData, examples: Int32[AnyArray, "*B"]
) -> tuple[Float32[Array, "..."], Int32[Array, "*B"], Bool[Array, "*B"]]:
    """Returns normalised samples f32[*B, ...], labels i32[*B], and bool[*B], which there are."""
    images = take(data.images, examples)
    labels = take(data.labels, examples)
    return data.normalise(images), labels, jnp.less(examples, data.num_examples)


def mean_loss(
    apply: Callable,
    params: PyTree,
    images: Float32[Array, "B *sample"],
    labels: Int[Array, "B"],
    valid: Bool[Array, "B"],
    targets: PyTree = None,
    loss: Callable = label_loss,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Returns the mean of the losses of valid samples, and their sum; 0 of an empty batch."""
    losses = loss(apply(params, images), labels, targets)
    total = jnp.where(valid, losses, 0.0).sum()
    return total * reciprocal(valid.sum()), total
