"""Which part of `cefl` earns its keep? Each cell differs from the defaults by one flag.

    python -m cefl_jax.sweep --experiment=experiments/ablation.py --workdir=DIR

Claim under test: clustering by data, matching by cost and mutual distillation each improve
accuracy, or time, energy or bytes to 80%, on Fashion-MNIST with Dirichlet(0.1) in the `device_zoo`.
"""

from cefl_jax.sweeps import Sweep
from experiments import common

FLAGS = {
    "cefl.clustering.rule": ("patent", "astraea", "random", "single"),
    "cefl.clustering.target": ("uniform",),
    "cefl.offload.rule": ("greedy", "random", "nearest"),
    "cefl.offload.objective": ("bottleneck",),
    "cefl.distill.rule": ("none", "hard_labels", "cloud_to_edge", "edge_to_cloud"),
    "cefl.distill.cloud_hard_labels": (False,),
    "cefl.distill.lambda_warmup_rounds": (20,),
    "cefl.distill.upload_steps": (1, 10),
    "cefl.compression.smashed": ("bf16", "int8", "topk"),
    "cefl.compression.gradient": ("int8",),
    "model.cut": (2, 3),
}
EXPERIMENT = Sweep(
    common=common.SKEWED,
    cells={"defaults": {}}
    | {
        f"{path.rpartition('.')[2] if path == 'model.cut' else path.removeprefix('cefl.')}={value}": {
            path: value
        }
        for path, values in FLAGS.items()
        for value in values
    },
    scales=common.SCALES,
    seeds=common.SEEDS | {"cpu": 1},
    target=common.TARGET,
    more={"cluster/kl_mean": "KL of clusters (nats)"},
)
