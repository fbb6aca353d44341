"""Mutual distillation of the edge-side back half and the cloud model on the uploaded features."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int, Int32, PRNGKeyArray

from cefl_jax import parallel
from cefl_jax.data.federated import permute
from cefl_jax.models.cost import Workload
from cefl_jax.numerics import reciprocal, take
from cefl_jax.specs import DistillSpec
from cefl_jax.stages.losses import cross_entropy
from cefl_jax.stages.optimizers import descend
from cefl_jax.types import AnyArray, HParams, Number

TEACHES = {  # rule: whether the cloud teaches the edge model, and the edge model the cloud
    "mutual": (True, True),
    "cloud_to_edge": (True, False),
    "edge_to_cloud": (False, True),
    "hard_labels": (False, False),
}


class FeatureBuffer(NamedTuple):
    """The smashed data of a round, filled rows first."""

    features: Float[Array, "R ..."]  # cut-layer features
    labels: Int32[Array, "R"]
    order: Int32[Array, "R"]  # rows, the filled ones before the empty ones
    count: Int32[Array, ""]  # type: ignore[assignment]  # for tuple.count; filled rows


class TrainState(NamedTuple):
    """A model that learns by distillation, and the state of its optimizer."""

    apply: Callable  # from parameters and features f32[B, ...] to logits f32[B, Y]
    params: Any
    state: Any


class DistillTarget(NamedTuple):
    """What a teacher gives."""

    logits: Float32[Array, "R Y"] | None  # of every row; None to train on hard labels only
    weight: Number  # lambda
    temperature: Number


def make_feature_buffer(
    features: Float[Array, "K U B *F"], labels: Int32[Array, "K U B"], filled: Bool[Array, "K U B"]
) -> FeatureBuffer:
    """Returns the FeatureBuffer of features, labels and mask `[K, U, B, ...]`, all by row."""
    features = features.reshape(-1, *features.shape[3:])
    order = jnp.argsort(~filled.ravel(), stable=True)
    return FeatureBuffer(features, labels.ravel(), order, filled.sum(dtype=jnp.int32))


def distillation_loss(
    logits: Float[AnyArray, "B Y"],
    labels: Int[AnyArray, "B"],
    teacher_logits: Float[AnyArray, "B Y"],
    weight: Number,
    temperature: Number,
) -> Float32[Array, "B"]:
    """Computes hard-label cross-entropy and softened divergence from the teacher, per sample.

    Args:
      logits: f32[B, Y] of the student.
      labels: i32[B].
      teacher_logits: f32[B, Y].
      weight: f32[] lambda, of the teacher.
      temperature: f32[] T > 0.
    Returns:
      f32[B] (1 - lambda) CE(labels) + lambda T^2 D_KL(teacher_T || student_T), nats.
    Reference:
      Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015, section 2.
    """
    hard = cross_entropy(logits, labels)
    soft = soft_divergence(logits, teacher_logits, temperature)
    return jnp.asarray((1.0 - weight) * hard + weight * temperature**2 * soft)


def soft_divergence(
    logits: Float[AnyArray, "B Y"], teacher_logits: Float[AnyArray, "B Y"], temperature: Number
) -> Float32[Array, "B"]:
    """Computes D_KL(teacher_T || student_T) f32[B] of logits f32[B, Y] softened by T, nats."""
    cool = 1.0 / temperature
    teacher = jax.nn.log_softmax(teacher_logits * cool)
    student = jax.nn.log_softmax(logits * cool)
    return optax.losses.kl_divergence_with_log_targets(student, teacher)


def count_flop(
    samples: Int[ArrayLike, ""], work: Workload, spec: DistillSpec
) -> Float32[Array, ""]:
    """Returns FLOPs of a round's distillation, f32[], on i32[] uploaded samples; see `Workload`."""
    if spec.rule == "none":
        return jnp.float32(0)
    cloud_teaches, edge_teaches = TEACHES[spec.rule]
    training = spec.epochs * (work.back_distill_flop + work.cloud_train_flop)
    predicting = cloud_teaches * work.cloud_forward_flop + edge_teaches * work.back_forward_flop
    return jnp.asarray(samples * (training + predicting))


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How models learn from each other; its methods run inside `EdgeMesh.spread`."""

    spec: DistillSpec  # its rule not "none"
    direction: optax.GradientTransformation  # of both models
    mesh: parallel.EdgeMesh
    parts: int  # of a batch, which the devices take in turn
    loss: Callable = distillation_loss  # of a student, with these arguments

    def distil_mutually(
        self,
        edge: TrainState,
        cloud: TrainState,
        uploads: FeatureBuffer,
        keys: Sequence[PRNGKeyArray],
        hparams: HParams,
        round_index: Int[ArrayLike, ""],
    ) -> tuple[TrainState, TrainState]:
        """Trains the edge model on the cloud's predictions, then the cloud on the edge's new ones.

        Where the rule names no teacher, a model trains on hard labels alone, as long as it would
        with one. lambda_edge grows linearly from 0 over the first `lambda_warmup_rounds` rounds.

        Args:
          edge: TrainState of the aggregated back half.
          cloud: TrainState of the cloud model.
          uploads: FeatureBuffer.
          keys: of the two orders of the samples.
          hparams: HParams.
          round_index: i32[], from 0.
        Returns:
          The two TrainStates.
        Reference:
          The source text, paragraphs 23 to 26.
        """
        spec, rate = self.spec, hparams.distill_learning_rate
        cloud_teaches, edge_teaches = TEACHES[spec.rule]
        ramp: Number = 1.0
        if spec.lambda_warmup_rounds:
            ramp = jnp.minimum(1.0, round_index / spec.lambda_warmup_rounds)
        draw = jax.vmap(lambda key: draw_order(uploads, key, spec.epochs, spec.batch_size))
        edge_order, cloud_order = draw(jnp.stack(keys))
        first = self.predict(cloud, uploads) if cloud_teaches else None
        target = DistillTarget(first, ramp * hparams.lambda_edge, hparams.temperature)
        edge = self.learn(edge, uploads, target, edge_order, rate)
        second = self.predict(edge, uploads) if edge_teaches else None
        weight = hparams.lambda_cloud if spec.cloud_hard_labels else 1.0
        target = DistillTarget(second, weight, hparams.temperature_cloud)
        cloud = self.learn(cloud, uploads, target, cloud_order, rate)
        return edge, cloud

    def predict(self, teacher: TrainState, uploads: FeatureBuffer) -> Float32[Array, "R Y"]:
        """Returns logits f32[R, Y] of a TrainState; in the empty rows, of no meaning."""
        (num_rows,) = uploads.order.shape
        size = self.mesh.predicted_rows(num_rows)

        @jax.jit  # traced once for its shapes and for the loop
        def of_rows(rows):
            features = take(uploads.features, rows).astype(jnp.float32)
            return teacher.apply(teacher.params, features)

        if self.mesh.flat:
            return self._predict_flat(of_rows, num_rows, size)
        order = jnp.where(jnp.arange(num_rows) < uploads.count, uploads.order, num_rows)
        order = jnp.pad(order, (0, size), constant_values=num_rows)

        def batch(i, predictions):
            rows = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            return predictions.at[rows].set(of_rows(rows), mode="drop")

        num_classes = jax.eval_shape(of_rows, order[:size]).shape[1]
        start = jnp.zeros((num_rows, num_classes))
        return parallel.psum_rows(parallel.local_loop(batch, -(-uploads.count // size), start))

    def _predict_flat(self, of_rows, num_rows, size):
        """`of_rows` of all rows i32[n] in the order in which they lie, few batches of them."""
        num_batches = -(-num_rows // size)
        made = parallel.local_map(lambda i: of_rows(i * size + jnp.arange(size)), num_batches, True)
        return parallel.gather_items(made, num_batches).reshape(-1, made.shape[-1])[:num_rows]

    def learn(
        self,
        student: TrainState,
        uploads: FeatureBuffer,
        target: DistillTarget,
        order: Int32[Array, "passes rows"],
        learning_rate: Number,
    ) -> TrainState:
        """Trains one model on hard labels and a teacher's predictions, which stay as they are.

        The gradient of a batch is the sum of its parts', in their order.

        Args:
          student: TrainState.
          uploads: FeatureBuffer.
          target: DistillTarget.
          order: of `draw_order`.
          learning_rate: f32[].
        Returns:
          TrainState. Unchanged when nothing was uploaded.
        """
        spec, (num_rows,) = self.spec, uploads.order.shape
        batches = -(-uploads.count // spec.batch_size)
        size = -(-spec.batch_size // self.parts)

        def summed_loss(params, rows):
            features, labels = take(uploads.features, rows), take(uploads.labels, rows)
            logits = student.apply(params, features.astype(jnp.float32))
            if target.logits is None:
                losses = cross_entropy(logits, labels)
            else:
                teacher = take(target.logits, rows)
                losses = self.loss(logits, labels, teacher, target.weight, target.temperature)
            return jnp.where(rows < num_rows, losses, 0.0).sum()

        def step(i, carry):
            params, state = carry
            at = i // batches * order.shape[1] + i % batches * spec.batch_size
            rows = jax.lax.dynamic_slice_in_dim(order.ravel(), at, spec.batch_size)
            each = reciprocal((rows < num_rows).sum())
            padding = 0, size * self.parts - spec.batch_size
            rows = jnp.pad(rows, padding, constant_values=num_rows)

            def part_grads(part):
                own = jax.lax.dynamic_slice_in_dim(rows, part * size, size)
                return jax.grad(lambda params: each * summed_loss(params, own))(params)

            grads = self.mesh.sum(part_grads, self.parts)
            return descend(self.direction, grads, state, params, learning_rate)

        carry = student.params, student.state
        params, state = jax.lax.fori_loop(0, spec.epochs * batches, step, carry)
        return student._replace(params=params, state=state)


def draw_order(
    uploads: FeatureBuffer, key: PRNGKeyArray, passes: int, batch_size: int
) -> Int32[Array, "passes rows"]:
    """Draws the rows of a model's distillation: every pass takes the filled ones in a new order.

    Args:
      uploads: FeatureBuffer of R rows.
      key: of the order.
      passes: static.
      batch_size: static B; the last batch of a pass may be smaller.
    Returns:
      i32[passes, ceil(R / B) * B] rows, R (one past the end) after the filled ones of each pass.
    """
    (num_rows,) = uploads.order.shape
    position = jnp.arange(-(-num_rows // batch_size) * batch_size)
    count = jnp.maximum(uploads.count, 1)

    def one_pass(index):
        shuffled = permute(jax.random.fold_in(key, index), position % count, count)
        return jnp.where(position < uploads.count, uploads.order[shuffled], num_rows)

    return jax.vmap(one_pass)(jnp.arange(passes))
