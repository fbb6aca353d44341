"""Serves rounds in PyTorch to `benchmarks.timing`.

    python -m benchmarks.torch_baseline.worker --method=split [--variant=loop] [FIELD=VALUE ...]

Fields are those of `configs/default.py`, such as model.name=cnn.
"""

import torch

from benchmarks.settings import make_spec
from benchmarks.torch_baseline import draws, models
from benchmarks.torch_baseline.cases import make_parser
from benchmarks.torch_baseline.distillation import Distillation
from benchmarks.torch_baseline.rounds import FedAvg, Split
from benchmarks.torch_baseline.stacked import Stacked
from benchmarks.worker import serve
from cefl_jax import build
from cefl_jax.data import sources


def make_rounds(method, variant, model, examples, spec):
    """What does the rounds.

    Args:
      method: "fedavg" for FedAvg of the unsplit model; "split" for clustered split training, with
        distillation where the settings have it.
      variant: "loop", "vmap" or "compiled_vmap".
      model: models.Model, trained in place.
      examples: draws.Examples.
      spec: Spec.
    Returns:
      FedAvg, Split or Stacked.
    """
    distils = spec.cefl.distill.rule != "none"
    distillation = Distillation(model, spec, variant == "compiled_vmap") if distils else None
    if variant != "loop":
        return Stacked(model, examples, spec, distillation, variant == "compiled_vmap")
    for part in model:
        part.to(memory_format=torch.channels_last)
    images = examples.images.contiguous(memory_format=torch.channels_last)
    examples = examples._replace(images=images)
    if method == "fedavg":
        return FedAvg(model, examples, spec)
    return Split(model, examples, spec, distillation)


def prepare(method, variant, spec, threads, device="cpu"):
    """`advance` and facts, as `benchmarks.worker.serve` wants them.

    On an accelerator products may be computed in TF32, as XLA's default precision allows there.
    """
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(spec.seed)
    dataset = sources.load(spec.data.name, spec.data.path)
    dataset = sources.hold_out(dataset, spec.data.validation_share, spec.seed)
    parts = [
        torch.from_numpy(part).long().to(device)
        for part in build.make_partition(spec, dataset.train_labels)
    ]
    examples = draws.make_examples(
        dataset.train_images, dataset.train_labels, spec.data.normalization
    )
    examples = draws.Examples(*(part.to(device) for part in examples))
    shape = dataset.train_images.shape[1:]
    model = models.make_model(spec.model.name, spec.model.cut, shape, dataset.num_classes)
    for part in model:
        part.to(device)
    rounds = make_rounds(method, variant, model, examples, spec)

    def advance():
        return float(rounds.round(draws.draw_clusters(spec, parts)))

    facts = {
        "parameters": [models.count_parameters(*model[:2]), models.count_parameters(model.cloud)],
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": threads,
        "torch": torch.__version__,
    }
    return advance, facts


def main():
    """Reads the command line and serves."""
    options = make_parser().parse_args()
    spec = make_spec(options.fields)
    chosen = options.method, options.variant, spec, options.threads, options.device
    serve(lambda: prepare(*chosen))


if __name__ == "__main__":
    main()
