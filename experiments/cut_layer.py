"""Where should the model be cut?

    python -m cefl_jax.sweep --experiment=experiments/cut_layer.py --workdir=DIR

Claim under test: an early cut leaves the clients little to compute and much to send, a late one the
reverse; and the later the cut, the less the smashed data tells of the images. LeNet-5 is cut after
each of its first four blocks. Distance correlation is between probe images and their smashed data.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells={f"cut {cut}": {"model.cut": cut} for cut in (1, 2, 3, 4)},
    scales=common.SCALES,
    seeds=common.SEEDS,
    target=common.TARGET,
    more={"privacy/distance_correlation": "distance correlation"},
)
