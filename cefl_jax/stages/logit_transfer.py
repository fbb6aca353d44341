"""Knowledge transfer: clients and server exchange features and logits, and learn from them."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int, Int32, PyTree

from cefl_jax import parallel
from cefl_jax.data.federated import FederatedData
from cefl_jax.models.split import SplitModel
from cefl_jax.numerics import take
from cefl_jax.stages.distillation import soft_divergence
from cefl_jax.stages.local_training import read_examples
from cefl_jax.stages.losses import cross_entropy
from cefl_jax.types import AnyArray, Number


class TeacherLogits(NamedTuple):
    """The server's last logits of each example, kept by the client that holds it."""

    logits: Float32[Array, "n Y"]
    known: Bool[Array, "n"]  # whether there are any


class ClientOutputs(NamedTuple):
    """What trained clients make of the samples that they upload."""

    features: Float[Array, "K U B ..."]  # at the cut
    logits: Float32[Array, "K U B Y"]


def init_teacher_logits(num_examples: int, num_classes: int) -> TeacherLogits:
    """Returns the TeacherLogits before the first round: none is known."""
    return TeacherLogits(jnp.zeros((num_examples, num_classes)), jnp.zeros(num_examples, bool))


def update_teacher_logits(
    teacher: TeacherLogits,
    examples: Int[AnyArray, "K U B"],
    filled: Bool[AnyArray, "K U B"],
    logits: Float32[AnyArray, "R Y"],
) -> TeacherLogits:
    """Returns the TeacherLogits after a round's logits have come down.

    Args:
      teacher: TeacherLogits.
      examples: i32[K, U, B] examples of the uploaded samples.
      filled: bool[K, U, B], which there are.
      logits: f32[K * U * B, Y] of the server.
    Returns:
      TeacherLogits.
    """
    rows = jnp.where(filled, examples, teacher.known.shape[0]).ravel()
    return TeacherLogits(
        teacher.logits.at[rows].set(logits, mode="drop"),
        teacher.known.at[rows].set(True, mode="drop"),
    )


def transfer_loss(
    logits: Float[AnyArray, "B Y"],
    labels: Int[AnyArray, "B"],
    teacher_logits: Float[AnyArray, "B Y"],
    weight: Float[ArrayLike, "..."],
    temperature: Number,
) -> Float32[Array, "B"]:
    """Returns the cross-entropy and, beside it, softened divergence from the teacher, per sample.

    The divergence is not multiplied by T^2, as it is not in the paper's formula; a weight of T^2
    does that, as the authors' program does.

    Args:
      logits: f32[B, Y] of the student.
      labels: i32[B].
      teacher_logits: f32[B, Y].
      weight: of the teacher.
      temperature: T > 0.
    Returns:
      f32[B] CE(labels) + weight D_KL(teacher_T || student_T), nats.
    Reference:
      He, Annavaram and Avestimehr, Group knowledge transfer, NeurIPS 2020, equations 5 to 9.
    """
    hard = cross_entropy(logits, labels)
    return hard + weight * soft_divergence(logits, teacher_logits, temperature)


def client_loss(weight: Number, temperature: Number) -> Callable:
    """Returns the loss of a client's samples, for LocalTraining.

    Args:
      weight: of the server's logits.
      temperature: of both sides.
    Returns:
      From logits f32[B, Y], labels i32[B] and the samples' TeacherLogits to f32[B]:
      `transfer_loss`, and the cross-entropy alone where no logits are known.
    """

    def loss(logits, labels, teacher):
        weights = jnp.where(teacher.known, weight, 0.0)
        return transfer_loss(logits, labels, teacher.logits, weights, temperature)

    return loss


@dataclasses.dataclass(frozen=True)
class Extraction:
    """One pass of trained clients over the samples that they upload."""

    model: SplitModel  # its back half is the classifier head
    chunk: int  # clients computed at once
    mesh: parallel.EdgeMesh
    archive_dtype: str  # of the features

    def extract(
        self,
        models: PyTree,
        examples: Int32[Array, "K U B"],
        data: FederatedData,
    ) -> ClientOutputs:
        """Computes features and logits of every upload; zero where no client of a chunk uploads.

        Args:
          models: leaves f32[K, ...] of every client's front half and head.
          examples: i32[K, U, B], n (one past the end) where there is none.
          data: FederatedData.
        Returns:
          ClientOutputs.
        """
        num_clients = examples.shape[0]
        num_chunks = -(-num_clients // self.chunk)
        chunks = self.mesh.map(self._of_chunk, num_chunks, models, examples, data)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num_clients], chunks)

    def _of_chunk(self, j, models, examples, data):
        rows = j * self.chunk + jnp.arange(self.chunk)
        models = jax.tree.map(lambda x: take(x, rows, None), models)
        examples = take(examples, rows, data.num_examples)  # [C, U, B]
        num_slots = examples.shape[1]
        there = (examples < data.num_examples).any((0, 2))
        last = jnp.where(there, 1 + jnp.arange(num_slots), 0).max()
        last = num_slots if self.mesh.flat else last

        def of_slot(u):
            images = read_examples(data, examples[:, u])[0]
            features = jax.vmap(self.model.front)(models[: self.model.cut], images)
            logits = jax.vmap(self.model.back)(models[self.model.cut :], features)
            return ClientOutputs(features.astype(self.archive_dtype), logits)

        one = jax.eval_shape(of_slot, jnp.int32(0))
        nothing = jax.tree.map(
            lambda x: jnp.zeros((x.shape[0], num_slots, *x.shape[1:]), x.dtype), one
        )

        def add(u, extracted):
            return jax.tree.map(lambda all, one: all.at[:, u].set(one), extracted, of_slot(u))

        return jax.lax.fori_loop(0, last, add, nothing)
