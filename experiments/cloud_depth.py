"""Does a deep cloud teacher let a smaller edge model reach the same accuracy?

    python -m cefl_jax.sweep --experiment=experiments/cloud_depth.py --workdir=DIR

Claim under test, the source's (paragraph 37): at equal performance, learning from a deep model in
the cloud makes the edge-side model smaller. Edge models of 199,210 (MLP), 44,426 (LeNet-5) and
1,663,370 (CNN) parameters are trained without distillation, with as much extra training on hard
labels, and with the teacher. The claim holds where a smaller model with the teacher is as good as a
larger one without, and the teacher, not the extra training, is what makes it so.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

RULES = {"alone": "none", "hard labels": "hard_labels", "teacher": "mutual"}
EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells={
        f"{model}, {name}": {"model.name": model, "cefl.distill.rule": rule}
        for model in ("lenet5", "mlp", "cnn")
        for name, rule in RULES.items()
    },
    scales=common.SCALES | {"cpu": common.CPU | {"train.rounds": 60}},
    seeds=common.SEEDS | {"cpu": 2},
    target=common.TARGET,
    of_scale={
        "smoke": [f"{model}, {name}" for model in ("lenet5", "mlp") for name in RULES],
        "cpu": [f"{model}, {name}" for model in ("lenet5", "mlp") for name in RULES],
    },
)
