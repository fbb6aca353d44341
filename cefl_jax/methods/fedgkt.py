"""FedGKT: clients keep small models, a server a large one, and they teach each other."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, PRNGKeyArray, PyTree

from cefl_jax.methods.base import Method, MethodContext, MethodInfo, chosen, count_clients
from cefl_jax.network import ledger, topology
from cefl_jax.numerics import finite_by_stage, finite_rows, take, where_rows
from cefl_jax.specs import DistillSpec, Spec, count, setting, share
from cefl_jax.stages import logit_transfer, round_plan, traits
from cefl_jax.stages.distillation import (
    Distillation,
    DistillTarget,
    TrainState,
    draw_order,
    make_feature_buffer,
)
from cefl_jax.stages.local_training import LocalResult, LocalTraining
from cefl_jax.stages.optimizers import make_direction, named_direction
from cefl_jax.stages.round_plan import Plan
from cefl_jax.stages.traits import MethodTraits
from cefl_jax.types import HParams, Purpose, RoundMetrics, purpose_key, round_key


@dataclasses.dataclass(frozen=True)
class FedgktSpec:
    """Settings of `fedgkt`."""

    temperature: float = setting(3.0, "softening of both sides' predictions", above=0)
    weight: float = setting(
        1.0, "of the divergence from the other side, beside the labels", least=0
    )
    server_epochs: int = count(1, "passes of the server over the features of a round")
    server_batch_size: int = count(64, "features of one of its steps")
    server_learning_rate: float = setting(0.01, "of its model on the features", above=0)
    server_momentum: float = share(0.9, "kept from round to round")


class FedgktState(NamedTuple):
    """Everything that the next round depends on."""

    key: PRNGKeyArray  # of the run
    round: Int32[Array, ""]  # rounds done
    clients: Any  # leaves f32[N, ...], front half and head of every client of the population
    server: Any  # parameters of the cloud model
    server_optimizer: Any  # its state, which persists
    teacher_logits: logit_transfer.TeacherLogits  # what the clients know from the server
    conditions: topology.Conditions  # of the network in the next round
    ledger: ledger.Ledger


class Upload(NamedTuple):
    """What the clients of a round upload, in the slots of `round_plan.upload_examples`."""

    examples: Int32[Array, "K U B"]
    filled: Bool[Array, "K U B"]  # which there are
    extracted: logit_transfer.ClientOutputs


class Fedgkt(MethodContext):
    """The steps of a round; the model's back half is the classifier head."""

    def init(self, key: PRNGKeyArray) -> FedgktState:
        """Returns the state before the first round, in which all clients are alike."""
        halves, server = self.model.init(purpose_key(key, Purpose.MODEL))
        num_clients = self.data.sizes.shape[0]
        clients = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (num_clients, *x.shape)), halves.front + halves.back
        )
        return FedgktState(
            key,
            jnp.int32(0),
            clients,
            server,
            self._server_direction.init(server),
            logit_transfer.init_teacher_logits(self.data.labels.shape[0], self.model.num_classes),
            self.planner.start(key, self.network),
            ledger.empty_ledger(self.num_kinds),
        )

    def round(self, state: FedgktState, hparams: HParams) -> tuple[FedgktState, RoundMetrics]:
        """One round: the next state and RoundMetrics, without a round_trace."""
        decision = self.planner.decide(
            state.key, state.round, state.conditions, self.data, self.network
        )
        plan = decision.plan
        starts = jax.tree.map(lambda x: take(x, plan.clients, None), state.clients)
        batches = self.draw_batches(state, plan)
        trained = self.train_clients(starts, state, plan, batches, hparams)
        upload, skipped = self.extract(trained, plan, batches)
        counts = round_plan.exclude_clients(plan, skipped).weight > 0
        models = where_rows(counts, trained.models, starts)
        state = self.train_server(state, upload, hparams)
        clients = jax.tree.map(
            lambda all, one: all.at[plan.clients].set(one, mode="drop"), state.clients, models
        )
        with jax.named_scope("ledger"):
            cost = self.planner.cost(decision, self.num_kinds)
        state = state._replace(
            round=state.round + 1,
            clients=clients,
            conditions=decision.conditions,
            ledger=ledger.add_cost(state.ledger, cost),
        )
        server = {"model": state.server, "optimizer": state.server_optimizer}
        return state, RoundMetrics(
            trained.loss * (1.0 / trained.samples),  # nobody's is not a number
            **count_clients(decision, skipped),
            finite=finite_by_stage(
                ("local training", {"loss": trained.loss, "models": models}),
                ("distillation", server),
            ),
        )

    def predictors(
        self, state: FedgktState, images: Float32[Array, "B *sample"], index: Int32[Array, "B"]
    ) -> dict[str, Float32[Array, "B Y"]]:
        """Logits of the clients' front halves with the server's model, and of their own models.

        Test image i is client i mod N's: over the test set, an estimate of the mean over clients.
        """
        num_clients, (num_images,) = self.data.sizes.shape[0], index.shape
        width = min(num_clients, num_images)
        rounds = -(-num_images // width)
        blank = [(0, rounds * width - num_images)] + [(0, 0)] * (images.ndim - 1)
        of_client = jnp.pad(images, blank).reshape(rounds, width, *images.shape[1:])
        clients = (index[0] + jnp.arange(width)) % num_clients

        def predict(one):
            client, images = one
            params = jax.tree.map(lambda x: x[client], state.clients)
            features = self.model.front(params[: self.model.cut], images)
            return features, self.model.back(params[self.model.cut :], features)

        made = jax.lax.map(
            predict, (clients, of_client.swapaxes(0, 1)), batch_size=self.spec.run.client_chunk
        )
        features, logits = jax.tree.map(
            lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:num_images], made
        )
        return {"": self.model.cloud(state.server, features), "client_": logits}

    def train_clients(
        self,
        starts: PyTree,
        state: FedgktState,
        plan: Plan,
        batches: Int32[Array, "K S B"],
        hparams: HParams,
    ) -> LocalResult:
        """Trains a plan's clients from their models f32[K, ...]: LocalResult with the new ones."""
        train, own = self.spec.train, self.own
        direction = named_direction(train.optimizer)
        training = LocalTraining(
            self.model.whole,
            direction,
            chosen(self.spec.run.client_chunk),
            self.mesh,
            keep_models=True,
            sum_models=False,
            loss=logit_transfer.client_loss(own.weight, own.temperature),
            skips=self.skips,
        )
        with jax.named_scope("training"):
            return training.train(
                starts,
                jnp.arange(plan.clients.shape[0]),
                plan,
                self.data,
                batches,
                hparams.learning_rate,
                targets=state.teacher_logits,
            )

    def extract(
        self, trained: LocalResult, plan: Plan, batches: Int32[Array, "K S B"]
    ) -> tuple[Upload, Bool[Array, "K"] | None]:
        """Returns the Upload of a round's clients, and bool[K] or None, who is left out by now.

        A client whose upload is not finite is left out too; its loss until then counts.
        """
        run, skipped = self.spec.run, trained.skipped
        num_examples = self.data.num_examples
        examples = round_plan.upload_examples(
            round_plan.exclude_clients(plan, skipped),
            batches,
            self.planner.bounds.uploads,
            num_examples,
        )
        filled = examples < num_examples
        with jax.named_scope("extraction"):
            extraction = logit_transfer.Extraction(
                self.model, chosen(run.client_chunk), self.mesh, run.archive_dtype
            )
            extracted = extraction.extract(trained.models, examples, self.data)
        if self.skips:
            skipped |= filled.any((1, 2)) & ~finite_rows(extracted)
            filled &= ~skipped[:, None, None]
        return Upload(examples, filled, extracted), skipped

    def train_server(self, state: FedgktState, upload: Upload, hparams: HParams) -> FedgktState:
        """Returns the state after the server has trained, with its logits for the clients."""
        examples, filled, extracted = upload
        labels = take(self.data.labels, examples)
        uploads = make_feature_buffer(extracted.features, labels, filled)
        with jax.named_scope("distillation"):
            (server, optimizer), logits = self.mesh.spread(self._learn)(
                (state.server, state.server_optimizer),
                uploads,
                extracted.logits.reshape(-1, extracted.logits.shape[-1]),
                round_key(state.key, state.round, Purpose.DISTILL_CLOUD),
                hparams.own["server_learning_rate"],
            )
        teacher_logits = logit_transfer.update_teacher_logits(
            state.teacher_logits, examples, filled, logits
        )
        return state._replace(
            server=server, server_optimizer=optimizer, teacher_logits=teacher_logits
        )

    def _learn(self, server, uploads, client_logits, key, learning_rate):
        """The server's parameters and optimizer state, and its logits; runs inside `spread`."""
        own, distill = self.own, self.spec.cefl.distill
        distillation = Distillation(
            distill,
            self._server_direction,
            self.mesh,
            chosen(self.spec.run.distill_parts),
            logit_transfer.transfer_loss,
        )
        target = DistillTarget(client_logits, own.weight, own.temperature)
        student = TrainState(self.model.cloud, *server)
        order = draw_order(uploads, key, distill.epochs, distill.batch_size)
        student = distillation.learn(student, uploads, target, order, learning_rate)
        return (student.params, student.state), distillation.predict(student, uploads)

    @property
    def _server_direction(self):
        return make_direction("sgd", self.own.server_momentum)


def make_fedgkt(context: MethodContext) -> Method:
    """Makes FedGKT: features and logits travel, and no model is averaged.

    A client trains a front half with a classifier head of its own, on its labels and on what the
    server has last said of its samples, and uploads features, logits and labels of as many steps as
    one pass takes. The server trains the cloud model on these, and answers with its own logits,
    which the client keeps until it is sampled again. Nothing has been said of a sample that was
    never uploaded: for that the loss is the cross-entropy. All clients start alike. One that does
    not count, or is left out, keeps its model and uploads nothing.

    The deployed model is a client's front half with the cloud model, and "client_" its own small
    model. Memory is N times the small model, and Y numbers an example.

    Reference:
      He, Annavaram and Avestimehr, Group knowledge transfer: federated learning of large CNNs at
      the edge, NeurIPS 2020, equations 5 to 9 and algorithm 1.
    """
    method = Fedgkt.of(context)
    return Method(method.init, method.round, method.predictors, lambda state: {})


def _distil_by_own_settings(spec: Any) -> Spec:
    """Returns the settings in which clients and cloud teach each other as `fedgkt.*` says."""
    own = spec.fedgkt
    distill = DistillSpec(
        rule="mutual",
        epochs=own.server_epochs,
        batch_size=own.server_batch_size,
        learning_rate=own.server_learning_rate,
        momentum=own.server_momentum,
    )
    return dataclasses.replace(spec, cefl=dataclasses.replace(spec.cefl, distill=distill))


METHOD = MethodInfo(
    make_fedgkt,
    MethodTraits(server="cloud", personal_models=True),
    FedgktSpec,
    traced=("server_learning_rate",),
    traffic=lambda spec: traits.LOGITS,
    adapt=_distil_by_own_settings,
)
