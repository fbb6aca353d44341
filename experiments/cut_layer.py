"""Where should the model be cut?

    python -m experiments.cut_layer --workdir=cut_layer_results [--scale=smoke]

Claim under test: an early cut leaves the clients little to compute and much to send, a late one the
reverse; and the later the cut, the less the smashed data tells of the images. LeNet-5 is cut after
each of its first four blocks. Distance correlation is between probe images and their smashed data.
"""

from experiments import runs

EXPERIMENT = runs.Experiment(
    name="cut_layer",
    common=runs.SKEWED,
    cells={f"cut {cut}": {"model.cut": cut} for cut in (1, 2, 3, 4)},
    scales=runs.SCALES,
    seeds=runs.SEEDS,
    target=runs.TARGET,
    more={"privacy/distance_correlation": "distance correlation"},
)


if __name__ == "__main__":
    runs.main(EXPERIMENT, __doc__)
