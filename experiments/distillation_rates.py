"""Which rate and momentum should distillation have by default, when it starts anew each round?

    python -m cefl_jax.sweep --experiment=experiments/distillation_rates.py --workdir=DIR

Chosen on a tenth of the training examples, which nobody trains on, in two kinds of rounds on
`fashion_mnist_12k` in the `device_zoo`: small and skewed ones (Dirichlet(0.05), 5 of 100 clients in
2 clusters) and those of the other experiments (Dirichlet(0.1), 20 of 100 in 4).
"""

from cefl_jax.sweeps import Sweep
from experiments import common

ROUNDS = {
    "small": {
        "data.partition.alpha": 0.05,
        "train.clients_per_round": 5,
        "cefl.clustering.num_clusters": 2,
    },
    "large": {},
}
RATES = {0.9: (0.005, 0.01, 0.02), 0.5: (0.02, 0.05), 0.0: (0.02, 0.05, 0.1)}  # by momentum
DISTILL = "cefl.distill."
EXPERIMENT = Sweep(
    common=common.SKEWED | {"data.name": "fashion_mnist_12k", "data.validation_share": 0.1},
    cells={
        f"{name} rounds, momentum {momentum:g}, rate {rate:g}": changes
        | {DISTILL + "momentum": momentum, DISTILL + "learning_rate": rate}
        for name, changes in ROUNDS.items()
        for momentum, rates in RATES.items()
        for rate in rates
    },
    scales={"smoke": {"train.rounds": 5}, "cpu": {"train.rounds": 75}},
    stretch={
        f"small rounds, momentum {momentum:g}, rate {rate:g}": 2
        for momentum, rates in RATES.items()
        for rate in rates
    },
    seeds={"smoke": 1, "cpu": 2},
    target={"smoke": 0.2, "cpu": 0.7},
)
