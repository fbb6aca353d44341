"""Do FedAvg, FedProx and SCAFFOLD here reach what Flower's baseline of NIID-Bench reports?

    python -m cefl_jax.sweep --experiment=experiments/reproduce_niid_bench.py --workdir=DIR

Claim under test (NIID-Bench: Li et al., Federated learning on non-IID data silos, ICDE 2022; the
values are those of Flower's baseline): Fashion-MNIST, 10 clients, all in each round, 50 rounds of
10 local epochs, batches of 64, SGD with learning rate 0.01, momentum 0.9, weight decay 1e-5,
LeNet-5, pixels in [0, 1]; the best test accuracy over the rounds: FedAvg IID 89.23 ± 0.45,
Dirichlet(0.5) 88.09 ± 0.29, three labels a client 82.43 ± 1.52; FedProx and SCAFFOLD alike within
their spread. Scale `cpu` is one seed of FedAvg.
"""

from cefl_jax.reports.tables import ACCURACY
from cefl_jax.sweeps import Sweep, table

PUBLISHED = {"iid": (89.23, 0.45), "dirichlet 0.5": (88.09, 0.29), "3 labels": (82.43, 1.52)}
PARTITIONS = {
    "iid": {"data.partition.name": "iid"},
    "dirichlet 0.5": {"data.partition.name": "dirichlet", "data.partition.alpha": 0.5},
    "3 labels": {  # a label's examples in equal parts among the clients that have it
        "data.partition.name": "extended_dirichlet",
        "data.partition.labels_per_client": 3,
        "data.partition.alpha": 10_000.0,
    },
}
ALL = {"data.name": "fashion_mnist", "train.rounds": 50, "train.local_epochs": 10}
EXPERIMENT = Sweep(
    common={
        "data.partition.num_clients": 10,
        "data.normalization.mean": (0.0,),
        "data.normalization.std": (1.0,),
        "train.clients_per_round": 10,
        "train.local_steps": None,
        "train.batch_size": 64,
        "train.optimizer.learning_rate": 0.01,
        "train.optimizer.momentum": 0.9,
        "train.optimizer.weight_decay": 1e-5,
        "run.eval_every": 1,
    },
    cells={
        f"{method}, {name}": {"method.name": method, **change}
        for method in ("fedavg", "fedprox", "scaffold")
        for name, change in PARTITIONS.items()
    },
    scales={
        "smoke": {"data.name": "fashion_mnist_12k", "train.rounds": 5, "train.local_epochs": 1},
        "cpu": ALL,
        "full": ALL,
    },
    seeds={"smoke": 1, "cpu": 1, "full": 3},
    target={"smoke": 0.5, "cpu": 0.8, "full": 0.8},
    of_scale={"cpu": [f"fedavg, {name}" for name in PARTITIONS]},
)


def tabulate(groups, of, scale):
    """The table, and the best accuracies beside the published ones."""
    return table.tabulate_beside_published(
        groups,
        of,
        scale,
        "best over the rounds",
        take=lambda run: run.metrics[ACCURACY].max(),
        published=lambda cell: PUBLISHED[cell.partition(", ")[2]],
    )
