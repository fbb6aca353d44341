"""Do federated averaging and sequential training here reach published accuracies?

    python -m cefl_jax.sweep --experiment=experiments/reproduce_sequential_fl.py --workdir=DIR \
        --config.data.partition.path=fashion_mnist_500_clients_2_labels.json

Claim under test, from the public logs of Li & Lyu, Convergence analysis of sequential federated
learning on heterogeneous data, NeurIPS 2023: Fashion-MNIST, LeNet-5, a published partition of 500
clients with two labels each, 10 clients a round, 5 local steps of 20 images, SGD with weight decay
1e-4, 1000 rounds; mean test accuracy of rounds 901 to 1000 over three seeds:

- FedAvg, learning rate 0.1, clip norm 10: 85.59 ± 0.04
- sequential, learning rate 0.03, clip norm 50: 86.28 ± 0.49

Each is run as the method of that name, and as a degenerate setting of `cefl`'s own stages: every
client a cluster of one without distillation; and one client a round, ten times the rounds, which is
sequential training but that a client may be drawn again within ten. There each half is clipped by
itself.
"""

from cefl_jax.reports.tables import ACCURACY, final
from cefl_jax.sweeps import Sweep, table

PUBLISHED = {"fedavg": (85.59, 0.04), "sequential_split": (86.28, 0.49)}
FEDAVG = {"train.optimizer.learning_rate": 0.1, "train.optimizer.clip_norm": 10.0}
SEQUENTIAL = {"train.optimizer.learning_rate": 0.03, "train.optimizer.clip_norm": 50.0}
STAGES = {
    "cefl.distill.rule": "none",
    "cefl.privacy.probe_size": 0,
    "cefl.offload.edge_capacity": 3,
}
LENGTHS = {"smoke": 100, "cpu": 1000, "full": 1000}
EXPERIMENT = Sweep(
    common={
        "data.name": "fashion_mnist",
        "data.partition.name": "file",
        "data.normalization.mean": (0.2860,),
        "data.normalization.std": (0.3530,),
        "train.clients_per_round": 10,
        "train.local_steps": 5,
        "train.batch_size": 20,
        "train.optimizer.weight_decay": 1e-4,
        "run.eval_every": 1,
    },
    cells={
        "fedavg": {"method.name": "fedavg", **FEDAVG},
        "sequential_split": {"method.name": "sequential_split", **SEQUENTIAL},
        "fedavg by cefl": {"cefl.clustering.rule": "singleton", **STAGES, **FEDAVG},
        "sequential by cefl": {
            "cefl.clustering.rule": "single",
            "train.clients_per_round": 1,
            "run.eval_every": 10,
            **STAGES,
            **SEQUENTIAL,
        },
    },
    scales={scale: {"train.rounds": rounds} for scale, rounds in LENGTHS.items()},
    seeds={"smoke": 1, "cpu": 3, "full": 3},
    target={"smoke": 0.6, "cpu": 0.8, "full": 0.8},
    tail=100,
    stretch={"sequential by cefl": 10},
)


def tabulate(groups, of, scale):
    """The table, with the published value beside each."""
    return table.tabulate_beside_published(
        groups,
        of,
        scale,
        "here",
        take=lambda run: final(run, ACCURACY, of.tail),
        published=lambda cell: PUBLISHED["fedavg" if "fedavg" in cell else "sequential_split"],
    )
