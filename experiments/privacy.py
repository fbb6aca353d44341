"""What does hiding the images cost?

    python -m experiments.privacy --workdir=privacy_results [--scale=smoke]

Claim under test: noise on the smashed data lowers what it tells of the images (distance
correlation), at the price of accuracy, and so do compression and a later cut, more cheaply.
"""

from experiments import runs

CELLS = {
    **{f"noise {std:g}": {"cefl.privacy.noise_std": std} for std in (0.0, 0.1, 0.3, 1.0, 3.0)},
    "int8": {"cefl.compression.smashed": "int8"},
    "topk 0.1": {"cefl.compression.smashed": "topk"},
    "cut 2": {"model.cut": 2},
    "cut 2, noise 1": {"model.cut": 2, "cefl.privacy.noise_std": 1.0},
}
EXPERIMENT = runs.Experiment(
    name="privacy",
    common=runs.SKEWED,
    cells=CELLS,
    scales=runs.SCALES,
    seeds=runs.SEEDS,
    target=runs.TARGET,
    more={"privacy/distance_correlation": "distance correlation"},
    of_scale={"smoke": ["noise 0", "noise 1", "cut 2"]},
)


if __name__ == "__main__":
    runs.main(EXPERIMENT, __doc__)
