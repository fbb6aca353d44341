"""Split training in the flat layout: all clients of a round on one axis, steps of one length."""

import functools

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from cefl_jax.numerics import finite_rows, take, weighted_sum, where_rows
from cefl_jax.parallel import (
    first_alone,
    gather_items,
    local_items,
    num_devices,
    psum_rows,
    take_local,
    total,
)
from cefl_jax.stages.split_step import split_step
from cefl_jax.stages.split_training import ClusterResult, SplitTraining
from cefl_jax.types import Halves


class FlatSplitTraining(SplitTraining):
    """Split training of one round, for accelerators; see `parallel.EdgeMesh.flat`.

    Each client has a front half of its own and a copy of its cluster's back half; the gradients of
    a back half are summed over its cluster. Every client makes S steps, of which those past its own
    move nothing. `client_chunk` clients of a device are computed at once, in chunks where these are
    fewer than all. Devices share the clients, and add up the gradients in each step.

    A client's numbers enter no sum but that of its own cluster, so with `skips` one pass is enough.
    """

    def train_clusters(
        self, halves: Halves
    ) -> tuple[Float[Array, "K U B ..."], ClusterResult, Bool[Array, "K"] | None]:
        """Trains this device's share of all clients at once; see `SplitTraining.train_clusters`."""
        num_clients, num_clusters = self.plan.clients.shape[0], self.plan.first.shape[0]
        if self.sequential_server:  # one server, one client after another: nothing to share
            rows = first_alone(jnp.arange(num_clients), num_clients)
        else:
            rows = local_items(num_clients)
        chunk = min(self.client_chunk, rows.shape[0])
        rows = jnp.pad(rows, (0, -rows.shape[0] % chunk), constant_values=num_clients)
        clients = self.start_clients(halves, rows.shape[0])
        start = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (num_clusters, *x.shape)), self.start_server(halves)
        )
        step = self._flat_sequence if self.sequential_server else self._flat_step
        clients, servers = jax.lax.fori_loop(
            0, self.batches.shape[1], functools.partial(step, rows), (clients, start)
        )
        cluster = take(self.plan.cluster, rows, num_clusters)
        weight = take(self.plan.weight, rows)
        if self.skips:
            finite = finite_rows((servers.back, servers.loss))
            servers = where_rows(finite, servers, start)
            skipped = clients.skipped | ~take(finite, cluster, True)
            clients, weight = clients._replace(skipped=skipped), jnp.where(skipped, 0, weight)
        member = cluster[None] == jnp.arange(num_clusters)[:, None]  # [M, L]
        share = jnp.where(member, weight[None], 0)
        front_sum = self._total(weighted_sum(clients.fronts, share))
        results = ClusterResult(front_sum, servers.back, servers.loss, servers.samples)
        smashed, skipped = clients.smashed, clients.skipped
        if self.sequential_server:
            smashed, skipped = psum_rows(
                jax.tree.map(
                    lambda x: jnp.zeros_like(x).at[rows].set(x, mode="drop")[:num_clients],
                    (smashed, skipped),
                )
            )
            skipped = jax.tree.map(lambda x: x > 0, skipped)
        else:  # half of what a sum over the devices would send
            own = -(-num_clients // num_devices())
            smashed, skipped = gather_items(
                jax.tree.map(lambda x: x[:own], (smashed, skipped)), num_clients
            )
        return smashed, take_local(results, num_clusters), skipped

    def _flat_sequence(self, rows, step, carry):
        """A local step in which servers step on one client's samples after another's."""
        num_clients = self.plan.clients.shape[0]

        def at_place(c, carry):
            here = jnp.where(c < self.plan.members, self.plan.first + c, num_clients)
            here = first_alone(here, num_clients)
            clients, servers = carry
            some = jax.tree.map(lambda x: take(x, here, None), clients)
            some, servers = self._flat_step(here, step, (some, servers))
            clients = jax.tree.map(lambda x, new: x.at[here].set(new, mode="drop"), clients, some)
            return clients, servers

        return jax.lax.fori_loop(0, num_clients, at_place, carry)

    def _flat_step(self, rows, step, carry):
        """A local step of the clients of rows i32[L], K for none, and one of every server."""
        clients, servers = carry
        one_chunk = functools.partial(self._flat_chunk, step, servers.back)
        chunk = min(self.client_chunk, rows.shape[0])
        if chunk < rows.shape[0]:
            divided = jax.tree.map(
                lambda x: x.reshape(rows.shape[0] // chunk, chunk, *x.shape[1:]), (rows, clients)
            )
            nothing = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype),
                jax.eval_shape(one_chunk, *jax.tree.map(lambda x: x[0], divided))[1],
            )

            def add(sums, chunk):
                after, of_chunk = one_chunk(*chunk)
                return jax.tree.map(jnp.add, sums, of_chunk), after

            sums, clients = jax.lax.scan(add, nothing, divided)
            clients = jax.tree.map(lambda x: x.reshape(rows.shape[0], *x.shape[2:]), clients)
        else:
            clients, sums = one_chunk(rows, clients)
        (grad, loss), samples = self._total(sums[:2]), self._total(sums[2])
        return clients, jax.vmap(self._step_back)(servers, grad, loss, samples)

    def _flat_chunk(self, step, backs, rows, clients):
        """ClientStates after a local step; gradient, loss and samples of every cluster."""
        num_clusters = self.plan.first.shape[0]
        batch = self._read_batch(rows, step, rows < self.plan.clients.shape[0])
        valid = batch.valid & ~clients.skipped[:, None] if self.skips else batch.valid
        cluster = take(self.plan.cluster, rows, num_clusters)
        backs = jax.tree.map(lambda x: take(x, cluster, None), backs)
        with jax.named_scope("gradients"):
            sent = jax.vmap(self._step_alone)(
                batch.keys, clients.fronts, backs, batch.images, batch.labels, valid
            )
        after, moves, valid = self._step_fronts(clients, sent.front_grads, sent.finite, valid)
        member = cluster[None] == jnp.arange(num_clusters)[:, None]  # [M, L]
        counts = sent.finite if self.skips else jnp.ones_like(sent.finite)
        grad, loss = _sum_by_cluster((sent.back_grad, sent.loss), member & counts[None])
        samples = jnp.where(member, valid.sum(1)[None], 0).sum(1)
        slot = jnp.where(moves & (batch.slot >= 0), batch.slot, self.upload_slots)
        smashed = clients.smashed.at[jnp.arange(rows.shape[0]), slot].set(
            sent.smashed.astype(self.archive_dtype), mode="drop"
        )
        return after._replace(smashed=smashed), (grad, loss, samples)

    def _step_alone(self, key, front, back, images, labels, valid):
        """SplitStepResult of one client by itself, without the axis of clients."""
        alone = jax.tree.map(lambda x: x[None], (images, labels, valid))
        fronts = jax.tree.map(lambda x: x[None], front)
        sent = split_step(self.model, self.link, key[None], fronts, back, *alone)
        smashed, front_grads, finite = jax.tree.map(
            lambda x: x[0], (sent.smashed, sent.front_grads, sent.finite)
        )
        return sent._replace(smashed=smashed, front_grads=front_grads, finite=finite)

    def _total(self, tree):
        """Sums over the devices."""
        return tree if num_devices() == 1 else total(tree)


def _sum_by_cluster(rows, member):
    """Sums of leaves f32[L, ...] over the members bool[M, L]; of one not finite, not a number.

    As a product with zeros and ones, what is not finite would reach the sums that it is no part of.
    """
    flat = jax.vmap(lambda row: ravel_pytree(row)[0])(rows)  # [L, P]: few kernels for all leaves
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], rows))[1]
    fine = jnp.isfinite(flat).all(1)
    sums = weighted_sum(jnp.where(fine[:, None], flat, 0), member.astype(jnp.float32))
    broken = (member & ~fine[None]).any(1)
    return jax.vmap(unravel)(jnp.where(broken[:, None], jnp.nan, sums))
