"""Cloud-edge-end federated learning over a computing power network: the method of the source."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, PRNGKeyArray, PyTree

from cefl_jax import parallel
from cefl_jax.methods.base import Method, MethodContext, MethodInfo, chosen, count_clients
from cefl_jax.network import ledger, topology
from cefl_jax.numerics import finite_by_stage, take
from cefl_jax.stages import round_plan, traits
from cefl_jax.stages.aggregation import aggregate
from cefl_jax.stages.distillation import (
    Distillation,
    FeatureBuffer,
    TrainState,
    make_feature_buffer,
)
from cefl_jax.stages.flat_training import FlatSplitTraining
from cefl_jax.stages.leakage import measure_leakage
from cefl_jax.stages.link import make_link
from cefl_jax.stages.optimizers import make_direction, named_direction
from cefl_jax.stages.round_plan import Plan
from cefl_jax.stages.split_training import SplitTraining
from cefl_jax.stages.traits import MethodTraits
from cefl_jax.types import (
    Halves,
    HParams,
    Purpose,
    RoundMetrics,
    RoundTrace,
    purpose_key,
    round_key,
)


class CeflState(NamedTuple):
    """Everything that the next round depends on."""

    key: PRNGKeyArray  # of the run
    round: Int32[Array, ""]  # rounds done
    halves: Halves  # the edge-side global model
    cloud: Any  # parameters of the cloud model
    edge_optimizer: Any  # states of distillation; () where they start anew each round
    cloud_optimizer: Any
    conditions: topology.Conditions  # of the network in the next round
    ledger: ledger.Ledger


class SplitResult(NamedTuple):
    """What the split training of a round came to."""

    halves: Halves  # averaged
    uploads: Any  # distillation.FeatureBuffer
    loss: Float32[Array, ""]  # summed over the samples trained on, before each step
    samples: Int32[Array, ""]  # samples trained on
    skipped: Bool[Array, "K"] | None  # who is left out; None: nobody ever is


class Cefl(MethodContext):
    """The method, stage by stage, with everything closed over."""

    def init(self, key: PRNGKeyArray) -> CeflState:
        """Returns the state before the first round."""
        halves, cloud = self.model.init(purpose_key(key, Purpose.MODEL))
        edge, of_cloud = (self._kept_state(params) for params in (halves.back, cloud))
        conditions = self.planner.start(key, self.network)
        start = ledger.empty_ledger(self.num_kinds)
        return CeflState(key, jnp.int32(0), halves, cloud, edge, of_cloud, conditions, start)

    def round(self, state: CeflState, hparams: HParams) -> tuple[CeflState, RoundMetrics]:
        """One round: the next state and RoundMetrics."""
        decision = self.planner.decide(
            state.key, state.round, state.conditions, self.data, self.network
        )
        trained = self.split_train(state, decision.plan, hparams)
        with jax.named_scope("distillation"):
            state = self.distil(state._replace(halves=trained.halves), trained.uploads, hparams)
        with jax.named_scope("ledger"):
            cost = self.planner.cost(decision, self.num_kinds)
        state = state._replace(
            round=state.round + 1,
            conditions=decision.conditions,
            ledger=ledger.add_cost(state.ledger, cost),
        )
        return state, RoundMetrics(
            trained.loss * (1.0 / trained.samples),  # nobody's is not a number: 0 / 0
            decision.clusters,
            decision.offload_cost,
            **count_clients(decision, trained.skipped),
            finite=finite_by_stage(*self.stages(trained, state)),
            round_trace=RoundTrace(
                decision.plan.clients, decision.task, decision.schedule, cost.phase_s
            ),
        )

    def stages(self, trained: SplitResult, state: CeflState) -> Iterable[tuple[str, PyTree]]:
        """What the stages of a round have left, by name; the state is that after distillation."""
        left = {"split training": {"loss": trained.loss}, "aggregation": {"halves": trained.halves}}
        if self._distils:
            left["distillation"] = {
                "back": state.halves.back,
                "cloud": state.cloud,
                "optimizers": (state.edge_optimizer, state.cloud_optimizer),
            }
        return left.items()

    def predictors(
        self, state: CeflState, images: Float32[Array, "B *sample"], _: Any
    ) -> dict[str, Float32[Array, "B Y"]]:
        """Logits of the deployed model, and of front half and cloud model where that learns."""
        features = self.model.front(state.halves.front, images)
        predictions = {"": self.model.back(state.halves.back, features)}
        if self._distils:
            predictions["cloud_"] = self.model.cloud(state.cloud, features)
        return predictions

    def measures(self, state: CeflState) -> dict[str, Float32[Array, ""]]:
        """Returns what the smashed data of the probe images would give away of them."""
        probe = self.data.test_images[: self.spec.cefl.privacy.probe_size]
        if not probe.shape[0]:
            return {}
        leakage = measure_leakage(
            self.model.front,
            state.halves.front,
            self.data.normalise(probe),
            noise_std=self._link.noise_std,
            codec=self._link.smashed,
            key=purpose_key(state.key, Purpose.PROBE),
            rows=probe.shape[0] if self.mesh.flat else None,
        )
        return {"privacy/distance_correlation": leakage}

    def split_train(self, state: CeflState, plan: Plan, hparams: HParams) -> SplitResult:
        """Trains the clusters and averages both halves: SplitResult.

        Who is left out weighs nothing in either average, and its features are not uploaded.
        """
        slots = self._slots
        sequential = self.planner.traits.sequential_server
        direction = named_direction(self.spec.train.optimizer)
        batches = self.draw_batches(state, plan)
        layout = FlatSplitTraining if self.mesh.flat else SplitTraining
        link_key = round_key(state.key, state.round, Purpose.LINK)

        def on_device(halves, data, plan, batches, link_key, learning_rate):
            training = layout(
                model=self.model,
                link=self._link,
                direction=direction,
                data=data,
                plan=plan,
                batches=batches,
                link_key=link_key,
                learning_rate=learning_rate,
                upload_slots=slots,
                client_chunk=1 if sequential else chosen(self.spec.run.client_chunk),
                archive_dtype=self.spec.run.archive_dtype,
                sequential_server=sequential,
                skips=self.skips,
            )
            with jax.named_scope("training"):
                smashed, trained, skipped = training.train_clusters(halves)
            plan = round_plan.exclude_clients(plan, skipped)
            with jax.named_scope("aggregation"):
                averaged = aggregate(halves, trained.front_sum, trained.back, plan, self.mesh)
            counted = parallel.gather_items((trained.loss, trained.samples), plan.first.shape[0])
            return averaged, smashed, counted, plan, skipped

        halves, smashed, (losses, samples), plan, skipped = self.mesh.spread(on_device)(
            state.halves, self.data, plan, batches, link_key, hparams.learning_rate
        )
        num_examples = self.data.num_examples
        examples = round_plan.upload_examples(plan, batches, slots, num_examples)
        labels = take(self.data.labels, examples)
        uploads = make_feature_buffer(smashed, labels, examples < num_examples)
        return SplitResult(halves, uploads, losses.sum(), samples.sum(), skipped)

    def distil(
        self, state: CeflState, uploads: FeatureBuffer | None, hparams: HParams
    ) -> CeflState:
        """Edge model and cloud model teach each other on the uploaded features."""
        if not self._distils:
            return state
        keys = [
            round_key(state.key, state.round, purpose)
            for purpose in (Purpose.DISTILL_EDGE, Purpose.DISTILL_CLOUD)
        ]
        distillation = Distillation(
            self.spec.cefl.distill,
            self._distil_direction,
            self.mesh,
            chosen(self.spec.run.distill_parts),
        )

        def on_device(states, uploads, keys, hparams, round_index):
            apply = self.model.back, self.model.cloud
            begin = self._distil_direction.init
            edge, cloud = (
                TrainState(f, params, optimizer if self._persists else begin(params))
                for f, (params, optimizer) in zip(apply, states, strict=True)
            )
            taught = distillation.distil_mutually(edge, cloud, uploads, keys, hparams, round_index)
            return [(student.params, student.state if self._persists else ()) for student in taught]

        back, cloud = (
            (state.halves.back, state.edge_optimizer),
            (state.cloud, state.cloud_optimizer),
        )
        back, cloud = self.mesh.spread(on_device)(
            (back, cloud), uploads, keys, hparams, state.round
        )
        return state._replace(
            halves=state.halves._replace(back=back[0]),
            cloud=cloud[0],
            edge_optimizer=back[1],
            cloud_optimizer=cloud[1],
        )

    @property
    def _link(self):
        return make_link(self.spec.cefl.compression, self.spec.cefl.privacy)

    @property
    def _distils(self):
        return self.spec.cefl.distill.rule != "none"

    @property
    def _slots(self):
        return self.planner.bounds.uploads if self._distils else 0

    @property
    def _persists(self):
        return self._distils and self.spec.cefl.distill.optimizer_state == "persist"

    def _kept_state(self, params):
        return self._distil_direction.init(params) if self._persists else ()

    @property
    def _distil_direction(self):
        return make_direction("sgd", self.spec.cefl.distill.momentum)


def make_cefl(context: MethodContext) -> Method:
    """Makes the method of the source."""
    cefl = Cefl.of(context)
    return Method(cefl.init, cefl.round, cefl.predictors, cefl.measures)


METHOD = MethodInfo(make_cefl, MethodTraits(server="matched"), traffic=lambda spec: traits.SPLIT)
