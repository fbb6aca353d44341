"""What the experiments share: the round in which methods are compared, and the scales."""

SKEWED = {
    "data.partition.name": "dirichlet",
    "data.partition.alpha": 0.1,
    "data.partition.num_clients": 100,
    "train.clients_per_round": 20,
    "train.local_steps": 10,
    "train.batch_size": 20,
    "train.optimizer.learning_rate": 0.05,
    "network.preset": "device_zoo",
    "network.num_edges": 8,
    "run.eval_every": 5,
}
SMOKE = {"data.name": "fashion_mnist_12k", "train.rounds": 10, "train.local_steps": 5}
CPU = {"data.name": "fashion_mnist", "train.rounds": 100}
FULL = {"data.name": "fashion_mnist", "train.rounds": 500}
SCALES = {"smoke": SMOKE, "cpu": CPU, "full": FULL}
SEEDS = {"smoke": 1, "cpu": 3, "full": 10}
TARGET = {"smoke": 0.6, "cpu": 0.8, "full": 0.8}
