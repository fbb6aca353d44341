"""Which method learns most in equal rounds, and which reaches 80% soonest and cheapest?

    python -m cefl_jax.sweep --experiment=experiments/main_comparison.py --workdir=DIR

Claim under test: clusters that resemble the whole, matched edge servers and a cloud model that
teaches (`cefl`) beat the methods that a researcher would use instead, on Fashion-MNIST over 100
clients with Dirichlet(0.1) and (0.5), in the `device_zoo`, under one budget: 20 clients a round, 10
local steps of 20 images, learning rate 0.05. `cefl, hard labels` is the same extra training without
a teacher, and decides whether a gain is distillation's; `cefl, no distillation` has neither.
`hierfavg` averages at the edge after 5 steps and again after 10. `centralized` pools the data and
is the upper reference.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

METHODS = {
    "cefl": {},
    "cefl, hard labels": {"cefl.distill.rule": "hard_labels"},
    "cefl, no distillation": {"cefl.distill.rule": "none"},
    "fedavg": {"method.name": "fedavg"},
    "fedprox": {"method.name": "fedprox"},
    "scaffold": {"method.name": "scaffold"},
    "fedadam": {"method.name": "fedopt"},
    "fedyogi": {"method.name": "fedopt", "fedopt.optimizer": "yogi"},
    "hierfavg": {"method.name": "hierfavg", "hierfavg.edge_rounds": 2, "train.local_steps": 5},
    "splitfed_v1": {"method.name": "splitfed_v1"},
    "splitfed_v2": {"method.name": "splitfed_v2"},
    "sequential_split": {"method.name": "sequential_split"},
    "fedgkt": {"method.name": "fedgkt"},
    "centralized": {"method.name": "centralized"},
}
EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells={
        f"{name}, {alpha}": {**change, "data.partition.alpha": alpha}
        for alpha in (0.1, 0.5)
        for name, change in METHODS.items()
    },
    scales=common.SCALES,
    seeds=common.SEEDS,
    target=common.TARGET,
)
