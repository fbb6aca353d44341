"""Split training: clients run front halves, an edge node the back half of its cluster."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int, Int32, PRNGKeyArray

from cefl_jax.data.federated import FederatedData
from cefl_jax.models.split import SplitModel
from cefl_jax.numerics import reciprocal
from cefl_jax.parallel import local_loop, set_item, take_local
from cefl_jax.stages.link import CutLink
from cefl_jax.stages.local_training import read_examples
from cefl_jax.stages.masking import finite_leaves, finite_rows, where_rows
from cefl_jax.stages.optimizers import descend
from cefl_jax.stages.round_plan import Plan, read_batches
from cefl_jax.stages.split_step import exchange, split_step_dropping_nonfinite
from cefl_jax.types import Halves


class Rows(NamedTuple):
    """What the clients of a round hold, one row each, in the order of the plan."""

    fronts: Any  # leaves f32[K, ...]
    states: Any  # optimizer states, leaves [K, ...]
    smashed: Float[Array, "K U B ..."]  # cut-layer features as uploaded; zero where none
    out: Bool[Array, "K"] | None = None  # who is left out from now on; None: nobody ever is


class Node(NamedTuple):
    """What an edge node holds while it trains a cluster."""

    back: Any
    state: Any  # optimizer state
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on


class Outcome(NamedTuple):
    """What the split training of a cluster came to."""

    front_sum: Any  # its clients' front halves, each times its weight, added up
    back: Any
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on


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

    With `skips`:

    - A client whose features, loss or gradient are not finite in a step is left out from this step
      on. The node steps without it; of its losses, those before this step count.
    - A client whose step would make its front half or its optimizer's state not finite is left out
      from the next step on.
    - A cluster whose back half is not finite in the end is left out whole, and its losses too.

    Front halves of clients that are left out stay finite.
    """

    model: SplitModel
    wire: CutLink
    direction: optax.GradientTransformation  # of both halves, started anew in each round
    data: FederatedData
    plan: Plan
    batches: Int32[Array, "K S B"]  # of `round_plan.draw_batches`
    wire_key: PRNGKeyArray  # of what they send
    learning_rate: Float32[Array, ""]
    upload_slots: int  # U, steps kept of each client's smashed data; 0 keeps none
    client_chunk: int  # clients of a cluster computed at once
    archive_dtype: str = "float32"  # of the smashed data that is kept
    in_turn: bool = False  # the node steps after each chunk
    skips: bool = False  # clients are left out whose numbers are not finite

    def train_clusters(
        self, halves: Halves
    ) -> tuple[Float[Array, "K U B ..."], Outcome, Bool[Array, "K"] | None]:
        """Trains this device's clusters, one after another, from the same halves.

        The loops run as often as there are clusters, steps and clients, so that unequal clusters
        waste nothing. Runs inside `EdgeMesh.spread`.

        Args:
          halves: Halves.
        Returns:
          The uploaded features `[K, U, B, ...]` of all clients, zero for those of other devices;
          Outcome with leaves `[L, ...]`, one for each of this device's `own_items`, zero where no
          cluster formed; and bool[K], which of this device's clients are out, or None.
        """
        num_clients, num_clusters = self.plan.clients.shape[0], self.plan.first.shape[0]
        padded = num_clients + self.client_chunk  # a chunk's rows may run over the last
        fronts = _repeat(halves.front, padded)
        batch_size = self.batches.shape[2]
        shape = (padded, self.upload_slots, batch_size, *self.model.feature_shape)
        smashed = jnp.zeros(shape, self.archive_dtype)
        out = jnp.zeros(padded, bool) if self.skips else None
        rows = Rows(fronts, jax.vmap(self.direction.init)(fronts), smashed, out)
        state = self.direction.init(halves.back)
        start = Node(halves.back, state, jnp.float32(0), jnp.int32(0))
        nothing = Outcome(halves.front, start.back, start.loss, start.samples)
        outcomes = jax.tree.map(lambda x: jnp.zeros((num_clusters, *x.shape), x.dtype), nothing)

        def train(m, carry):
            rows, outcomes = carry
            rows, node = self.train_cluster(m, rows, start)
            if self.skips:
                rows, node = self._leave_unsound(m, rows, node, start)
            front_sum = self._sum_fronts(m, rows)
            outcome = Outcome(front_sum, node.back, node.loss, node.samples)
            return rows, set_item(outcomes, m, outcome)

        formed = jnp.where(self.plan.members > 0, 1 + jnp.arange(num_clusters), 0).max()
        rows, outcomes = local_loop(train, formed, (rows, outcomes))
        smashed, out = jax.tree.map(lambda x: x[:num_clients], (rows.smashed, rows.out))
        return smashed, take_local(outcomes, num_clusters), out

    def train_cluster(self, m: int | Int32[Array, ""], rows: Rows, node: Node) -> tuple[Rows, Node]:
        """All local steps of cluster m; its clients' rows and its node afterwards."""
        steps = jnp.where(self.plan.cluster == m, self.plan.steps, 0).max()
        step = functools.partial(self._local_step, m)
        return jax.lax.fori_loop(0, steps, step, (rows, node))

    def _leave_unsound(self, m, rows, node, start):
        """Rows and Node of cluster m, which is out as a whole where its node is not finite."""
        sound = jax.tree.reduce(jnp.logical_and, finite_leaves((node.back, node.loss)))
        members = self.plan.cluster == m
        members = jnp.pad(members, (0, rows.out.shape[0] - members.shape[0]))
        return rows._replace(out=rows.out | (members & ~sound)), where_rows(sound, node, start)

    def _sum_fronts(self, m, rows):
        """Sum of the front halves of cluster m, each times its client's weight."""

        def add(j, total):
            place = j * self.client_chunk + jnp.arange(self.client_chunk)
            at = self.plan.first[m] + j * self.client_chunk
            weight = self.plan.weight.at[self.plan.first[m] + place].get(mode="fill", fill_value=0)
            weight = jnp.where(place < self.plan.members[m], weight, 0)
            chunk = self._slice(at, rows.fronts)
            if self.skips:
                weight = jnp.where(self._slice(at, rows.out), 0, weight)
            return jax.tree.map(
                lambda total, x: total + jnp.tensordot(weight, x, axes=1), total, chunk
            )

        start = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), rows.fronts)
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
        share = reciprocal(samples)
        grad = jax.tree.map(lambda g: g * share, grad)
        moved = descend(self.direction, grad, node.state, node.back, self.learning_rate)
        back, state = where_rows(samples > 0, moved, (node.back, node.state))
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
        with jax.named_scope("batches"):
            there = (place < self.plan.members[m]) & (step < steps)
            examples = read_batches(self.batches, row, step, there, self.data.num_examples)
            images, labels, valid = read_examples(self.data, examples)
        now = self._slice(at, (rows.fronts, rows.states))
        fronts, states = now
        out = self._slice(at, rows.out)
        keys = jax.vmap(lambda k: draw_key(self.wire_key, k, step))(client)
        if self.skips:
            valid &= ~out[:, None]
        with jax.named_scope("gradients"):
            send = split_step_dropping_nonfinite if self.skips else exchange
            sent = send(self.model, self.wire, keys, fronts, back, images, labels, valid)
        step_front = functools.partial(descend, self.direction, learning_rate=self.learning_rate)
        moved = jax.vmap(step_front)(sent.front_grads, states, fronts)
        moves = valid.any(1)
        if self.skips:
            came, valid = moves, valid & sent.sound[:, None]
            moves = came & sent.sound & finite_rows(moved)
            out |= came & ~moves
        after = *where_rows(moves, moved, now), out
        fronts, states, out = jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0),
            (rows.fronts, rows.states, rows.out),
            after,
        )
        slot = step - (steps - uploaded)
        slot = jnp.where(moves & (slot >= 0), slot, self.upload_slots)
        smashed = rows.smashed.at[row, slot].set(
            sent.smashed.astype(self.archive_dtype), mode="drop"
        )
        return (
            Rows(fronts, states, smashed, out),
            jax.tree.map(jnp.add, back_grad, sent.back_grad),
            loss + sent.loss,
            samples + valid.sum(),
        )

    def _slice(self, at, tree):
        """A chunk of the rows of a tree, from row `at` on."""
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.client_chunk), tree)


def draw_key(
    key: PRNGKeyArray, client: Int[ArrayLike, ""], step: Int[ArrayLike, ""]
) -> PRNGKeyArray:
    """The key of what one client and its server send in one local step of the round of the key."""
    return jax.random.fold_in(jax.random.fold_in(key, client), step)


def _repeat(tree, count):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)
