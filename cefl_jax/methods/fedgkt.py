"""FedGKT: clients keep small models, a server a large one, and they teach each other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cefl_jax.methods.method import Method
from cefl_jax.methods.parts import Parts
from cefl_jax.network import ledger, topology
from cefl_jax.stages import knowledge, planning
from cefl_jax.stages.distillation import Distillation, Learner, Lesson, make_uploads
from cefl_jax.stages.local_training import LocalTraining
from cefl_jax.stages.optimizers import make_direction, named_direction
from cefl_jax.stages.orchestration import make_orchestrator
from cefl_jax.stages.protocols import settings_of
from cefl_jax.types import Purpose, RoundMetrics, purpose_key, round_key


class FedgktState(NamedTuple):
    """Everything that the next round depends on."""

    key: jax.Array  # of the run
    round: jax.Array  # i32[], rounds done
    clients: Any  # leaves f32[N, ...], front half and head of every client of the population
    server: Any  # parameters of the cloud model
    server_optimizer: Any  # its state, which persists
    told: knowledge.Told  # what the clients know from the server
    conditions: topology.Conditions  # of the network in the next round
    ledger: ledger.Ledger


class Fedgkt(Parts):
    """The steps of a round; the model's back half is the classifier head."""

    def init(self, key):
        """The state before the first round, in which all clients are alike."""
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
            knowledge.tell_nothing(self.data.labels.shape[0], self.model.num_classes),
            self._orchestrator.start(key, self.network),
            ledger.empty_ledger(self.num_kinds),
        )

    def round(self, state, hparams):
        """One round: the next state and RoundMetrics, without a course."""
        decision = self._orchestrator.decide(
            state.key, state.round, state.conditions, self.data, self.network
        )
        models, trained = self.train_clients(state, decision.plan, hparams)
        state = self.train_server(state, models, decision.plan, hparams)
        clients = jax.tree.map(
            lambda all, one: all.at[decision.plan.clients].set(one, mode="drop"),
            state.clients,
            models,
        )
        with jax.named_scope("ledger"):
            bill = self._orchestrator.bill(decision, self.num_kinds)
        state = state._replace(
            round=state.round + 1,
            clients=clients,
            conditions=decision.conditions,
            ledger=ledger.charge(state.ledger, bill),
        )
        return state, RoundMetrics(
            trained.loss * (1.0 / trained.samples),         # nobody's is not a number
            sampled=decision.sampled,
            finished=decision.schedule.finished.sum(dtype=jnp.int32),
            counted=decision.schedule.counts.sum(dtype=jnp.int32),
        )

    def predictors(self, state, images, index):
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

    def train_clients(self, state, plan, hparams):
        """The models of a plan's clients after the round, leaves f32[K, ...], and Trained.

        A client that does not count has the model that it had.
        """
        train, own = self.spec.train, self.spec.fedgkt
        direction = named_direction(train.optimizer)
        training = LocalTraining(
            self.model.whole,
            direction,
            train.batch_size,
            self.spec.run.client_chunk,
            self.mesh,
            keep_models=True,
            sum_models=False,
            loss=knowledge.client_loss(own.weight, own.temperature),
        )
        starts = jax.tree.map(lambda x: x.at[plan.clients].get(mode="clip"), state.clients)
        with jax.named_scope("training"):
            trained = training.train(
                starts,
                jnp.arange(plan.clients.shape[0]),
                plan,
                self.data,
                round_key(state.key, state.round, Purpose.BATCHES),
                hparams.learning_rate,
                taught=state.told,
            )
        counts = plan.weight > 0
        models = jax.tree.map(
            lambda new, old: jnp.where(counts.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            trained.models,
            starts,
        )
        return models, trained

    def train_server(self, state, models, plan, hparams):
        """The state when the server has learned from what the clients upload, and told them."""
        run = self.spec.run
        examples, filled = planning.upload_examples(
            plan,
            self.data,
            round_key(state.key, state.round, Purpose.BATCHES),
            self.spec.train.batch_size,
            self.extent.uploads,
        )
        with jax.named_scope("extraction"):
            extraction = knowledge.Extraction(
                self.model, run.client_chunk, self.mesh, run.archive_dtype
            )
            extracted = extraction.extract(models, examples, filled, self.data)
        labels = self.data.labels.at[examples].get(mode="fill", fill_value=0)
        uploads = make_uploads(extracted.features, labels, filled)
        with jax.named_scope("distillation"):
            (server, optimizer), logits = self.mesh.spread(self._learn)(
                (state.server, state.server_optimizer),
                uploads,
                extracted.logits.reshape(-1, extracted.logits.shape[-1]),
                round_key(state.key, state.round, Purpose.DISTILL_CLOUD),
                hparams.server_learning_rate,
            )
        told = knowledge.tell(state.told, examples, filled, logits)
        return state._replace(server=server, server_optimizer=optimizer, told=told)

    def _learn(self, server, uploads, client_logits, key, learning_rate):
        """The server's parameters and optimizer state, and its logits; runs inside `spread`."""
        own = self.spec.fedgkt
        distillation = Distillation(
            settings_of(self.spec).cefl.distill,
            self._server_direction,
            self.mesh,
            self.spec.run.distill_parts,
            knowledge.transfer_loss,
        )
        lesson = Lesson(client_logits, own.weight, own.temperature)
        learner = Learner(self.model.cloud, *server)
        learner = distillation.learn(learner, uploads, lesson, key, learning_rate)
        return (learner.params, learner.state), distillation.predict(learner, uploads)

    @property
    def _orchestrator(self):
        return make_orchestrator(self.spec, self.model, self.work, self.extent)

    @property
    def _server_direction(self):
        return make_direction("sgd", self.spec.fedgkt.server_momentum)


def make_fedgkt(*parts):
    """FedGKT: features and logits travel, and no model is averaged.

    A client trains a front half with a classifier head of its own, on its labels and on what the
    server has last said of its samples, and uploads features, logits and labels of as many steps as
    one pass takes. The server trains the cloud model on these, and answers with its own logits,
    which the client keeps until it is sampled again. Nothing has been said of a sample that was
    never uploaded: for that the loss is the cross-entropy. All clients start alike.

    The deployed model is a client's front half with the cloud model, and "client_" its own small
    model. Memory is N times the small model, and Y numbers an example.

    Args:
      *parts: those of `parts.Parts`, the model `split.with_head`'s.
    Returns:
      Method.
    Reference:
      He, Annavaram and Avestimehr, Group knowledge transfer: federated learning of large CNNs at
      the edge, NeurIPS 2020, equations 5 to 9 and algorithm 1.
    """
    method = Fedgkt(*parts)
    return Method(method.init, method.round, method.predictors, lambda state: {})
