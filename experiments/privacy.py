"""What does hiding the images cost?

    python -m cefl_jax.sweep --experiment=experiments/privacy.py --workdir=DIR

Claim under test: noise on the smashed data lowers what it tells of the images (distance
correlation), at the price of accuracy, and so do compression and a later cut, more cheaply.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

CELLS = {
    **{f"noise {std:g}": {"cefl.privacy.noise_std": std} for std in (0.0, 0.1, 0.3, 1.0, 3.0)},
    "int8": {"cefl.compression.smashed": "int8"},
    "topk 0.1": {"cefl.compression.smashed": "topk"},
    "cut 2": {"model.cut": 2},
    "cut 2, noise 1": {"model.cut": 2, "cefl.privacy.noise_std": 1.0},
}
EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells=CELLS,
    scales=common.SCALES,
    seeds=common.SEEDS,
    target=common.TARGET,
    more={"privacy/distance_correlation": "distance correlation"},
    of_scale={"smoke": ["noise 0", "noise 1", "cut 2"]},
)
