"""Does a deep cloud teacher let a smaller edge model reach the same accuracy?

    python -m experiments.cloud_depth --workdir=cloud_depth_results [--scale=smoke]

Claim under test, the source's (paragraph 37): at equal performance, learning from a deep model in
the cloud makes the edge-side model smaller. Edge models of 199,210 (MLP), 44,426 (LeNet-5) and
1,663,370 (CNN) parameters are trained without distillation, with as much extra training on hard
labels, and with the teacher. The claim holds where a smaller model with the teacher is as good as a
larger one without, and the teacher, not the extra training, is what makes it so.
"""

from experiments import runs

RULES = {"alone": "none", "hard labels": "hard_labels", "teacher": "mutual"}
EXPERIMENT = runs.Experiment(
    name="cloud_depth",
    common=runs.SKEWED,
    cells={
        f"{model}, {name}": {"model.name": model, "cefl.distill.rule": rule}
        for model in ("lenet5", "mlp", "cnn")
        for name, rule in RULES.items()
    },
    scales=runs.SCALES | {"cpu": runs.CPU | {"train.rounds": 60}},
    seeds=runs.SEEDS | {"cpu": 2},
    target=runs.TARGET,
    of_scale={
        "smoke": [f"{model}, {name}" for model in ("lenet5", "mlp") for name in RULES],
        "cpu": [f"{model}, {name}" for model in ("lenet5", "mlp") for name in RULES],
    },
)


if __name__ == "__main__":
    runs.main(EXPERIMENT, __doc__)
