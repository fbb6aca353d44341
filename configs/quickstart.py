"""The whole method in under two minutes on two CPU cores, on images that ship inside.

    python -m cefl_jax.main --config=configs/quickstart.py --workdir=quickstart_run

Seen on two CPU cores at 2239725: after 50 rounds 83.6% for the deployed model (83.0% over the last
ten evaluations) and 84.2% with the cloud model (83.3%).
"""

from cefl_jax.config import default_config


def get_config():
    """20 of 100 clients a round on a Dirichlet(0.3) partition; defaults elsewhere."""
    config = default_config()
    config.data.name = "fashion_mnist_12k"  # 10,000 training and 2,000 test images
    config.data.partition.name = "dirichlet"  # label skew: each client has its own mix
    config.data.partition.alpha = 0.3  # most clients see two to four labels
    config.data.partition.num_clients = 100  # about 100 images each
    config.train.rounds = 50
    config.train.clients_per_round = 20
    config.train.local_steps = 10  # of 20 images: two passes over an average client's data
    config.train.batch_size = 20
    config.cefl.clustering.rule = "balanced"  # equal clusters that resemble the whole
    config.cefl.clustering.num_clusters = 4
    config.network.num_edges = 4  # one edge node for each cluster
    config.run.eval_every = 2  # rounds between two points of the curve
    return config
