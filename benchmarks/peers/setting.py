"""What every framework trains: the same examples, clients, model size and local steps.

Needs only NumPy, so that a peer's own environment can import it.
"""

import pathlib

import numpy as np

CLIENTS = 100  # in the population
CLIENTS_PER_ROUND = 10
LOCAL_STEPS = 5
BATCH_SIZE = 20  # a client's 100 examples are exactly the five steps' batches
LEARNING_RATE = 0.05  # plain SGD; the server takes the mean of the clients
CLASSES = 10
PARAMETERS = 44_426  # of LeNet-5 on 28 x 28 x 1
MEAN, STD = 0.286, 0.353  # of pixels in [0, 1]
SEED = 0

_EXTRACT = pathlib.Path(__file__).parents[2] / "cefl_jax/data/assets/fashion_mnist_12k.npz"


def load_clients():
    """Each client's training examples, in equal parts drawn at random (iid).

    Returns:
      f32[N, n, 28, 28, 1] normalised images and i32[N, n] labels.
    """
    with np.load(_EXTRACT, allow_pickle=False) as extract:
        images, labels = extract["train_images"], extract["train_labels"]
    order = np.random.default_rng(SEED).permutation(len(labels)).reshape(CLIENTS, -1)
    normalised = (images[order, ..., None] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return normalised, labels[order].astype(np.int32)
