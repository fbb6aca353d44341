"""Makes fashion_mnist_12k.npz, byte for byte, from the four files of Fashion-MNIST.

    python -m cefl_jax.data.assets.make_fashion_mnist_12k [FOLDER] > fashion_mnist_12k.npz

FOLDER holds the IDX files; without it they are taken from where Debian's dataset-fashion-mnist puts
them. The extract is the first 10,000 training and the first 2,000 test images in upstream order,
unchanged. The arrays are the same everywhere. The bytes are those of NumPy's npz on a Unix system
with zlib 1.2 or 1.3 at its default level; zlib-ng, which replaces zlib in some distributions,
compresses the same arrays into other bytes.
"""

import io
import sys
from pathlib import Path

import numpy as np

from cefl_jax.data import sources

NUM_TRAIN = 10_000
NUM_TEST = 2_000


def make_extract(path: str | Path | None = None) -> bytes:
    """Returns the extract's bytes, from the folder `path` of Fashion-MNIST's IDX files."""
    whole = sources.load("fashion_mnist", path)
    npz = io.BytesIO()
    np.savez_compressed(
        npz,
        train_images=whole.train_images[:NUM_TRAIN, ..., 0],
        train_labels=whole.train_labels[:NUM_TRAIN].astype(np.uint8),
        test_images=whole.test_images[:NUM_TEST, ..., 0],
        test_labels=whole.test_labels[:NUM_TEST].astype(np.uint8),
    )
    return npz.getvalue()


if __name__ == "__main__":
    sys.stdout.buffer.write(make_extract(*sys.argv[1:2]))
