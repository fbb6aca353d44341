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
from cefl_jax.numerics import check_finite, finite_rows, reciprocal, take, weighted_sum, where_rows
from cefl_jax.parallel import local_loop, psum_rows, set_item, take_local
from cefl_jax.stages.link import CutLink
from cefl_jax.stages.local_training import read_examples
from cefl_jax.stages.optimizers import descend
from cefl_jax.stages.round_plan import Plan, read_batches
from cefl_jax.stages.split_step import (
    split_step,
    split_step_dropping_nonfinite,
)
from cefl_jax.types import Halves


class ClientStates(NamedTuple):
    """What clients of a round hold, one row each: all in the order of the plan, or a device's."""

    fronts: Any  # leaves f32[K, ...]
    states: Any  # optimizer states, leaves [K, ...]
    smashed: Float[Array, "K U B ..."]  # cut-layer features as uploaded; zero where none
    skipped: Bool[Array, "K"] | None = None  # left out from now on; None: nobody ever is


class ServerState(NamedTuple):
    """What an edge node holds while it trains a cluster."""

    back: Any
    state: Any  # optimizer state
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on


class ClusterResult(NamedTuple):
    """What the split training of a cluster yields."""

    front_sum: Any  # its clients' front halves, each times its weight, added up
    back: Any
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on


class _Batch(NamedTuple):
    """One local step's samples of some clients, and the slots that keep their features."""

    images: Float32[Array, "C B *sample"]
    labels: Int32[Array, "C B"]
    valid: Bool[Array, "C B"]
    keys: Any  # key[C], of what each client and its server send
    slot: Int32[Array, "C"]  # of the archive; negative or past the last where none is kept


@dataclasses.dataclass(frozen=True)
class SplitTraining:
    """Split training of one round: what every cluster shares.

    In each local step every client of a cluster sends the cut-layer features of a batch to its edge
    node; the node steps its back half along the gradient of the mean loss over all the cluster's
    samples, and each client steps its front half along the gradient of its own mean loss, taken
    through the back half as it was before the step. A client or node without samples in a step
    does not move.

    With `sequential_server` the node steps on each chunk's samples by themselves, before it takes
    those of the next one.

    With `skips`:

    - A client whose features, loss or gradient are not finite in a step is left out from this step
      on. The node steps without it; of its losses, those before this step count.
    - A client whose step would make its front half or its optimizer's state not finite is left out
      from the next step on.
    - A cluster whose back half is not finite in the end is left out whole, and its losses too.

    Front halves of clients that are left out stay finite.
    """

    model: SplitModel
    link: CutLink
    direction: optax.GradientTransformation  # of both halves, started anew in each round
    data: FederatedData
    plan: Plan
    batches: Int32[Array, "K S B"]  # of `round_plan.draw_batches`
    link_key: PRNGKeyArray  # of what they send
    learning_rate: Float32[Array, ""]
    upload_slots: int  # U, steps kept of each client's smashed data; 0 keeps none
    client_chunk: int  # clients of a cluster computed at once
    archive_dtype: str = "float32"  # of the smashed data that is kept
    sequential_server: bool = False  # the node steps after each chunk
    skips: bool = False  # clients are left out whose numbers are not finite

    def train_clusters(
        self, halves: Halves
    ) -> tuple[Float[Array, "K U B ..."], ClusterResult, Bool[Array, "K"] | None]:
        """Trains this device's clusters, one after another, from the same halves.

        The loops run as often as there are clusters, steps and clients, so that unequal clusters
        waste nothing. Runs inside `EdgeMesh.spread`.

        Args:
          halves: Halves.
        Returns:
          The uploaded features `[K, U, B, ...]` of all clients, alike on every device;
          ClusterResult with leaves `[L, ...]`, one for each of this device's `own_items`, zero
          where no cluster formed; and bool[K], which clients are left out, or None.
        """
        num_clients, num_clusters = self.plan.clients.shape[0], self.plan.first.shape[0]
        clients = self.start_clients(halves, num_clients + self.client_chunk)  # a chunk runs over
        start = self.start_server(halves)
        nothing = ClusterResult(halves.front, start.back, start.loss, start.samples)
        results = jax.tree.map(lambda x: jnp.zeros((num_clusters, *x.shape), x.dtype), nothing)

        def train(m, carry):
            clients, results = carry
            clients, server = self.train_cluster(m, clients, start)
            if self.skips:
                clients, server = self._skip_cluster(m, clients, server, start)
            front_sum = self._sum_fronts(m, clients)
            result = ClusterResult(front_sum, server.back, server.loss, server.samples)
            return clients, set_item(results, m, result)

        formed = jnp.where(self.plan.members > 0, 1 + jnp.arange(num_clusters), 0).max()
        clients, results = local_loop(train, formed, (clients, results))
        smashed, skipped = psum_rows(
            jax.tree.map(lambda x: x[:num_clients], (clients.smashed, clients.skipped))
        )
        skipped = jax.tree.map(lambda x: x > 0, skipped)
        return smashed, take_local(results, num_clusters), skipped

    def start_clients(self, halves: Halves, num_rows: int) -> ClientStates:
        """Returns the ClientStates before the first step, `num_rows` of them."""
        fronts = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_rows, *x.shape)), halves.front)
        shape = num_rows, self.upload_slots, self.batches.shape[2], *self.model.feature_shape
        skipped = jnp.zeros(num_rows, bool) if self.skips else None
        states = jax.vmap(self.direction.init)(fronts)
        return ClientStates(fronts, states, jnp.zeros(shape, self.archive_dtype), skipped)

    def start_server(self, halves: Halves) -> ServerState:
        """Returns the ServerState before the first step."""
        state = self.direction.init(halves.back)
        return ServerState(halves.back, state, jnp.float32(0), jnp.int32(0))

    def train_cluster(
        self, m: int | Int32[Array, ""], clients: ClientStates, server: ServerState
    ) -> tuple[ClientStates, ServerState]:
        """Returns the ClientStates and the ServerState after all local steps of cluster m."""
        steps = jnp.where(self.plan.cluster == m, self.plan.steps, 0).max()
        step = functools.partial(self._local_step, m)
        return jax.lax.fori_loop(0, steps, step, (clients, server))

    def _skip_cluster(self, m, clients, server, start):
        """Leaves out the whole of cluster m where its server is not finite."""
        finite = check_finite((server.back, server.loss)).passed
        members = self.plan.cluster == m
        members = jnp.pad(members, (0, clients.skipped.shape[0] - members.shape[0]))
        skipped = clients.skipped | (members & ~finite)
        return clients._replace(skipped=skipped), where_rows(finite, server, start)

    def _sum_fronts(self, m, clients):
        """Sums the front halves of cluster m, each times its client's weight."""

        def add(j, total):
            at, row, member = self._places(m, j)
            weight = take(self.plan.weight, row)
            weight = jnp.where(member, weight, 0)
            if self.skips:
                weight = jnp.where(self._slice(at, clients.skipped), 0, weight)
            chunk = weighted_sum(self._slice(at, clients.fronts), weight)
            return jax.tree.map(jnp.add, total, chunk)

        start = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), clients.fronts)
        return jax.lax.fori_loop(0, -(-self.plan.members[m] // self.client_chunk), add, start)

    def _local_step(self, m, step, carry):
        """Makes one local step of cluster m; its node steps once, or once for each chunk."""
        chunks = -(-self.plan.members[m] // self.client_chunk)
        if not self.sequential_server:
            return self._server_step(m, step, 0, chunks, carry)

        def one_chunk(j, carry):
            return self._server_step(m, step, j, j + 1, carry)

        return jax.lax.fori_loop(0, chunks, one_chunk, carry)

    def _server_step(self, m, step, first, past, carry):
        """Makes one local step of cluster m's chunks from `first` on, and one step of its node."""
        clients, server = carry
        grad = jax.tree.map(jnp.zeros_like, server.back)
        chunk = functools.partial(self._chunk_step, m, step, server.back)
        start = clients, grad, jnp.float32(0), jnp.int32(0)
        clients, grad, loss, samples = jax.lax.fori_loop(first, past, chunk, start)
        return clients, self._step_back(server, grad, loss, samples)

    def _step_back(self, server, grad, loss, samples):
        """Steps the ServerState along the gradient of a summed loss of so many samples."""
        share = reciprocal(samples)
        grad = jax.tree.map(lambda g: g * share, grad)
        moved = descend(self.direction, grad, server.state, server.back, self.learning_rate)
        back, state = where_rows(samples > 0, moved, (server.back, server.state))
        return ServerState(back, state, server.loss + loss, server.samples + samples)

    def _chunk_step(self, m, step, back, j, carry):
        """Makes one local step of one chunk of cluster m's clients, each with a row."""
        clients, back_grad, loss, samples = carry
        at, row, member = self._places(m, j)
        batch = self._read_batch(row, step, member)
        now = self._slice(at, clients._replace(smashed=()))
        valid = batch.valid & ~now.skipped[:, None] if self.skips else batch.valid
        with jax.named_scope("gradients"):
            take = split_step_dropping_nonfinite if self.skips else split_step
            sent = take(
                self.model,
                self.link,
                batch.keys,
                now.fronts,
                back,
                batch.images,
                batch.labels,
                valid,
            )
        after, moves, valid = self._step_fronts(now, sent.front_grads, sent.finite, valid)
        slot = jnp.where(moves & (batch.slot >= 0), batch.slot, self.upload_slots)
        kept = sent.smashed.astype(self.archive_dtype)
        smashed = clients.smashed.at[row, slot].set(kept, mode="drop")
        clients = jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0),
            clients._replace(smashed=()),
            after,
        )
        return (
            clients._replace(smashed=smashed),
            jax.tree.map(jnp.add, back_grad, sent.back_grad),
            loss + sent.loss,
            samples + valid.sum(),
        )

    def _places(self, m, j):
        """Returns the first row of cluster m's j-th chunk, its rows i32[C], and bool[C], who is."""
        place = j * self.client_chunk + jnp.arange(self.client_chunk)
        first = self.plan.first[m]
        return first + j * self.client_chunk, first + place, place < self.plan.members[m]

    def _read_batch(self, row, step, member):
        """Reads the _Batch of a local step of rows i32[C], of which bool[C] are there."""
        client, steps, uploaded = (
            take(x, row) for x in (self.plan.clients, self.plan.steps, self.plan.uploaded)
        )
        with jax.named_scope("batches"):
            there = member & (step < steps)
            examples = read_batches(self.batches, row, step, there, self.data.num_examples)
            images, labels, valid = read_examples(self.data, examples)
        keys = jax.vmap(lambda k: draw_key(self.link_key, k, step))(client)
        return _Batch(images, labels, valid, keys, step - (steps - uploaded))

    def _step_fronts(self, now, front_grads, finite, valid):
        """Returns ClientStates after a step; bool[C], who made it; and bool[C, B], what counts."""
        step_front = functools.partial(descend, self.direction, learning_rate=self.learning_rate)
        moved = jax.vmap(step_front)(front_grads, now.states, now.fronts)
        moves, skipped = valid.any(1), now.skipped
        if self.skips:
            came, valid = moves, valid & finite[:, None]
            moves = came & finite & finite_rows(moved)
            skipped |= came & ~moves
        fronts, states = where_rows(moves, moved, (now.fronts, now.states))
        return now._replace(fronts=fronts, states=states, skipped=skipped), moves, valid

    def _slice(self, at, tree):
        """Slices a chunk of the rows of a tree, from row `at` on."""
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.client_chunk), tree)


def draw_key(
    key: PRNGKeyArray, client: Int[ArrayLike, ""], step: Int[ArrayLike, ""]
) -> PRNGKeyArray:
    """Returns the key of what a client and its server send in a local step of the key's round."""
    return jax.random.fold_in(jax.random.fold_in(key, client), step)
