"""Should distillation's optimizers start anew each round? Small and skewed rounds, on the test set.

    python -m cefl_jax.sweep --experiment=experiments/distillation_restart.py --workdir=DIR

Claim under test: a momentum that is kept while the weights under it are replaced by new averages
pushes every round towards the last round's labels. `fashion_mnist_12k`, Dirichlet(0.05), 5 of 100
clients a round in 2 clusters, `device_zoo`.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

PERSIST = {"cefl.distill.optimizer_state": "persist"}
HARD = {"cefl.distill.rule": "hard_labels"}
EXPERIMENT = Sweep(
    common=common.SKEWED
    | {
        "data.name": "fashion_mnist_12k",
        "data.partition.alpha": 0.05,
        "train.clients_per_round": 5,
        "cefl.clustering.num_clusters": 2,
    },
    cells={
        "mutual": {},
        "mutual, state kept": PERSIST,
        "hard labels": HARD,
        "hard labels, state kept": HARD | PERSIST,
        "none": {"cefl.distill.rule": "none"},
    },
    scales={"smoke": {"train.rounds": 5}, "cpu": {"train.rounds": 150}},
    seeds={"smoke": 1, "cpu": 4},
    target={"smoke": 0.2, "cpu": 0.65},
    tail=15,
)
