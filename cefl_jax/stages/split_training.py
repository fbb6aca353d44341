"""Split training: clients run front halves, an edge node the back half of its cluster."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cefl_jax.data.federated import FederatedData
from cefl_jax.models.split import SplitModel
from cefl_jax.parallel import own_items
from cefl_jax.stages.optimizers import descend
from cefl_jax.stages.planning import Plan, draw_batch
from cefl_jax.stages.wire import Wire


class Rows(NamedTuple):
    """What the clients of a round hold, one row each, in the order of the plan."""

    fronts: Any  # leaves f32[K, ...]
    states: Any  # optimizer states, leaves [K, ...]
    smashed: jax.Array  # [K, U, B, ...] cut-layer features as uploaded; zero where none


class Node(NamedTuple):
    """What an edge node holds while it trains a cluster."""

    back: Any
    state: Any  # optimizer state
    loss: jax.Array  # f32[] summed over the samples trained on, before each step
    samples: jax.Array  # i32[] samples trained on


class Outcome(NamedTuple):
    """What the split training of a cluster came to."""

    front_sum: Any  # its clients' front halves, each times its weight, added up
    back: Any
    loss: jax.Array  # f32[] summed over the samples trained on, before each step
    samples: jax.Array  # i32[] samples trained on


class Exchange(NamedTuple):
    """What one local step of some clients with their edge node yields."""

    loss: jax.Array  # f32[] summed over the samples
    smashed: jax.Array  # f32[C, B, ...] cut-layer features as the server gets them
    front_grads: Any  # leaves [C, ...], of each client's own mean loss
    back_grad: Any  # of the summed loss


def exchange(model, wire, keys, fronts, back, images, labels, valid):
    """One local step's gradients: features up, gradient at the cut down.

    What the wire does to either is no part of the gradient: the back half's is taken at the
    features that arrive, and a client goes on with the gradient that it gets.

    Args:
      model: SplitModel.
      wire: Wire.
      keys: key[C] of what each client and its server send.
      fronts: leaves f32[C, ...], the clients' front halves.
      back: the edge node's back half.
      images: f32[C, B, H, W, I] normalised.
      labels: i32[C, B].
      valid: bool[C, B], which samples count.
    Returns:
      Exchange. A client without samples has gradient 0.
    """
    features, pull = jax.vjp(lambda fronts: jax.vmap(model.front)(fronts, images), fronts)
    up, down = jax.vmap(jax.random.split, out_axes=1)(keys)
    smashed = jax.vmap(wire.send_features)(up, features, valid)

    def summed_loss(back, smashed):
        logits = model.back(back, smashed)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels.ravel())
        return jnp.where(valid.ravel(), losses, 0.0).sum()

    arrived = smashed.reshape(-1, *smashed.shape[2:])
    loss, (back_grad, cut_grad) = jax.value_and_grad(summed_loss, (0, 1))(back, arrived)
    share = 1.0 / jnp.maximum(valid.sum(1), 1)
    cut_grads = cut_grad.reshape(smashed.shape) * _like(share, smashed)
    (front_grads,) = pull(jax.vmap(wire.send_gradient)(down, cut_grads, valid))
    return Exchange(loss, smashed, front_grads, back_grad)


@dataclasses.dataclass(frozen=True)
class SplitTraining:
    """Split training of one round: what every cluster shares.

    In each local step every client of a cluster sends the cut-layer features of a batch to its edge
    node; the node steps its back half along the gradient of the mean loss over all the cluster's
    samples, and each client steps its front half along the gradient of its own mean loss, taken
    through the back half as it was before the step. A client or node without samples in a step
    does not move.

    Or, in turn, the node steps on each chunk's samples by themselves, before it takes those of the
    next one.
    """

    model: SplitModel
    wire: Wire
    direction: optax.GradientTransformation  # of both halves, started anew in each round
    data: FederatedData
    plan: Plan
    key: jax.Array  # of the clients' batches in this round
    wire_key: jax.Array  # of what they send
    learning_rate: jax.Array
    batch_size: int
    upload_slots: int  # U, steps kept of each client's smashed data; 0 keeps none
    client_chunk: int  # clients of a cluster computed at once
    archive_dtype: str = "float32"  # of the smashed data that is kept
    in_turn: bool = False  # the node steps after each chunk

    def train_clusters(self, halves, num_devices):
        """Trains this device's clusters, one after another, from the same halves.

        The loops run as often as there are clusters, steps and clients, so that unequal clusters
        waste nothing. Runs inside `EdgeMesh.spread`.

        Args:
          halves: Halves.
          num_devices: static D.
        Returns:
          The uploaded features `[K, U, B, ...]` of all clients, zero for those of other devices,
          and Outcome with leaves `[L, ...]`, one for each of this device's `own_items`, zero where
          no cluster formed.
        """
        num_clients, num_clusters = self.plan.clients.shape[0], self.plan.first.shape[0]
        own = own_items(num_clusters, num_devices)
        formed = self.plan.members.at[own].get(mode="fill", fill_value=0) > 0
        # A traced number, so that the loop is compiled alike for any number of own clusters.
        last = jnp.where(formed, 1 + jnp.arange(own.shape[0]), 0).max()
        padded = num_clients + self.client_chunk        # a chunk's rows may run over the last
        fronts = _repeat(halves.front, padded)
        shape = (padded, self.upload_slots, self.batch_size, *self.model.feature_shape)
        smashed = jnp.zeros(shape, self.archive_dtype)
        rows = Rows(fronts, jax.vmap(self.direction.init)(fronts), smashed)
        state = self.direction.init(halves.back)
        start = Node(halves.back, state, jnp.float32(0), jnp.int32(0))
        nothing = Outcome(halves.front, start.back, start.loss, start.samples)
        outcomes = jax.tree.map(
            lambda x: jnp.zeros((own.shape[0], *x.shape), x.dtype), nothing
        )

        def train(i, carry):
            rows, outcomes = carry
            rows, node = self.train_cluster(own[i], rows, start)
            front_sum = self._sum_fronts(own[i], rows.fronts)
            outcome = Outcome(front_sum, node.back, node.loss, node.samples)
            return rows, jax.tree.map(lambda all, one: all.at[i].set(one), outcomes, outcome)

        rows, outcomes = jax.lax.fori_loop(0, last, train, (rows, outcomes))
        return rows.smashed[:num_clients], outcomes

    def train_cluster(self, m, rows, node):
        """All local steps of cluster m; its clients' rows and its node afterwards."""
        steps = jnp.where(self.plan.cluster == m, self.plan.steps, 0).max()
        step = functools.partial(self._local_step, m)
        return jax.lax.fori_loop(0, steps, step, (rows, node))

    def _sum_fronts(self, m, fronts):
        """Sum of the front halves of cluster m, each times its client's weight."""

        def add(j, total):
            place = j * self.client_chunk + jnp.arange(self.client_chunk)
            at = self.plan.first[m] + j * self.client_chunk
            weight = self.plan.weight.at[self.plan.first[m] + place].get(mode="fill", fill_value=0)
            weight = jnp.where(place < self.plan.members[m], weight, 0)
            chunk = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.client_chunk), fronts
            )
            return jax.tree.map(
                lambda total, x: total + jnp.tensordot(weight, x, axes=1), total, chunk
            )

        start = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), fronts)
        return jax.lax.fori_loop(0, -(-self.plan.members[m] // self.client_chunk), add, start)

    def _local_step(self, m, step, carry):
        """One local step of cluster m, in which its node steps once, or once for each chunk."""
        chunks = -(-self.plan.members[m] // self.client_chunk)
        if not self.in_turn:
            return self._node_step(m, step, 0, chunks, carry)
        turn = lambda j, carry: self._node_step(m, step, j, j + 1, carry)  # noqa: E731
        return jax.lax.fori_loop(0, chunks, turn, carry)

    def _node_step(self, m, step, first, past, carry):
        """One local step of cluster m's chunks from `first` on, and one step of its node."""
        rows, node = carry
        grad = jax.tree.map(jnp.zeros_like, node.back)
        chunk = functools.partial(self._chunk_step, m, step, node.back)
        start = rows, grad, jnp.float32(0), jnp.int32(0)
        rows, grad, loss, samples = jax.lax.fori_loop(first, past, chunk, start)
        # Times the reciprocal: the compiler turns some divisions into that, and others not.
        share = 1.0 / jnp.maximum(samples, 1)
        grad = jax.tree.map(lambda g: g * share, grad)
        moved = descend(self.direction, grad, node.state, node.back, self.learning_rate)
        back, state = _where(samples > 0, moved, (node.back, node.state))
        return rows, Node(back, state, node.loss + loss, node.samples + samples)

    def _chunk_step(self, m, step, back, j, carry):
        """One local step of one chunk of cluster m's clients, each with a row."""
        rows, back_grad, loss, samples = carry
        place = j * self.client_chunk + jnp.arange(self.client_chunk)
        at = self.plan.first[m] + j * self.client_chunk
        row = self.plan.first[m] + place
        client, steps, uploaded = (
            x.at[row].get(mode="fill", fill_value=0)
            for x in (self.plan.clients, self.plan.steps, self.plan.uploaded)
        )
        draw = jax.vmap(lambda k: draw_batch(self.data, self.key, k, step, self.batch_size))
        with jax.named_scope("batches"):
            examples, valid = draw(client)
            valid &= ((place < self.plan.members[m]) & (step < steps))[:, None]
            images = self.data.images.at[examples].get(mode="fill", fill_value=0)
            images = self.data.normalise(images)
            labels = self.data.labels.at[examples].get(mode="fill", fill_value=0)

        now = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.client_chunk),
            (rows.fronts, rows.states),
        )
        fronts, states = now
        keys = jax.vmap(lambda k: draw_key(self.wire_key, k, step))(client)
        with jax.named_scope("gradients"):
            sent = exchange(self.model, self.wire, keys, fronts, back, images, labels, valid)
        step_front = functools.partial(descend, self.direction, learning_rate=self.learning_rate)
        moved = jax.vmap(step_front)(sent.front_grads, states, fronts)
        after = _where(valid.any(1), moved, now)
        fronts, states = jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0),
            (rows.fronts, rows.states),
            after,
        )
        slot = step - (steps - uploaded)
        slot = jnp.where(valid.any(1) & (slot >= 0), slot, self.upload_slots)
        smashed = rows.smashed.at[row, slot].set(
            sent.smashed.astype(self.archive_dtype), mode="drop"
        )
        return (
            Rows(fronts, states, smashed),
            jax.tree.map(jnp.add, back_grad, sent.back_grad),
            loss + sent.loss,
            samples + valid.sum(),
        )


def draw_key(key, client, step):
    """The key of what one client and its server send in one local step of the round of the key."""
    return jax.random.fold_in(jax.random.fold_in(key, client), step)


def _repeat(tree, count):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)


def _like(mask, x):
    """A mask over the first axis, with the rank of x."""
    return mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))


def _where(mask, new, old):
    return jax.tree.map(lambda a, b: jnp.where(_like(mask, a), a, b), new, old)
