"""FedAvg in FedJAX: its `federated_averaging`, for each client by the jit backend.

PYTHONPATH=. ENVS/fedjax/bin/python -m benchmarks.peers.fedjax

Its pmap backend ends with an error about shapes in JAX 0.5.3. In JAX 0.4.30 it works, but on one
core both backends took longer there than this one in 0.5.3.
"""

import importlib.metadata

import fedjax
import haiku as hk
import jax

from benchmarks.peers import setting
from benchmarks.worker import serve


def make_model():
    """LeNet-5 in Haiku, as FedJAX's own models are; ReLU after the pooling."""

    def forward(batch):
        pool = hk.MaxPool(window_shape=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding="VALID")
        layers = hk.Sequential([
            hk.Conv2D(6, 5, padding="VALID"), pool, jax.nn.relu,
            hk.Conv2D(16, 5, padding="VALID"), pool, jax.nn.relu,
            hk.Flatten(),
            hk.Linear(120), jax.nn.relu,
            hk.Linear(84), jax.nn.relu,
            hk.Linear(setting.CLASSES),
        ])  # fmt: skip
        return layers(batch["x"])

    images, labels = setting.load_clients()
    return fedjax.create_model_from_haiku(
        transformed_forward_pass=hk.transform(forward),
        sample_batch={"x": images[0, :1], "y": labels[0, :1]},
        train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(
            batch["y"], logits
        ),
    )


def make_data():
    """The population in memory."""
    images, labels = setting.load_clients()
    return fedjax.InMemoryFederatedData(
        {f"{k:04d}": {"x": images[k], "y": labels[k]} for k in range(setting.CLIENTS)}
    )


def make_algorithm(model):
    """Federated averaging with plain SGD on the clients and the mean taken by the server."""
    return fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(setting.LEARNING_RATE),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=setting.BATCH_SIZE, num_epochs=None, num_steps=setting.LOCAL_STEPS
        ),
    )


def prepare():
    """`advance` and facts, as `benchmarks.worker.serve` wants them."""
    fedjax.set_for_each_client_backend("jit")
    model = make_model()
    algorithm = make_algorithm(model)
    sampler = fedjax.client_samplers.UniformGetClientSampler(
        make_data(), setting.CLIENTS_PER_ROUND, setting.SEED
    )
    params = model.init(jax.random.PRNGKey(setting.SEED))
    holder = [algorithm.init(params)]

    def advance():
        holder[0], _ = algorithm.apply(holder[0], sampler.sample())
        jax.block_until_ready(holder[0].params)

    return advance, {
        "parameters": sum(leaf.size for leaf in jax.tree_util.tree_leaves(params)),
        "fedjax": importlib.metadata.version("fedjax"),
        "jax": jax.__version__,
    }


def main():
    """Serves."""
    serve(prepare)


if __name__ == "__main__":
    main()
