"""The upper reference: SGD on the pooled examples of the whole population, in the cloud."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, PRNGKeyArray

from cefl_jax.data.federated import batch_examples, steps_per_epoch
from cefl_jax.methods.base import Method, MethodContext, MethodInfo, chosen
from cefl_jax.network import dynamics, ledger, topology
from cefl_jax.network.costs import cloud
from cefl_jax.numerics import finite_by_stage
from cefl_jax.stages.link import LABEL_BYTES
from cefl_jax.stages.local_training import mean_loss, read_examples
from cefl_jax.stages.optimizers import descend, named_direction
from cefl_jax.stages.traits import MethodTraits
from cefl_jax.types import HParams, Purpose, RoundMetrics, purpose_key


class CentralizedState(NamedTuple):
    """Everything that the next round depends on."""

    key: PRNGKeyArray  # of the run
    round: Int32[Array, ""]  # rounds done
    params: Any  # one tree per block
    optimizer: Any  # its state, which persists
    ledger: ledger.Ledger


class Centralized(MethodContext):
    """One training run of the unsplit model, cut into rounds."""

    def init(self, key: PRNGKeyArray) -> CentralizedState:
        """Returns the state before the first round."""
        halves, _ = self.model.init(purpose_key(key, Purpose.MODEL))
        params = halves.front + halves.back
        start = ledger.empty_ledger(self.num_kinds)
        return CentralizedState(key, jnp.int32(0), params, self._direction.init(params), start)

    def round(
        self, state: CentralizedState, hparams: HParams
    ) -> tuple[CentralizedState, RoundMetrics]:
        """One round: the next state and RoundMetrics."""
        train = self.mesh.spread(self._train)
        with jax.named_scope("training"):
            params, optimizer, loss, samples = train(
                state.params,
                state.optimizer,
                state.key,
                state.round,
                self.data,
                hparams.learning_rate,
            )
        with jax.named_scope("ledger"):
            cost = self._cost(state, samples)
        state = CentralizedState(
            state.key, state.round + 1, params, optimizer, ledger.add_cost(state.ledger, cost)
        )
        left = {"loss": loss, "model": params, "optimizer": optimizer}
        return state, RoundMetrics(
            loss * (1.0 / samples), finite=finite_by_stage(("training", left))
        )

    @property
    def num_steps(self) -> int:
        """Steps of a round: as many as its clients would make together.

        With `local_epochs`: as many passes over the pooled examples, times the share of the
        population that is in a round; rounded up to whole steps.
        """
        train, num_clients = self.spec.train, self.data.sizes.shape[0]
        if train.local_steps is not None:
            return train.clients_per_round * train.local_steps
        per_epoch = steps_per_epoch(self.data.members.shape[0], train.batch_size)
        epochs = chosen(train.local_epochs)
        return -(-epochs * train.clients_per_round * per_epoch // num_clients)

    def _train(self, params, optimizer, key, round_index, data, learning_rate):
        """The steps of a round, on each device alike: parameters, state, loss and samples."""
        with jax.named_scope("batches"):
            batches = self._draw_batches(data, key, round_index)

        def step(s, carry):
            params, optimizer, loss, samples = carry
            with jax.named_scope("batches"):
                images, labels, valid = read_examples(data, batches[s])
            with jax.named_scope("gradients"):
                grads, total = jax.grad(mean_loss, 1, has_aux=True)(
                    self.model.whole, params, images, labels, valid
                )
            moved = descend(self._direction, grads, optimizer, params, learning_rate)
            return *moved, loss + total, samples + valid.sum(dtype=jnp.int32)

        start = params, optimizer, jnp.float32(0), jnp.int32(0)
        return jax.lax.fori_loop(0, self.num_steps, step, start)

    def _draw_batches(self, data, key, round_index):
        """The examples of a round's steps, i32[num_steps, B]; epochs outlast rounds."""
        key, size = purpose_key(key, Purpose.BATCHES), self.spec.train.batch_size
        pooled = data._replace(offsets=jnp.array([0, data.members.shape[0]]))  # as if of one client
        steps = round_index * self.num_steps + jnp.arange(self.num_steps)
        return jax.vmap(lambda step: batch_examples(pooled, key, 0, step, size))(steps)

    def _cost(self, state, samples):
        """The RoundCost of a round; all examples come in the first one, over its network."""
        key = purpose_key(state.key, Purpose.NETWORK)
        conditions = dynamics.start(key, self.network, self.spec.network)
        everybody = jnp.arange(self.data.sizes.shape[0])
        network = topology.of_clients(self.network, conditions, everybody, include_cloud=True)
        counts = jnp.where(state.round == 0, self.data.sizes, 0)
        images = self.data.images
        example_bytes = math.prod(images.shape[1:]) * images.dtype.itemsize
        flop = samples * (
            self.planner.work.front_forward_flop + self.planner.work.front_backward_flop
        )
        return cloud.centralized_cost(
            counts, network, example_bytes, LABEL_BYTES, flop, self.num_kinds
        )

    @property
    def _direction(self):
        return named_direction(self.spec.train.optimizer)


def make_centralized(context: MethodContext) -> Method:
    """Makes centralized training, an upper reference for methods that keep examples where they are.

    All clients upload their examples in the first round, and take no further part. A round makes
    as many steps as those of its clients together would; epochs, each in a new order, go on from
    round to round, and so does the optimizer.

    """
    central = Centralized.of(context)
    return Method(
        central.init,
        central.round,
        lambda state, images, _: {"": central.model.whole(state.params, images)},
        lambda state: {},
    )


METHOD = MethodInfo(make_centralized, MethodTraits(server="none", pools_data=True))
