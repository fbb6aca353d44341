"""Sequential split learning: each client goes on with the model of the one before."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import PyTree

from cefl_jax.methods.base import Method, MethodContext, MethodInfo
from cefl_jax.methods.cefl import Cefl, CeflState, SplitResult
from cefl_jax.stages import traits
from cefl_jax.stages.local_training import LocalTraining
from cefl_jax.stages.optimizers import named_direction
from cefl_jax.stages.round_plan import Plan
from cefl_jax.stages.traits import MethodTraits
from cefl_jax.types import Halves, HParams, RoundMetrics


class SequentialSplit(Cefl):
    """Rounds of `cefl` on the cloud in which the clients take turns."""

    def round(self, state: CeflState, hparams: HParams) -> tuple[CeflState, RoundMetrics]:
        """One round: the next state and RoundMetrics, without a round_trace."""
        state, metrics = super().round(state, hparams)
        return state, metrics._replace(round_trace=None)

    def split_train(self, state: CeflState, plan: Plan, hparams: HParams) -> SplitResult:
        """Trains one client after another: SplitResult of the last one's halves, no uploads.

        The gradient through the cut is that of the whole model, whose norm is what is clipped.
        """
        direction = named_direction(self.spec.train.optimizer)
        training = LocalTraining(
            self.model.whole,
            direction,
            1,
            self.mesh,
            keep_models=True,
            skips=self.skips,
        )
        whole = state.halves.front + state.halves.back
        whole, loss, samples, skipped = training.train_sequentially(
            whole, plan, self.data, self.draw_batches(state, plan), hparams.learning_rate
        )
        halves = Halves(whole[: self.model.cut], whole[self.model.cut :])
        return SplitResult(halves, None, loss, samples, skipped)

    def stages(self, trained: SplitResult, _: Any) -> Iterable[tuple[str, PyTree]]:
        """Returns what the one stage of a round has left, by name: nothing is averaged."""
        return [("split training", {"halves": trained.halves, "loss": trained.loss})]


def make_sequential_split(context: MethodContext) -> Method:
    """Makes sequential split learning, which computes what sequential federated learning computes.

    The clients of a round come in the order in which they were sampled, which is random. Each loads
    the front half that the one before has left at the front aggregation server, trains it with the
    back half on the cloud, its optimizer started anew, and delivers it; nothing is averaged. After
    a client that does not count, or is left out, the model is as it was before it.

    Reference:
      Gupta and Raskar, Distributed learning of deep neural network over multiple agents, Journal of
      Network and Computer Applications, 2018, algorithms 1 and 2; Li and Lyu, Convergence analysis
      of sequential federated learning on heterogeneous data, NeurIPS 2023, algorithm 1.
    """
    method = SequentialSplit.of(context)
    return Method(method.init, method.round, method.predictors, method.measures)


METHOD = MethodInfo(
    make_sequential_split,
    MethodTraits(server="cloud", sequential_clients=True),
    traffic=lambda spec: traits.SEQUENTIAL,
)
