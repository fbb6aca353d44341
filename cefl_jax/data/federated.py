"""The federated data set as it lies on the device: every sample once, as uint8 or float32.

Pixels that came as bytes stay bytes, a quarter of the memory, and become floats in each batch.
Samples that came as floats are held as float32: images, or rows of a table.
"""

import functools
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import (
    Array,
    ArrayLike,
    Float32,
    Int,
    Int32,
    Integer,
    PRNGKeyArray,
    Real,
    UInt8,
)

from cefl_jax.specs import NormalizationSpec
from cefl_jax.types import AnyArray

ROUNDS = 24  # of the shuffle: what is left of order is 2^-24, below what any run can see


class FederatedData(NamedTuple):
    """Training samples grouped by client through an index, and the test set.

    Memory follows the examples, not clients times the largest client: client k holds the examples
    `members[offsets[k] : offsets[k + 1]]`.
    """

    images: UInt8[Array, "n H W I"] | Float32[Array, "n *sample"]  # of training
    labels: Int32[Array, "n"]
    members: Int32[Array, "held"]  # example indices, grouped by client
    offsets: Int32[Array, "N+1"]
    label_counts: Int32[Array, "N Y"]  # examples of each label at each client
    test_images: UInt8[Array, "t H W I"] | Float32[Array, "t *sample"]
    test_labels: Int32[Array, "t"]
    mean: Float32[Array, "I"]  # or f32[1]; of bytes as pixels in [0, 1], of floats as they are
    std: Float32[Array, "I"]  # likewise

    @property
    def num_examples(self) -> int:
        """Training examples n; as an index, one past the end: no example."""
        return self.labels.shape[0]

    @property
    def sizes(self) -> Int32[AnyArray, "N"]:
        """Examples of each client, i32[N]."""
        return self.offsets[1:] - self.offsets[:-1]

    def normalise(self, images: Real[AnyArray, "*B I"]) -> Float32[Array, "*B I"]:
        """Returns the samples f32[..., I] as the model takes them: (x - mean) / std.

        Bytes are divided by 255 before; floats are taken as they are.
        """
        scale = jnp.float32(1 / 255 if images.dtype == jnp.uint8 else 1)
        mean, factor = (
            jnp.expand_dims(x, range(images.ndim - 1)) for x in (self.mean, 1.0 / self.std)
        )
        return (images * scale - mean) * factor

    def sha256(self) -> str:
        """Returns the hexadecimal SHA-256 of images and labels, of training and test.

        It depends on their dtypes and shapes too, and on nothing else; the arrays are NumPy's.
        """
        digest = hashlib.sha256()
        for array in (self.images, self.labels, self.test_images, self.test_labels):
            digest.update(f"{array.dtype.str}{[*array.shape]}".encode("ascii"))
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def make_federated(
    dataset: Any, partition: list[Int[np.ndarray, "_"]], normalization: NormalizationSpec
) -> FederatedData:
    """Groups a data set by client, as NumPy arrays ready to be put on the device.

    Args:
      dataset: dataset.Dataset.
      partition: list of i64 arrays, the example indices of each client, none empty.
      normalization: NormalizationSpec.
    Returns:
      FederatedData of NumPy arrays.
    """
    sizes = [len(indices) for indices in partition]
    members = np.concatenate(partition).astype(np.int32)
    owner = np.repeat(np.arange(len(partition)), sizes)
    label_counts = np.zeros((len(partition), dataset.num_classes), np.int32)
    np.add.at(label_counts, (owner, dataset.train_labels[members]), 1)
    arrays: dict[str, Any] = {
        "images": dataset.train_images,
        "labels": dataset.train_labels.astype(np.int32),
        "members": members,
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        "label_counts": label_counts,
        "test_images": dataset.test_images,
        "test_labels": dataset.test_labels.astype(np.int32),
        "mean": np.asarray(normalization.mean, np.float32),
        "std": np.asarray(normalization.std, np.float32),
    }
    return FederatedData(**arrays)


def batch_examples(
    data: FederatedData,
    key: PRNGKeyArray,
    client: int | Int32[Array, ""],
    step: int | Int32[Array, ""],
    batch_size: int,
) -> Int32[Array, "B"]:
    """Returns the examples of one client's local step: shuffled epochs, each cut into batches.

    As with a shuffling data loader that keeps its last, smaller batch: an epoch takes every example
    of the client once, and the next epoch shuffles anew.

    Args:
      data: FederatedData.
      key: of this client in this round.
      client: i32[] index into the population.
      step: i32[] local step, from 0.
      batch_size: static B.
    Returns:
      i32[B] example indices, n (one past the end) where the batch has no more.
    """
    size = data.offsets[client + 1] - data.offsets[client]
    per_epoch = steps_per_epoch(size, batch_size)
    position = step % per_epoch * batch_size + jnp.arange(batch_size)
    shuffled = permute(jax.random.fold_in(key, step // per_epoch), position % size, size)
    example = data.members[data.offsets[client] + shuffled]
    return jnp.where(position < size, example, data.num_examples)


def steps_per_epoch(size: int | np.integer | Int[AnyArray, "..."], batch_size: int) -> Any:
    """Batches of one pass over `size` examples, the last one possibly smaller; of its type."""
    return -(-size // batch_size)


def permute(
    key: PRNGKeyArray, index: Integer[ArrayLike, "..."], size: Integer[ArrayLike, ""]
) -> Int32[Array, "..."]:
    """Returns where a random permutation of 0 .. size - 1 sends an index, without storing it.

    In each round a random r pairs every element x with r - x modulo `size`, and a keyed coin for
    the pair decides whether the two change places. An element moves in no round with probability
    2^-`ROUNDS`; positions and ordered pairs are uniform to about that.

    Args:
      key: of the permutation.
      index: i32[...] below `size`.
      size: i32[] number of elements, >= 1.
    Returns:
      i32[...] permuted index.
    Reference:
      Hoang, Morris and Rogaway, An enciphering scheme based on a card shuffle, CRYPTO 2012
      (swap-or-not).
    """
    size = jnp.asarray(size, jnp.uint32)
    x = jnp.asarray(index, jnp.uint32)
    sums, salts = jax.random.bits(key, (2 * ROUNDS,)).reshape(2, ROUNDS)  # one loop to compile

    def swap(x, of_round):
        total, salt = of_round
        partner = total - x + jnp.where(x > total, size, 0)
        return jnp.where(_coin(jnp.maximum(x, partner), salt), partner, x), None

    # A loop on a CPU, whose compiler took exponentially long for the rounds fused with what reads
    # the elements. Elsewhere one kernel in place of 48.
    unrolled, looped = (
        functools.partial(jax.lax.scan, swap, unroll=unroll) for unroll in (ROUNDS, 1)
    )
    tables = sums % size, salts
    x, _ = jax.lax.platform_dependent(x, tables, cpu=looped, default=unrolled)
    return x.astype(jnp.int32)


def _coin(x, salt):
    """The top bit of a hash, bool[...]: MurmurHash3's finalizer."""
    x = x ^ salt
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x >> 31 == 1
