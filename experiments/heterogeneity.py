"""How does each method bear label skew, from one label a client to the same mix for all?

    python -m cefl_jax.sweep --experiment=experiments/heterogeneity.py --workdir=DIR

Claim under test: the more the clients' labels differ, the more `cefl` gains over `fedavg`, and with
the same mix for all (alpha = 100) its clustering gains nothing. `cefl, no distillation` shows what
the clusters alone do.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

METHODS = {
    "cefl": {},
    "cefl, no distillation": {"cefl.distill.rule": "none"},
    "fedavg": {"method.name": "fedavg"},
}
EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells={
        f"{name}, {alpha:g}": {**change, "data.partition.alpha": alpha}
        for alpha in (0.05, 0.1, 0.3, 1.0, 10.0, 100.0)
        for name, change in METHODS.items()
    },
    scales=common.SCALES,
    seeds=common.SEEDS | {"cpu": 2},
    target=common.TARGET,
    of_scale={"smoke": [f"{name}, {alpha}" for alpha in ("0.1", "100") for name in METHODS]},
)
