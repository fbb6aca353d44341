"""What methods have in common in which every client trains the whole model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, PRNGKeyArray, PyTree

from cefl_jax.methods.base import Method, MethodContext, chosen, count_clients
from cefl_jax.network import ledger, topology
from cefl_jax.numerics import finite_by_stage, reciprocal
from cefl_jax.stages.local_training import LocalResult, LocalTraining
from cefl_jax.stages.optimizers import named_direction
from cefl_jax.stages.round_plan import Plan
from cefl_jax.stages.round_planner import Decision
from cefl_jax.types import HParams, Purpose, RoundMetrics, RoundTrace, purpose_key


class LocalModelState(NamedTuple):
    """Everything that the next round depends on."""

    key: PRNGKeyArray  # of the run
    round: Int32[Array, ""]  # rounds done
    params: Any  # the global model, one tree per block
    memory: Any  # what the method keeps besides, such as a server's optimizer state
    conditions: topology.Conditions  # of the network in the next round
    ledger: ledger.Ledger


class LocalModel(MethodContext):
    """The steps of a round that these methods share."""

    def __post_init__(self) -> None:
        """Raises ValueError where clients do not train whole models."""
        if not self.planner.traits.whole:
            raise ValueError(
                f"method {self.spec.method.name!r}: its clients train whole models; its traits "
                "need server='none'"
            )

    def init(self, key: PRNGKeyArray, memory: Callable = lambda params: ()) -> LocalModelState:
        """The state before the first round, with what `memory` makes of the initial model."""
        halves, _ = self.model.init(purpose_key(key, Purpose.MODEL))
        params = halves.front + halves.back
        conditions = self.planner.start(key, self.network)
        start = ledger.empty_ledger(self.num_kinds)
        return LocalModelState(key, jnp.int32(0), params, memory(params), conditions, start)

    def decide(self, state: LocalModelState) -> Decision:
        """Returns the Decision of a round."""
        return self.planner.decide(
            state.key, state.round, state.conditions, self.data, self.network
        )

    def train(
        self,
        state: LocalModelState,
        plan: Plan,
        hparams: HParams,
        correct: Callable | None = None,
        corrections: PyTree = None,
        keep_models: bool = False,
    ) -> LocalResult:
        """Trains every client of a plan from the global model.

        Args:
          state: LocalModelState.
          plan: Plan.
          hparams: HParams.
          correct: of gradients, as in LocalTraining.
          corrections: leaves f32[K, ...], likewise.
          keep_models: whether `LocalResult.models` are all clients' models; else, and without
            corrections, they are None.
        Returns:
          LocalResult, of one group.
        """
        training = self.local_training(correct, keep_models=keep_models or corrections is not None)
        starts = jax.tree.map(lambda x: x[None], state.params)
        batches = self.draw_batches(state, plan)
        with jax.named_scope("training"):
            return training.train(
                starts,
                jnp.zeros_like(plan.clients),
                plan,
                self.data,
                batches,
                hparams.learning_rate,
                corrections,
            )

    def local_training(
        self, correct: Callable | None = None, keep_models: bool = False
    ) -> LocalTraining:
        """Returns the LocalTraining that the settings name."""
        direction = named_direction(self.spec.train.optimizer)
        return LocalTraining(
            self.model.whole,
            direction,
            chosen(self.spec.run.client_chunk),
            self.mesh,
            correct,
            keep_models,
            skips=self.skips,
        )

    def finish(
        self,
        state: LocalModelState,
        decision: Decision,
        params: PyTree,
        memory: PyTree,
        trained: LocalResult,
        *stages: tuple[str, PyTree],
    ) -> tuple[LocalModelState, RoundMetrics]:
        """Returns the state after a round, and its RoundMetrics.

        Args:
          state: LocalModelState before the round.
          decision: Decision.
          params: the global model after it.
          memory: likewise.
          trained: LocalResult.
          *stages: pairs of a name and what that stage has left, of those after local training
            whose results may be other than finite.
        """
        with jax.named_scope("ledger"):
            cost = self.planner.cost(decision, self.num_kinds)
        state = LocalModelState(
            state.key,
            state.round + 1,
            params,
            memory,
            decision.conditions,
            ledger.add_cost(state.ledger, cost),
        )
        round_trace, task = None, decision.task
        if not self.planner.traits.averages_at_edges:  # which the schedule knows nothing of
            alone = task._replace(placement=jnp.full_like(task.placement, -1))
            round_trace = RoundTrace(decision.plan.clients, alone, decision.schedule, cost.phase_s)
        return state, RoundMetrics(
            trained.loss * (1.0 / trained.samples),  # nobody's is not a number
            **count_clients(decision, trained.skipped),
            finite=finite_by_stage(("local training", {"loss": trained.loss}), *stages),
            round_trace=round_trace,
        )

    def finish_average(
        self, state: LocalModelState, decision: Decision, trained: LocalResult
    ) -> tuple[LocalModelState, RoundMetrics]:
        """`finish` of a round that ends with the clients' average."""
        params = average(trained, state.params)
        return self.finish(state, decision, params, (), trained, ("aggregation", {"model": params}))

    def method(self, round: Callable, memory: Callable = lambda params: ()) -> Method:
        """Returns the Method of a round."""
        return Method(
            lambda key: self.init(key, memory),
            round,
            lambda state, images, _: {"": self.model.whole(state.params, images)},
            lambda state: {},
        )


def average(trained: LocalResult, params: PyTree) -> PyTree:
    """Returns the clients' models, averaged by their weights; as they were where nobody has any."""
    total = trained.weight[0]
    each = reciprocal(total)
    return jax.tree.map(
        lambda sums, old: jnp.where(total > 0, sums[0] * each, old), trained.sums, params
    )
